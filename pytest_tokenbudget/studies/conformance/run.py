"""The probes of one model's engine, each made once however many tests and workers ask for it."""

from __future__ import annotations

import importlib.metadata
import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import filelock
import pytest

from pytest_tokenbudget.core.probes import probed
from pytest_tokenbudget.core.process_states import PROBING, published
from pytest_tokenbudget.engines.planning import Kind, Need, SetupError, make_plan

if TYPE_CHECKING:
    from pytest_tokenbudget.core.engine import Engine
    from pytest_tokenbudget.models.resolution import ModelSpec
    from pytest_tokenbudget.session import Session
    from pytest_tokenbudget.studies.conformance.analysis import (
        ConformanceReport,
        LimitResult,
        MethodResult,
    )
    from pytest_tokenbudget.studies.conformance.probe_context import ProbeContext

Made = TypeVar("Made")
Result = TypeVar("Result", "LimitResult", "MethodResult")


class Conformance:
    """What probes of one model's engine find; a probe that cannot be made fails the test.

    Workers of pytest-xdist share what they find by files, so that a test that needs all results
    makes none a second time. They probe a server one after the other: what shall be measured
    alone must be alone. Engines in their own processes do not disturb each other.

    Args:
        session: The state of this pytest process.
        spec: The model.
        folder: Where the workers of this run share results.
        selected: Keys of the probes that the selected tests need, to say how many are done; empty
            for all.
        shown: Gives a context in which progress is shown.
    """

    def __init__(
        self,
        session: Session,
        spec: ModelSpec,
        folder: Path,
        selected: Collection[str] = (),
        shown: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._session, self._spec, self._folder = session, spec, folder
        self._selected, self._shown = frozenset(selected), shown
        self._probe_context: ProbeContext | None = None
        self._source: Engine | None = None
        self._about: dict[str, Any] | None = None
        self._found: dict[str, Any] = {}

    @property
    def alias(self) -> str:
        """The model's name."""
        return self._spec.alias

    def limit(self, name: str) -> LimitResult:
        """What a probe of the limits finds; ``name`` is a key of ``LIMIT_PROBES``."""
        from pytest_tokenbudget.studies.conformance.analysis import limit_from
        from pytest_tokenbudget.studies.conformance.limits import LIMIT_PROBES

        return self._once(f"limit-{name}", LIMIT_PROBES[name], limit_from)

    def way(self, name: str) -> MethodResult:
        """What a way to set a thinking budget comes to; ``name`` is a key of ``BUDGET_METHODS``."""
        from pytest_tokenbudget.studies.conformance.analysis import method_from
        from pytest_tokenbudget.studies.conformance.thinking import probe_method

        return self._once(
            f"way-{name}", lambda probe_context: probe_method(probe_context, name), method_from
        )

    def why_not(self, name: str) -> str:
        """Why a way is not for this engine or model; empty where it is."""
        from pytest_tokenbudget.studies.conformance.budget_methods import methods_for

        probe_context = self.probe_context
        engine = probe_context.engine.engine_name
        if name not in methods_for(engine, probe_context.spec):
            return f"nobody says that {engine} knows it"
        if probe_context.spec.thinking is None and probe_context.spec.kind != "server":
            return f"{self.alias} is not known to think"
        return ""

    def whole(self) -> ConformanceReport:
        """All probes together; those that no test has made yet are made."""
        from pytest_tokenbudget.studies.conformance.analysis import ConformanceReport, NotAsked
        from pytest_tokenbudget.studies.conformance.budget_methods import BUDGET_METHODS
        from pytest_tokenbudget.studies.conformance.limits import LIMIT_PROBES

        reasons = {name: self.why_not(name) for name in BUDGET_METHODS}
        return ConformanceReport(
            alias=self.alias,
            engine=self.about["engine"],
            about=self.about,
            limits=tuple(self.limit(name) for name in LIMIT_PROBES),
            methods=tuple(self.way(name) for name, reason in reasons.items() if not reason),
            not_asked=tuple(
                NotAsked(name, BUDGET_METHODS[name].label, reason)
                for name, reason in reasons.items()
                if reason
            ),
        )

    def record(self, **found: object) -> dict[str, object]:
        """What ``record_metrics`` takes as ``conformance``: the result, and of what it is."""
        return {"about": self.about, **found}

    @property
    def about(self) -> Mapping[str, Any]:
        """Model and engine, as result files name them."""
        if self._about is None:
            self._about = _about(self._session, self.probe_context)
        return self._about

    @property
    def probe_context(self) -> ProbeContext:
        """The engine with its prompts. The engine is loaded first if need be."""
        __tracebackhide__ = True
        from pytest_tokenbudget.studies.conformance.probe_context import ProbeContext

        def make() -> ProbeContext:
            engine, spec = self._session.engine_for(self._spec)
            if self._probe_context is None or self._source is not engine:
                # Another model's tests may have had the engine closed in between.
                self._source = engine
                self._probe_context = ProbeContext(
                    probed(engine), spec, say=self._session.store.note
                )
            return self._probe_context

        return _or_fail(make)

    def _once(
        self,
        key: str,
        probe: Callable[[ProbeContext], Result],
        from_record: Callable[[Mapping[str, Any]], Result],
    ) -> Result:
        __tracebackhide__ = True
        from pytest_tokenbudget.report.files import safe_name, write_json

        if key not in self._found:
            stem = f"{safe_name(self._spec.alias)}-{safe_name(key)}"
            path = self._folder / f"{stem}.json"
            alone = self._spec.endpoint is not None
            lock = "server" if alone else stem
            self._folder.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(self._folder / f"{lock}.lock"):
                if path.is_file():
                    self._found[key] = from_record(json.loads(path.read_text(encoding="utf-8")))
                else:
                    with self._shown():
                        probe_context = self.probe_context
                        with published(
                            self._session.store, PROBING, self._progress(key, probe_context)
                        ):
                            self._found[key] = _or_fail(lambda: probe(probe_context))
                    write_json(path, self._found[key])
        result: Result = self._found[key]
        return result

    def _progress(self, key: str, probe_context: ProbeContext) -> Callable[[], object]:
        """A function that gives what is shown while a probe is made."""
        from pytest_tokenbudget.report.files import safe_name
        from pytest_tokenbudget.studies.conformance.budget_methods import BUDGET_METHODS
        from pytest_tokenbudget.studies.conformance.limits import LIMIT_PROBES

        possible = {f"limit-{name}" for name in LIMIT_PROBES}
        possible |= {f"way-{name}" for name in BUDGET_METHODS if not self.why_not(name)}
        keys = possible & self._selected or possible
        files = [self._folder / f"{safe_name(self.alias)}-{safe_name(each)}.json" for each in keys]
        began, counts = time.time(), probe_context.tokens

        def progress() -> object:
            return {
                "name": key.replace("-", " ", 1),
                "done": sum(file.is_file() for file in files),
                "total": len(files),
                "answers": counts.answers,
                "tokens": counts.tokens,
                "began": began,
            }

        return progress


def selected_probes(items: Sequence[pytest.Item], spec: ModelSpec) -> frozenset[str]:
    """Keys of the probes that tests of a model ask for by their parameters."""
    from pytest_tokenbudget.collection.selection import model_under_test

    found = set()
    for item in items:
        if model_under_test(item) == spec and "conformance" in getattr(item, "fixturenames", ()):
            callspec = getattr(item, "callspec", None)
            parameters = callspec.params if callspec else {}
            for name, kind in (("probe", "limit"), ("way", "way")):
                if name in parameters:
                    found.add(f"{kind}-{parameters[name]}")
    return frozenset(found)


def _or_fail(make: Callable[[], Made]) -> Made:
    """What ``make`` gives; a failed test with one sentence where model or engine cannot be used."""
    __tracebackhide__ = True
    from pytest_tokenbudget.core.engine import EngineError
    from pytest_tokenbudget.core.store import StoreError
    from pytest_tokenbudget.models.resolution import ModelError

    try:
        return make()
    except (SetupError, EngineError, ModelError, StoreError) as error:
        # Without the error behind it, which would be shown as the same sentence once more.
        raise pytest.fail.Exception(str(error), pytrace=False) from None


def _about(session: Session, probe_context: ProbeContext) -> dict[str, Any]:
    spec, engine = probe_context.spec, probe_context.engine.engine_name
    plan = make_plan(
        session.settings_of(spec), spec, Kind.MAIN, Need(), store=session.store, run=session.run
    )
    return {
        "model": spec.alias,
        "engine": engine,
        "engine_version": _version(spec, engine),
        "identity": dict(plan.identity),
        "source": spec.source,
        "where": plan.where,
        "context": probe_context.engine.context,
    }


def _version(spec: ModelSpec, engine: str) -> str | None:
    if spec.endpoint is not None:
        return spec.endpoint.facts.version if spec.endpoint.facts else None
    try:
        return importlib.metadata.version(engine)
    except importlib.metadata.PackageNotFoundError:
        return None
