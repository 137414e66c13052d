"""The model under test as tests use it: the fixture ``llm``.

It runs on the engine that the session has loaded, and its answers are stored like all others: the
same call again generates nothing, and a larger ``max_new_tokens`` goes on from what is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, overload

from pytest_tokenbudget.common.messages import described, real_number, whole_number
from pytest_tokenbudget.engines.planning import Kind, SetupError, placement_of, sampling_of
from pytest_tokenbudget.llm.generation import (
    Conversation,
    Generation,
    LanguageModelError,
    problem_of,
    question_of,
    stop_texts,
)
from pytest_tokenbudget.settings.context_limits import generation_room

if TYPE_CHECKING:
    from pytest_tokenbudget.core.engine import Decoding, Engine
    from pytest_tokenbudget.core.plan import Plan
    from pytest_tokenbudget.core.store import StoredPrompt
    from pytest_tokenbudget.engines import Model, Tokenizer
    from pytest_tokenbudget.models.resolution import ModelSpec
    from pytest_tokenbudget.session import Session
    from pytest_tokenbudget.tasks.problem import Problem

__all__ = ["Generation", "LanguageModel", "LanguageModelError"]

T = TypeVar("T")

MAX_SAMPLES = 1000


class LanguageModel:
    """A model that tests generate with. It is loaded by the first call that needs it.

    Args:
        session: The state of the pytest session.
        spec: The model.
    """

    def __init__(self, session: Session, spec: ModelSpec) -> None:
        self._session, self._named_spec = session, spec
        self._failure = ""

    def __repr__(self) -> str:
        return f"<LanguageModel {self.alias}>"

    @property
    def alias(self) -> str:
        """The model's name as it is shown."""
        return self._named_spec.alias

    @property
    def context(self) -> int:
        """Tokens that prompt and output may have together."""
        return self._spec.context or self._engine.context

    @property
    def device(self) -> str:
        """Where it runs: ``cpu``, ``cuda``, ``mps`` ..., or ``server``."""
        if self._named_spec.endpoint is not None:
            return "server"
        session = self._session
        return placement_of(session.settings, self._spec, self._plan.identity, session.run).device

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, a Transformers one.

        Raises:
            LanguageModelError: If only the model's server has it.
        """
        __tracebackhide__ = True
        found = self._guarded(lambda: getattr(self._engine, "tokenizer", None))
        if found is None:
            raise LanguageModelError(
                f"llm.tokenizer: only the server of {self.alias} has its tokenizer; llm.count() "
                "asks the server, and --tokenizer NAME|PATH names a tokenizer on this machine"
            )
        return found

    @property
    def model(self) -> Model:
        """The underlying Transformers model, loaded.

        Stored answers are those of the weights on disk: do not change the weights of this object.

        Raises:
            LanguageModelError: If the model does not run in this process with Transformers.
        """
        __tracebackhide__ = True
        from pytest_tokenbudget.models.choice import engine_of

        runs_by = engine_of(self._session.settings, self._named_spec)
        if runs_by == "server":
            raise LanguageModelError(
                f"llm.model: {self.alias} runs on a server and is not in this process; only "
                "--engine transformers has the model here"
            )
        found = self._guarded(lambda: getattr(self._engine, "model", None))
        if found is None:
            raise LanguageModelError(
                f"llm.model: {self.alias} is run by {runs_by}, which does not hand out its model; "
                "only --engine transformers has the model here"
            )
        return found

    def count(self, prompt: Conversation, *, thinking: bool | None = None) -> int:
        """Tokens of a prompt as it is sent, special tokens and generation prompt included.

        Args:
            prompt: Chat messages, or the text of one user message.
            thinking: Whether the model shall think; None for what ``--thinking`` says.

        Raises:
            LanguageModelError: If the prompt or an argument cannot be used.
        """
        __tracebackhide__ = True
        plan = replace(self._plan, thinking=self._switch(thinking))
        problem = problem_of(prompt)
        return len(self._prompts(plan, [problem])[problem.id].ids)

    @overload
    def generate(
        self,
        prompt: Conversation,
        *,
        max_new_tokens: int | None = None,
        thinking: bool | None = None,
        n: None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
    ) -> Generation: ...

    @overload
    def generate(
        self,
        prompt: Conversation,
        *,
        n: int,
        max_new_tokens: int | None = None,
        thinking: bool | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
    ) -> tuple[Generation, ...]: ...

    def generate(
        self,
        prompt: Conversation,
        *,
        max_new_tokens: int | None = None,
        thinking: bool | None = None,
        n: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
    ) -> Generation | tuple[Generation, ...]:
        """The model's answer to a prompt, from the store or generated now.

        Args:
            prompt: Chat messages, or the text of one user message.
            max_new_tokens: Output tokens allowed; None for the largest of ``--budgets``, or what
                the context leaves if that is less.
            thinking: Whether the model shall think; None for what ``--thinking`` says.
            n: Number of samples. Without it one answer is returned and no tuple. More than one need
                noise: they are drawn at temperature 0.7 and top-p 0.9 unless you say otherwise.
            temperature: 0 is greedy; None for what ``--temperature`` says.
            top_p: Share of probability kept; None for what ``--top-p`` says.
            seed: Seed of the noise; None for what ``--seed`` says.
            stop: Texts that end generation.

        Returns:
            One answer, or a tuple of ``n``.

        Raises:
            LanguageModelError: If an argument cannot be used, or there is no answer.
        """
        __tracebackhide__ = True
        [samples] = self.generate_batch(
            [prompt],
            max_new_tokens=max_new_tokens,
            thinking=thinking,
            n=1 if n is None else n,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            stop=stop,
        )
        return samples[0] if n is None else samples

    def generate_batch(
        self,
        prompts: Iterable[Conversation],
        *,
        max_new_tokens: int | None = None,
        thinking: bool | None = None,
        n: int = 1,
        temperature: float | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
    ) -> list[tuple[Generation, ...]]:
        """Answers to several prompts, which the engine generates side by side.

        The arguments are those of :meth:`generate`, for all prompts alike.

        Returns:
            For each prompt its ``n`` samples.

        Raises:
            LanguageModelError: If an argument cannot be used, or there is no answer.
        """
        __tracebackhide__ = True
        if isinstance(prompts, str | Mapping):
            raise LanguageModelError(
                f"prompts must be a list of prompts, not {described(prompts)}; llm.generate() "
                "takes one prompt"
            )
        problems = list(map(question_of, prompts))
        samples = whole_number("n", n, 1, MAX_SAMPLES, error=LanguageModelError)
        decoding = self._decoding(samples, temperature, top_p, seed, stop)
        most = max_new_tokens
        if most is not None:
            most = whole_number("max_new_tokens", most, 1, error=LanguageModelError)
        plan = replace(
            self._plan, thinking=self._switch(thinking), decoding=decoding, samples=samples
        )
        prompts_by_id = self._prompts(plan, problems)
        caps = {}
        for problem in problems:
            caps[problem.id] = self._cap(most, prompts_by_id[problem.id])
        found: dict[tuple[str, int], Generation] = {}
        for cap in sorted(set(caps.values())):
            alike = {p.id: p for p in problems if caps[p.id] == cap}
            found |= self._generated(
                replace(plan, budgets=(cap,)), list(alike.values()), prompts_by_id
            )
        return [tuple(found[p.id, sample] for sample in range(samples)) for p in problems]

    # What is found once

    @cached_property
    def _spec_and_plan(self) -> tuple[ModelSpec, Plan]:
        return self._guarded(lambda: self._session.plan_for(self._named_spec, Kind.LLM), final=True)

    @property
    def _spec(self) -> ModelSpec:
        return self._spec_and_plan[0]

    @property
    def _plan(self) -> Plan:
        return self._spec_and_plan[1]

    @property
    def _engine(self) -> Engine:
        """The session's engine, which another model may have taken the place of meanwhile."""
        spec, plan = self._spec_and_plan
        return self._guarded(self._session.engine_maker(spec, plan), final=True)

    def _guarded(self, make: Callable[[], T], *, final: bool = False) -> T:
        """What a function gives, with what goes wrong in one sentence.

        A ``final`` failure is that of every later call: what does not start once is not tried again
        by each test.
        """
        __tracebackhide__ = True
        from pytest_tokenbudget.core.engine import EngineError
        from pytest_tokenbudget.core.store import StoreError
        from pytest_tokenbudget.models.resolution import ModelError

        if self._failure:
            raise LanguageModelError(self._failure)
        try:
            return make()
        except (EngineError, ModelError, StoreError, SetupError, LanguageModelError) as error:
            if final:
                self._failure = str(error)
            # A new one, whose way here is not shown.
            raise LanguageModelError(str(error)) from None

    # What a call needs

    def _switch(self, thinking: object) -> bool | None:
        """What is asked of the chat template."""
        __tracebackhide__ = True
        if thinking is None:
            return self._plan.thinking
        if not isinstance(thinking, bool):
            raise LanguageModelError(
                f"thinking must be True, False or None, not {described(thinking)}"
            )
        form = self._spec.thinking
        if thinking and form is None:
            raise LanguageModelError(
                f"thinking=True: {self.alias} is not known to think; leave thinking out, or set "
                f"`thinking` in its entry [models.{self.alias}]"
            )
        if form is None:
            return None
        if form.switch is not None:
            return thinking
        if not thinking:
            raise LanguageModelError(
                f"thinking=False: {self.alias} always thinks, its chat template has no switch for "
                "it; leave thinking out"
            )
        return None

    def _decoding(
        self, samples: int, temperature: object, top_p: object, seed: object, stop: object
    ) -> Decoding:
        __tracebackhide__ = True
        wrong = LanguageModelError
        base = sampling_of(self._session.settings_of(self._spec), several=samples > 1)
        asked: dict[str, Any] = {"stop": stop_texts(stop)}
        if temperature is not None:
            asked["temperature"] = real_number("temperature", temperature, 0, 10, error=wrong)
        if top_p is not None:
            asked["top_p"] = real_number("top_p", top_p, 0.001, 1, error=wrong)
        if seed is not None:
            asked["seed"] = whole_number("seed", seed, 0, 2**63 - 1, error=wrong)
        decoding = replace(base, **asked)
        if samples > 1 and decoding.greedy:
            raise LanguageModelError(
                f"n={samples}: at temperature 0 all samples are the same; give a temperature above "
                "0, or leave it out for 0.7"
            )
        return decoding

    def _prompts(self, plan: Plan, problems: Sequence[Problem]) -> dict[str, StoredPrompt]:
        """Rendered prompts by problem id, from the store or the engine."""
        __tracebackhide__ = True
        from pytest_tokenbudget.core.gather import render

        store = self._session.store
        return dict(self._guarded(lambda: render(store, plan, problems, lambda: self._engine)))

    def _cap(self, asked: int | None, prompt: StoredPrompt) -> int:
        """Output tokens to allow after a prompt."""
        __tracebackhide__ = True
        used, context = len(prompt.ids), self._guarded(lambda: self.context)
        room = generation_room(context, used)
        if room < 1 or (asked is not None and asked > room):
            wanted = "an answer" if asked is None else f"max_new_tokens={asked:,}"
            raise LanguageModelError(
                f"no room for {wanted}: the prompt has {used:,} tokens, and {self.alias}'s context "
                f"of {context:,} leaves {max(room, 0):,}"
            )
        return min(max(self._plan.budgets, default=room), room) if asked is None else asked

    def _generated(
        self, plan: Plan, problems: Sequence[Problem], prompts: Mapping[str, StoredPrompt]
    ) -> dict[tuple[str, int], Generation]:
        """Answers by problem id and sample, generated where they are not stored."""
        __tracebackhide__ = True
        session = self._session
        wants = plan.wants(problems, prompts)
        self._guarded(
            lambda: session.gather(plan, wants, lambda: self._engine, shared=False), final=True
        )
        names = plan.names(problems, prompts)
        traces = self._guarded(lambda: session.store.load(names, prompts, plan.cap))
        for trace in traces.values():
            if trace.stop_reason == "error":
                raise LanguageModelError(
                    f"{self.alias}: no answer: {trace.error}; run the same "
                    "command again to try it again"
                )
        return {
            name: Generation.of_cut(trace.cut(plan.cap, plan.format))
            for name, trace in traces.items()
        }
