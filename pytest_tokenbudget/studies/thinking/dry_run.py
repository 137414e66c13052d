"""What the thinking eval would generate: natural traces, thinking off, forced answers, "Wait".

Forced answers go on from natural traces, so how many there will be is only known where these are
stored. Until then every budget and closer counts for every problem.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

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
from pytest_tokenbudget.engines.planning import Kind
from pytest_tokenbudget.stats.tokens import Forecast, sum_forecasts
from pytest_tokenbudget.studies.thinking.forced_answers import (
    closing_texts,
    forced_answers,
    load_continuations,
    plan_texts,
    text_ids,
)
from pytest_tokenbudget.studies.thinking.options import ThinkingOptions
from pytest_tokenbudget.studies.thinking.plan import (
    NoThinkingError,
    choose_closers,
    fit_thinking,
    largest_mode,
    only_modes,
    thinking_settings,
)

if TYPE_CHECKING:
    from pytest_tokenbudget.core.plan import Plan
    from pytest_tokenbudget.studies.thinking.forced_answers import Ids
    from pytest_tokenbudget.tasks.problem import Problem

    Natural = Mapping[tuple[str, int], Trace]


def thinking_parts(planner: DryRunPlanner) -> list[PlannedPart]:
    """The parts of the thinking eval.

    Raises:
        NoThinkingError: If the model is not known to think, or cannot be gone on from.
        SetupError: If the eval cannot be made.
    """
    spec, settings = planner.spec, thinking_settings(planner.session, planner.spec)
    if not planner.goes_on:
        raise NoThinkingError(
            f"{spec.alias} takes chat messages and no token ids, so its thinking cannot be gone on "
            "from"
        )
    closers = choose_closers(settings, spec)[: 1 if only_modes(planner.session) else None]
    assert spec.thinking is not None
    problems = planner.session.problems
    plan = planner.plan(Kind.THINKING, settings=settings)
    rendered = planner.rendered(plan, problems)
    lengths = planner.lengths(plan, problems, rendered)
    put_in = closing_texts(closers, settings.of_eval(ThinkingOptions).wait, spec.thinking)
    ids = text_ids(planner.store, plan, put_in, None)
    inserts = [
        PromptLength(len(ids[text]), LengthSource.STORED)
        if text in ids
        else planner.counter.text(text)
        for text in put_in
    ]
    known = weakest([*lengths.values(), *inserts])
    # Where lengths are estimates the most that there could be room for is taken.
    sure = known is not LengthSource.ESTIMATED
    plan = fit_thinking(
        plan,
        spec,
        settings,
        closers,
        insert=max(each.tokens for each in inserts) if sure else 1,
        longest=max(each.tokens for each in lengths.values()) if sure else 1,
        context=spec.context or 2**20,
        largest_mode=largest_mode(planner.session, spec),
    )
    wanted = planner.wanted(plan, problems, rendered, lengths)
    natural = planner.part(plan, wanted, known=known, past=planner.past(plan))
    parts = [natural]
    if plan.thinking is not None and not only_modes(planner.session):
        parts.append(_off(planner, plan, problems))
    stored_traces = planner.store.load(plan.names(problems, rendered), rendered, plan.cap)
    usable = {
        place: trace
        for place, trace in stored_traces.items()
        if trace.stop_reason is not StopReason.ERROR
        and trace.covers(plan.cap)
        and not settings.fresh
    }
    # The closers' ids are needed to know the prompts of forced answers.
    ids = text_ids(planner.store, plan, plan_texts(plan), None)
    whole = len(ids) == len(set(plan_texts(plan)))
    parts.append(_forced(planner, natural, usable if whole else {}, ids))
    if settings.of_eval(ThinkingOptions).wait:
        parts.append(_waits(planner, natural))
    return parts


def _off(planner: DryRunPlanner, natural: Plan, problems: Sequence[Problem]) -> PlannedPart:
    plan = planner.plan(Kind.OFF)
    rendered = planner.rendered(plan, problems)
    lengths = planner.lengths(plan, problems, rendered)
    known = weakest(lengths.values())
    reach = natural.cap
    if planner.spec.context is not None and known is not LengthSource.ESTIMATED:
        reach = min(reach, planner.spec.context - max(each.tokens for each in lengths.values()))
    plan = replace(plan, budgets=(reach,), left_out=(), reach=reach)
    wanted = planner.wanted(plan, problems, rendered, lengths)
    return planner.part(plan, wanted, known=known, past=planner.past(plan))


def _forced(
    planner: DryRunPlanner, natural: PlannedPart, stored_traces: Natural, ids: Mapping[str, Ids]
) -> PlannedPart:
    plan = natural.plan
    forcing = plan.forcing
    assert forcing is not None
    problems = planner.session.problems
    answers = replace(
        plan, kind=Kind.FORCED.value, budgets=(forcing.answer_tokens,), reach=0, forcing=None
    )
    goings = forced_answers(plan, problems, stored_traces, ids) if stored_traces else {}
    by_key = {going.key: going for going in goings.values()}
    stored = load_continuations(planner.store, by_key, opens=False)
    wanted = [
        Wanted(key, len(going.branch.prompt_ids), going.cap, stored.get(key))
        for key, going in by_key.items()
    ]
    past = past_of([t for t in stored.values() if t.stop_reason is not StopReason.ERROR], answers)
    part = planner.part(answers, wanted, known=natural.known, past=past)
    lacking = [problem for problem in problems if (problem.id, 0) not in stored_traces]
    if not lacking:
        return part
    unknown = _unknown_answers(natural, lacking, len(by_key), len(stored_traces), past)
    return replace(
        part,
        traces=part.traces + unknown.traces,
        at_most=part.at_most + unknown.at_most,
        forecast=sum_forecasts([part.forecast, unknown.forecast] if wanted else [unknown.forecast]),
        prompt_tokens=part.prompt_tokens + unknown.prompt_tokens,
        expected_prompt_tokens=part.expected_prompt_tokens + unknown.expected_prompt_tokens,
        longest=max(part.longest, unknown.longest),
        notes=(*part.notes, *unknown.notes),
    )


def _unknown_answers(
    natural: PlannedPart,
    lacking: Sequence[Problem],
    known: int,
    stored_traces: int,
    past: EarlierTraces,
) -> PlannedPart:
    """Forced answers to natural traces that are still to come."""
    forcing = natural.plan.forcing
    assert forcing is not None
    each = len(forcing.budgets) * len(forcing.closers)
    count = each * len(lacking)
    expected = None
    # As large a share as of the traces that are there goes on beyond the budgets.
    share = known / (stored_traces * each) if stored_traces else 1.0
    if stored_traces and past.lengths:
        mean = sum(past.lengths) / len(past.lengths)
        tokens = share * count * mean
        expected = Forecast(tokens, 0.0, float(count * forcing.answer_tokens), len(past.lengths))
    prompts = (
        len(forcing.closers)
        * len(lacking)
        * sum(natural.longest + budget for budget in forcing.budgets)
    )
    return PlannedPart(
        plan=natural.plan,
        traces=count,
        stored=0,
        extended=0,
        at_most=count * forcing.answer_tokens,
        forecast=expected,
        prompt_tokens=prompts,
        expected_prompt_tokens=share * prompts,
        longest=natural.longest + max(forcing.budgets),
        known=natural.known,
        notes=(
            "fewer where thinking ends by itself within a budget, which only its traces will tell",
        ),
    )


def _waits(planner: DryRunPlanner, natural: PlannedPart) -> PlannedPart:
    """Rounds of "Wait": each has at most what the one before was allowed."""
    plan = natural.plan
    assert plan.forcing is not None
    rounds = plan.forcing.waits
    problems = planner.session.problems
    count = rounds * len(problems)
    stage = replace(plan, kind=Kind.WAIT.value, forcing=None)
    return PlannedPart(
        plan=stage,
        traces=count,
        stored=0,
        extended=0,
        at_most=count * plan.cap,
        forecast=None,
        prompt_tokens=count * (natural.longest + plan.cap),
        expected_prompt_tokens=float(count * (natural.longest + plan.cap)),
        longest=natural.longest + plan.cap,
        known=natural.known,
        notes=("fewer where thinking does not end, or is stored; it is not looked at which",),
    )
