"""``--dry-run``: what would be generated is said, and nothing is loaded, generated or tested."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from pytest_tokenbudget import registry
from pytest_tokenbudget.collection.eval_fixtures import replaced, uses
from pytest_tokenbudget.collection.selection import kinds_of, mode_of, model_under_test
from pytest_tokenbudget.engines.planning import (
    Kind,
    Need,
    NotApplicableError,
    SetupError,
    choose_device,
)
from pytest_tokenbudget.registry import SESSION
from pytest_tokenbudget.session import Session
from pytest_tokenbudget.settings.option_flags import NamingTerminal

if TYPE_CHECKING:
    from pytest_tokenbudget.dry_run.memory import Memory
    from pytest_tokenbudget.dry_run.parts import DryRunPlanner, ModelRun, PlannedPart
    from pytest_tokenbudget.models.resolution import ModelSpec


def report_dry_run(session: pytest.Session) -> bool | None:
    """Say what the selected tests would generate, instead of running them.

    Returns:
        True where that was done; None where tests are to be run, or could not be collected.
    """
    state = session.config.stash[SESSION]
    failed = session.testsfailed and not session.config.option.continue_on_collection_errors
    if not state.settings.dry_run or failed or session.config.option.collectonly:
        return None
    from pytest_tokenbudget.dry_run.report import dry_run_lines, write_dry_run

    found = planned_runs(state, session.items)
    terminal = session.config.pluginmanager.getplugin("terminalreporter")
    lines = dry_run_lines(found, 80)
    try:
        path = write_dry_run(found, state.settings.reports)
    except OSError as error:
        lines.append(f"reports cannot be written to {state.settings.reports}: {error}")
        session.testsfailed += 1
    else:
        base = session.config.invocation_params.dir
        lines.append(f"written: {path.relative_to(base) if path.is_relative_to(base) else path}")
    if terminal is not None:
        terminal.ensure_newline()
        named = NamingTerminal(terminal, session.config)
        for note in state.notes:
            named.write_note(note)
        for line in lines:
            named.write_line(line)
    # What cannot be generated would fail its tests.
    session.testsfailed += any(run.failures for run in found)
    return True


def planned_runs(session: Session, items: Sequence[pytest.Item]) -> list[ModelRun]:
    """What the tests would generate, model by model, in their order."""
    from pytest_tokenbudget.dry_run.parts import ModelRun
    from pytest_tokenbudget.report.item_hooks import is_skipped

    needed: dict[ModelSpec, dict[str, None]] = {}
    for item in items:
        spec = model_under_test(item)
        if spec is None or is_skipped(item) or replaced(item):
            continue
        if mode_of(item) is not None and spec.endpoint is not None:
            # What a mode needs depends on how the model thinks; a failure is reported below.
            with suppress(Exception):
                session.looked_up(spec)
        kinds = needed.setdefault(spec, {})
        kinds.update(dict.fromkeys(kinds_of(item)))
        kinds.update(dict.fromkeys(name for name in registry.unplanned() if uses(item, name)))
    if session.recordings is not None:
        return [
            ModelRun(spec, notes=["was recorded: nothing is generated"])
            for spec, kinds in needed.items()
            if kinds
        ]
    return [_model(session, spec, list(kinds)) for spec, kinds in needed.items() if kinds]


def _model(session: Session, spec: ModelSpec, kinds: Sequence[str]) -> ModelRun:
    from pytest_tokenbudget.core.engine import EngineError
    from pytest_tokenbudget.core.store import StoreError
    from pytest_tokenbudget.dry_run.parts import DryRunPlanner, ModelRun
    from pytest_tokenbudget.models.resolution import ModelError
    from pytest_tokenbudget.tasks.base import TaskError

    run = ModelRun(spec)
    try:
        run.spec = _asked(session, spec)
        planner = DryRunPlanner(session, run.spec)
    except (EngineError, ModelError, StoreError) as error:
        run.failures.append(str(error))
        return run
    for kind in kinds:
        try:
            run.parts += _parts(planner, kind, run)
        except NotApplicableError as error:
            run.notes.append(f"no {kind} eval: {error}")
        except (SetupError, EngineError, ModelError, StoreError, TaskError) as error:
            if str(error) not in run.failures:
                run.failures.append(str(error))
    run.memory = _memory(session, run)
    return run


def _parts(planner: DryRunPlanner, kind: str, run: ModelRun) -> list[PlannedPart]:
    from pytest_tokenbudget.dry_run.parts import main_part

    if (unplanned := registry.unplanned().get(kind)) is not None:
        run.notes.append(registry.load(unplanned)(planner))
        return []
    known = registry.studies().get(kind)
    if known is not None and known.dry_run is not None:
        parts: list[PlannedPart] = registry.load(known.dry_run)(planner)
        return parts
    need = planner.session.needs.get((planner.spec.alias, Kind(kind)), Need(all_budgets=True))
    return [main_part(planner, Kind(kind), need)]


def llm_note(planner: DryRunPlanner) -> str:
    """What is known of tests that generate with the fixture ``llm``."""
    return (
        "llm: what tests generate with this fixture is known only when they run, and is in none of "
        "these numbers"
    )


def _asked(session: Session, spec: ModelSpec) -> ModelSpec:
    """The spec with what its servers say, or said when they could last be asked."""
    from pytest_tokenbudget.engines.server.server_facts import ask_servers, with_facts

    if spec.endpoint is None:
        return spec
    timeout = session.settings.request_timeout
    return with_facts(spec, ask_servers(spec.endpoint, session.store, timeout))


def _memory(session: Session, run: ModelRun) -> Memory | None:
    from pytest_tokenbudget.dry_run.memory import memory_of

    missing = [part for part in run.parts if part.missing]
    if not missing:
        return None
    return memory_of(
        run.spec,
        missing[0].plan.identity,
        prompt=max(part.longest for part in missing),
        cap=max(part.plan.cap for part in missing),
        rows=session.settings.batch_size,
        missing=max(part.missing for part in missing),
        device=choose_device(session.settings, session.run),
    )
