"""Between chat messages and token ids: a model's renderer, and what it has rendered before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

from pytest_tokenbudget.context.window_alignment import (
    MessageSpan,
    Range,
    mark,
    places,
    token_range,
)
from pytest_tokenbudget.texts.detokenizer import text_and_offsets

Message = Mapping[str, str]
Decode = Callable[[Sequence[int]], str]
Key = tuple[tuple[tuple[str, str], ...], ...]


class Rendered(Protocol):
    """A rendered prompt, as engines have it."""

    @property
    def ids(self) -> tuple[int, ...]:
        """Token ids, special tokens included."""
        ...

    @property
    def text(self) -> str:
        """The text that they were encoded from."""
        ...


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
        """The tokens that hold any part of some characters of a message's content.

        Returns:
            A range of the prompt's tokens; None where it cannot be told.
        """
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
        """Text of ids."""
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
            _key([{**message, "content": mark(i)} for i, message in enumerate(messages)])
        )
        # A tokenizer that does not keep its text does the same to the skeleton's.
        written = skeleton.text if text == prompt.text else self.decode(skeleton.ids)
        contents = [message["content"] for message in messages]
        return Layout(places(text, written, contents), offsets)

    def _render_key(self, key: Key) -> Rendered:
        return self._render_messages([dict(items) for items in key])


def _key(messages: Sequence[Message]) -> Key:
    return tuple(tuple(message.items()) for message in messages)
