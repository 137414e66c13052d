"""The traces of the context eval, stage by stage: summaries, then an answer to every window."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from pytest_tokenbudget.engines.planning import (
    Kind,
    Need,
    NotApplicableError,
    SetupError,
    make_plan,
    thinking_switch,
)
from pytest_tokenbudget.studies.context.plan import all_cases, arms_in_use, fit_context

if TYPE_CHECKING:
    from pytest_tokenbudget.context.window import Chat, ContextWindow, Conversation
    from pytest_tokenbudget.context.window_summary import SummaryRequest
    from pytest_tokenbudget.core.context_plan import Cell, WindowFacts, WindowKey
    from pytest_tokenbudget.core.engine import Request
    from pytest_tokenbudget.core.plan import Plan
    from pytest_tokenbudget.core.trace import Trace
    from pytest_tokenbudget.models.resolution import ModelSpec
    from pytest_tokenbudget.session import Session
    from pytest_tokenbudget.studies.context.conversations import ConversationCase
    from pytest_tokenbudget.studies.context.study import ContextStudy
    from pytest_tokenbudget.tasks.problem import Message

SUMMARY = "summary"
SUMMARISE = (
    "You summarise conversations. Keep names, numbers, instructions and every fact that somebody "
    "may ask about later. Write the summary only."
)


def context_study_of(session: Session, spec: ModelSpec) -> ContextStudy:
    """The context study of one model: its missing traces are generated first.

    Raises:
        NotApplicableError: If there are recordings instead of a model.
        SetupError: If it cannot be made. Both are raised again on every further call.
    """

    def make() -> ContextStudy:
        if session.recordings is not None:
            raise NotApplicableError(
                "what was recorded cannot be posed again: name the model or its server"
            )
        return make_context(session, session.looked_up(spec))

    return session.cached((spec.alias, Kind.CONTEXT), make)


def make_context(session: Session, spec: ModelSpec) -> ContextStudy:
    """Generate what is missing of the context eval of a model, and load all of it.

    Raises:
        SetupError: If the eval cannot be made.
    """
    from pytest_tokenbudget.settings.context_limits import ContextError
    from pytest_tokenbudget.studies.context.study import load_context
    from pytest_tokenbudget.tasks.base import TaskError

    try:
        run = _Run(session, spec)
        run.gather()
        return load_context(session.store, run.plan, session.task)
    except (TaskError, ContextError) as error:
        raise SetupError(f"{spec.alias}: {error}") from error


class _Run:
    """What the stages have in common."""

    def __init__(self, session: Session, spec: ModelSpec) -> None:
        from pytest_tokenbudget.core.gather import render

        self.session, self.store, self.spec = session, session.store, spec
        settings = session.settings_of(spec)
        plan = make_plan(settings, spec, Kind.CONTEXT, Need(), store=self.store, run=session.run)
        self.engine = session.engine_maker(spec, plan)
        self.plan = fit_context(
            plan,
            settings,
            session.task,
            arms=arms_in_use(session, spec),
            measure=lambda problems: {
                problem_id: len(prompt.ids)
                for problem_id, prompt in render(self.store, plan, problems, self.engine).items()
            },
            context=spec.context or self.engine().context,
        )
        assert self.plan.context_plan is not None
        self.context_plan = self.plan.context_plan

    def gather(self) -> None:
        """Have the model answer every window that it has not answered yet."""
        from pytest_tokenbudget.context.window import Conversation
        from pytest_tokenbudget.studies.context.study import load_context

        study = load_context(self.store, self.plan, self.session.task)
        done = set() if self.session.settings.fresh else study.answered
        cases = [
            each
            for each in all_cases(self.context_plan, self.session.task)
            if each.problem.id not in done
        ]
        talks = [(each, Conversation(each.problem.messages, self.chat)) for each in cases]
        wants: dict[str, Request] = {}
        kept: dict[str, dict[str, object]] = {}
        for place, facts, want in self._windows(talks, self._summaries(talks)):
            kept[place] = facts.to_json()
            if want is not None:
                wants.setdefault(want.key, want)
        self.store.put_windows(self.plan.model, kept)
        self._generate(self.plan, list(wants.values()))

    @cached_property
    def chat(self) -> Chat:
        """The model's renderer. The engine is made first if need be, without its weights."""
        from pytest_tokenbudget.context.window import Chat

        engine, thinking = self.engine(), self.plan.thinking
        return Chat(
            lambda messages: engine.render(messages, thinking),
            engine.decode_prompt,
            bos_id=engine.bos_id,
            remembered=1024,
        )

    def _generate(self, plan: Plan, wants: Sequence[Request]) -> None:
        # The longest first, so that batches are of like length.
        ordered = sorted(wants, key=lambda want: -len(want.prompt_ids))
        self.session.gather(plan, ordered, self.engine)

    # Windows

    def _windows(
        self,
        talks: Sequence[tuple[ConversationCase, Conversation]],
        summaries: Mapping[WindowKey, Trace],
    ) -> Iterator[tuple[str, WindowFacts, Request | None]]:
        """Every window: the key under which it is kept, what is kept of it, what is to be made."""
        from pytest_tokenbudget.core.context_plan import WindowFacts, WindowKey
        from pytest_tokenbudget.core.trace import StopReason
        from pytest_tokenbudget.settings.context_limits import ContextError

        for case, talk in talks:
            for cell in self.context_plan.cells:
                key = self.plan.window_key(case.problem, cell)
                summary = summaries.get(WindowKey(case.problem.id, cell))
                if summary is not None and summary.stop_reason is StopReason.ERROR:
                    # Until there is one, its error stands for the answer's.
                    yield key, WindowFacts(key=self.plan.key(summary.prompt_ids)), None
                    continue
                try:
                    window = self._window(talk, cell, summary)
                except ContextError as error:
                    whole = len(talk.whole.ids)
                    yield key, WindowFacts(original=whole, impossible=str(error)), None
                    continue
                facts, want = self._kept(case, talk, cell, window)
                if summary is not None:
                    facts = replace(facts, written=self.plan.key(summary.prompt_ids))
                yield key, facts, want

    def _window(self, talk: Conversation, cell: Cell, summary: Trace | None) -> ContextWindow:
        from pytest_tokenbudget.context.window_summary import named_strategy

        written = "" if summary is None else summary.cut(summary.cap, self.plan.format).answer
        strategy = named_strategy(cell.strategy or "newest", lambda request: written)
        return strategy.window(talk, cell.context_limit.tokens_of(len(talk.whole.ids)))

    def _kept(
        self, case: ConversationCase, talk: Conversation, cell: Cell, window: ContextWindow
    ) -> tuple[WindowFacts, Request | None]:
        from pytest_tokenbudget.core.context_plan import CUT_OVER_CHAT, window_facts
        from pytest_tokenbudget.core.engine import Request
        from pytest_tokenbudget.studies.context.conversations import Arm

        key = self.plan.key(window.ids)
        form = self.plan.format
        facts = window_facts(
            window,
            talk,
            case.needed,
            key=key,
            opens=form is not None and form.left_open(window.text or ""),
            answer="" if case.arm is Arm.TASK else case.problem.answer,
        )
        if not (window.messages or self.engine().continues):
            return replace(facts, key="", impossible=CUT_OVER_CHAT), None
        want = Request(
            key,
            window.ids,
            self.plan.cap,
            messages=window.messages,
            thinking=self.plan.thinking,
            problem_id=case.problem.id,
            opens_thinking=facts.opens,
        )
        return facts, want

    # Summaries

    def _summaries(
        self, talks: Sequence[tuple[ConversationCase, Conversation]]
    ) -> dict[WindowKey, Trace]:
        """The summaries that windows need, written by the model where they are not there yet."""
        from pytest_tokenbudget.context.window_summary import Summary, named_strategy
        from pytest_tokenbudget.core.context_plan import WindowKey
        from pytest_tokenbudget.core.store import StoredPrompt
        from pytest_tokenbudget.settings.context_limits import ContextError

        wanted: dict[WindowKey, Request] = {}
        for cell in self.context_plan.cells:
            if cell.strategy.partition("=")[0] != SUMMARY:
                continue
            strategy = named_strategy(cell.strategy, lambda request: "")
            assert isinstance(strategy, Summary)
            for case, talk in talks:
                try:
                    request = strategy.request(
                        talk, cell.context_limit.tokens_of(len(talk.whole.ids))
                    )
                except ContextError:
                    continue
                want = self._summary_want(case, request) if request else None
                if want is not None:
                    wanted[WindowKey(case.problem.id, cell)] = want
        if not wanted:
            return {}
        wants = {want.key: want for want in wanted.values()}
        most = max(want.cap for want in wants.values())
        plan = replace(self.plan, kind=Kind.SUMMARY.value, budgets=(most,), context_plan=None)
        self._generate(plan, list(wants.values()))
        found: dict[str, Trace] = {}
        for cap in {want.cap for want in wants.values()}:
            mine = {key: want for key, want in wants.items() if want.cap == cap}
            prompts = {
                key: StoredPrompt(want.prompt_ids, want.opens_thinking)
                for key, want in mine.items()
            }
            traces = self.store.load({key: (key, 0) for key in mine}, prompts, cap)
            found |= {key: trace for (key, _), trace in traces.items()}
        return {place: found[want.key] for place, want in wanted.items() if want.key in found}

    def _summary_want(self, case: ConversationCase, request: SummaryRequest) -> Request | None:
        from pytest_tokenbudget.core.engine import Request
        from pytest_tokenbudget.settings.context_limits import generation_room

        messages = _to_summarise(request.messages)
        thinking = thinking_switch(self.session.settings_of(self.spec), self.spec, Kind.SUMMARY)
        prompt, form = self.engine().render(messages, thinking), self.plan.format
        cap = min(request.tokens, generation_room(self.context_plan.context, len(prompt.ids)))
        if cap < 1:
            return None
        return Request(
            self.plan.key(prompt.ids),
            prompt.ids,
            cap,
            messages=messages,
            thinking=thinking,
            problem_id=case.problem.id,
            opens_thinking=form is not None and form.left_open(prompt.text),
        )


def _to_summarise(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The messages that ask for a summary of others."""
    said = "\n".join(f"{m['role'].capitalize()}: {m['content']}" for m in messages)
    return (
        {"role": "system", "content": SUMMARISE},
        {"role": "user", "content": f"{said}\n\nSummarise this conversation."},
    )
