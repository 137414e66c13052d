"""From a plan of the context eval and the store to its study, without a model or a tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_tokenbudget.core.context_plan import WHOLE_CELL, WindowFacts, WindowKey
from pytest_tokenbudget.core.plan import Plan
from pytest_tokenbudget.core.store import StoredPrompt, TraceStore
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.core.trace import Trace
from pytest_tokenbudget.engines.planning import Kind
from pytest_tokenbudget.studies.context.conversations import ConversationCase
from pytest_tokenbudget.studies.context.plan import all_posed, arms_task
from pytest_tokenbudget.studies.context.study import ContextStudy
from pytest_tokenbudget.tasks.base import Task

if TYPE_CHECKING:
    from pytest_tokenbudget.models.resolution import ModelSpec
    from pytest_tokenbudget.session import Session


def stored_context(
    session: Session, spec: ModelSpec, plan: Plan, plans: Sequence[Plan]
) -> tuple[ContextStudy, int]:
    """The context study of a plan as it is stored, and the tokens that this run generated for it.

    Args:
        session: The state of this pytest process.
        spec: The model.
        plan: The plan.
        plans: All plans of the run.
    """
    made = session.cached_study(spec, Kind.CONTEXT)
    study: ContextStudy = made or load_context(session.store, plan, session.task)
    return study, study.tokens_in_run


def load_context(store: TraceStore, plan: Plan, task: Task) -> ContextStudy:
    """The context study of a plan with the traces that are there, all or not.

    Args:
        store: Holds windows and traces.
        plan: What was planned.
        task: The task that is posed after small talk.

    Raises:
        TaskError: If the task's problems cannot be had.
    """
    assert plan.context_plan is not None
    posed = all_posed(plan.context_plan, task)
    facts = window_facts(store, plan, posed)
    opens = {each.key: each.opens for each in facts.values() if each.key}
    summaries = {each.written for each in facts.values() if each.written}
    traces = store.load(
        {key: (key, 0) for key in opens},
        # What was asked is known from the window; its ids are not needed to judge an answer.
        {key: StoredPrompt((), opened) for key, opened in opens.items()},
        plan.cap,
    )
    answered = {
        place: traces[each.key, 0] for place, each in facts.items() if (each.key, 0) in traces
    }
    return ContextStudy(
        whole=_whole(plan, task, answered),
        context_plan=plan.context_plan,
        posed=posed,
        facts=facts,
        traces=answered,
        tokens_in_run=store.generated(plan.model, {*opens, *summaries})[1],
        task_name=task.name,
    )


def window_facts(
    store: TraceStore, plan: Plan, posed: Sequence[ConversationCase]
) -> dict[WindowKey, WindowFacts]:
    """What is kept of windows that were made before.

    Args:
        store: Holds them.
        plan: What was planned.
        posed: The conversations.
    """
    assert plan.context_plan is not None
    keys = {
        plan.window_key(each.problem, cell): WindowKey(each.problem.id, cell)
        for each in posed
        for cell in plan.context_plan.cells
    }
    noted = store.windows(plan.model, list(keys))
    return {keys[key]: WindowFacts(**values) for key, values in noted.items()}


def _whole(plan: Plan, task: Task, answered: dict[WindowKey, Trace]) -> Study:
    assert plan.context_plan is not None
    arms = arms_task(plan.context_plan, task)
    return Study(
        alias=plan.alias,
        identity=plan.identity,
        task=arms,
        problems=arms.problems(),
        traces={
            (place.problem_id, 0): trace
            for place, trace in answered.items()
            if place.cell == WHOLE_CELL
        },
        samples=1,
        thinking=plan.format,
        mode=plan.mode,
        budgets=plan.budgets,
        margin=plan.margin,
        decoding=plan.decoding,
        kind=plan.kind,
    )
