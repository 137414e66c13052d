"""At which token counts the verdict on a trace changes.

A verdict depends on the answer in a cut, and on whether the cut ends in an open thinking block. So
of the cuts at every token count only those are judged at which a tag ends, or at which the task
says that the verdict on its answer's text can change.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from pytest_tokenbudget.core.scoring import judge
from pytest_tokenbudget.core.trace import ThinkingFormat, Trace
from pytest_tokenbudget.tasks.base import Task
from pytest_tokenbudget.tasks.problem import Problem
from pytest_tokenbudget.tasks.verdict_changes import Stretch, merged, unsettled
from pytest_tokenbudget.texts.thinking_blocks import walk


def verdict_changes(
    task: Task, problem: Problem, trace: Trace, thinking: ThinkingFormat | None, reach: int
) -> Iterator[tuple[int, bool]]:
    """Token counts at which a trace turns right, or wrong again, and which it is.

    Args:
        task: What judges.
        problem: What was asked.
        trace: What was written, not an error.
        thinking: How the model marks its thinking; None where it has none.
        reach: The largest token count.
    """
    correct = False
    for tokens in _turns(task, problem, trace, thinking, reach):
        now = judge(task, problem, trace.cut(tokens, thinking)).correct
        if now != correct:
            yield tokens, now
            correct = now


def _turns(
    task: Task, problem: Problem, trace: Trace, thinking: ThinkingFormat | None, reach: int
) -> Iterator[int]:
    """Token counts at which the verdict can differ from that at one token less."""
    offsets, length = trace.offsets, len(trace.output_ids)
    ends = not trace.capped and length <= reach
    looked_at, last = 0, length - 1 if ends else min(reach, length)
    for stretch in merged(_stretches(task, problem, trace, thinking)):
        place = max(looked_at, bisect_left(offsets, stretch.first, 0, max(last, 0)))
        before = offsets[place - 1] if place else 0
        while place < last and before < stretch.last:
            # A token that adds no text changes nothing.
            if offsets[place] != before:
                before = offsets[place]
                yield place + 1
            place += 1
        looked_at = place
    if ends:
        yield max(length, 1)


def _stretches(
    task: Task, problem: Problem, trace: Trace, thinking: ThinkingFormat | None
) -> Iterator[Stretch]:
    """Characters of a trace's text after which the verdict on what stands before can change."""
    text = trace.text
    if thinking is None:
        yield from unsettled(task, problem, text)
        return
    tags = trace.tags(thinking)
    # What a beginning is for is not known before the first header could have come.
    yield Stretch(1, len(thinking.open))
    starts = [0, *(tag.end for tag in tags)]
    for start, end in zip(starts, [*(s - 1 for s in starts[1:]), len(text)], strict=True):
        # Between two tags an answer begins at one place, and either grows or has ended.
        blocks = walk(tags, text[:end], thinking, trace.opened_by_prompt)
        yield Stretch(max(start, 1), max(start, 1))
        begin = blocks.answer_start
        if begin is not None and blocks.answer_end == end:
            for first, last in unsettled(task, problem, text[begin:end]):
                yield Stretch(begin + first, begin + last)
