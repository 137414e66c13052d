"""The traces of the thinking eval, stage by stage: natural, thinking off, forced, sent on."""

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
    from pytest_tokenbudget.core.store import StoredPrompt
    from pytest_tokenbudget.models.resolution import ModelSpec
    from pytest_tokenbudget.session import Session
    from pytest_tokenbudget.studies.thinking.forced_answers import Continuation, Ids, Traces
    from pytest_tokenbudget.studies.thinking.study import ThinkingStudy


class Planned(NamedTuple):
    """What the thinking eval of a model generates.

    Attributes:
        spec: The model, with what its tokenizer says.
        plan: The plan of the natural traces.
        prompts: Their prompts.
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
    from pytest_tokenbudget.studies.thinking.load import load_thinking

    spec, plan, prompts, engine = plan_thinking(session, spec)
    store, problems = session.store, session.problems
    run = _Run(session, engine)
    run.gather(plan, plan.wants(problems, prompts))
    off = None if only_modes(session) else run.off(plan, spec)
    natural = store.load(plan.names(problems, prompts), prompts, plan.cap)
    ids = text_ids(store, plan, plan_texts(plan), engine)
    forced = forced_answers(plan, problems, natural, ids)
    assert plan.forcing is not None
    answers = replace(
        plan, kind=Kind.FORCED.value, budgets=(plan.forcing.answer_tokens,), reach=0, forcing=None
    )
    run.gather(answers, [going.want for going in forced.values()])
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

        def one(goings: Mapping[str, Continuation]) -> None:
            most = max((going.cap for going in goings.values()), default=1)
            stage = replace(plan, kind=Kind.WAIT.value, budgets=(most,), reach=0, forcing=None)
            if goings:
                wants = [replace(going.want, opens_thinking=True) for going in goings.values()]
                self.gather(stage, wants)

        session = self.session
        for _ in wait_rounds(session.store, plan, session.problems, natural, ids, gather=one):
            pass
