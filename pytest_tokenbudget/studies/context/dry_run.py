"""What the context eval would generate: an answer to every window, and the summaries in some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_tokenbudget.core.context_plan import Cell, WindowFacts, WindowKey
from pytest_tokenbudget.core.store import StoredPrompt
from pytest_tokenbudget.core.trace import StopReason, Trace
from pytest_tokenbudget.dry_run.parts import (
    DryRunPlanner,
    EarlierTraces,
    PlannedPart,
    Wanted,
    past_of,
    weakest,
)
from pytest_tokenbudget.dry_run.prompt_counts import LengthSource, PromptLength
from pytest_tokenbudget.engines.planning import Kind, SetupError
from pytest_tokenbudget.settings.context_limits import ContextError
from pytest_tokenbudget.studies.context.plan import all_cases, arms_in_use, fit_context
from pytest_tokenbudget.studies.context.study import window_facts

if TYPE_CHECKING:
    from pytest_tokenbudget.core.plan import Plan
    from pytest_tokenbudget.studies.context.conversations import ConversationCase
    from pytest_tokenbudget.tasks.problem import Problem

SUMMARY = "summary"


def context_parts(planner: DryRunPlanner) -> list[PlannedPart]:
    """The parts of the context eval.

    Raises:
        SetupError: If it cannot be made, or the model's context is not known yet.
    """
    if planner.spec.context is None:
        raise SetupError(f"{planner.spec.alias}: its context is not known before it is downloaded")
    plan = planner.plan(Kind.CONTEXT)
    lengths: dict[str, PromptLength] = {}

    def measure(problems: Sequence[Problem]) -> dict[str, int]:
        new = [problem for problem in problems if problem.id not in lengths]
        lengths.update(planner.lengths(plan, new, planner.rendered(plan, new)))
        return {problem.id: lengths[problem.id].tokens for problem in problems}

    try:
        plan = fit_context(
            plan,
            planner.settings,
            planner.session.task,
            arms=arms_in_use(planner.session, planner.spec),
            measure=measure,
            context=planner.spec.context,
        )
        assert plan.context_plan is not None
        cases = all_cases(plan.context_plan, planner.session.task)
    except ContextError as error:
        raise SetupError(f"{planner.spec.alias}: {error}") from error
    known = weakest(lengths[each.problem.id] for each in cases)
    notes = ["which conversations fit is estimated, too"] if known is LengthSource.ESTIMATED else []
    facts = window_facts(planner.store, plan, cases)
    keys = {each.key for each in facts.values() if each.key}
    traces = planner.store.load(
        {key: (key, 0) for key in keys}, {key: StoredPrompt((), False) for key in keys}, plan.cap
    )
    stored = {key: trace for (key, _), trace in traces.items()}
    wanted = {
        each.key: each
        for one in cases
        for cell in plan.context_plan.cells
        if (
            each := _wanted(
                plan, one, cell, facts=facts, stored=stored, whole=lengths[one.problem.id].tokens
            )
        )
    }
    past = past_of([t for t in stored.values() if t.stop_reason is not StopReason.ERROR], plan)
    parts = [
        planner.part(
            plan, list(wanted.values()), known=known, past=past or EarlierTraces(), notes=notes
        )
    ]
    lacking = {each.key for each in wanted.values() if each.trace is None or planner.settings.fresh}
    summaries = _summaries(planner, plan, cases, lengths=lengths, lacking=lacking, facts=facts)
    return [*([summaries] if summaries else []), *parts]


def _wanted(
    plan: Plan,
    case: ConversationCase,
    cell: Cell,
    *,
    facts: dict[WindowKey, WindowFacts],
    stored: dict[str, Trace],
    whole: int,
) -> Wanted | None:
    """The answer to a window; None where there is no window."""
    place = WindowKey(case.problem.id, cell)
    noted = facts.get(place)
    if noted is None:
        prompt = min(whole, cell.context_limit.tokens_of(whole)) or whole
        return Wanted(f"{case.problem.id} {cell}", prompt, plan.cap)
    if not noted.key:
        return None
    return Wanted(noted.key, noted.tokens, plan.cap, stored.get(noted.key))


def _summaries(
    planner: DryRunPlanner,
    plan: Plan,
    cases: Sequence[ConversationCase],
    *,
    lengths: dict[str, PromptLength],
    lacking: set[str],
    facts: dict[WindowKey, WindowFacts],
) -> PlannedPart | None:
    """Summaries of what does not fit, each at most as long as its window."""
    assert plan.context_plan is not None
    wanted = []
    for cell in plan.context_plan.cells:
        if cell.strategy.partition("=")[0] != SUMMARY:
            continue
        for one in cases:
            whole = lengths[one.problem.id].tokens
            limit = min(cell.context_limit.tokens_of(whole) or whole, whole)
            noted = facts.get(WindowKey(one.problem.id, cell))
            key = noted.key if noted else f"{one.problem.id} {cell}"
            if limit < whole and key in lacking:
                wanted.append(Wanted(f"summary of {key} {one.problem.id} {cell}", whole, limit))
    if not wanted:
        return None
    most = max(each.cap for each in wanted)
    stage = replace(plan, kind=Kind.SUMMARY.value, budgets=(most,), context_plan=None)
    known = weakest(lengths.values())
    notes = ["each at most as long as its window; fewer where windows need none"]
    return planner.part(stage, wanted, known=known, past=EarlierTraces(), notes=notes)
