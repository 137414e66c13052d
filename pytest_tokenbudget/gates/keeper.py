"""Sees to it that every gate of a run is judged, and that its verdict is found where it is needed.

Tests judge gates. Here it is collected what they decided, on the controller of pytest-xdist too,
and what no test judged is reported as a test that failed: terminal, JUnit file and exit code then
agree with no more ado.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest

from pytest_tokenbudget.activation import MARKERS
from pytest_tokenbudget.config_file import ConfigError
from pytest_tokenbudget.gates.accounting import Unjudged, known_names, unjudged
from pytest_tokenbudget.gates.judging import GATES, JUDGEMENTS
from pytest_tokenbudget.gates.places import Place, judges, place_of
from pytest_tokenbudget.gates.table import ERRORS, Gate, gates_of
from pytest_tokenbudget.gates.verdicts import Judgement, records
from pytest_tokenbudget.option_flags import NamingTerminal, working_names
from pytest_tokenbudget.planning import Kind, SetupError

if TYPE_CHECKING:
    from pytest_tokenbudget.session import Session

PLACE, JUDGED, USED = "tokenbudget_place", "tokenbudget_gates", "tokenbudget_used"
OPTIONS = ("min_accuracy", "max_truncation", "min_conformance")
SHOWN = 3
NAME = "tokenbudget-gates"  # of the plugin


class Keeper:
    """The plugin object of the gates, in every process of a run.

    Args:
        config: pytest's configuration.
        session: This process's state.

    Raises:
        pytest.UsageError: If a gate cannot be used.
    """

    def __init__(self, config: pytest.Config, session: Session) -> None:
        try:
            self.gates = gates_of(session.settings, session.user)
        except ConfigError as error:
            raise pytest.UsageError(str(error)) from None
        config.stash[GATES] = self.gates
        self.config, self.session = config, session
        self.places: dict[str, Place] = {}
        self.judgements: list[Judgement] = []
        self.missing: list[Unjudged] = []
        self.outcomes: dict[str, str] = {}
        self.used = False
        self.complete = False  # until the tests ran to their end
        self.unwritten = ""  # why verdicts could not be written

    # Where tests run

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[Any]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if self.gates and report.when == "setup":
            from pytest_tokenbudget.selection import model_under_test

            setattr(report, USED, model_under_test(item) is not None)
            if (place := self.place(item)) is not None:
                setattr(report, PLACE, asdict(place))
        if report.when == "call" and (found := item.stash.get(JUDGEMENTS, None)):
            setattr(report, JUDGED, records(found))
        return report

    def place(self, item: pytest.Item) -> Place | None:
        """The place that a test is; None where it judges nothing."""
        # What cannot be known fails the test itself.
        with suppress(pytest.UsageError, SetupError):
            return place_of(item, self.session)
        return None

    # Where they are reported

    @property
    def reports(self) -> bool:
        """Whether this process is the one that reports."""
        return bool(self.gates) and not hasattr(self.config, "workerinput")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not self.reports:
            return
        self.used |= getattr(report, USED, False)
        if (place := getattr(report, PLACE, None)) is not None:
            values: dict[str, Any] = place
            # What travels between processes comes as lists.
            tuples: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
            }
            self.places[report.nodeid] = Place(**tuples)
        self.judgements += [Judgement(**each) for each in getattr(report, JUDGED, ())]
        if report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            self.outcomes[report.nodeid] = f"was skipped: {reason.removeprefix('Skipped: ')}"
        elif report.failed and report.when != "teardown":
            self.outcomes[report.nodeid] = "failed before it judged it"
        elif report.when == "call":
            self.outcomes[report.nodeid] = "passed without judging it"

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        result = yield
        settings = self.session.settings
        nothing_ran = session.config.option.collectonly or settings.dry_run or settings.list_gates
        if self.reports and not nothing_ran:
            asked = any(self.config.getoption(f"tokenbudget_{name}") for name in OPTIONS)
            if self.used or asked:
                self._account(session)
        return result

    def _account(self, session: pytest.Session) -> None:
        self.complete = True
        order = [gate.label for gate in self.gates]
        self.judgements.sort(key=lambda j: (order.index(j.gate), j.model, j.budget or 0, j.test))
        known = known_names(self.session, tuple(MARKERS))
        places = list(self.places.values())
        self.missing = list(unjudged(self.gates, places, self.judgements, self.outcomes, known))
        failing = [each for each in self.missing if each.fails]
        session.testscollected += len(failing)
        for each in failing:
            report = failed_report(each)
            report.longrepr = working_names(self.config, str(report.longrepr))
            self.config.hook.pytest_runtest_logstart(nodeid=report.nodeid, location=report.location)
            self.config.hook.pytest_runtest_logreport(report=report)
            self.config.hook.pytest_runtest_logfinish(
                nodeid=report.nodeid, location=report.location
            )

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if self.reports and (self.judgements or self.missing):
            from pytest_tokenbudget.report.gates import write_gates

            try:
                write_gates(self)
            except OSError as error:
                self.unwritten = f"gates: verdicts cannot be written: {error}"
                if exitstatus == pytest.ExitCode.OK:
                    session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.reports and (self.judgements or self.missing):
            from pytest_tokenbudget.report.gates import show_gates

            show_gates(self, NamingTerminal(terminalreporter, self.config))


def failed_report(missing: Unjudged) -> pytest.TestReport:
    """A gate that was not judged, as the report of a test."""
    nodeid = f"gates::{missing.name}"
    return pytest.TestReport(
        nodeid=nodeid,
        location=("gates", None, missing.name),
        keywords={},
        outcome="failed",
        longrepr=missing.sentence(),
        when="call",
    )


class Lister:
    """Lists gates instead of running tests.

    Args:
        keeper: Has the gates.
    """

    def __init__(self, keeper: Keeper) -> None:
        self.keeper = keeper

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> object:
        keeper = self.keeper
        if session.config.option.collectonly or session.testsfailed:
            return None
        places = [p for item in session.items if (p := keeper.place(item)) is not None]
        known = known_names(keeper.session, tuple(MARKERS))
        judged = _as_if_judged(keeper.gates, places)
        missing = list(unjudged(keeper.gates, places, judged, {}, known))
        terminal = session.config.pluginmanager.getplugin("terminalreporter")
        if terminal is not None:
            terminal.ensure_newline()
            for line in listed(keeper.gates, places, missing):
                terminal.write_line(working_names(session.config, line))
        session.testsfailed += sum(each.fails for each in missing)
        return True


def _as_if_judged(gates: Sequence[Gate], places: Sequence[Place]) -> list[Judgement]:
    from pytest_tokenbudget.gates.judging import judgement_at

    return [
        judgement_at(gate, place, budget)
        for gate in gates
        for place in places
        if judges(gate, place)
        for budget in ((place.budget,) if place.budget is not None else gate.budgets or (None,))
    ]


def listed(
    gates: Sequence[Gate], places: Sequence[Place], missing: Sequence[Unjudged]
) -> list[str]:
    """Every gate with the tests that judge it, for people."""
    if not gates:
        return ["tokenbudget: there are no gates"]
    lines = []
    for gate in gates:
        tests = [place.test for place in places if judges(gate, place)]
        about = f"{gate.label}: {gate.measured.name} {gate.shown()}"
        how = [gate.where(), how_it_decides(gate)]
        lines.append("; ".join(part for part in (about, *how) if part))
        lines += [f"    judged by {test}" for test in tests[:SHOWN]]
        if len(tests) > SHOWN:
            lines.append(f"    and {len(tests) - SHOWN} more")
        lines += [
            f"    {'' if each.fails else 'not required, and '}{each.sentence()}".replace(
                "was not judged", "is not judged"
            )
            for each in missing
            if each.gate is gate
        ]
    return lines


def how_it_decides(gate: Gate) -> str:
    """The rule of a gate, for people."""
    if not gate.measured.unit:
        return ""
    if gate.rule == "noninferior" and gate.margin:
        return f"noninferior by {gate.unit.distance(gate.margin)} at {gate.confidence:.4g}"
    if gate.rule == "point":
        return "decided by the estimate"
    also = ", may be inconclusive" if gate.allow_inconclusive else ""
    return f"{gate.rule} at {gate.confidence:.4g}{also}"


def tolerates_errors(item: pytest.Item, kind: Kind) -> bool:
    """Whether a gate on engine errors decides if too many answers are missing.

    It must be one on all problems, which a selected test judges for the same model by answers of
    the same kind.

    Args:
        item: The test that lacks answers.
        kind: The kind of study that lacks them.
    """
    from pytest_tokenbudget.selection import kinds_of, model_under_test

    gates = [
        gate
        for gate in item.config.stash.get(GATES, ())
        if gate.metric == ERRORS
        and not gate.categories
        # Each thinking budget has requests of its own, and so errors of its own.
        and (gate.every or kind is not Kind.THINKING)
    ]
    spec = model_under_test(item)
    if not gates or spec is None:
        return False
    keeper = item.config.pluginmanager.get_plugin(NAME)
    assert isinstance(keeper, Keeper)
    places = (
        keeper.place(other)
        for other in item.session.items
        if model_under_test(other) == spec and kind in kinds_of(other)
    )
    return any(judges(gate, place) for place in places if place is not None for gate in gates)


def register(config: pytest.Config, session: Session) -> None:
    """Register what keeps the gates.

    Raises:
        pytest.UsageError: If a gate cannot be used.
    """
    keeper = Keeper(config, session)
    config.pluginmanager.register(keeper, NAME)
    if session.settings.list_gates:
        # Workers would collect, and there is nothing to run.
        if hasattr(config.option, "dist"):
            config.option.dist, config.option.tx = "no", []
        config.pluginmanager.register(Lister(keeper), "tokenbudget-gates-list")
