"""Collects what tests measured, and writes and shows it after the session (controller only)."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_tokenbudget import registry
from pytest_tokenbudget.collection.eval_fixtures import evals_named
from pytest_tokenbudget.collection.selection import runs_no_test
from pytest_tokenbudget.common.names import RECORDED, SECTIONS, STARTED
from pytest_tokenbudget.engines.planning import Kind, SetupError
from pytest_tokenbudget.report import outcomes
from pytest_tokenbudget.report.problems import ReportFaults
from pytest_tokenbudget.session import Session
from pytest_tokenbudget.settings import option_flags

if TYPE_CHECKING:
    from pytest_tokenbudget.core.plan import Plan
    from pytest_tokenbudget.core.study import Study
    from pytest_tokenbudget.models.resolution import ModelSpec
    from pytest_tokenbudget.registry import ModelsTogether, Section
    from pytest_tokenbudget.report.folder import FromRecords, Reported
    from pytest_tokenbudget.report.json_files import RunInfo
    from pytest_tokenbudget.report.live_display import LiveDisplay
    from pytest_tokenbudget.report.manifest import Entry
    from pytest_tokenbudget.settings.options import Settings


class Reporter:
    """The plugin object that writes results and shows them."""

    def __init__(self, config: pytest.Config, session: Session) -> None:
        self.config, self.session = config, session
        self.records: list[dict[str, Any]] = []
        self.fixtures_used: set[str] = {""}
        self.used = False
        self.studies: list[tuple[Reported, RunInfo]] = []
        self.from_records: list[tuple[FromRecords, RunInfo]] = []
        self.across: list[tuple[ModelsTogether, Any]] = []
        self.written: list[Path] = []
        self.folder_notes: list[str] = []
        self.problems = ReportFaults(config, "tokenbudget")
        self.skipped = outcomes.SkippedEvals()
        self.started = config.stash[STARTED]
        self._watching = ExitStack()
        self._monitor: Any = None
        self._display: LiveDisplay | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Show progress while the block runs, or the traces themselves."""
        if self._monitor is None:
            from pytest_tokenbudget.report.progress import Monitor

            settings = self.session.settings
            self._monitor = Monitor(
                settings.trace_store,
                self.session.run,
                self._announce,
                counts=not settings.stream,
                begin_line=self._begin_line,
            )
            self._display = self._make_display() if settings.stream else None
            for note in self.session.notes:
                self._announce(note, as_it_is=True)
        with self._monitor.watching():
            self.session.observer = self._display
            try:
                yield
            finally:
                self.session.observer = None

    def _make_display(self) -> LiveDisplay | None:
        from pytest_tokenbudget.report.live_display import LiveDisplay

        terminal = self.config.pluginmanager.getplugin("terminalreporter")
        if terminal is None:
            return None

        def write(text: str) -> None:
            terminal.ensure_newline()
            terminal.write(text, flush=True)

        def ready(plan: Plan) -> None:
            self._monitor.wait_for(plan.name)

        return LiveDisplay(write, terminal.hasmarkup, ready, self.session.log)

    def _begin_line(self) -> None:
        terminal = self.config.pluginmanager.getplugin("terminalreporter")
        if terminal is not None:
            terminal.ensure_newline()

    def _announce(self, line: str, as_it_is: bool = False) -> None:
        terminal = self.config.pluginmanager.getplugin("terminalreporter")
        if terminal is not None and not self.config.option.verbose < -1:
            with self._display.interrupted() if self._display else ExitStack():
                terminal.ensure_newline()
                named = option_flags.NamingTerminal(terminal, self.config)
                if as_it_is:
                    named.write_note(line)
                else:
                    named.write_line(f"tokenbudget: {line}")

    def pytest_sessionstart(self) -> None:
        # With pytest-xdist the workers generate, and only the controller can show how far they are.
        used = self.session.settings.explicit or evals_named(self.config)
        if self.config.getoption("dist", default="no") != "no" and used:
            self._watching.enter_context(self.watching())

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.skipped.add(report)
        if (asked := getattr(report, SECTIONS, None)) is not None:
            self.used = True
            self.fixtures_used.update(asked)
        for values in getattr(report, RECORDED, ()):
            self.records.append({"test": report.nodeid, "outcome": report.outcome, **values})

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        self._watching.close()
        terminal = self.config.pluginmanager.getplugin("terminalreporter")
        if terminal is not None:
            outcomes.fold_causes(terminal)
        if runs_no_test(self.config):
            return
        complete = exitstatus != pytest.ExitCode.INTERRUPTED
        with self._noting():
            if self.session.recordings is not None:
                self._recorded_studies()
            elif self._store_changed():
                self._load_studies(complete)
        self._load_records(complete)
        self._prepare_studies()
        if self.studies or self.records:
            with self._noting():
                self._write()

    def _prepare_studies(self) -> None:
        """Give studies what sections need and they do not know of themselves."""
        for section in registry.sections():
            if section.prepare is None or section.fixture not in self.fixtures_used:
                continue
            for study, _ in self.studies:
                if study.kind == section.kind:
                    with self._noting():
                        spec = self._spec(study.alias)
                        registry.load(section.prepare)(self.session, spec, study)

    def _spec(self, alias: str) -> ModelSpec:
        return next(spec for spec in self.session.specs if spec.alias == alias)

    def _store_changed(self) -> bool:
        """Whether this session can have put a plan into the store; no other one opens it."""
        store = self.session.settings.trace_store
        times = [
            path.stat().st_mtime
            for path in (store, store.with_name(f"{store.name}-wal"))
            if path.is_file()
        ]
        # File systems' clocks may be a little behind.
        return max(times, default=0.0) > self.started - 2

    def _load_studies(self, complete: bool) -> None:
        from pytest_tokenbudget.core.plan import Plan
        from pytest_tokenbudget.core.store import StoreError

        try:
            plans = [Plan.from_json(row.plan) for row in self.session.store.plans()]
            for plan in plans:
                if plan.kind in registry.studies():
                    study, tokens = self._load(plan, plans)
                    run = self._run_info(tokens, complete, plan.alias)
                    self.studies.append((study, run))
            if damage := self.session.store.damage_report():
                self.problems.add(damage)
        except (StoreError, SetupError) as error:
            self.problems.add(str(error))

    def _load(self, plan: Plan, plans: list[Plan]) -> tuple[Reported, int]:
        """The study of a plan, and the tokens that this run generated for it."""
        from pytest_tokenbudget.core.study import load_study, tokens_generated

        session = self.session
        spec = self._spec(plan.alias)
        own = registry.studies()[plan.kind].load
        if own is not None:
            loaded: tuple[Reported, int] = registry.load(own)(session, spec, plan, plans)
            return loaded
        # What the tests made has its analyses already.
        made: Study | None = session.cached_study(spec, plan.kind)
        study = made or load_study(session.store, plan, session.task, session.problems)
        study.price = spec.price
        return study, tokens_generated(session.store, plan, session.problems)

    def _load_records(self, complete: bool) -> None:
        """Reports that are put together from what tests recorded."""
        for records in registry.records():
            if any(records.key in record for record in self.records):
                self.fixtures_used.add(records.key)
                with self._noting():
                    for report in registry.load(records.reports)(self.records):
                        self.from_records.append((report, self._run_info(0, complete)))

    def _recorded_studies(self) -> None:
        asked = {s.kind for s in registry.sections() if s.fixture in self.fixtures_used}
        kinds = [k for k, one in registry.studies().items() if one.recorded and k in asked]
        for spec in self.session.specs if self.used else ():
            for kind in kinds:
                # What cannot be made failed the tests that asked for it.
                with suppress(SetupError):
                    study = self.session.study(spec, Kind(kind))
                    study.price = spec.price
                    self.studies.append((study, self._run_info(0, complete=True)))

    def _run_info(self, tokens: int, complete: bool, alias: str = "") -> RunInfo:
        """The run in which something was measured, with the settings of a model if one is named."""
        from pytest_tokenbudget.report.json_files import RunInfo, versions

        settings = self.session.settings
        if alias:
            settings = self.session.settings_of(self._spec(alias))
        began = datetime.datetime.fromtimestamp(self.started).astimezone()
        return RunInfo(
            settings=settings.record(),
            versions=versions(),
            started=began.isoformat(timespec="seconds"),
            duration=round(time.time() - self.started, 3),
            generated_tokens=tokens,
            complete=complete,
        )

    def _parts(self) -> Iterator[tuple[Section, Any, RunInfo]]:
        """Which sections are reported, model by model."""
        reported: list[tuple[Any, RunInfo]] = [*self.studies, *self.from_records]
        for alias in dict.fromkeys(study.alias for study, _ in reported):
            for section in registry.sections():
                for study, run in reported:
                    wanted = section.fixture in self.fixtures_used and section.kind == study.kind
                    if wanted and study.alias == alias:
                        yield section, study, run

    def _write(self) -> None:
        from pytest_tokenbudget.report.files import write_json
        from pytest_tokenbudget.report.folder import report_folder, selection_of
        from pytest_tokenbudget.report.load_results import write_answers_table

        # A study without a complete problem says nothing: it takes no other result's place.
        empty = [study for study, _ in self.studies if not study.complete]
        self.folder_notes = [
            f"no result files for {alias}: no problem has all its traces of this run yet"
            for alias in dict.fromkeys(study.alias for study in empty)
        ]
        parts = [part for part in self._parts() if part[1] not in empty]
        if not parts and not self.records:
            return
        folder, room = report_folder(self.session), False
        with self._noting():
            folder.selection = selection_of(self.session, [study for study, _ in self.studies])
            self.folder_notes += folder.make_room([self._entry(*part) for part in parts])
            room = True
        if not room:
            return
        reports = folder.path
        for part in parts:
            section, study, run = part
            with self._noting():
                files = registry.load(section.write)(study, run, reports)
                self.written += files
                folder.note(self._entry(*part), files)
        for across in registry.across():
            with self._noting():
                self._write_across(across)
        if self.records:
            with self._noting():
                path = write_json(reports / "results" / "metrics.json", self.records)
                self.written.append(path)
                folder.note_run("metrics", [path])
        with self._noting():
            files = write_answers_table(self.written, reports, self.session.settings.answers_table)
            self.written += files
            folder.note_run("answers", files)

    def _write_across(self, across: ModelsTogether) -> None:
        from pytest_tokenbudget.report.folder import entry_of, report_folder

        studies = [s for s, _ in self.studies if s.kind == across.kind and s.complete]
        reports = [report for report, _ in self.from_records if report.kind == across.kind]
        findings = registry.load(across.make)([*studies, *reports])
        if findings is None:
            return
        self.across.append((across, findings))
        folder = report_folder(self.session)
        files = registry.load(across.write)(findings, folder.path)
        self.written += files
        entries = [entry_of(across.name, study, None, True) for study in studies]
        models = {name: digest for entry in entries for name, digest in entry.models.items()}
        folder.note_run(across.name, files, models)

    def _entry(self, section: Section, study: Reported | FromRecords, run: RunInfo) -> Entry:
        from pytest_tokenbudget.report.folder import (
            Reported,
            entry_of,
            entry_of_records,
            report_folder,
        )

        if not isinstance(study, Reported):
            return entry_of_records(section.title, study, run.complete)
        budgets = registry.load(section.budgets)(study) if section.budgets else None
        selection = report_folder(self.session).selection
        return entry_of(section.title, study, selection, run.complete, budgets)

    def _noting(self) -> AbstractContextManager[None]:
        """Keep what goes wrong for the summary: it shall not hide what the tests found."""
        reports = self.session.settings.reports
        return self.problems.noting(
            f"reports cannot be written to {reports}", "reports are not complete"
        )

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminal = option_flags.NamingTerminal(terminalreporter, self.config)
        self.skipped.show(terminal)
        if self.used or self.studies or self.records:
            terminal.ensure_newline()
            for note in self.session.notes:
                terminal.write_note(note, yellow=True)
        self._show(terminal)

    def _show(self, terminalreporter: option_flags.NamingTerminal) -> None:
        if not (self.studies or self.records or self.problems):
            return
        terminalreporter.ensure_newline()
        recordings = self.session.recordings
        # Quiet runs have no header that names the remarks.
        quiet = self.config.option.verbose < 0
        first = settings_remarks(self.session.settings) if quiet else []
        first += [f"left out: {each}" for each in (recordings.left_out if recordings else ())]
        self._write_wrapped(terminalreporter, first)
        for section, study, run in self._parts():
            with self._noting():
                for line in registry.load(section.lines)(study, run, 80):
                    terminalreporter.write_line(line)
        for across, findings in self.across:
            with self._noting():
                verbose = self.config.option.verbose > 0
                for line in registry.load(across.lines)(findings, 80, verbose):
                    terminalreporter.write_line(line)
        self.problems.show(terminalreporter)
        self._write_wrapped(terminalreporter, self.folder_notes)
        for line in written_lines(self.written, self.config.invocation_params.dir):
            terminalreporter.write_line(line)

    @staticmethod
    def _write_wrapped(terminal: option_flags.NamingTerminal, sentences: Iterable[str]) -> None:
        from pytest_tokenbudget.common.text_layout import wrapped

        for sentence in sentences:
            for line in wrapped(sentence, 80):
                terminal.write_line(line)


def settings_remarks(settings: Settings) -> list[str]:
    """What of the file of ``--generation-config`` is ignored, in sentences for the terminal."""
    given = settings.generation_config
    if given is None:
        return []
    return [f"tokenbudget: {given.path.name}: {remark}" for remark in given.remarks]


def written_lines(paths: list[Path], base: Path) -> list[str]:
    """Which files there are now: few by name, many by their directory and number."""
    if not paths:
        return []
    by_folder: dict[Path, list[Path]] = {}
    for path in dict.fromkeys(paths):
        by_folder.setdefault(path.parent, []).append(path)
    lines = []
    for folder, files in by_folder.items():
        shown = folder.relative_to(base) if folder.is_relative_to(base) else folder
        if len(files) > 2:
            lines.append(f"written: {shown}/ ({len(files)} files)")
        else:
            lines += [f"written: {shown / file.name}" for file in files]
    return lines
