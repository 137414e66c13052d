"""Thinking that is ended by force, or sent on: which prompts that takes.

A forced answer is a trace of its own. Its prompt is that of the natural trace, the thinking up to
the budget as it was generated, and a closer. Where the thinking had ended by itself within the
budget nothing is forced, and the natural answer stands.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_tokenbudget.core.trace import StopReason, Trace
from pytest_tokenbudget.texts.thinking_blocks import (
    Closer,
    Mark,
    Tag,
    ThinkingFormat,
    find_tags,
    parse_tags,
)

WAIT = "Wait"

Ids = tuple[int, ...]


@dataclass(frozen=True)
class ModeBudget:
    """A budget that the allocation table gives a mode, or ``explicit``, as it is tried here.

    ``tokens`` is None where it cannot be tried; ``reason`` is how it came about, for people.
    """

    mode: str
    tokens: int | None
    reason: str


@dataclass(frozen=True)
class Forcing:
    """At which budgets thinking is ended by force, and how.

    Attributes:
        budgets: Thinking budgets, rising; 0 may be among them.
        answer_tokens: Output tokens of a forced answer.
        closers: What ends the thinking; the first one is the default.
        waits: How often thinking that ends is sent on.
        modes: Budgets of the allocation table's modes; they are among the budgets.
        left_out: Budgets that the context has no room for.
        target: Share of responses that a recommended limit may truncate.
    """

    budgets: tuple[int, ...]
    answer_tokens: int
    closers: tuple[Closer, ...]
    waits: int = 0
    modes: tuple[ModeBudget, ...] = ()
    left_out: tuple[int, ...] = ()
    target: float = 0.01

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Forcing:
        values = dict(data)
        values["closers"] = tuple(Closer(*closer) for closer in values["closers"])
        values["modes"] = tuple(ModeBudget(**mode) for mode in values["modes"])
        for name in ("budgets", "left_out"):
            values[name] = tuple(values[name])
        return cls(**values)


@dataclass(frozen=True)
class Branch:
    """A prompt that goes on from a trace; ``kept`` output tokens of it are in the prompt."""

    prompt_ids: Ids
    kept: int


def opened_text(thinking: ThinkingFormat, closer: Closer) -> str:
    """What ends thinking that has not begun: a block that is opened and closed at once.

    One text, since tokens may reach over the seam: with the bare closer it is what templates
    write where thinking is switched off.
    """
    return f"{thinking.open}\n{closer.text}"


def closing_texts(closers: Sequence[Closer], waits: int, thinking: ThinkingFormat) -> list[str]:
    """All texts whose token ids are needed."""
    needed = [text for c in closers for text in (c.text, opened_text(thinking, c))]
    return [*needed, *([WAIT] if waits else [])]


def ended_within(trace: Trace, budget: int, thinking: ThinkingFormat) -> int | None:
    """Output tokens after which thinking had ended by itself, if that was within ``budget``.

    A trace that ended within the budget has ended its thinking, closed or not; one that never
    thinks has ended it before it began. The natural trace must reach to the budget, which may be 0.
    """
    length = len(trace.output_ids)
    tags = trace.tags(thinking)
    whole = parse_tags(tags, trace.text, thinking, trace.opened_by_prompt)
    if not (whole.opened or whole.closed):
        return 0
    over = not trace.capped and length <= budget
    used = min(budget, length)
    text = trace.text if over else trace.text[: trace.offsets[used - 1]] if used else ""
    blocks = parse_tags(tags, text, thinking, trace.opened_by_prompt)
    if over and (blocks.left_open or not blocks.closed):
        return length
    if blocks.left_open or not blocks.closed:
        return None
    closes = [tag.end for tag in tags if tag.mark is Mark.CLOSE and tag.end <= len(text)]
    ends = [end for _, end in blocks.open_at]
    # With headers any message ends with the same tag, so only that of a block is looked at.
    end = max(ends or closes, default=0) if thinking.answer else max(closes or ends, default=0)
    return min(bisect_left(trace.offsets, end) + 1, length)


@dataclass(frozen=True)
class ForcedTrace(Trace):
    """A natural trace up to a budget, what ended its thinking, and the answer that followed.

    It is as long as it was allowed to become: a larger budget cuts nothing off. What ended the
    thinking (``inserted``) was part of a prompt, so it is in the text and has no tokens. ``kept``
    are the output tokens of the natural trace.
    """

    kept: int = 0
    inserted: str = ""

    def covers(self, budget: int) -> bool:
        return True

    @property
    def seam(self) -> tuple[int, int]:
        """Where what ended the thinking begins and ends in the text."""
        start = self.offsets[self.kept - 1] if self.kept else 0
        return start, start + len(self.inserted)

    def ends(self, count: int) -> tuple[int, ...]:
        """Where the first ``count`` tokens end in the text, and what ended the thinking."""
        if count <= self.kept:
            return self.offsets[:count]
        return (*self.offsets[: self.kept], self.seam[1], *self.offsets[self.kept : count])

    def tags(self, thinking: ThinkingFormat | None) -> tuple[Tag, ...]:
        """All tags of its text; those of its parts are told from spelled ones part by part."""
        start, end = self.seam
        ids, offsets = self.output_ids, self.offsets
        parts = (
            (0, find_tags(self.text[:start], thinking, ids[: self.kept], offsets[: self.kept])),
            (start, find_tags(self.inserted, thinking)),
            (
                end,
                find_tags(
                    self.text[end:],
                    thinking,
                    ids[self.kept :],
                    [each - end for each in offsets[self.kept :]],
                ),
            ),
        )
        return tuple(
            Tag(tag.start + shift, tag.end + shift, tag.mark)
            for shift, tags in parts
            for tag in tags
        )


def forced_trace(natural: Trace, answer: Trace, kept: int, inserted: str) -> ForcedTrace:
    """A natural trace and the answer that was forced from it, as one trace.

    ``kept`` output tokens of the natural trace were in its prompt, and the text ``inserted``
    followed.
    """
    start = natural.offsets[kept - 1] if kept else 0
    shift = start + len(inserted)
    ids = (*natural.output_ids[:kept], *answer.output_ids)
    return ForcedTrace(
        problem_id=natural.problem_id,
        sample=natural.sample,
        prompt_ids=natural.prompt_ids,
        output_ids=ids,
        stop_reason=answer.stop_reason,
        cap=len(ids) if answer.capped else kept + answer.cap,
        text=natural.text[:start] + inserted + answer.text,
        offsets=(*natural.offsets[:kept], *(each + shift for each in answer.offsets)),
        opened_by_prompt=natural.opened_by_prompt,
        engine_reason=answer.engine_reason,
        error=answer.error,
        counted=natural.counted or answer.counted,
        kept=kept,
        inserted=inserted,
    )


def ended_trace(natural: Trace, cap: int) -> Trace:
    """A natural trace whose thinking had ended by itself, allowed no more than ``cap`` tokens."""
    if natural.stop_reason is StopReason.ERROR:
        return natural
    if not natural.capped and len(natural.output_ids) <= cap:
        return natural
    ids = natural.output_ids[:cap]
    offsets = natural.offsets[:cap]
    return ForcedTrace(
        problem_id=natural.problem_id,
        sample=natural.sample,
        prompt_ids=natural.prompt_ids,
        output_ids=ids,
        stop_reason=StopReason.LENGTH,
        cap=len(ids),
        text=natural.text[: offsets[-1]] if offsets else "",
        offsets=offsets,
        opened_by_prompt=natural.opened_by_prompt,
        counted=natural.counted,
        kept=len(ids),
    )


def closing_text(
    trace: Trace, budget: int, thinking: ThinkingFormat, closer: Closer
) -> tuple[int, str] | None:
    """Output tokens that are kept, and the text that ends thinking there.

    None where the natural answer stands.
    """
    if ended_within(trace, budget, thinking) is not None:
        return None
    kept = min(budget, len(trace.output_ids))
    text = trace.text[: trace.offsets[kept - 1]] if kept else ""
    if parse_tags(trace.tags(thinking), text, thinking, trace.opened_by_prompt).left_open:
        return kept, closer.text
    # The block is still to be opened: what stands before it is no thinking to go on from.
    return 0, opened_text(thinking, closer)


def force(
    trace: Trace,
    budget: int,
    thinking: ThinkingFormat,
    closer: Closer,
    ids: Callable[[str], Ids],
) -> Branch | None:
    """The prompt of the forced answer, None where the natural answer stands.

    The trace must reach to the budget, which may be 0; ``ids`` gives the token ids of a text.
    """
    closing = closing_text(trace, budget, thinking, closer)
    if closing is None:
        return None
    kept, text = closing
    return Branch((*trace.prompt_ids, *trace.output_ids[:kept], *ids(text)), kept)


def extended_prompt(trace: Trace, thinking: ThinkingFormat, wait: Sequence[int]) -> Branch | None:
    """The prompt that sends thinking on where it had ended; None where it has not.

    ``wait`` are the token ids of what is put in the place of the close tag.
    """
    tags = trace.tags(thinking)
    blocks = parse_tags(tags, trace.text, thinking, trace.opened_by_prompt)
    if not blocks.open_at or blocks.open_at[0][1] > len(trace.text):
        return None
    start = next(tag.start for tag in tags if tag.end == blocks.open_at[0][1])
    kept = bisect_right(trace.offsets, start)
    return Branch((*trace.prompt_ids, *trace.output_ids[:kept], *wait), kept)
