"""Ways to make a conversation fit: which tokens, turns or sentences stay.

Strategies over tokens cut the rendered prompt, wherever that is. The others choose turns (passages
of a document), render the messages anew and count what comes out. They keep the system prompt and
the newest turn, and say so where these do not fit.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

from pytest_tokenbudget.common.messages import described
from pytest_tokenbudget.context.chat import Range
from pytest_tokenbudget.context.conversation import Conversation, Piece, Unit
from pytest_tokenbudget.context.window import (
    ContextWindow,
    Strategy,
    TokenStrategy,
)
from pytest_tokenbudget.settings.context_limits import ContextError

ENDS_SHARE = 0.5


class Newest(NamedTuple):
    """The newest part of a conversation, and how many turns were left out."""

    pieces: list[Piece]
    left_out: int


class _OverPieces(Strategy):
    """Renders parts of the messages anew."""

    @abstractmethod
    def pieces(self, conversation: Conversation, limit: int) -> Sequence[Piece]:
        """What stays of a conversation that does not fit."""

    def truncated(
        self, conversation: Conversation, limit: int, context: int | None
    ) -> ContextWindow:
        pieces = self.pieces(conversation, limit)
        return self.window_of_pieces(conversation, limit, context, pieces)


class KeepNewest(TokenStrategy):
    """The newest tokens, whatever that cuts."""

    name = "newest"

    def ranges(self, length: int, limit: int) -> Sequence[Range]:
        return [(length - limit, length)]


class KeepFirst(TokenStrategy):
    """The first tokens: the question, and the signs that it is the model's turn, go first."""

    name = "first"

    def ranges(self, length: int, limit: int) -> Sequence[Range]:
        return [(0, limit)]


class KeepEnds(TokenStrategy):
    """The first and the newest tokens; the middle goes.

    Args:
        share: Share of the limit that the beginning has, from 0 to 1.

    Raises:
        ContextError: If the share is not one.
    """

    def __init__(self, share: float = ENDS_SHARE) -> None:
        check_share("ends", share)
        self.share = share
        self.name = "ends" if share == ENDS_SHARE else f"ends={share:g}"

    def ranges(self, length: int, limit: int) -> Sequence[Range]:
        first = round(limit * self.share)
        return [(0, first), (length - (limit - first), length)]


class SystemNewest(_OverPieces):
    """The system prompt and as many of the newest turns as fit, whole."""

    name = "system-newest"

    def pieces(self, conversation: Conversation, limit: int) -> Sequence[Piece]:
        return newest_that_fit(conversation, limit, self.name).pieces


class SystemFirstNewest(_OverPieces):
    """The system prompt, the first turn and as many of the newest turns as fit, whole."""

    name = "system-first-newest"

    def pieces(self, conversation: Conversation, limit: int) -> Sequence[Piece]:
        return newest_that_fit(conversation, limit, self.name, first=1).pieces


class Sentences(_OverPieces):
    """The system prompt and the newest turns; the oldest of them loses its oldest sentences.

    Where not even the newest turn fits, it loses its own. One sentence of each of a turn's
    messages is the least that stays.
    """

    name = "sentences"

    def pieces(self, conversation: Conversation, limit: int) -> Sequence[Piece]:
        if count(conversation, [*conversation.system, *conversation.newest]) > limit:
            return self._shortened_newest(conversation, limit)
        pieces, left_out = newest_that_fit(conversation, limit, self.name)
        if not left_out:
            return pieces
        longest = conversation.units[left_out - 1]
        return self._largest(conversation, limit, longest, pieces) or pieces

    def _shortened_newest(self, conversation: Conversation, limit: int) -> Sequence[Piece]:
        found = self._largest(conversation, limit, conversation.newest, conversation.system)
        if found is not None:
            return found
        least = [conversation.newest, *conversation.shortened(conversation.newest)][-1]
        needed = count(conversation, [*conversation.system, *least])
        raise ContextError(
            f"strategy {self.name}: the system prompt and one sentence of each message of the "
            f"newest turn need {needed:,} tokens by themselves, and the limit is {limit:,}; raise "
            f"it, or take a strategy that cuts anywhere (newest, first, ends)"
        )

    def _largest(
        self, conversation: Conversation, limit: int, unit: Unit, rest: Sequence[Piece]
    ) -> Sequence[Piece] | None:
        """The rest with as many sentences of a unit as fit; None where not even the least."""
        shorter = [[*unit, *rest] for unit in conversation.shortened(unit)]
        found = _first_fitting(len(shorter), lambda i: count(conversation, shorter[i]) <= limit)
        return shorter[found] if found < len(shorter) else None


