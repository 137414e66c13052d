"""The traces of the thinking eval, stage by stage: natural, thinking off, forced, sent on.

Its study is loaded from the store without a model, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from pytest_tokenbudget.engines.planning import Kind, Need, make_plan
from pytest_tokenbudget.settings.endpoints import speaks_ids
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
    from pytest_tokenbudget.core.engine import Engine, Request
    from pytest_tokenbudget.core.plan import Plan
    from pytest_tokenbudget.core.store import StoredPrompt, TraceStore
    from pytest_tokenbudget.models.resolution import ModelSpec
    from pytest_tokenbudget.session import Session
    from pytest_tokenbudget.studies.thinking import forced_answers
    from pytest_tokenbudget.studies.thinking.forced_answers import Continuation, Ids, Traces
    from pytest_tokenbudget.studies.thinking.study import ContinuedTrace, ThinkingStudy
    from pytest_tokenbudget.tasks.base import Task
    from pytest_tokenbudget.tasks.problem import Problem


class Planned(NamedTuple):
    """What the thinking eval of a model generates.

    Attributes:
        spec: The model, with what its tokenizer says.
        plan: The plan of the natural traces.
        engine: Gives the engine.
    """

    spec: ModelSpec
    plan: Plan
    prompts: Mapping[str, StoredPrompt]
    engine: Callable[[], Engine]


def plan_thinking(session: Session, spec: ModelSpec) -> Planned:
    """Plan what the thinking eval of a model generates; only prompts are rendered for it.

    Raises:
        NoThinkingError: If the model is not known to think.
        SetupError: If the eval cannot be made.
    """
    from pytest_tokenbudget.core.gather import render
    from pytest_tokenbudget.models.resolution import complete
    from pytest_tokenbudget.studies.thinking.forced_answers import closing_texts, text_ids

    settings, store, problems = thinking_settings(session, spec), session.store, session.problems
    if spec.endpoint is not None and not speaks_ids(spec.endpoint):
        raise NoThinkingError(
            f"{spec.alias} takes chat messages and no token ids, so its thinking cannot be gone on "
            "from and ended by force; -m conformance tells which budgets its server keeps"
        )
    closers = choose_closers(settings, spec)[: 1 if only_modes(session) else None]
    plan = make_plan(settings, spec, Kind.THINKING, Need(), store=store, run=session.run)
    engine = session.engine_maker(spec, plan)
    prompts = render(store, plan, problems, engine)
    # What a hub model's tokenizer says of the tags is known once rendering has loaded it.
    spec = complete(spec)
    plan = replace(plan, format=spec.thinking)
    assert spec.thinking is not None
    waits = settings.of_eval(ThinkingOptions).wait
    inserts = text_ids(store, plan, closing_texts(closers, waits, spec.thinking), engine)
    plan = fit_thinking(
        plan,
        spec,
        settings,
        closers,
        insert=max(map(len, inserts.values())),
        longest=max(len(prompt.ids) for prompt in prompts.values()),
        context=spec.context or engine().context,
        largest_mode=largest_mode(session, spec),
    )
    return Planned(spec, plan, prompts, engine)


def thinking_study_of(session: Session, spec: ModelSpec) -> ThinkingStudy:
    """The thinking study of one model: its missing traces are generated first.

    Raises:
        NoThinkingError: If the model is not known to think, or cannot be asked.
        SetupError: If the study cannot be made. All are raised again on every further call.
    """

    def make() -> ThinkingStudy:
        if session.recordings is not None:
            raise NoThinkingError("what was recorded cannot be gone on from without the model")
        return make_thinking(session, session.looked_up(spec))

    return session.cached((spec.alias, Kind.THINKING), make)


def make_thinking(session: Session, spec: ModelSpec) -> ThinkingStudy:
    """Generate what is missing of the thinking eval of a model, and load all of it.

    Raises:
        NoThinkingError: If the model is not known to think.
        SetupError: If the eval cannot be made.
    """
    from pytest_tokenbudget.studies.thinking.forced_answers import (
        forced_answers,
        plan_texts,
        text_ids,
    )

    spec, plan, prompts, engine = plan_thinking(session, spec)
    store, problems = session.store, session.problems
    run = _Run(session, engine)
    run.gather(plan, plan.wants(problems, prompts))
    off = None if only_modes(session) else run.off(plan, spec)
    natural = store.load(plan.names(problems, prompts), prompts, plan.cap)
    ids = text_ids(store, plan, plan_texts(plan), engine)
    answers_to = forced_answers(plan, problems, natural, ids)
    assert plan.forcing is not None
    answers = replace(
        plan, kind=Kind.FORCED.value, budgets=(plan.forcing.answer_tokens,), reach=0, forcing=None
    )
    run.gather(answers, [each.want for each in answers_to.values()])
    run.waits(plan, natural, ids)
    return load_thinking(store, plan, off, session.task, problems)


class _Run:
    """What the stages have in common."""

    def __init__(self, session: Session, engine: Callable[[], Engine]) -> None:
        self.session, self.engine = session, engine

    def gather(self, plan: Plan, wants: Sequence[Request]) -> None:
        self.session.gather(plan, wants, self.engine)

    def off(self, natural: Plan, spec: ModelSpec) -> Plan | None:
        """Answers with thinking switched off, where the template has a switch."""
        from pytest_tokenbudget.core.gather import render

        if natural.thinking is None:
            return None
        session = self.session
        store, problems = session.store, session.problems
        plan = make_plan(
            session.settings_of(spec), spec, Kind.OFF, Need(), store=store, run=session.run
        )
        prompts = render(store, plan, problems, self.engine)
        room = (spec.context or self.engine().context) - max(
            len(prompt.ids) for prompt in prompts.values()
        )
        reach = min(natural.cap, room)
        plan = replace(
            plan,
            budgets=tuple(b for b in natural.budgets if b <= reach) or (reach,),
            left_out=(),
            reach=reach,
        )
        self.gather(plan, plan.wants(problems, prompts))
        return plan

    def waits(self, plan: Plan, natural: Traces, ids: Mapping[str, Ids]) -> None:
        """Thinking that is sent on, round by round."""
        from pytest_tokenbudget.studies.thinking.forced_answers import wait_rounds

        def gather_round(continuations: Mapping[str, Continuation]) -> None:
            most = max((each.cap for each in continuations.values()), default=1)
            stage = replace(plan, kind=Kind.WAIT.value, budgets=(most,), reach=0, forcing=None)
            if continuations:
                wants = [replace(each.want, opens_thinking=True) for each in continuations.values()]
                self.gather(stage, wants)

        session = self.session
        for _ in wait_rounds(
            session.store, plan, session.problems, natural, ids, gather=gather_round
        ):
            pass


def stored_thinking(
    session: Session, spec: ModelSpec, plan: Plan, plans: Sequence[Plan]
) -> tuple[ThinkingStudy, int]:
    """The thinking study of a plan as it is stored, and the tokens that this run generated for it.

    ``plan`` is that of the natural traces, ``plans`` are all of the run.
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

    ``off`` is the plan of the traces with thinking switched off, where there is one.
    """
    from pytest_tokenbudget.core.study import load_study
    from pytest_tokenbudget.studies.thinking import forced_answers
    from pytest_tokenbudget.studies.thinking.study import ContinuedTrace, ThinkingStudy

    assert plan.forcing is not None
    natural = load_study(store, plan, task, problems)
    ids = forced_answers.text_ids(store, plan, forced_answers.plan_texts(plan), None)
    continuations: dict[forced_answers.ForcedAnswerKey, forced_answers.Continuation] = {}
    waits: list[dict[str, ContinuedTrace]] = []
    keys: set[str] = set()
    answers: dict[forced_answers.ForcedAnswerKey, ContinuedTrace] = {}
    if len(ids) == len(set(forced_answers.plan_texts(plan))):
        continuations = forced_answers.forced_answers(plan, problems, natural.traces, ids)
        by_key = {continuation.key: continuation for continuation in continuations.values()}
        found = forced_answers.load_continuations(store, by_key, opens=False)
        keys.update(by_key)
        answers = {
            place: ContinuedTrace(
                forced_answers.with_problem(found[continuation.key], place.problem_id),
                continuation.branch.kept,
            )
            for place, continuation in continuations.items()
            if continuation.key in found
        }
        for by_problem in forced_answers.wait_rounds(store, plan, problems, natural.traces, ids):
            keys.update(continuation.key for _, continuation in by_problem.values())
            prompts = {p: len(natural.traces[p, 0].prompt_ids) for p in by_problem}
            waits.append(
                {
                    pid: ContinuedTrace(
                        trace, len(continuation.branch.prompt_ids) - prompts[pid], continuation.cap
                    )
                    for pid, (trace, continuation) in by_problem.items()
                }
            )
    for each in (plan, off) if off else (plan,):
        keys.update(own_keys(store, each, problems))
    return ThinkingStudy(
        natural=natural,
        off=load_study(store, off, task, problems) if off else None,
        forcing=plan.forcing,
        wanted=frozenset(continuations),
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
