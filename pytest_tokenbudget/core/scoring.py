"""From a cut to its outcome, and at which token counts of a trace the verdict changes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from pytest_tokenbudget.core.trace import Cut, Outcome, StopReason, ThinkingFormat, Trace
from pytest_tokenbudget.tasks.base import NO_ANSWER, AnswerVerdict, Task
from pytest_tokenbudget.tasks.problem import Problem
from pytest_tokenbudget.tasks.ruled import Stretch, merge_stretches, verdict_stretches
from pytest_tokenbudget.texts.thinking_blocks import parse_tags

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class JudgedCut:
    """A cut with what it amounts to.

    ``predicted`` is the answer that was found, None where there is none, and ``branch`` the rule of
    the extractor that found it.
    """

    problem: Problem
    cut: Cut
    outcome: Outcome
    predicted: str | None = None
    branch: str | None = None

    @property
    def correct(self) -> bool:
        return self.outcome is Outcome.CORRECT


def judge(task: Task, problem: Problem, cut: Cut) -> JudgedCut:
    """Decide the outcome of a cut.

    A truncated cut is right only where an answer was declared before the cut; otherwise it counts
    as truncated, never as wrong.
    """
    return judge_by(partial(task.judge_text, problem), problem, cut)


def judge_by(
    judge_text: Callable[[str, bool], AnswerVerdict], problem: Problem, cut: Cut
) -> JudgedCut:
    """Decide a cut's outcome; ``judge_text`` takes the answer's text and whether it was cut."""
    outcome, verdict = _decide(judge_text, cut)
    return JudgedCut(problem, cut, outcome, verdict.predicted, verdict.branch)


def _decide(
    judge_text: Callable[[str, bool], AnswerVerdict], cut: Cut
) -> tuple[Outcome, AnswerVerdict]:
    if cut.trace.stop_reason is StopReason.ERROR:
        return Outcome.ERROR, NO_ANSWER
    if cut.in_thinking:
        # A model that ends by itself without closing its thinking was not cut: it did not answer.
        return (Outcome.TRUNCATED_IN_THINKING if cut.truncated else Outcome.NO_ANSWER), NO_ANSWER
    if not cut.truncated and not cut.answer.strip():
        return Outcome.EMPTY, NO_ANSWER
    verdict = judge_text(cut.answer, cut.truncated)
    if verdict.correct:
        return Outcome.CORRECT, verdict
    if cut.truncated:
        return Outcome.TRUNCATED_IN_ANSWER, verdict
    return (Outcome.NO_ANSWER if verdict.predicted is None else Outcome.WRONG), verdict


def scores(judged: tuple[JudgedCut, ...]) -> NDArray[np.float64]:
    """1 for a right answer, 0 for any other, NaN where an error left nothing to judge."""
    import numpy as np

    return np.array([np.nan if j.outcome is Outcome.ERROR else float(j.correct) for j in judged])


def verdict_changes(
    task: Task, problem: Problem, trace: Trace, thinking: ThinkingFormat | None, reach: int
) -> Iterator[tuple[int, bool]]:
    """Token counts up to ``reach`` at which a trace turns right, or wrong again, and which."""
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
    for stretch in merge_stretches(_stretches(task, problem, trace, thinking)):
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
        yield from verdict_stretches(task, problem, text)
        return
    tags = trace.tags(thinking)
    # What a beginning is for is not known before the first header could have come.
    yield Stretch(1, len(thinking.open))
    starts = [0, *(tag.end for tag in tags)]
    for start, end in zip(starts, [*(s - 1 for s in starts[1:]), len(text)], strict=True):
        # Between two tags an answer begins at one place, and either grows or has ended.
        blocks = parse_tags(tags, text[:end], thinking, trace.opened_by_prompt)
        yield Stretch(max(start, 1), max(start, 1))
        begin = blocks.answer_start
        if begin is not None and blocks.answer_end == end:
            for first, last in verdict_stretches(task, problem, text[begin:end]):
                yield Stretch(begin + first, begin + last)
