"""What the context eval poses to a model: conversations as long as its context has room for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_tokenbudget.core.context_plan import ContextPlan
from pytest_tokenbudget.engines.planning import Kind, SetupError
from pytest_tokenbudget.settings.context_limits import (
    WHOLE,
    ContextError,
    generation_cap,
    prompt_room,
)
from pytest_tokenbudget.settings.options import Settings
from pytest_tokenbudget.studies.context.conversations import (
    COUNTS,
    Arm,
    ArmsTask,
    ConversationCase,
    conversations,
)
from pytest_tokenbudget.studies.context.options import ContextOptions
from pytest_tokenbudget.tasks.registry import load_task

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_tokenbudget.core.plan import Plan
    from pytest_tokenbudget.models.resolution import ModelSpec
    from pytest_tokenbudget.session import Session
    from pytest_tokenbudget.tasks.base import Task
    from pytest_tokenbudget.tasks.problem import Problem

SHORTEST = 8
LENGTHS = 4
# Conversations whose lengths say how long those of so many turns become.
TRIED = 4
MOST_TURNS = 2**16


def arms_of(task: Task) -> dict[Arm, Task]:
    """The task of each arm; a task that is one of the others has none of its own."""
    arms = {Arm.RECALL: load_task(Arm.RECALL), Arm.MULTI_HOP: load_task(Arm.MULTI_HOP)}
    return arms if task.name in {*Arm} - {Arm.TASK} else {**arms, Arm.TASK: task}


def context_arms(session: Session, spec: ModelSpec) -> tuple[str, ...]:
    """What conversations ask for, as tests run for it."""
    return tuple(arm.value for arm in arms_of(session.task))


def strategies(session: Session, spec: ModelSpec) -> tuple[str, ...]:
    """The truncation strategies that tests run for."""
    return session.settings.of_eval(ContextOptions).truncation


def context_limits(session: Session, spec: ModelSpec) -> tuple[str, ...]:
    """The context limits that tests run for; the whole conversation is always one."""
    return (*session.settings.of_eval(ContextOptions).context_limits, str(WHOLE))


def arms_in_use(session: Session, spec: ModelSpec) -> set[str]:
    """The arms that the selected tests need; all if none was noted."""
    need = session.needs.get((spec.alias, Kind.CONTEXT))
    named = need.parts.get("context_arm") if need is not None else None
    return named or set(context_arms(session, spec))


def all_cases(context_plan: ContextPlan, task: Task) -> tuple[ConversationCase, ...]:
    """The conversations of a plan, arm by arm; those that are too long are left out.

    Raises:
        TaskError: If the task's problems cannot be had.
    """
    left_out = frozenset(context_plan.left_out)
    return tuple(
        case
        for arm in arms_of(task)
        if arm in context_plan.counts
        for case in conversations(arm, context_plan.turns, context_plan.counts[arm.value], task)
        if case.problem.id not in left_out
    )


def arms_task(context_plan: ContextPlan, task: Task) -> ArmsTask:
    """The tasks of all arms as one."""
    return ArmsTask(arms_of(task), all_cases(context_plan, task))


def fit_context(
    plan: Plan,
    settings: Settings,
    task: Task,
    *,
    arms: Collection[str],
    measure: Callable[[Sequence[Problem]], Mapping[str, int]],
    context: int,
) -> Plan:
    """The plan with conversations, limits and answers as the context has room.

    Args:
        plan: The plan.
        settings: What was asked for.
        task: The task whose problems are posed after small talk.
        arms: The arms that are needed.
        measure: Tokens of the prompts that problems make, by id.
        context: Tokens that prompt and output may have together.

    Raises:
        SetupError: If no conversation fits.
        TaskError: If the task's problems cannot be had.
    """
    try:
        room = prompt_room(context, settings.answer_tokens)
        answer = generation_cap(context, room, settings.answer_tokens)
    except ContextError as error:
        raise SetupError(f"{plan.alias}: {error}") from error
    options = settings.of_eval(ContextOptions)
    turns = options.context_turns or _turns(task, measure, room)
    counts = {
        arm.value: settings.num_samples or COUNTS[arm] for arm in arms_of(task) if arm in arms
    }
    context_plan = ContextPlan(
        limits=options.context_limits,
        strategies=options.truncation,
        turns=turns,
        counts=counts,
        left_out=(),
        room=room,
        answer_tokens=answer,
        context=context,
    )
    lengths = measure([each.problem for each in all_cases(context_plan, task)] if turns else [])
    left_out = tuple(name for name, length in lengths.items() if length > room)
    if len(left_out) == len(lengths):
        asked = f" of {', '.join(map(str, turns))} turns" if turns else ""
        raise SetupError(
            f"{plan.alias}: no conversation{asked} fits: its context of {context:,} tokens leaves "
            f"{room:,} for a prompt. Choose fewer --context-turns or --answer-tokens, or a task "
            "with shorter prompts."
        )
    return replace(
        plan,
        budgets=(answer,),
        left_out=(),
        context_plan=replace(context_plan, left_out=left_out),
    )


def _turns(
    task: Task, measure: Callable[[Sequence[Problem]], Mapping[str, int]], room: int
) -> tuple[int, ...]:
    """Powers of two up to what the context has room for, the longest four."""
    fitting: list[int] = []
    turns = SHORTEST
    while turns <= MOST_TURNS:
        tried = [
            each.problem
            for arm in arms_of(task)
            for each in conversations(arm, (turns,), TRIED, task)
        ]
        if max(measure(tried).values()) > room:
            break
        fitting.append(turns)
        turns *= 2
    return tuple(fitting[-LENGTHS:])
