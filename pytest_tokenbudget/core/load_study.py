"""From a plan and the store to a study, without a model."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_tokenbudget.core.plan import Plan
from pytest_tokenbudget.core.store import StoredPrompt, TraceStore
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.tasks.base import Task
from pytest_tokenbudget.tasks.problem import Problem


def load_study(store: TraceStore, plan: Plan, task: Task, problems: Sequence[Problem]) -> Study:
    """The study of a plan with the traces that are there, all or not.

    Args:
        store: Holds prompts and traces.
        plan: What was planned.
        task: Scores the answers.
        problems: The problems of the plan.
    """
    prompts = _prompts(store, plan, problems)
    traces = store.load(plan.names(problems, prompts), prompts, plan.cap)
    return Study(
        alias=plan.alias,
        identity=plan.identity,
        task=task,
        problems=tuple(problems),
        traces=traces,
        samples=plan.samples,
        thinking=plan.format,
        mode=plan.mode,
        budgets=plan.budgets,
        margin=plan.margin,
        left_out=plan.left_out,
        decoding=plan.decoding,
        reach=plan.cap,
        kind=plan.kind,
        cliff_budgets=plan.cliff_budgets,
    )


def tokens_generated(store: TraceStore, plan: Plan, problems: Sequence[Problem]) -> int:
    """Output tokens that the store's run generated for a plan."""
    names = plan.names(problems, _prompts(store, plan, problems))
    return store.generated(plan.model, names)[1]


def _prompts(store: TraceStore, plan: Plan, problems: Sequence[Problem]) -> dict[str, StoredPrompt]:
    renders = plan.renders(problems)
    known = store.prompts(plan.model, list(dict.fromkeys(renders.values())))
    return {pid: known[key] for pid, key in renders.items() if key in known}
