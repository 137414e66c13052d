"""Context windows: what of a prompt is left where it must fit a limit, and what is lost.

A window is made of token ids or of chat messages, by a strategy (`window_strategies`):

    chat = Chat(model.render, model.decode_prompt, bos_id=bos_id)
    window = ContextWindow.of_messages(messages, chat, limit=prompt_room(4096), strategy=strategy)

Limit 0 means no truncation. A message, or a part of one, counts as whole where every token of what
it says is there; the template's signs around it are not looked at.

A window and the strategies' two ways to make one need each other, so they share this file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_tokenbudget.common.messages import described, whole_number
from pytest_tokenbudget.context.chat import (
    Chat,
    Decode,
    Message,
    Range,
    complement,
    dropped_ranges,
    merged,
)
from pytest_tokenbudget.context.conversation import Conversation, Piece, Unit, joined
from pytest_tokenbudget.settings.context_limits import (
    ContextError,
    check_limit,
    check_room,
    generation_cap,
    generation_room,
    prompt_room,
)

__all__ = ["Chat", "ContextError", "ContextWindow", "Conversation", "generation_cap", "prompt_room"]


@dataclass(frozen=True)
class Dropped:
    """What a window lacks of the whole prompt.

    Attributes:
        ranges: Ranges of the whole prompt's tokens.
        messages: Indexes of messages of which nothing is left; ``shortened``, of which a part is.
    """

    ranges: tuple[Range, ...] = ()
    messages: tuple[int, ...] = ()
    shortened: tuple[int, ...] = ()

    @property
    def tokens(self) -> int:
        """How many tokens of the whole prompt are gone."""
        return sum(end - start for start, end in self.ranges)


@dataclass(frozen=True)
class ContextWindow:
    """A prompt that fits, and what it cost.

    Attributes:
        limit: Tokens that the prompt may have; 0 means no truncation.
        context: Tokens that prompt and output may have together; None where it is not known.
        original_length: Tokens of the whole prompt.
        ids: Token ids of the prompt as it is posed.
        text: Its text; None where only ids were given.
        messages: Messages that it was rendered from; empty where ids were cut, which no messages
            would render to.
        bos_whole: Whether it begins with the id that begins a sequence; None where the whole
            prompt did not.
        system_whole: Whether the system prompt is all there; None where there was none, or its
            place in the prompt cannot be told.
        question_whole: The same of the newest user message, or the question about a document.
        summary: What stands in for the messages that are gone; usually nothing.
    """

    strategy: str
    limit: int
    context: int | None
    original_length: int
    ids: tuple[int, ...]
    text: str | None
    messages: tuple[Message, ...] = ()
    dropped: Dropped = Dropped()
    bos_whole: bool | None = None
    system_whole: bool | None = None
    question_whole: bool | None = None
    summary: str = ""

    def __post_init__(self) -> None:
        check_limit(self.limit)
        if self.limit and len(self.ids) > self.limit:
            raise ContextError(
                f"strategy {self.strategy} made a prompt of {len(self.ids):,} tokens; the limit "
                f"is {self.limit:,}"
            )
        if self.context is not None:
            whole_number("context", self.context, 1, error=ContextError)
            check_room(self.context, len(self.ids))

    @property
    def encoded_len(self) -> int:
        """Another name of ``original_length``."""
        return self.original_length

    @property
    def base_context_len(self) -> int:
        """The length of ``ids``."""
        return len(self.ids)

    @property
    def effective_context_tokens(self) -> tuple[int, ...]:
        """Another name of ``ids``."""
        return self.ids

    @property
    def room(self) -> int | None:
        """Output tokens that still fit into the context, at least 1; None where it is unknown."""
        return None if self.context is None else generation_room(self.context, len(self.ids))

    @property
    def kept(self) -> tuple[Range, ...]:
        """Ranges of the whole prompt's tokens that are still there."""
        return complement(self.dropped.ranges, self.original_length)

    @property
    def added(self) -> int:
        """Tokens that the whole prompt has not: a summary, signs around shortened messages."""
        return len(self.ids) - (self.original_length - self.dropped.tokens)

    @property
    def truncated(self) -> bool:
        return bool(self.dropped.ranges or self.dropped.messages or self.dropped.shortened)

    @classmethod
    def of_ids(
        cls,
        ids: Sequence[int],
        *,
        limit: int,
        strategy: TokenStrategy,
        context: int | None = None,
        bos_id: int | None = None,
        decode: Decode | None = None,
    ) -> ContextWindow:
        """A window over token ids, of whatever text.

        Args:
            ids: The whole prompt.
            limit: Tokens that the prompt may have; 0 means no truncation.
            strategy: Which of them stay.
            context: Tokens that prompt and output may have together, if it is known.
            bos_id: The id that begins a sequence, where the tokenizer has one.
            decode: Text of ids; without it the window has none.

        Raises:
            ContextError: If no room is left for a new token.
        """
        check_limit(limit)
        original = _token_ids(ids)
        _check_strategy(strategy, "ranges")
        length = len(original)
        kept = merged(strategy.ranges(length, limit) if 0 < limit < length else [(0, length)])
        chosen = chosen_ids(original, kept)
        return cls(
            strategy=strategy.name,
            limit=limit,
            context=context,
            original_length=length,
            ids=chosen,
            text=None if decode is None else decode(chosen),
            dropped=Dropped(complement(kept, length)),
            bos_whole=bos_kept(original, bos_id, kept),
        )

    @classmethod
    def of_messages(
        cls,
        messages: Sequence[Message],
        chat: Chat,
        *,
        limit: int,
        strategy: Strategy,
        context: int | None = None,
    ) -> ContextWindow:
        """A window over chat messages with ``role`` and ``content``; see :meth:`of_ids`.

        Raises:
            ContextError: If the limit is too small for what the strategy must keep, or no room
                is left for a new token.
        """
        _check_strategy(strategy, "window")
        return strategy.window(Conversation(messages, chat), limit, context)

    @classmethod
    def of_document(
        cls,
        document: str,
        question: str,
        chat: Chat,
        *,
        limit: int,
        strategy: Strategy,
        context: int | None = None,
        system: str = "",
        layout: str = "{document}\n\n{question}",
    ) -> ContextWindow:
        """A window over a long text with a question about it; see :meth:`of_ids`.

        Strategies that keep whole turns of a conversation keep whole passages of a document.

        Args:
            document: The text.
            question: What is asked about it.
            chat: The model's renderer.
            limit: Tokens that the prompt may have; 0 means no truncation.
            strategy: What stays.
            context: Tokens that prompt and output may have together, if it is known.
            system: What the system message says; none where it is empty.
            layout: Where ``{document}`` and ``{question}`` stand in the user message.

        Raises:
            ContextError: If the limit is too small for what the strategy must keep, no room is
                left for a new token, or the layout does not name both.
        """
        _check_strategy(strategy, "window")
        conversation = Conversation.of_document(
            document, question, chat, system=system, layout=layout
        )
        return strategy.window(conversation, limit, context)


