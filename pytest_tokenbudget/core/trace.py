"""Traces and their cuts: what one model wrote, and how it stands at a budget.

Token ids are the truth. Text is kept beside them with one offset a token, so that a cut at any
budget is a slice and nothing is ever encoded again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from pytest_tokenbudget.texts.thinking_blocks import (
    Blocks,
    OutputPart,
    Tag,
    ThinkingFormat,
    answer_tokens,
    find_tags,
    parse_tags,
)

__all__ = ["Cut", "Outcome", "StopReason", "ThinkingFormat", "Trace"]


class StopReason(StrEnum):
    """Why a trace ended, decided from its ids and its cap."""

    EOS = "eos"
    STOP = "stop"
    LENGTH = "length"
    ERROR = "error"


class Outcome(StrEnum):
    """What a cut amounts to; exactly one applies."""

    CORRECT = "correct"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"
    TRUNCATED_IN_THINKING = "truncated_in_thinking"
    TRUNCATED_IN_ANSWER = "truncated_in_answer"
    EMPTY = "empty"
    ERROR = "error"


@dataclass(frozen=True)
class Trace:
    """What one model wrote for one problem and one sample.

    Attributes:
        sample: Number of the sample, from 0.
        output_ids: Token ids that were generated, the end-of-sequence id included if it came.
        cap: How many output tokens were allowed when it was generated.
        text: Decoded output without the final end-of-sequence token.
        offsets: For each output id, how many characters of ``text`` stand after it.
        opened_by_prompt: Whether the rendered prompt itself opened a thinking block.
        engine_reason: The engine's own word for why it stopped.
        seconds: Wall time from the start of its batch, or of its request, to its end. Of one that
            was gone on from in a later run, that of its last part.
        error: What went wrong, where ``stop_reason`` is ``error``.
        counted: Whether the ids were counted from text that a server gave without ids. Its own
            count may differ by a few, so one that was capped may have fewer ids than the cap.
        usage: The engine's own counts by name; empty where it gave none.
        timed: Output tokens that were generated in these seconds; 0 where that is not known.
        ended: When it ended, as Unix time; 0 where that is not known.
    """

    problem_id: str
    sample: int
    prompt_ids: tuple[int, ...]
    output_ids: tuple[int, ...]
    stop_reason: StopReason
    cap: int
    text: str
    offsets: tuple[int, ...]
    opened_by_prompt: bool = False
    engine_reason: str = ""
    seconds: float = 0.0
    error: str = field(default="", compare=False)
    counted: bool = False
    usage: Mapping[str, int] = field(default_factory=dict, compare=False)
    timed: int = field(default=0, compare=False)
    ended: float = field(default=0.0, compare=False)

    def __post_init__(self) -> None:
        if len(self.offsets) != len(self.output_ids):
            raise ValueError(
                f"trace of {self.problem_id}: {len(self.offsets)} offsets for "
                f"{len(self.output_ids)} output tokens"
            )
        if len(self.output_ids) > self.cap:
            raise ValueError(
                f"trace of {self.problem_id}: {len(self.output_ids)} output tokens, cap {self.cap}"
            )
        whole = len(self.output_ids) == self.cap or self.counted
        if self.stop_reason is StopReason.LENGTH and not whole:
            raise ValueError(
                f"trace of {self.problem_id}: stopped by length after {len(self.output_ids)} "
                f"tokens, cap {self.cap}"
            )

    @property
    def capped(self) -> bool:
        """Whether a larger cap could have made it longer."""
        return self.stop_reason is StopReason.LENGTH

    @property
    def tokens(self) -> int:
        """Output tokens that were generated.

        A capped trace was generated up to its cap, also where fewer tokens are counted in its text.
        """
        return self.cap if self.capped else len(self.output_ids)

    def covers(self, budget: int) -> bool:
        return budget <= self.cap or not self.capped

    def cut(self, budget: int, thinking: ThinkingFormat | None = None) -> Cut:
        """The trace as it stands when generation stops at ``budget`` output tokens.

        Raises:
            ValueError: If the budget is below 1, or beyond what a capped trace can tell.
        """
        if budget < 1:
            raise ValueError(f"a budget is at least 1 token, not {budget}")
        if not self.covers(budget):
            raise ValueError(
                f"trace of {self.problem_id} was capped at {self.cap} tokens and cannot be cut "
                f"at {budget}: extend it first"
            )
        used = min(budget, len(self.output_ids))
        text = self.text[: self.offsets[used - 1]] if used else ""
        truncated = used < len(self.output_ids) or self.capped
        return Cut(self, budget, min(budget, self.tokens), text, truncated, thinking)

    def ends(self, count: int) -> tuple[int, ...]:
        """Where the first ``count`` tokens end in the text, and what has no token."""
        return self.offsets[:count]

    def tags(self, thinking: ThinkingFormat | None) -> tuple[Tag, ...]:
        """All tags of its text; searched once for all its cuts."""
        known: tuple[ThinkingFormat | None, tuple[Tag, ...]] | None = self.__dict__.get("_tags")
        if known is None or (known[0] is not thinking and known[0] != thinking):
            known = thinking, find_tags(self.text, thinking, self.output_ids, self.offsets)
            # Frozen as seen from outside: what is kept follows from the fields.
            self.__dict__["_tags"] = known
        return known[1]


@dataclass(frozen=True)
class Cut:
    """A trace as it stands at a budget.

    Attributes:
        tokens_used: Output tokens within the budget; never padding. More than those of its text
            where an engine counted more than came as text.
        text: Text of those tokens.
        truncated: Whether, at the budget, neither end-of-sequence nor a stop string had come.
        format: How the model marks its thinking; None where it has no thinking.
    """

    trace: Trace
    budget: int
    tokens_used: int
    text: str
    truncated: bool
    format: ThinkingFormat | None = None

    @cached_property
    def blocks(self) -> Blocks:
        trace = self.trace
        return parse_tags(trace.tags(self.format), self.text, self.format, trace.opened_by_prompt)

    @cached_property
    def thinking(self) -> str:
        """Text of the thinking, without the tags.

        Text between blocks is in it, unless the format repeats them, as is what stands before the
        first one.
        """
        return "".join(
            self.text[s.start : s.end] for s in self.blocks.spans if s.part is OutputPart.THINKING
        )

    @cached_property
    def answer(self) -> str:
        """What follows the last closed block; empty while a block is open."""
        blocks = self.blocks
        if blocks.answer_start is None:
            return ""
        return self.text[blocks.answer_start : blocks.answer_end]

    @property
    def in_thinking(self) -> bool:
        """Whether the cut ends inside an unclosed thinking block."""
        return self.blocks.left_open

    @property
    def opened(self) -> bool:
        return self.blocks.opened

    @property
    def closed(self) -> bool:
        return self.blocks.closed

    @property
    def reopened(self) -> bool:
        """Whether thinking was opened again after it had been closed in this output."""
        return self.blocks.reopened

    @property
    def spilled(self) -> bool:
        """Whether thinking went on after its close, up to another close tag."""
        return self.blocks.spilled

    @property
    def answer_tokens(self) -> int:
        """Tokens of the answer, the end of the sequence not among them.

        Where the format repeats blocks, also those of the text between them.
        """
        return answer_tokens(self.blocks, len(self.text), self.trace.ends(self._written))

    @property
    def thinking_tokens(self) -> int:
        """The other tokens: thinking, tags and headers."""
        return self._written - self.answer_tokens

    @property
    def _written(self) -> int:
        """Tokens of the text, without the one that ends the sequence."""
        trace = self.trace
        used = min(self.tokens_used, len(trace.output_ids))
        if trace.stop_reason is not StopReason.EOS or used < len(trace.output_ids) or not used:
            return used
        # Recorded texts have no such token, so the last one is looked at.
        before, end = (0, *trace.ends(used))[-2:]
        return used - (before == end)


def split_thinking(
    trace: Trace, text: str, thinking: ThinkingFormat | None
) -> tuple[str, str, bool]:
    """Part ``text``, the trace's own up to some place.

    Returns:
        Thinking text, answer text, and whether the text ends inside an open block.
    """
    cut = Cut(trace, max(trace.cap, 1), len(trace.output_ids), text, False, thinking)
    return cut.thinking, cut.answer, cut.in_thinking


def check_budgets(budgets: Sequence[int]) -> tuple[int, ...]:
    """Budgets in rising order without repetition.

    Raises:
        ValueError: If there are none, or one is below 1.
    """
    if not budgets:
        raise ValueError("at least one budget is needed")
    for budget in budgets:
        if budget < 1:
            raise ValueError(f"a budget is at least 1 token, not {budget}")
    return tuple(sorted(set(budgets)))
