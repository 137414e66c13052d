"""Conversations that are posed whole and truncated: what is planned, and what is kept of a window.

A window is known by its conversation, the strategy and the limit. What of it a report needs is kept
in the store, so that neither tokenizer nor model is needed to judge it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from pytest_tokenbudget.context.conversation import Conversation
from pytest_tokenbudget.context.window import ContextWindow
from pytest_tokenbudget.settings.context_limits import WHOLE, ContextLimit
from pytest_tokenbudget.tasks.ruled import judge_contains

CUT_OVER_CHAT = "only messages can be posed over chat, and this window begins or ends inside one"


@dataclass(frozen=True)
class ContextPlan:
    """What the context eval poses.

    Attributes:
        limits: Context limits as they are written, without that for the whole conversation.
        strategies: Names of truncation strategies.
        turns: Filler turns of the conversations.
        counts: How many conversations each arm has.
        left_out: Ids of problems that are longer than the prompt may be.
        room: Tokens that a prompt may have.
        answer_tokens: Output tokens of an answer.
        context: Tokens that prompt and output may have together.
    """

    limits: tuple[str, ...]
    strategies: tuple[str, ...]
    turns: tuple[int, ...]
    counts: Mapping[str, int]
    left_out: tuple[str, ...]
    room: int
    answer_tokens: int
    context: int

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Every way in which a conversation is posed, the whole one first."""
        return (
            WHOLE_CELL,
            *(Cell(strategy, limit) for strategy in self.strategies for limit in self.limits),
        )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ContextPlan:
        values = dict(data)
        for name in ("limits", "strategies", "turns", "left_out"):
            values[name] = tuple(values[name])
        return cls(**values)


class Cell(NamedTuple):
    """A way to pose conversations: a strategy, empty for the whole one, and a limit as written."""

    strategy: str
    limit: str

    @property
    def context_limit(self) -> ContextLimit:
        return ContextLimit.read(self.limit)


WHOLE_CELL = Cell("", str(WHOLE))


class WindowKey(NamedTuple):
    """One conversation posed in one way."""

    problem_id: str
    cell: Cell


@dataclass(frozen=True)
class WindowFacts:
    """What is kept of a window.

    Attributes:
        key: Key of the trace that answers it; empty where there is no window.
        tokens: Tokens of the prompt as it is posed; ``original``, of the whole prompt.
        lost: Tokens of the whole prompt that are gone.
        messages_lost: Messages of which nothing is left.
        needed_whole: Whether all that the answer needs is there, be it in the summary; None where
            it cannot be told, or nothing is known to be needed.
        system_whole: Whether the system prompt is; None where there is none or it cannot be told.
        question_whole: The same of the question.
        bos_whole: Whether the prompt begins with the id that begins a sequence; None without one.
        summary: What stands in for what is gone; usually nothing.
        written: Key of the trace that wrote the summary; empty where none was asked for.
        opens: Whether the prompt opens a thinking block.
        impossible: Why there is no window; empty where there is one.
    """

    key: str = ""
    tokens: int = 0
    original: int = 0
    lost: int = 0
    messages_lost: int = 0
    needed_whole: bool | None = None
    system_whole: bool | None = None
    question_whole: bool | None = None
    bos_whole: bool | None = None
    summary: str = ""
    written: str = ""
    opens: bool = False
    impossible: str = ""

    def to_json(self) -> dict[str, object]:
        """A JSON-compatible form without what is as usual; ``WindowFacts(**form)`` reads it."""
        usual = WindowFacts()
        return {k: v for k, v in asdict(self).items() if v != getattr(usual, k)}


def window_facts(
    window: ContextWindow,
    conversation: Conversation,
    needed: Sequence[int],
    *,
    key: str,
    opens: bool,
    answer: str = "",
) -> WindowFacts:
    """What is kept of a window over a conversation.

    ``needed`` are indexes of messages that the answer needs; ``answer`` are words that stand for
    what is needed where a summary has them, none if empty. ``key`` is that of the trace that
    answers it.
    """
    return WindowFacts(
        key=key,
        tokens=len(window.ids),
        original=window.original_length,
        lost=window.dropped.tokens,
        messages_lost=len(window.dropped.messages),
        needed_whole=_whole(window, conversation, needed, answer),
        system_whole=window.system_whole,
        question_whole=window.question_whole,
        bos_whole=window.bos_whole,
        summary=window.summary,
        opens=opens,
    )


def _whole(
    window: ContextWindow, conversation: Conversation, needed: Sequence[int], answer: str
) -> bool | None:
    if not needed:
        return None
    if not window.truncated:
        return True
    if answer and judge_contains(answer, window.summary, truncated=False).correct:
        return True
    if not window.messages:
        # Tokens were cut: what of a message is gone can only be told where its place is known.
        for index in needed:
            if conversation.layout.tokens(*conversation.piece(index)) is None:
                return None
    return not {*window.dropped.messages, *window.dropped.shortened} & set(needed)
