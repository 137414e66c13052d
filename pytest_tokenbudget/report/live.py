"""A trace as it is being written: its text, thinking dimmed, a mark where each budget cuts.

Only what is known while a trace is written can be shown: text that a later tag turns out to have
been thinking was shown as an answer by then.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

from pytest_tokenbudget.common.outside_text import printable_lines
from pytest_tokenbudget.core.trace import StopReason
from pytest_tokenbudget.texts.detokenizer import Decode, Detokenizer, Pieces
from pytest_tokenbudget.texts.thinking_blocks import Tag, ThinkingFormat, find_tags, parse_tags

DIM, UNDIM = "\x1b[2m", "\x1b[22m"
REVERSE, UNREVERSE = "\x1b[7m", "\x1b[27m"
CODES = re.compile(r"(\x1b\[\d+m)")

# No header is longer.
_FIRST = 200


class _Mark(NamedTuple):
    """A budget, and behind how many characters of the waiting text it cuts."""

    offset: int
    budget: int


class LiveTrace:
    """Turns the ids of one trace, one by one, into what is to be printed.

    Everything that is returned stands for itself: what others print between two parts of it comes
    out in their own colours. Control characters in the text are spelled out.

    Args:
        decode: Text of output ids; with one ``Pieces`` for many traces it is learned once. None
            where texts are given beside the ids, or without any.
        thinking: How the model marks its thinking; None where it has none.
        opened_by_prompt: Whether the prompt had opened a block.
        budgets: Where marks are wanted.
        colour: Whether to dim and to mark by the terminal's own means.
    """

    def __init__(
        self,
        decode: Decode | Pieces | None,
        thinking: ThinkingFormat | None = None,
        *,
        opened_by_prompt: bool = False,
        budgets: Collection[int] = (),
        colour: bool = False,
    ) -> None:
        self._detokenizer = None if decode is None else Detokenizer(decode)
        self._format = thinking
        self._opened_by_prompt = opened_by_prompt
        self._budgets = frozenset(budgets)
        self._colour = colour
        self._tokens = 0
        # What has been printed, its tags; behind it, text that may still become a tag, with the
        # ids that it comes from and the places of marks in it.
        self._printed: list[str] = []
        self._length = 0
        self._tags: list[Tag] = []
        self._waiting = ""
        self._ids: list[int] = []
        self._offsets: list[int] = []
        self._marks: list[_Mark] = []
        self._dims = opened_by_prompt
        self._first = ""

    def next(self, token_id: int, text: str = "") -> str:
        """Take the next output id.

        Args:
            token_id: The id.
            text: What it adds to the text, where that is not decoded here.

        Returns:
            What to print now, often empty.
        """
        if self._tokens in self._budgets:
            # A budget cuts where one more id comes than it allows.
            self._mark(self._tokens)
        self._tokens += 1
        if self._detokenizer is not None:
            text = self._detokenizer.next(token_id) or ""
        self._waiting += text
        self._ids.append(token_id)
        self._offsets.append(len(self._waiting))
        return self._print(self._unfinished())

    def write(self, text: str) -> str:
        """Take text of which no ids are known."""
        self._waiting += text
        return self._print(self._unfinished())

    def mark(self, budget: int) -> str:
        """Say that a budget cuts here."""
        self._mark(budget)
        return self._print(self._unfinished())

    def end(self, reason: StopReason) -> str:
        """Say why no id follows.

        Returns:
            What is still to be printed, the mark of a budget that has cut just here included.
        """
        if self._detokenizer is not None:
            self._waiting += self._detokenizer.rest()
        if self._offsets:
            self._offsets[-1] = len(self._waiting)
        if reason is StopReason.LENGTH and self._tokens in self._budgets:
            self._marks.append(_Mark(len(self._waiting), self._tokens))
        return self._print(0)

    def _mark(self, budget: int) -> None:
        if self._detokenizer is not None:
            # What is complete belongs before the mark, even if it would combine with what follows.
            self._waiting += self._detokenizer.cut()
        self._marks.append(_Mark(len(self._waiting), budget))

    def _unfinished(self) -> int:
        """How much of the end of the waiting text may be the beginning of a tag."""
        if self._format is None:
            return 0
        text = self._waiting
        longest = max(map(len, self._format.tags)) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(tag.startswith(text[-length:]) for tag in self._format.tags):
                return length
        return 0

    def _print(self, kept: int) -> str:
        """Print the waiting text but for its end."""
        parts: list[str] = []
        done = 0
        for tag in find_tags(self._waiting, self._format, self._ids, self._offsets):
            parts.append(self._part(done, tag.start, self._dims_before(tag.start)))
            parts.append(self._part(tag.start, tag.end, True))
            self._tags.append(Tag(tag.start + self._length, tag.end + self._length, tag.mark))
            self._dims = self._dims_behind("".join([*self._printed, self._waiting[: tag.end]]))
            done = tag.end
        end = max(done, len(self._waiting) - kept)
        parts.append(self._part(done, end, self._dims_before(end)))
        parts += [self._marked(mark) for mark in self._marks if mark.offset == end]
        self._forget(end)
        return "".join(parts)

    def _part(self, start: int, end: int, dims: bool) -> str:
        """Waiting text between two places, with the marks that stand before its characters."""
        parts = []
        for mark in self._marks:
            if start <= mark.offset < end:
                parts += [self._shown(self._waiting[start : mark.offset], dims), self._marked(mark)]
                start = mark.offset
        return "".join([*parts, self._shown(self._waiting[start:end], dims)])

    def _shown(self, text: str, dims: bool) -> str:
        text = printable_lines(text)
        return f"{DIM}{text}{UNDIM}" if text and dims and self._colour else text

    def _marked(self, mark: _Mark) -> str:
        if self._colour:
            return f"{REVERSE} {mark.budget} {UNREVERSE}"
        return f"[|{mark.budget}|]"

    def _dims_before(self, offset: int) -> bool:
        """Whether what stands before a place in the waiting text, behind all tags, is thinking."""
        if not self._tags:
            # Only the first few characters say whether a header is on its way.
            first = "".join(self._printed) if self._length < _FIRST else self._first
            self._first = first
            self._dims = self._dims_behind((first + self._waiting[:offset])[:_FIRST])
        return self._dims

    def _dims_behind(self, text: str) -> bool:
        """Whether what follows a text with the tags so far is no part of an answer."""
        blocks = parse_tags(self._tags, text, self._format, self._opened_by_prompt)
        begun = blocks.answer_start is not None and blocks.answer_end == len(text)
        return blocks.left_open or not begun

    def _forget(self, end: int) -> None:
        """Keep only what stands behind a place in the waiting text, which is printed."""
        self._printed.append(self._waiting[:end])
        self._length += end
        self._waiting = self._waiting[end:]
        left = [(i, at - end) for i, at in zip(self._ids, self._offsets, strict=True) if at > end]
        self._ids = [token_id for token_id, _ in left]
        self._offsets = [at for _, at in left]
        self._marks = [_Mark(at - end, budget) for at, budget in self._marks if at > end]
