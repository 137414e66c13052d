"""The state of one pytest session: settings, the store, the one loaded engine, the studies."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from pytest_tokenbudget.common import xdist
from pytest_tokenbudget.core.engine import Engine, EngineError, Request
from pytest_tokenbudget.core.gather import TraceObserver, gather, render
from pytest_tokenbudget.core.plan import Plan
from pytest_tokenbudget.core.store import StoreError, TraceStore
from pytest_tokenbudget.core.study import Study, load_study
from pytest_tokenbudget.engines import makers as engine_makers
from pytest_tokenbudget.engines.planning import (
    Kind,
    Need,
    Placement,
    SetupError,
    budgets_of,
    fit,
    gpus_of,
    make_plan,
    placement_of,
    thinking_switch,
)
from pytest_tokenbudget.models.catalogue import own_formats, settings_of
from pytest_tokenbudget.models.choice import choose_models
from pytest_tokenbudget.models.resolution import (
    ModelError,
    ModelSpec,
    complete,
    load_catalogue,
    resolve_commit,
)
from pytest_tokenbudget.settings.config_file import ConfigError, UserConfig
from pytest_tokenbudget.settings.options import Settings
from pytest_tokenbudget.tasks.base import Task, TaskError
from pytest_tokenbudget.tasks.problem import Problem
from pytest_tokenbudget.tasks.registry import load_task

if TYPE_CHECKING:
    from pytest_tokenbudget.engines.token_counter import TokenCounter
    from pytest_tokenbudget.recorded.recordings import Recordings
    from pytest_tokenbudget.settings.endpoints import Endpoint, Facts

Made = TypeVar("Made")


class Session:
    """Everything that the fixtures and the reporter of one pytest process share.

    Args:
        settings: The parsed options.
        user: The user's own configuration file.
        run: Identifier shared by all processes of this pytest session.
        make_engine: Makes an engine; tests of plumbing put a fake one here.
    """

    def __init__(
        self,
        settings: Settings,
        user: UserConfig,
        run: str,
        make_engine: engine_makers.EngineMaker | None = None,
    ) -> None:
        self.settings, self.user, self.run = settings, user, run
        # Where the project is, and what is to be known of where its settings come from.
        self.root: Path | None = None
        self.notes: tuple[str, ...] = ()
        # What the selected tests need: fixtures, values of parameters, and parts of studies.
        self.fixtures_in_use: set[str] = set()
        self.values_in_use: dict[str, set[Any]] = {}
        self.needs: dict[tuple[str, Kind], Need] = {}
        self.make_engine = make_engine or engine_makers.make_engine
        # Who is shown traces while they are being written; there only where somebody can look.
        self.observer: TraceObserver | None = None
        self._engine: tuple[str, Engine] | None = None
        self._studies: dict[tuple[str, str], Any] = {}
        self._facts: dict[Endpoint, Facts] = {}
        self._looked_up: dict[str, ModelSpec] = {}
        self._store: TraceStore | None = None

    @cached_property
    def catalogue(self) -> Mapping[str, ModelSpec]:
        return load_catalogue(config=self.user)

    @cached_property
    def recordings(self) -> Recordings | None:
        """What ``--recorded`` names, None where it names nothing."""
        if not self.settings.recorded:
            return None
        from pytest_tokenbudget.recorded.recordings import Recordings

        return Recordings(
            self.settings,
            lambda: self.catalogue,
            lambda: self.task,
            lambda: own_formats(self.user),
        )

    @cached_property
    def specs(self) -> tuple[ModelSpec, ...]:
        """The models that were asked for, in order; the recorded ones where there are recordings.

        Raises:
            pytest.UsageError: If a name means nothing.
        """
        if self.recordings is not None:
            return self.recordings.specs
        try:
            return choose_models(self.settings, self.catalogue)
        except (ModelError, ConfigError) as error:
            raise pytest.UsageError(f"--model: {error}") from None

    @cached_property
    def task(self) -> Task:
        """The task that was asked for.

        Raises:
            pytest.UsageError: If there is no such task, or its file cannot be used.
        """
        try:
            return load_task(self.settings.task)
        except TaskError as error:
            raise pytest.UsageError(f"--task: {error}") from None

    @cached_property
    def problems(self) -> tuple[Problem, ...]:
        """The problems that are used; a SetupError if they cannot be had."""
        try:
            return self.task.problems(self.settings.num_samples)
        except TaskError as error:
            raise SetupError(f"--task: {error}") from error

    @property
    def store(self) -> TraceStore:
        if self._store is None:
            owner = f"{xdist.worker_id() or 'main'}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
            self._store = TraceStore(self.settings.trace_store, self.run, owner, check=True)
            self._store.fresh = self.settings.fresh
        return self._store

    def budgets(self, spec: ModelSpec, kind: Kind) -> tuple[int, ...]:
        """Budgets that a kind of study of a model could have."""
        if self.recordings is None:
            return budgets_of(self.settings_of(spec), spec, kind)
        try:
            return self.recordings.budgets(spec, kind)
        except SetupError as error:
            raise pytest.UsageError(str(error)) from None

    def check_budgets(self) -> None:
        """Raise a UsageError if a model has no room for any budget, or a name means nothing."""
        for spec in self.specs:
            if self.recordings is None and not self.budgets(spec, Kind.MAIN):
                settings = self.settings_of(spec)
                own = "budgets" in settings.from_model_entry
                raise pytest.UsageError(
                    f"{'budgets in the entry of the model' if own else '--budgets'}: "
                    f"{','.join(map(str, settings.budgets))} cannot be used with "
                    f"{spec.alias}; allowed: below its context of {spec.context:,} tokens, which "
                    "the prompt shares"
                )

    def study(self, spec: ModelSpec, kind: Kind = Kind.MAIN) -> Study:
        """The study of a model of one kind: missing traces are generated first; see `cached`."""

        def make() -> Study:
            if self.recordings is not None:
                return self.recordings.study(spec, kind)
            return self._make_study(spec, kind)

        return self.cached((spec.alias, kind), make)

    def settings_of(self, spec: ModelSpec) -> Settings:
        return settings_of(self.settings, spec)

    def cached_study(self, spec: ModelSpec, kind: str) -> Any:  # noqa: ANN401 a study of any class
        """A study that was made already, of any kind; None if it was not or could not be."""
        found = self._studies.get((spec.alias, kind))
        return None if isinstance(found, Exception) else found

    def cached(self, key: tuple[str, str], make: Callable[[], Made]) -> Made:
        """What a function makes, made on the first call with a key.

        Raises:
            SetupError: If it cannot be made. This, and whatever else is raised, is raised again on
                every further call.
        """
        if key not in self._studies:
            try:
                self._studies[key] = make()
            except SetupError as error:
                self._studies[key] = error
            except (EngineError, ModelError, StoreError) as error:
                self._studies[key] = SetupError(str(error))
            except Exception as error:  # a defect, but trying again for every test helps nobody
                self._studies[key] = error
        found = self._studies[key]
        if isinstance(found, Exception):
            raise found
        made: Made = found
        return made

    def _make_study(self, spec: ModelSpec, kind: Kind) -> Study:
        spec = self.looked_up(spec)
        need = self.needs.get((spec.alias, kind), Need(all_budgets=True))
        plan = make_plan(self.settings_of(spec), spec, kind, need, store=self.store, run=self.run)
        engine = self.engine_maker(spec, plan)
        prompts = render(self.store, plan, self.problems, engine)
        plan = fit(plan, spec, prompts, engine)
        self.gather(plan, plan.wants(self.problems, prompts), engine)
        return load_study(self.store, plan, self.task, self.problems)

    def gather(
        self,
        plan: Plan,
        wants: Sequence[Request],
        engine: Callable[[], Engine],
        *,
        shared: bool = True,
    ) -> None:
        """Ensure that every wanted trace is in the store, as the settings say.

        ``engine`` is called only if this process has to generate. ``shared`` traces are for a
        study, which other workers help to make and which is reported; else one test of this process
        asked for them.
        """
        gather(
            self.store,
            plan,
            wants,
            engine,
            lease=self.settings.lease,
            fresh=self.settings.fresh,
            workers=xdist.worker_count() if shared else 1,
            planned=shared,
            observer=self.observer,
        )

    def stored_study(self, spec: ModelSpec, kind: Kind) -> Study | None:
        """A study of what is stored already; nothing is generated, None where there is nothing."""
        if self.recordings is not None:
            with suppress(SetupError):
                return self.recordings.study(spec, kind)
            return None
        _, plan = self.plan_for(spec, kind)
        if not plan.budgets:
            return None
        made: Study | None = self.cached_study(spec, kind)
        study = made or load_study(self.store, plan, self.task, self.problems)
        return study if study.complete else None

    def looked_up(self, spec: ModelSpec) -> ModelSpec:
        """The spec with what only its server or a hub model's own files say.

        Files are downloaded if need be.
        """
        self._looked_up[spec.alias] = found = self._look_up(spec)
        return found

    def known_spec(self, spec: ModelSpec) -> ModelSpec | None:
        """The same if that was looked up before; None if not."""
        return self._looked_up.get(spec.alias)

    def _look_up(self, spec: ModelSpec) -> ModelSpec:
        if spec.endpoint is not None:
            return self.ask_servers(spec)
        if spec.kind != "hub" or not (spec.detect or resolve_commit(spec) is None):
            return spec
        placement = Placement("cpu", "float32", "none")
        engine = self.make_engine(spec, self.settings, placement, self.log)
        # Both are read from files that are downloaded for it.
        _ = engine.context
        engine.decode([0])
        engine.close()
        return complete(spec)

    def ask_servers(self, spec: ModelSpec) -> ModelSpec:
        """The spec with what its servers say, or said when they could last be asked.

        Raises:
            EngineError: If they cannot be used, and were not before.
        """
        from pytest_tokenbudget.engines.server.server_facts import ask_servers, with_facts

        assert spec.endpoint is not None
        endpoint = spec.endpoint
        if endpoint not in self._facts:
            timeout = self.settings.request_timeout
            self._facts[endpoint] = ask_servers(endpoint, self.store, timeout)
        return with_facts(spec, self._facts[endpoint])

    @property
    def runs_own_engines(self) -> bool:
        """Whether the engines are this plugin's, and not a test's."""
        return self.make_engine is engine_makers.make_engine

    def has_traces(self, spec: ModelSpec) -> bool:
        """Whether traces of the model are stored, which are judged without an engine."""
        if not self.settings.trace_store.is_file():
            return False
        return self.store.holds(self.plan_for(spec, Kind.MAIN)[1].model)

    def log(self, line: str) -> None:
        """Show a line where this run's progress is shown; from any thread, and never an error."""
        with suppress(StoreError):
            self.store.note(line)

    def counter(self, spec: ModelSpec) -> TokenCounter:
        """What counts the tokens of a model's prompts, with thinking as in its main study.

        Raises:
            EngineError: If there is no tokenizer, or no server answers.
            ModelError: If the model's files cannot be used.
        """
        from pytest_tokenbudget.engines.token_counter import TokenCounter

        if self.recordings is None:
            spec = self.looked_up(spec)
        thinking = thinking_switch(self.settings_of(spec), spec, Kind.MAIN)
        return TokenCounter(spec, thinking, self.settings.request_timeout)

    def engine_for(self, spec: ModelSpec) -> tuple[Engine, ModelSpec]:
        """The engine of a model, and the model with all that is known of it.

        Raises:
            EngineError: If it cannot be started.
            SetupError: If the model cannot be used.
        """
        spec, plan = self.plan_for(spec, Kind.MAIN)
        return self.engine_maker(spec, plan)(), spec

    def plan_for(self, spec: ModelSpec, kind: Kind) -> tuple[ModelSpec, Plan]:
        """The model with all that is known of it, and a plan for all budgets of a kind of study.

        Raises:
            EngineError: If a server or the hub has to be asked and cannot be.
            SetupError: If the model cannot be used.
        """
        spec = self.looked_up(spec)
        need = Need(all_budgets=True)
        plan = make_plan(self.settings_of(spec), spec, kind, need, store=self.store, run=self.run)
        return spec, plan

    def engine_maker(self, spec: ModelSpec, plan: Plan) -> Callable[[], Engine]:
        """A function that gives the engine of a plan's model, loaded on its first call."""

        def engine() -> Engine:
            if self._engine is None or self._engine[0] != plan.model:
                self.free_engine()
                placement = placement_of(self.settings, spec, plan.identity, self.run)
                made = self.make_engine(spec, self.settings, placement, self.log)
                self._engine = (plan.model, made)
            return self._engine[1]

        return engine

    def auto_num_workers(self) -> int | None:
        """What ``-n auto`` means: a worker for each engine that has room; one drives servers."""
        with suppress(pytest.UsageError):
            if self.recordings is None and all(spec.endpoint for spec in self.specs):
                return xdist.auto_num_workers(0)
        return xdist.auto_num_workers(gpus_of(self.settings), self.settings.device)

    def free_engine(self) -> None:
        """Free the loaded model, so that the next one has the memory."""
        if self._engine is not None:
            self._engine[1].close()
            self._engine = None

    def close(self) -> None:
        self.free_engine()
        if self._store is not None:
            self._store.close()
            self._store = None
