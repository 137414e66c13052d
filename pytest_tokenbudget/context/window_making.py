"""Making windows: of a whole prompt, of some of its tokens, of some parts of its messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pytest_tokenbudget.context.chat import (
    Message,
    Range,
    complement,
    dropped_ranges,
    merged,
)
from pytest_tokenbudget.context.conversation import Conversation, Piece, Unit, joined
from pytest_tokenbudget.context.window import ContextWindow, Dropped, bos_kept, chosen_ids
from pytest_tokenbudget.settings.context_limits import check_limit


def fits(conversation: Conversation, limit: int) -> bool:
    """Whether the whole prompt is within a limit; 0 means that there is none.

    Raises:
        ContextError: If the limit is negative.
    """
    check_limit(limit)
    return not limit or len(conversation.whole.ids) <= limit


def whole_window(
    conversation: Conversation, strategy: str, limit: int, context: int | None
) -> ContextWindow:
    """A window of which nothing is gone."""
    whole = conversation.whole
    return ContextWindow(
        strategy=strategy,
        limit=limit,
        context=context,
        original_length=len(whole.ids),
        ids=whole.ids,
        text=whole.text,
        messages=conversation.messages,
        bos_whole=bos_kept(whole.ids, conversation.chat.bos_id, [(0, 1)]),
        system_whole=True if conversation.system else None,
        question_whole=True if conversation.question else None,
    )


def window_of_ranges(
    conversation: Conversation,
    strategy: str,
    limit: int,
    context: int | None,
    ranges: Iterable[Range],
) -> ContextWindow:
    """A window that has some of the whole prompt's tokens and knows nothing of messages."""
    whole, layout = conversation.whole, conversation.layout
    length = len(whole.ids)
    kept = merged(ranges)
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
    return ContextWindow(
        strategy=strategy,
        limit=limit,
        context=context,
        original_length=length,
        ids=ids,
        text=conversation.chat.decode(ids),
        dropped=Dropped(complement(kept, length), tuple(messages), tuple(shortened)),
        bos_whole=bos_kept(whole.ids, conversation.chat.bos_id, kept),
        system_whole=_tokens_whole(conversation, kept, conversation.system),
        question_whole=_tokens_whole(conversation, kept, conversation.question),
    )


def window_of_pieces(
    conversation: Conversation,
    strategy: str,
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
    return ContextWindow(
        strategy=strategy,
        limit=limit,
        context=context,
        original_length=len(whole.ids),
        ids=prompt.ids,
        text=prompt.text,
        messages=messages,
        dropped=Dropped(
            ranges,
            tuple(index for index in range(len(contents)) if index not in spans),
            tuple(i for i, each in spans.items() if each != [(0, len(contents[i]))]),
        ),
        bos_whole=bos_kept(whole.ids, conversation.chat.bos_id, complement(ranges, len(whole.ids))),
        system_whole=_pieces_whole(spans, conversation.system),
        question_whole=_pieces_whole(spans, conversation.question),
        summary=summary,
    )


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
