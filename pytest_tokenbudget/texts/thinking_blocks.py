"""How models mark their thinking, and where in an output it stands.

A tag is found by its text, also across token boundaries. Where the tokenizer has tokens of their
own for it, only those ids count: a tag that a model spells out with ordinary tokens ends no
thinking, neither for an engine that watches ids nor here.

The file is long since what parses blocks depends on every field of a format.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from pytest_tokenbudget.texts.detokenizer import common_start

GAP = "\u2026"
"""Stands in a header of a format for text that differs."""


class Closer(NamedTuple):
    """A text that ends thinking by force; the answer follows it."""

    name: str
    text: str


@dataclass(frozen=True)
class ThinkingFormat:
    """How a model marks its thinking.

    Attributes:
        open: Text that opens a thinking block.
        close: Text that closes it.
        switch: Name of the chat-template variable that turns thinking on and off, or None where
            the template has none.
        closers: Texts that end thinking by force, the first is the default; without any, the
            bare tag.
        prompt_opens: Whether the rendered prompt opens the first block. What is known of a
            prompt itself, :meth:`left_open`, comes before this.
        repeats: Whether blocks may follow each other by design, so that what stands between them
            is meant for the reader.
        nests: Whether blocks may stand in each other, so that each open tag wants a close tag.
        answer: Headers that precede an answer, where there are such; the answer begins after one.
            ``GAP`` in a header stands for up to 60 characters of one line, such as the kind of
            content that gpt-oss may name there.
        hints: Names of chat-template variables that ask for more or less thinking and enforce
            nothing.
        ids: Texts and ids of the tokens in the tags that the tokenizer has as tokens of their
            own; None while nobody has looked.

    Raises:
        ValueError: If a tag is empty or part of another one.
    """

    open: str = "<think>"
    close: str = "</think>"
    switch: str | None = "enable_thinking"
    closers: tuple[Closer, ...] = ()
    prompt_opens: bool = False
    repeats: bool = False
    nests: bool = False
    answer: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    ids: tuple[tuple[str, int], ...] | None = None

    def __post_init__(self) -> None:
        bare = self.close + self.answer[0] if self.answer else f"\n{self.close}\n\n"
        # What comes back from JSON has lists for tuples.
        as_tuples = {
            "answer": tuple(self.answer),
            "hints": tuple(self.hints),
            "ids": None if self.ids is None else tuple((text, id_) for text, id_ in self.ids),
            "closers": tuple(Closer(*closer) for closer in self.closers) or (Closer("bare", bare),),
        }
        for name, value in as_tuples.items():
            object.__setattr__(self, name, value)
        tags = self.tags
        for place, tag in enumerate(tags):
            others = tags[:place] + tags[place + 1 :]
            if not tag or any(tag in other for other in others):
                raise ValueError(
                    f"the tags {', '.join(map(repr, tags))} cannot be told apart: each must be a "
                    f"text that is not empty and no part of another"
                )

    @property
    def tags(self) -> tuple[str, ...]:
        return (self.open, self.close, *self.answer)

    def closer(self, name: str | None = None) -> Closer:
        """The closer of that name; None for the default.

        Raises:
            ValueError: If there is none of that name.
        """
        for closer in self.closers:
            if name in (None, closer.name):
                return closer
        known = ", ".join(closer.name for closer in self.closers)
        raise ValueError(f"there is no closer {name!r}; there are {known}")

    def resolved(self, tokens: Mapping[str, int]) -> ThinkingFormat:
        """The format for a tokenizer; ``tokens`` are those that it never splits: its added ones."""
        inside = [token for token in tokens if token and any(token in tag for tag in self.tags)]
        used = {text for tag in self.tags for text in _split(tag, inside)}
        return replace(self, ids=tuple((text, tokens[text]) for text in sorted(used)))

    def left_open(self, prompt: str) -> bool:
        """Whether a rendered prompt ends inside a thinking block.

        A tag in a message that ended is somebody's words, not the template's.
        """
        place = prompt.rfind(self.open)
        rest = prompt[place + len(self.open) :]
        return place >= 0 and self.close not in rest and not re.search(_END_OF_TURN, rest)


# What ends a message in the templates that are around.
_END_OF_TURN = r"<\||<\uff5c|\[e~\[|\[/INST\]|_of_turn>|</s>|[<:]eos>|<turn\|>"


class Mark(StrEnum):
    OPEN = "open"
    CLOSE = "close"
    ANSWER = "answer"
    SPELLED = "spelled"


class Tag(NamedTuple):
    """A tag in a text, from ``start`` to below ``end``."""

    start: int
    end: int
    mark: Mark


class OutputPart(StrEnum):
    THINKING = "thinking"
    ANSWER = "answer"
    TAG = "tag"


class Span(NamedTuple):
    """A part of a text, from ``start`` to below ``end``."""

    start: int
    end: int
    part: OutputPart


@dataclass(frozen=True)
class Blocks:
    """Thinking and answer of a text.

    Attributes:
        spans: All parts in order, none of them empty; together they are the whole text. Text
            between blocks and before the first one is thinking, unless the format repeats them.
        answer_start: Where the answer begins; None where none can begin yet.
        answer_end: Where it ends.
        left_open: Whether the text ends inside an open block.
        opened: Whether thinking was opened, by the prompt or in the text.
        closed: Whether it was closed.
        reopened: Whether it was opened again after it had been closed.
        nested: Whether an open tag came inside an open block.
        spilled: Whether a close tag came where nothing was open any more: thinking had gone on
            after its close.
        spelled: How many tags were spelled out with ordinary tokens and do not count.
        open_at: Where texts that end there end inside an open block: from how many characters,
            to below how many.
    """

    spans: tuple[Span, ...] = ()
    answer_start: int | None = 0
    answer_end: int = 0
    left_open: bool = False
    opened: bool = False
    closed: bool = False
    reopened: bool = False
    nested: bool = False
    spilled: bool = False
    spelled: int = 0
    open_at: tuple[tuple[int, int], ...] = ()


def parse(
    text: str,
    thinking: ThinkingFormat | None,
    opened_by_prompt: bool = False,
    *,
    ids: Sequence[int] = (),
    offsets: Sequence[int] = (),
) -> Blocks:
    """Part a text into thinking and answer.

    ``ids`` are the token ids of the text, for a format that knows its tags' ids, with ``offsets``:
    for each id, how many characters of the text stand after it.
    """
    return parse_tags(find_tags(text, thinking, ids, offsets), text, thinking, opened_by_prompt)


def find_tags(
    text: str,
    thinking: ThinkingFormat | None,
    ids: Sequence[int] = (),
    offsets: Sequence[int] = (),
) -> tuple[Tag, ...]:
    """All tags of a text, in order.

    Those of a text's beginning are those of the whole text that end there: tags of a cut need no
    search of their own.
    """
    if thinking is None:
        return ()
    pattern, tags = _tags_of(thinking)
    found = []
    for match in pattern.finditer(text):
        start, end = match.span()
        mark, tokens = tags[match.lastgroup or ""]
        genuine = not ids or all(
            _is_token(id_, (start if place > 0 else end) + place, ids, offsets)
            for place, id_ in tokens
        )
        found.append(Tag(start, end, mark if genuine else Mark.SPELLED))
    return tuple(found)


def _is_token(token_id: int, end: int, ids: Sequence[int], offsets: Sequence[int]) -> bool:
    place = bisect_left(offsets, end)
    return place < len(ids) and ids[place] == token_id and offsets[place] == end


_Tokens = tuple[tuple[int, int], ...]


@lru_cache(maxsize=64)
def _tags_of(thinking: ThinkingFormat) -> tuple[re.Pattern[str], dict[str, tuple[Mark, _Tokens]]]:
    """What finds any tag, and for each its meaning and its tokens as (end, id).

    The end of a token counts from the tag's start, or, behind a gap, backwards from its end.
    """
    marks = [(thinking.open, Mark.OPEN), (thinking.close, Mark.CLOSE)]
    marks += [(header, Mark.ANSWER) for header in thinking.answer]
    known = dict(thinking.ids or ())
    tags: dict[str, tuple[Mark, _Tokens]] = {}
    patterns = []
    for number, (tag, mark) in enumerate(marks):
        before, gap, after = tag.partition(GAP)
        behind_gap = ((end - len(after), id_) for end, id_ in _ends(after, known))
        tags[f"tag{number}"] = (mark, (*_ends(before, known), *behind_gap))
        between = r"[^\n]{0,60}?" if gap else ""
        patterns.append(f"(?P<tag{number}>{re.escape(before)}{between}{re.escape(after)})")
    return re.compile("|".join(patterns)), tags


def _ends(text: str, known: Mapping[str, int]) -> Iterator[tuple[int, int]]:
    """Where in a text each of its tokens ends, and which it is."""
    place = 0
    for token in _split(text, known):
        place = text.index(token, place) + len(token)
        yield place, known[token]


def _split(tag: str, tokens: Iterable[str]) -> list[str]:
    """The tokens in a tag as a tokenizer takes them: the leftmost, of these the longest."""
    texts = sorted(tokens, key=len, reverse=True)
    return re.findall("|".join(map(re.escape, texts)), tag) if texts else []


def parse_tags(
    tags: Iterable[Tag], text: str, thinking: ThinkingFormat | None, opened_by_prompt: bool
) -> Blocks:
    """Thinking and answer of a text whose tags are known; those beyond its end do not count."""
    length = len(text)
    if thinking is None:
        return Blocks((Span(0, length, OutputPart.ANSWER),) if text else (), 0, length)
    state = _BlockParser(thinking, opened_by_prompt, text)
    for tag in tags:
        if tag.end > length:
            break
        state.take(tag)
    return state.finish(length)


class _BlockParser:
    """Where a walk over the tags has come to."""

    def __init__(self, thinking: ThinkingFormat, opened_by_prompt: bool, text: str) -> None:
        self.format = thinking
        self.depth = int(opened_by_prompt)
        self.opened = opened_by_prompt
        self.closed = self.reopened = self.nested = self.spilled = False
        self.spelled = 0
        self.spans: list[Span] = []
        self.open_at: list[tuple[int, int]] = []
        self.opened_at = 0
        self.place = 0
        # Without a header the answer has begun only where a prompt had the header, so that no
        # header is on its way.
        lead = common_start([thinking.open, *thinking.answer]) if thinking.answer else ""
        waits = bool(lead) and (text.startswith(lead) or lead.startswith(text))
        self.answer_start = None if opened_by_prompt or waits else 0
        self.answer_end: int | None = None

    @property
    def in_answer(self) -> bool:
        return self.answer_start is not None and self.answer_end is None

    def take(self, tag: Tag) -> None:
        if tag.mark is Mark.SPELLED:
            self.spelled += 1
            return
        self.add(tag.start, self.part_before(tag.mark))
        self.add(tag.end, OutputPart.TAG)
        if tag.mark is Mark.OPEN:
            self.open(tag)
        elif tag.mark is Mark.CLOSE:
            self.close(tag)
        else:
            self.leave(tag)
            self.answer_start, self.answer_end = tag.end, None

    def part_before(self, mark: Mark) -> OutputPart:
        """What the text before a tag is; only a tag says what has stood before it."""
        channels = bool(self.format.answer)
        if self.depth:
            return OutputPart.THINKING
        if self.in_answer:
            shown = channels if mark is Mark.CLOSE else self.format.repeats and mark is Mark.OPEN
            return OutputPart.ANSWER if shown else OutputPart.THINKING
        # Between two messages stands but the beginning of the second one's header.
        return OutputPart.TAG if channels and mark is not Mark.CLOSE else OutputPart.THINKING

    def add(self, end: int, part: OutputPart) -> None:
        if end > self.place:
            self.spans.append(Span(self.place, end, part))
            self.place = end

    def open(self, tag: Tag) -> None:
        if self.depth:
            self.nested = True
            self.depth += self.format.nests
            return
        self.reopened |= self.closed
        self.opened, self.depth, self.opened_at = True, 1, tag.end
        self.answer_start = self.answer_end = None

    def close(self, tag: Tag) -> None:
        if self.depth > 1:
            self.depth -= 1
        elif self.depth:
            self.leave(tag)
            self.answer_start = None if self.format.answer else tag.end
        elif self.format.answer:
            # It ends any message, that of the answer too.
            if self.in_answer:
                self.answer_end = tag.start
        else:
            self.spilled |= self.closed
            self.closed, self.answer_start = True, tag.end

    def leave(self, tag: Tag) -> None:
        if self.depth:
            self.closed, self.depth = True, 0
            self.open_at.append((self.opened_at, tag.end))

    def finish(self, length: int) -> Blocks:
        closed = OutputPart.ANSWER if self.in_answer else OutputPart.TAG
        self.add(length, OutputPart.THINKING if self.depth else closed)
        if self.depth:
            self.open_at.append((self.opened_at, length + 1))
        return Blocks(
            spans=tuple(self.spans),
            answer_start=self.answer_start,
            answer_end=length if self.answer_end is None else self.answer_end,
            left_open=self.depth > 0,
            opened=self.opened,
            closed=self.closed,
            reopened=self.reopened,
            nested=self.nested,
            spilled=self.spilled,
            spelled=self.spelled,
            open_at=tuple(self.open_at),
        )


def answer_tokens(blocks: Blocks, length: int, offsets: Sequence[int]) -> int:
    """How many of a text's tokens belong to answers; the others are thinking and tags.

    A token belongs to where it begins; one that adds no text to where the text has come to. The
    text has ``length`` characters, and for each token ``offsets`` has how many of them stand after
    it.
    """
    tokens = len(offsets)

    def begun_before(place: int) -> int:
        return bisect_left(offsets, place, 0, tokens - 1) + 1 if place > 0 and tokens else 0

    count = sum(
        begun_before(span.end) - begun_before(span.start)
        for span in blocks.spans
        if span.part is OutputPart.ANSWER and span.end < length
    )
    if blocks.answer_start is not None and blocks.answer_end == length:
        count += tokens - begun_before(blocks.answer_start)
    return count