def chosen_ids(ids: tuple[int, ...], kept: Iterable[Range]) -> tuple[int, ...]:
    return tuple(token_id for start, end in kept for token_id in ids[start:end])


def bos_kept(original: tuple[int, ...], bos_id: int | None, kept: Sequence[Range]) -> bool | None:
    """Whether the id that begins a sequence is still there; None where it was not."""
    if bos_id is None or original[:1] != (bos_id,):
        return None
    return bool(kept) and kept[0][0] == 0


def _token_ids(ids: object) -> tuple[int, ...]:
    if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
        raise ContextError(f"ids must be a list of token ids, not {described(ids)}")
    found = tuple(ids)
    for place, token_id in enumerate(found):
        if type(token_id) is not int:
            whole_number(f"ids[{place}]", token_id, error=ContextError)
    return found


def _check_strategy(strategy: object, method: str) -> None:
    if not callable(getattr(strategy, method, None)):
        known = "'newest', 'first' or 'ends'" if method == "ranges" else "'newest'"
        found = getattr(strategy, "name", None)
        what = f"strategy {found}" if isinstance(found, str) else described(strategy)
        raise ContextError(f"strategy must be what named_strategy({known}) gives, not {what}")


class Strategy(ABC):
    """Poses the whole prompt where it fits, and else what a subclass makes of it.

    Attributes:
        name: As it is shown and chosen.
    """

    name: str

    def window(
        self, conversation: Conversation, limit: int, context: int | None = None
    ) -> ContextWindow:
        """What is left of a conversation.

        ``limit`` tokens are allowed in the prompt, 0 means no truncation; ``context`` tokens in
        prompt and output together, if that is known.

        Raises:
            ContextError: If the limit is too small for what must stay, or no room is left for a
                new token.
        """
        if not fits(conversation, limit):
            return self.truncated(conversation, limit, context)
        whole = conversation.whole
        return self._new_window(
            conversation,
            limit,
            context,
            ids=whole.ids,
            text=whole.text,
            messages=conversation.messages,
            bos_whole=bos_kept(whole.ids, conversation.chat.bos_id, [(0, 1)]),
            system_whole=True if conversation.system else None,
            question_whole=True if conversation.question else None,
        )

    @abstractmethod
    def truncated(
        self, conversation: Conversation, limit: int, context: int | None
    ) -> ContextWindow:
        """A window over a conversation that does not fit."""

    def window_of_pieces(
        self,
        conversation: Conversation,
        limit: int,
        context: int | None,
        pieces: Iterable[Piece],
        *,
        posed: tuple[Message, ...] | None = None,
        summary: str = "",
    ) -> ContextWindow:
        """A window that has some parts of the messages, rendered anew.

        ``posed`` is rendered where that is more than the pieces, with the ``summary``.
        """
        whole = conversation.whole
        spans = joined(pieces)
        stays = [Piece(index, *span) for index, each in spans.items() for span in each]
        messages = conversation.compose(stays) if posed is None else posed
        prompt = conversation.chat.render(messages)
        contents = [message["content"] for message in conversation.messages]
        anchors = sorted(
            tokens
            for piece in stays
            if (tokens := conversation.layout.tokens(*piece)) is not None and tokens[0] < tokens[1]
        )
        ranges = dropped_ranges(whole.ids, prompt.ids, anchors)
        kept = complement(ranges, len(whole.ids))
        return self._new_window(
            conversation,
            limit,
            context,
            ids=prompt.ids,
            text=prompt.text,
            messages=messages,
            dropped=Dropped(
                ranges,
                tuple(index for index in range(len(contents)) if index not in spans),
                tuple(i for i, each in spans.items() if each != [(0, len(contents[i]))]),
            ),
            bos_whole=bos_kept(whole.ids, conversation.chat.bos_id, kept),
            system_whole=_pieces_whole(spans, conversation.system),
            question_whole=_pieces_whole(spans, conversation.question),
            summary=summary,
        )

    def _new_window(
        self,
        conversation: Conversation,
        limit: int,
        context: int | None,
        **facts: Any,  # noqa: ANN401
    ) -> ContextWindow:
        length = len(conversation.whole.ids)
        return ContextWindow(
            strategy=self.name, limit=limit, context=context, original_length=length, **facts
        )


