"""Between chat messages and token ids: a model's renderer, and where messages stand in a prompt."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import NamedTuple, Protocol

from pytest_tokenbudget.texts.detokenizer import text_and_offsets

Range = tuple[int, int]

THINK_END = "</think>"


class MessageSpan(NamedTuple):
    """Where a message's content stands in the text of a prompt.

    ``skipped`` is how many characters of the content the template has left out before ``start``;
    None where what it wrote is not a part of the content.
    """

    start: int
    end: int
    skipped: int | None


# Signs of private use: no template and hardly a text has them.
_MARK = re.compile("\ue000([0-9]+)\ue001")


def content_mark(index: int) -> str:
    """What stands for the content of message ``index`` while a template is looked at."""
    return f"\ue000{index}\ue001"


def message_spans(text: str, skeleton: str, contents: Sequence[str]) -> dict[int, MessageSpan]:
    """Find each message's content in a rendered prompt.

    ``skeleton`` is the same prompt with `content_mark` in place of every content.

    Returns:
        Place by index of the message, without those that the template does not write; empty where
        the template writes something else around other contents.
    """
    gaps = _MARK.split(skeleton)
    found: dict[int, MessageSpan] = {}
    at = len(gaps[0])
    if not text.startswith(gaps[0]):
        return {}
    last = len(gaps) - 1
    for number in range(1, len(gaps), 2):
        index, gap = int(gaps[number]), gaps[number + 1]
        place = _span_at(text, at, contents[index], gap, number + 1 == last)
        if place is None:
            return {}
        found.setdefault(index, place)
        at = place.end + len(gap)
    return found


def _span_at(text: str, at: int, content: str, gap: str, is_last: bool) -> MessageSpan | None:
    for written in dict.fromkeys(_forms(content)):
        end = at + len(written)
        if (
            text.startswith(written, at)
            and text.startswith(gap, end)
            and (not is_last or end + len(gap) == len(text))
        ):
            return MessageSpan(at, end, content.rfind(written))
    if is_last:
        end = len(text) - len(gap) if text.endswith(gap) else -1
    else:
        end = text.find(gap, at) if gap else -1
    return MessageSpan(at, end, None) if end >= at else None


def _forms(content: str) -> Iterator[str]:
    """What templates make of a content: white space or an earlier thought is left out."""
    for base in (content, content.rpartition(THINK_END)[2]):
        yield from (base, base.lstrip("\n"), base.strip("\n"))
        yield from (base.strip(), base.lstrip(), base.rstrip())


def token_range(offsets: Sequence[int], start: int, end: int) -> Range:
    """The tokens that hold any part of the characters from ``start`` to below ``end``."""
    if end <= start:
        first = bisect_left(offsets, start) + 1 if start else 0
        return first, first
    first = bisect_left(offsets, start) if start else 0
    if start and offsets[first] == start:
        first += 1
    return first, bisect_left(offsets, end) + 1


def dropped_ranges(
    original: tuple[int, ...], kept: tuple[int, ...], anchors: Iterable[Range]
) -> tuple[Range, ...]:
    """Which ids of a prompt another one, made of its parts in the same order, lacks.

    ``anchors`` are ranges of ``original`` that should be found in ``kept`` as they are, in order.
    """
    ranges: list[Range] = []
    left = right = 0
    for start, end in anchors:
        found = _find(original, max(start, left), end, kept, right)
        if found is None:
            continue
        begin, at, length = found
        ranges += _gap(original[left:begin], left, kept[right:at])
        left, right = begin + length, at + length
    ranges += _gap(original[left:], left, kept[right:])
    return merged(ranges)


def _find(
    original: tuple[int, ...], start: int, end: int, kept: tuple[int, ...], begin: int
) -> tuple[int, int, int] | None:
    """Where a range of ``original`` comes again: where it begins in both, and its length.

    The first or the last token may differ: it may have been merged with what stood beside it.
    """
    for front, back in ((0, 0), (1, 0), (0, 1), (1, 1)):
        part = original[start + front : end - back]
        at = begin - 1
        while part:
            try:
                at = kept.index(part[0], at + 1)
            except ValueError:
                break
            if kept[at : at + len(part)] == part:
                return start + front, at, len(part)
    return None


def _gap(original: tuple[int, ...], start: int, between: tuple[int, ...]) -> list[Range]:
    """A stretch of a prompt from ``start`` on, without what its ends share with ``between``."""
    left, end, stop = 0, len(original), len(between)
    while left < min(end, stop) and original[left] == between[left]:
        left += 1
    while left < min(end, stop) and original[end - 1] == between[stop - 1]:
        end, stop = end - 1, stop - 1
    return [(start + left, start + end)] if left < end else []


def merged(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """Ranges in order, those that touch as one, empty ones left out."""
    result: list[Range] = []
    for start, end in sorted(ranges):
        if end <= start:
            continue
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return tuple(result)


def complement(ranges: Iterable[Range], length: int) -> tuple[Range, ...]:
    """What ``ranges``, in order and apart, leave of ``length`` places."""
    edges = [0, *chain.from_iterable(ranges), length]
    return tuple(
        (start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if start < end
    )


Message = Mapping[str, str]
Decode = Callable[[Sequence[int]], str]
Key = tuple[tuple[tuple[str, str], ...], ...]


class Rendered(Protocol):
    """A rendered prompt, as engines have it: ids with special tokens, and their text."""

    @property
    def ids(self) -> tuple[int, ...]: ...

    @property
    def text(self) -> str: ...


Render = Callable[[Sequence[Message]], Rendered]


class Layout(NamedTuple):
    """Where messages stand in a rendered prompt.

    Attributes:
        places: Characters of each message's content, by its index; without those that the
            template does not write, and empty where they cannot be told.
        offsets: For each token of the prompt, how many characters stand after it.
    """

    places: Mapping[int, MessageSpan]
    offsets: tuple[int, ...]

    def tokens(self, message: int, start: int, end: int) -> Range | None:
        """The tokens that hold any of some characters of a message; None if it cannot be told."""
        place = self.places.get(message)
        if place is None or place.skipped is None:
            return None
        shift = place.start - place.skipped
        return token_range(
            self.offsets,
            max(place.start, min(place.end, start + shift)),
            max(place.start, min(place.end, end + shift)),
        )


class Chat:
    """What windows need of a model: its chat template and tokenizer, given as two callables.

    Args:
        render: Makes a prompt of messages, ready for the model's answer.
        decode: Text of ids, with the text of special tokens.
        bos_id: The id that begins a sequence, where the tokenizer has one.
        remembered: How many prompts are kept, so that strategies and limits share them.
    """

    def __init__(
        self, render: Render, decode: Decode, *, bos_id: int | None = None, remembered: int = 256
    ) -> None:
        self.bos_id = bos_id
        self._render_messages = render
        self._decode_ids = decode
        self._single: dict[int, str] = {}
        self._remembered = lru_cache(remembered)(self._render_key)
        self._layouts = lru_cache(remembered)(self._layout_key)
        # They hang on roles alone, so few are ever needed.
        self._skeletons = lru_cache(remembered)(self._render_key)

    def render(self, messages: Sequence[Message]) -> Rendered:
        """Ids and text of the prompt that ``messages`` make."""
        return self._remembered(_key(messages))

    def decode(self, ids: Sequence[int]) -> str:
        if len(ids) != 1:
            return self._decode_ids(ids)
        text = self._single.get(ids[0])
        if text is None:
            text = self._single[ids[0]] = self._decode_ids(ids)
        return text

    def layout(self, messages: Sequence[Message]) -> Layout:
        """Where the messages stand in the prompt that they make."""
        return self._layouts(_key(messages))

    def _layout_key(self, key: Key) -> Layout:
        prompt = self._remembered(key)
        text, offsets = text_and_offsets(self.decode, prompt.ids)
        messages = [dict(items) for items in key]
        skeleton = self._skeletons(
            _key([{**message, "content": content_mark(i)} for i, message in enumerate(messages)])
        )
        # A tokenizer that does not keep its text does the same to the skeleton's.
        written = skeleton.text if text == prompt.text else self.decode(skeleton.ids)
        contents = [message["content"] for message in messages]
        return Layout(message_spans(text, written, contents), offsets)

    def _render_key(self, key: Key) -> Rendered:
        return self._render_messages([dict(items) for items in key])


def _key(messages: Sequence[Message]) -> Key:
    return tuple(tuple(message.items()) for message in messages)