class Importance(_OverPieces):
    """The system prompt, the newest turn and the turns that have most to do with the question.

    By BM25 over the turns; of equals the newest comes first, so that the room is always used.
    """

    name = "importance"

    def pieces(self, conversation: Conversation, limit: int) -> Sequence[Piece]:
        units, scores = conversation.units, conversation.relevance
        order = sorted(range(len(units)), key=lambda i: (scores[i], i), reverse=True)
        ranked = [units[i] for i in order]
        fixed = [*conversation.system, *conversation.newest]

        def best(left_out: int) -> list[Piece]:
            return [*_flat(ranked[: len(ranked) - left_out]), *fixed]

        left_out = _first_fitting(len(units) + 1, lambda i: count(conversation, best(i)) <= limit)
        if left_out > len(units):
            _too_small(self.name, count(conversation, fixed), limit)
        too_long = len(ranked) - left_out
        return self._filled(conversation, limit, best(left_out), ranked[too_long + 1 :])

    def _filled(
        self, conversation: Conversation, limit: int, pieces: list[Piece], rest: Sequence[Unit]
    ) -> list[Piece]:
        """What fits behind the first turn that was too long, the best first."""
        used = count(conversation, pieces)
        # Each try renders a prompt: what the template adds to a turn is learned from those that
        # failed.
        added = 0
        for unit in rest:
            said = sum(
                tokens[1] - tokens[0]
                for piece in unit
                if (tokens := conversation.layout.tokens(*piece)) is not None
            )
            if used + said + added > limit:
                continue
            more = [*pieces, *unit]
            needed = count(conversation, more)
            if needed <= limit:
                pieces, used = more, needed
            else:
                added = needed - used - said if not added else min(added, needed - used - said)
        return pieces


def newest_that_fit(
    conversation: Conversation, limit: int, strategy: str, *, first: int = 0
) -> Newest:
    """The system prompt, the ``first`` turns and as many of the newest turns as fit.

    ``strategy`` is named in the error.

    Raises:
        ContextError: If what must stay does not fit.
    """
    begin, older = conversation.units[:first], conversation.units[first:]
    fixed = [*conversation.system, *_flat(begin), *conversation.newest]

    def newest(left_out: int) -> list[Piece]:
        return [*_flat(older[left_out:]), *fixed]

    left_out = _first_fitting(len(older) + 1, lambda i: count(conversation, newest(i)) <= limit)
    if left_out > len(older):
        _too_small(strategy, count(conversation, fixed), limit, "the first turn, " * bool(begin))
    return Newest(newest(left_out), left_out)


def _too_small(strategy: str, needed: int, limit: int, first_turn: str = "") -> NoReturn:
    raise ContextError(
        f"strategy {strategy}: the system prompt, {first_turn}and the newest turn need {needed:,} "
        f"tokens by themselves, and the limit is {limit:,}; raise it, or take a strategy that "
        f"cuts inside messages (sentences, newest, first, ends)"
    )


def count(conversation: Conversation, pieces: Sequence[Piece]) -> int:
    """Tokens of the prompt that some pieces make, special tokens included."""
    return len(conversation.chat.render(conversation.compose(pieces)).ids)


def check_share(strategy: str, share: float) -> None:
    """Raise a ContextError if a share is not between 0 and 1."""
    if isinstance(share, bool) or not isinstance(share, int | float):
        raise ContextError(f"strategy {strategy}: share must be a number, not {described(share)}")
    if not (math.isfinite(share) and 0 <= share <= 1):
        raise ContextError(f"strategy {strategy}: share {share:g} is not between 0 and 1")


def _first_fitting(length: int, good: Callable[[int], bool]) -> int:
    """The first of ``length`` that is good, where all after it are; ``length`` if none is."""
    return bisect_left(range(length), True, key=good)


def _flat(units: Sequence[Unit]) -> list[Piece]:
    return [piece for unit in units for piece in unit]


STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "newest": KeepNewest,
    "first": KeepFirst,
    "ends": KeepEnds,
    "system-newest": SystemNewest,
    "system-first-newest": SystemFirstNewest,
    "sentences": Sentences,
    "importance": Importance,
}
