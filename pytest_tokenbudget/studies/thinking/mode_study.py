"""A thinking budget as a study of its own: every answer as it ends when the budget is enforced."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.studies.thinking.forced_answers import (
    ForcedAnswerKey,
    closing_text,
    ended_trace,
    ended_within,
    forced_trace,
)

if TYPE_CHECKING:
    from pytest_tokenbudget.core.trace import Trace
    from pytest_tokenbudget.studies.thinking.study import ThinkingStudy
    from pytest_tokenbudget.tasks.problem import Problem

KIND = "mode"


def mode_study(
    thinking: ThinkingStudy, thinking_budget: int, budgets: tuple[int, ...], reach: int
) -> Study:
    """The answers under a thinking budget, cut at budgets of all output tokens.

    Thinking is ended at its budget by the default closer, and the answer has the room that forced
    answers have. Both are counted, as in the thinking eval; the closer is not.

    Args:
        thinking: The thinking study, with forced answers at ``thinking_budget``.
        thinking_budget: Tokens that the model may think.
        budgets: Budgets in output tokens.
        reach: Output tokens up to which answers are looked at, where that is beyond the budgets.
    """
    return thinking.cached(_make, thinking, thinking_budget, budgets, reach)


def _make(
    thinking: ThinkingStudy, thinking_budget: int, budgets: tuple[int, ...], reach: int
) -> Study:
    natural = thinking.natural
    found = {p.id: _trace(thinking, p, thinking_budget) for p in natural.problems}
    return Study(
        alias=natural.alias,
        identity=natural.identity,
        task=natural.task,
        problems=natural.problems,
        traces={(pid, 0): trace for pid, trace in found.items() if trace is not None},
        samples=1,
        thinking=natural.thinking,
        mode="thinking",
        budgets=budgets,
        margin=natural.margin,
        decoding=natural.decoding,
        reach=reach,
        kind=KIND,
        cliff_budgets=natural.cliff_budgets,
        price=natural.price,
    )


def _trace(thinking: ThinkingStudy, problem: Problem, budget: int) -> Trace | None:
    natural = thinking.natural.traces.get((problem.id, 0))
    if natural is None or not natural.covers(thinking.natural.reach):
        return None
    place = ForcedAnswerKey(thinking.closers[0], budget, problem.id)
    if place in thinking.wanted:
        going = thinking.forced.get(place)
        closing = closing_text(natural, budget, thinking.format, thinking.forcing.closers[0])
        if going is None or closing is None:
            return None
        return forced_trace(natural, going.trace, *closing)
    at = ended_within(natural, budget, thinking.format) or 0
    return ended_trace(natural, min(at + thinking.forcing.answer_tokens, thinking.natural.reach))
