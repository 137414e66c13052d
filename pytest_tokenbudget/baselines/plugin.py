"""Sees to it that what was to be compared was compared, and that what was to be saved is saved.

What no test compared is reported as a test that failed, so that terminal, JUnit file and exit code
agree. Whether a run can be saved is known only after its last test: there the exit code must do.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import pytest

from pytest_tokenbudget.baselines.run import BaselineError
from pytest_tokenbudget.baselines.session import save
from pytest_tokenbudget.collection.selection import runs_no_test
from pytest_tokenbudget.common.names import RECORDED, SECTIONS
from pytest_tokenbudget.gates.partial_runs import on_command_line, selected_by
from pytest_tokenbudget.report.reporter import Reporter
from pytest_tokenbudget.session import Session
from pytest_tokenbudget.settings.option_flags import NamingTerminal, working_names

RECORD = "baseline"
NOT_COMPARED = "not-compared"


class BaselinePlugin:
    """The plugin object of the process that reports."""

    def __init__(self, config: pytest.Config, session: Session, reporter: Reporter) -> None:
        self.config, self.settings, self.reporter = config, session.settings, reporter
        self.root = session.root or config.rootpath
        self.found: list[Mapping[str, Any]] = []
        self.refused = False
        self.not_selected = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.found += [r[RECORD] for r in getattr(report, RECORDED, ()) if RECORD in r]
        self.refused |= report.failed and "compared" in getattr(report, SECTIONS, ())

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        result = yield
        missing = self._unjudged() if self._in_force("compare") else []
        selection = selected_by(self.config)
        demanded = self.settings.require_all_gates or any(
            on_command_line(self.config, flag)
            for flag in ("--tokenbudget-compare", "--tokenbudget-compare-fail")
        )
        if missing and selection and not demanded:
            self.not_selected = f"not compared in this selection ({selection})"
            return result
        for sentence in missing:
            session.testscollected += 1
            report = _failed(working_names(self.config, sentence))
            log = {"nodeid": report.nodeid, "location": report.location}
            self.config.hook.pytest_runtest_logstart(**log)
            self.config.hook.pytest_runtest_logreport(report=report)
            self.config.hook.pytest_runtest_logfinish(**log)
        return result

    def _in_force(self, name: str) -> bool:
        """Whether an option concerns this session; a settings file may have it for others."""
        if runs_no_test(self.config):
            return False
        return self.reporter.used or self.config.getoption(f"tokenbudget_{name}") is not None

    def _unjudged(self) -> list[str]:
        """A sentence for everything that was to be compared and was not."""
        settings = self.settings
        if settings.compare is None or self.refused:
            return []  # what was refused has failed with the reason
        if not self.found:
            return [
                f"--tokenbudget-compare {settings.compare}: nothing was compared, since no test "
                "that ran uses the fixture compared; use it in a test, or run "
                "`pytest --pyargs pytest_tokenbudget.evals -m phase1`"
            ]
        judged = {(r["model"], check["check"]) for r in self.found for check in r["checks"]}
        return [
            f"--tokenbudget-compare-fail {tolerance} was not judged for {model}: no selected test "
            "looks at its budget, or it was skipped"
            for model in dict.fromkeys(each["model"] for each in self.found)
            for tolerance in settings.compare_fail
            if (model, str(tolerance)) not in judged
        ]

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        # The reporter comes first.
        if self.settings.save is None or not self._in_force("save"):
            return
        if exitstatus == pytest.ExitCode.INTERRUPTED:
            reason = f"not saved as {self.settings.save}: the run was interrupted"
            self._not_saved(reason)
            return
        try:
            path = save(self.settings, self.reporter.studies, self.root)
        except BaselineError as error:
            self._not_saved(str(error))
        except OSError as error:
            where = f"it cannot be written to {self.settings.storage}"
            name = f"not saved as {self.settings.save}"
            self._not_saved(f"{name}: {where}: {error}")
        else:
            self.reporter.written += [path] if path is not None else []

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        from pytest_tokenbudget.baselines.report import compared_annotations, write_compared_summary
        from pytest_tokenbudget.report.github import current_job

        terminal = NamingTerminal(terminalreporter, self.config)
        if self.not_selected:
            terminal.write_line(f"baseline: {self.not_selected}")
        job = current_job()
        if job is None:
            return
        terminal.ensure_newline()
        for line in compared_annotations(self.found):
            terminal.write_command(line)
        try:
            write_compared_summary(job, self.found)
        except OSError as error:
            terminal.write_line(f"the job's summary cannot be written: {error}", red=True)

    def _not_saved(self, sentence: str) -> None:
        # What was asked for and is not there shall not look like success.
        self.reporter.problems.add(f"--tokenbudget-save: {sentence}")


def _failed(sentence: str) -> pytest.TestReport:
    return pytest.TestReport(
        nodeid=f"baseline::{NOT_COMPARED}",
        location=("baseline", None, NOT_COMPARED),
        keywords={},
        outcome="failed",
        longrepr=sentence,
        when="call",
    )
