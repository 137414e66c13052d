"""Modes: how a test lets the model think, and which answers that means.

``off`` and ``on`` switch thinking by the chat template. The modes of the allocation table and an
explicit number are thinking budgets: at the budget, thinking is ended by force and an answer
follows. ``disabled`` switches thinking off where the template can, and else is a budget of 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_tokenbudget.collection.selection import NO_THINKING
from pytest_tokenbudget.common.names import DISABLED, EXPLICIT, OFF, ON
from pytest_tokenbudget.engines.planning import Kind, Need
from pytest_tokenbudget.settings.option_values import MODES
from pytest_tokenbudget.studies.thinking.plan import NoThinkingError

if TYPE_CHECKING:
    from pytest_tokenbudget.core.plan import Forcing
    from pytest_tokenbudget.core.study import Study
    from pytest_tokenbudget.core.trace import Trace
    from pytest_tokenbudget.models.resolution import ModelSpec
    from pytest_tokenbudget.session import Session
    from pytest_tokenbudget.settings.options import Settings
    from pytest_tokenbudget.studies.thinking.study import ThinkingStudy
    from pytest_tokenbudget.tasks.problem import Problem


# The kind of a study of the answers in a mode.
MODE_KIND = "mode"


@dataclass(frozen=True)
class ThinkingMode:
    """A mode as it applies to one model.

    Attributes:
        name: One of ``--modes``, or ``explicit``.
        thinking: Whether the model thinks, for the switch of its chat template.
        thinking_budget: Tokens that it may think; None without a limit.
        reason: How the budget came about, for people.
    """

    name: str
    thinking: bool
    thinking_budget: int | None
    reason: str = ""

    def __str__(self) -> str:
        return self.name


def modes_under_test(settings: Settings) -> tuple[str, ...]:
    """The modes that a test runs for, if it asks for them."""
    explicit = (EXPLICIT,) if settings.max_thinking_tokens is not None else ()
    return (*(settings.modes or MODES), *explicit)


def mode_values(session: Session, spec: ModelSpec) -> tuple[str, ...]:
    """The modes that tests run for."""
    if spec.thinking is None and not spec.detect and session.recordings is None:
        return (NO_THINKING,)
    return modes_under_test(session.settings_of(spec))


def is_budget(name: str, spec: ModelSpec) -> bool:
    """Whether a mode means answers that are forced at a thinking budget."""
    if name == DISABLED:
        return not _has_switch(spec)
    return name not in (OFF, ON)


def study_kind(name: str, spec: ModelSpec, settings: Settings) -> Kind | None:
    """The study that holds a mode's answers; None where the model has none in that mode."""
    if spec.thinking is None:
        return None
    if is_budget(name, spec):
        return Kind.THINKING
    if _has_switch(spec):
        return Kind.MAIN if settings.thinking == (name == ON) else Kind.SWITCHED
    return Kind.MAIN if name == ON else None


def mode_for(session: Session, spec: ModelSpec, name: str) -> ThinkingMode:
    """A mode as it applies to a model.

    Raises:
        NoThinkingError: If the model has no answers in that mode.
        SetupError: If that cannot be found out.
    """
    if session.recordings is not None:
        return _recorded_mode(name, spec.alias, session.recordings.any_study(spec).mode)
    spec = session.looked_up(spec)
    if spec.thinking is None:
        raise NoThinkingError(
            f"mode {name}: {spec.alias} has no thinking format: it is not known to think"
        )
    if is_budget(name, spec):
        return _budget_mode(session, spec, name)
    if name == ON:
        return ThinkingMode(name, True, None, "no limit")
    if not _has_switch(spec):
        raise NoThinkingError(
            f"mode {name}: {spec.alias} always thinks, its chat template has no switch for it"
        )
    return ThinkingMode(name, False, 0, "switched off by the chat template")


def study_in_mode(session: Session, spec: ModelSpec, mode: ThinkingMode) -> Study:
    """The study of one model in a mode: its missing traces are generated first.

    Raises:
        SetupError: If it cannot be made.
    """
    from pytest_tokenbudget.studies.thinking.run import thinking_study_of

    if session.recordings is not None:
        return session.study(spec)
    kind = study_kind(mode.name, session.looked_up(spec), session.settings_of(spec))
    if kind is None or mode.thinking_budget is None or kind is not Kind.THINKING:
        return session.study(spec, kind or Kind.MAIN)
    need = session.needs.get((spec.alias, kind), Need(all_budgets=True))
    budgets = {*need.budgets, *(session.budgets(spec, Kind.MAIN) if need.all_budgets else ())}
    return mode_study(
        thinking_study_of(session, spec), mode.thinking_budget, tuple(sorted(budgets)), need.reach
    )


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
    return thinking.cached(_mode_study, thinking, thinking_budget, budgets, reach)


def _mode_study(
    thinking: ThinkingStudy, thinking_budget: int, budgets: tuple[int, ...], reach: int
) -> Study:
    from pytest_tokenbudget.core.study import Study

    natural = thinking.natural
    found = {p.id: _ended_trace(thinking, p, thinking_budget) for p in natural.problems}
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
        kind=MODE_KIND,
        cliff_budgets=natural.cliff_budgets,
        price=natural.price,
    )


def _ended_trace(thinking: ThinkingStudy, problem: Problem, budget: int) -> Trace | None:
    """An answer as it ends where thinking is ended at a budget; None where traces are missing."""
    from pytest_tokenbudget.studies.thinking.forced_answers import (
        ForcedAnswerKey,
        closing_text,
        ended_trace,
        ended_within,
        forced_trace,
    )

    natural = thinking.natural.traces.get((problem.id, 0))
    if natural is None or not natural.covers(thinking.natural.reach):
        return None
    place = ForcedAnswerKey(thinking.closers[0], budget, problem.id)
    if place in thinking.wanted:
        continuation = thinking.forced.get(place)
        closing = closing_text(natural, budget, thinking.format, thinking.forcing.closers[0])
        if continuation is None or closing is None:
            return None
        return forced_trace(natural, continuation.trace, *closing)
    at = ended_within(natural, budget, thinking.format) or 0
    return ended_trace(natural, min(at + thinking.forcing.answer_tokens, thinking.natural.reach))


def _budget_mode(session: Session, spec: ModelSpec, name: str) -> ThinkingMode:
    from pytest_tokenbudget.studies.thinking.run import plan_thinking

    def plan() -> Forcing:
        forcing = plan_thinking(session, spec).plan.forcing
        assert forcing is not None
        return forcing

    forcing = session.cached((spec.alias, "modes"), plan)
    found = next(each for each in forcing.modes if each.mode == name)
    if found.tokens is None:
        raise NoThinkingError(f"mode {name}: {spec.alias}: {found.reason}")
    return ThinkingMode(name, True, found.tokens, found.reason)


def _recorded_mode(name: str, alias: str, recorded: str) -> ThinkingMode:
    there = ON if recorded == "thinking" else OFF
    if name != there:
        raise NoThinkingError(
            f"mode {name}: {alias} was recorded with thinking {there}, and recorded answers cannot "
            "be generated anew"
        )
    return ThinkingMode(name, name == ON, None if name == ON else 0, "as recorded")


def _has_switch(spec: ModelSpec) -> bool:
    return spec.thinking is not None and spec.thinking.switch is not None