class TokenStrategy(Strategy):
    """Cuts the rendered prompt as a row of tokens, and knows nothing of messages."""

    @abstractmethod
    def ranges(self, length: int, limit: int) -> Sequence[Range]:
        """Which of ``length`` tokens stay, ``limit`` together; ``length`` is above it."""

    def truncated(
        self, conversation: Conversation, limit: int, context: int | None
    ) -> ContextWindow:
        whole, layout = conversation.whole, conversation.layout
        kept = merged(self.ranges(len(whole.ids), limit))
        ids = chosen_ids(whole.ids, kept)
        messages: list[int] = []
        shortened: list[int] = []
        for index, place in sorted(layout.places.items()):
            content = conversation.messages[index]["content"]
            if place.start == place.end:
                continue
            tokens = layout.tokens(index, 0, len(content)) if place.skipped is not None else None
            if tokens is None or _covers(kept, tokens):
                continue
            touched = any(start < tokens[1] and tokens[0] < end for start, end in kept)
            (shortened if touched else messages).append(index)
        return self._new_window(
            conversation,
            limit,
            context,
            ids=ids,
            text=conversation.chat.decode(ids),
            dropped=Dropped(complement(kept, len(whole.ids)), tuple(messages), tuple(shortened)),
            bos_whole=bos_kept(whole.ids, conversation.chat.bos_id, kept),
            system_whole=_tokens_whole(conversation, kept, conversation.system),
            question_whole=_tokens_whole(conversation, kept, conversation.question),
        )


def fits(conversation: Conversation, limit: int) -> bool:
    """Whether the whole prompt is within a limit; 0 means that there is none."""
    check_limit(limit)
    return not limit or len(conversation.whole.ids) <= limit


def _covers(ranges: Iterable[Range], wanted: Range) -> bool:
    return wanted[0] == wanted[1] or any(
        start <= wanted[0] and wanted[1] <= end for start, end in ranges
    )


def _tokens_whole(conversation: Conversation, kept: Sequence[Range], unit: Unit) -> bool | None:
    verdicts: list[bool] = []
    for piece in unit:
        tokens = conversation.layout.tokens(*piece)
        if tokens is None:
            return None
        verdicts.append(_covers(kept, tokens))
    return all(verdicts) if verdicts else None


def _pieces_whole(spans: dict[int, list[tuple[int, int]]], unit: Unit) -> bool | None:
    if not unit:
        return None
    return all(
        any(
            start <= piece.start and piece.end <= end for start, end in spans.get(piece.message, ())
        )
        for piece in unit
    )
