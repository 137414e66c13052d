"""From the plans of a thinking eval and the store to its study, without a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_tokenbudget.core.plan import Plan
from pytest_tokenbudget.core.store import TraceStore
from pytest_tokenbudget.core.study import load_study
from pytest_tokenbudget.engines.planning import Kind
from pytest_tokenbudget.studies.thinking import forced_answers
from pytest_tokenbudget.studies.thinking.study import ContinuedTrace, ThinkingStudy
from pytest_tokenbudget.tasks.base import Task
from pytest_tokenbudget.tasks.problem import Problem

if TYPE_CHECKING:
    from pytest_tokenbudget.models.resolution import ModelSpec
    from pytest_tokenbudget.session import Session


def stored_thinking(
    session: Session, spec: ModelSpec, plan: Plan, plans: Sequence[Plan]
) -> tuple[ThinkingStudy, int]:
    """The thinking study of a plan as it is stored, and the tokens that this run generated for it.

    Args:
        session: The state of this pytest process.
        spec: The model.
        plan: The plan of the natural traces.
        plans: All plans of the run.
    """
    off = next((p for p in plans if (p.kind, p.alias) == (Kind.OFF, plan.alias)), None)
    made: ThinkingStudy | None = session.cached_study(spec, Kind.THINKING)
    study = made or load_thinking(session.store, plan, off, session.task, session.problems)
    study.natural.price = spec.price
    return study, study.tokens_in_run


def load_thinking(
    store: TraceStore, plan: Plan, off: Plan | None, task: Task, problems: Sequence[Problem]
) -> ThinkingStudy:
    """The thinking study of a plan with the traces that are there, all or not.

    Args:
        store: Holds prompts and traces.
        plan: The plan of the natural traces.
        off: That of the traces with thinking switched off, where there is one.
        task: Scores the answers.
        problems: The problems of the plan.
    """
    assert plan.forcing is not None
    natural = load_study(store, plan, task, problems)
    ids = forced_answers.text_ids(store, plan, forced_answers.plan_texts(plan), None)
    goings: dict[forced_answers.ForcedAnswerKey, forced_answers.Continuation] = {}
    waits: list[dict[str, ContinuedTrace]] = []
    keys: set[str] = set()
    answers: dict[forced_answers.ForcedAnswerKey, ContinuedTrace] = {}
    if len(ids) == len(set(forced_answers.plan_texts(plan))):
        goings = forced_answers.forced_answers(plan, problems, natural.traces, ids)
        by_key = {going.key: going for going in goings.values()}
        found = forced_answers.load_continuations(store, by_key, opens=False)
        keys.update(by_key)
        answers = {
            place: ContinuedTrace(
                forced_answers.with_problem(found[going.key], place.problem_id), going.branch.kept
            )
            for place, going in goings.items()
            if going.key in found
        }
        for one in forced_answers.wait_rounds(store, plan, problems, natural.traces, ids):
            keys.update(going.key for _, going in one.values())
            prompts = {p: len(natural.traces[p, 0].prompt_ids) for p in one}
            waits.append(
                {
                    pid: ContinuedTrace(
                        trace, len(going.branch.prompt_ids) - prompts[pid], going.cap
                    )
                    for pid, (trace, going) in one.items()
                }
            )
    for each in (plan, off) if off else (plan,):
        keys.update(own_keys(store, each, problems))
    return ThinkingStudy(
        natural=natural,
        off=load_study(store, off, task, problems) if off else None,
        forcing=plan.forcing,
        wanted=frozenset(goings),
        forced=answers,
        waits=tuple(waits),
        tokens_in_run=store.generated(plan.model, keys)[1],
        switchable=plan.thinking is not None,
    )


def own_keys(store: TraceStore, plan: Plan, problems: Sequence[Problem]) -> set[str]:
    """Keys of a plan's own traces."""
    renders = plan.renders(problems)
    known = store.prompts(plan.model, list(dict.fromkeys(renders.values())))
    return set(
        plan.names(problems, {pid: known[key] for pid, key in renders.items() if key in known})
    )
