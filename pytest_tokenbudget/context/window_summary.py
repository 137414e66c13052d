"""A summary in place of the turns that do not fit, written by whoever is asked for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pytest_tokenbudget.common.messages import described
from pytest_tokenbudget.context.chat import Message
from pytest_tokenbudget.context.conversation import SYSTEM_ROLES, Conversation, Piece
from pytest_tokenbudget.context.window import ContextWindow, Strategy, fits
from pytest_tokenbudget.context.window_strategies import (
    STRATEGIES,
    KeepEnds,
    check_share,
    count,
    newest_that_fit,
)
from pytest_tokenbudget.settings.context_limits import WITH_SHARE, ContextError
from pytest_tokenbudget.texts.sentences import sentences

INTRODUCTION = "Summary of the earlier conversation: "
SHARE = 0.25


class SummaryRequest(NamedTuple):
    """Messages, or parts of them, that are to be summarised because they do not fit.

    ``tokens`` is how long the summary may be; a longer one is cut.
    """

    messages: tuple[Message, ...]
    tokens: int


Summarise = Callable[[SummaryRequest], str]


class Summary(Strategy):
    """The system prompt, a summary of the older turns and as many of the newest as fit, whole.

    The summary stands at the end of the system prompt; where there is none, before the first
    message. Too long a one loses its last sentences, or words where it has only one sentence.

    Args:
        summarise: Writes a summary. It is asked once a window: whoever poses it to a model keeps
            what the model wrote.
        share: Share of the limit that the summary may have, from 0 to 1, without the words that
            introduce it. What whole turns leave free comes on top.

    Raises:
        ContextError: If the share is not one.
    """

    def __init__(self, summarise: Summarise, share: float = SHARE) -> None:
        check_share("summary", share)
        self._summarise = summarise
        self.share = share
        self.name = "summary" if share == SHARE else f"summary={share:g}"

    def request(self, conversation: Conversation, limit: int) -> SummaryRequest | None:
        """What the strategy would ask for, so that all summaries can be written in one go.

        Returns:
            None where no summary is needed, or not one token of it fits.

        Raises:
            ContextError: If the limit is too small for what must stay.
        """
        if fits(conversation, limit):
            return None
        return self._request(conversation, limit, self._kept(conversation, limit))

    def truncated(
        self, conversation: Conversation, limit: int, context: int | None
    ) -> ContextWindow:
        kept = self._kept(conversation, limit)
        request = self._request(conversation, limit, kept)
        written = self._summarise(request).strip() if request else ""
        messages = conversation.compose(kept)
        summary = _longest_that_fits(conversation, messages, written, limit)
        return self.window_of_pieces(
            conversation,
            limit,
            context,
            kept,
            posed=_with(messages, summary) if summary else messages,
            summary=summary,
        )

    def _kept(self, conversation: Conversation, limit: int) -> list[Piece]:
        fixed = [*conversation.system, *conversation.newest]
        needed = count(conversation, fixed)
        if not fixed or needed > limit:
            return newest_that_fit(conversation, limit, self.name).pieces
        introduced = _with(conversation.compose(fixed), "")
        introduction = len(conversation.chat.render(introduced).ids) - needed
        others = limit - round(limit * self.share) - introduction
        # Where its share would push out what must stay, the summary gets what that leaves.
        return fixed if needed > others else newest_that_fit(conversation, others, self.name).pieces

    def _request(
        self, conversation: Conversation, limit: int, kept: list[Piece]
    ) -> SummaryRequest | None:
        there = set(kept)
        gone = [piece for unit in conversation.units for piece in unit if piece not in there]
        bare = _with(conversation.compose(kept), "")
        tokens = limit - len(conversation.chat.render(bare).ids)
        return SummaryRequest(conversation.compose(gone), tokens) if gone and tokens > 0 else None


def _with(messages: tuple[Message, ...], summary: str) -> tuple[Message, ...]:
    """The messages with a summary in the first."""
    first, *others = messages
    content = first["content"]
    said = INTRODUCTION + summary
    parts = (content, said) if first["role"] in SYSTEM_ROLES else (said, content)
    return {**first, "content": "\n\n".join(part for part in parts if part)}, *others


def _longest_that_fits(
    conversation: Conversation, messages: tuple[Message, ...], summary: str, limit: int
) -> str:
    """As much of the beginning of a summary as fits: sentences, or words of a single one."""

    def longest(ends: list[int]) -> str:
        low, high = 0, len(ends)
        while low < high:
            middle = (low + high + 1) // 2
            prompt = conversation.chat.render(_with(messages, summary[: ends[middle - 1]].rstrip()))
            low, high = (middle, high) if len(prompt.ids) <= limit else (low, middle - 1)
        return summary[: ends[low - 1]].rstrip() if low else ""

    if not summary:
        return ""
    ends = [end for _, end in sentences(summary)]
    words = [i for i, sign in enumerate(summary[: ends[0]]) if sign.isspace()]
    return longest(ends) or longest(words)


def named_strategy(name: str, summarise: Summarise | None = None) -> Strategy:
    """The strategy that a name means: ``newest``, ``ends=0.25``, ``summary``, and so on.

    Args:
        name: Its name, with a share behind ``=`` where it has one.
        summarise: Writes summaries, for ``summary``.

    Raises:
        ContextError: If there is no such strategy, or it cannot be made of what was given.
    """
    if not isinstance(name, str):
        raise ContextError(f"the name of a strategy must be a text, not {described(name)}")
    base, equals, share = name.strip().partition("=")
    if base == "summary" or (base == "ends" and equals):
        value = _share(name, share) if equals else SHARE
        if base == "ends":
            return KeepEnds(value)
        if summarise is None:
            raise ContextError("strategy summary: nothing was given that writes summaries")
        return Summary(summarise, value)
    if base not in STRATEGIES or equals:
        what = "has no share" if base in STRATEGIES else "is not known"
        raise ContextError(
            f"truncation strategy {name!r} {what}; allowed are "
            f"{', '.join((*STRATEGIES, 'summary'))}, and a share for "
            f"{' and '.join(WITH_SHARE)} (ends=0.25)"
        )
    return STRATEGIES[base]()


def _share(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ContextError(
            f"truncation strategy {name!r}: {text!r} is no number from 0 to 1"
        ) from None
