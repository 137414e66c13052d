"""Ensures that every gate is evaluated and reported.

Tests judge gates. Here it is collected what they decided, on the controller of pytest-xdist too,
and what no test judged is reported as a test that failed: terminal, JUnit file and exit code then
agree with no more ado.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest

from pytest_tokenbudget import registry
from pytest_tokenbudget.collection.selection import runs_no_test
from pytest_tokenbudget.engines.planning import Kind, SetupError
from pytest_tokenbudget.gates.judging import GATES, JUDGEMENTS
from pytest_tokenbudget.gates.partial_runs import Selection, on_command_line
from pytest_tokenbudget.gates.table import ERRORS, Gate, gates_of
from pytest_tokenbudget.gates.targets import GateTarget, judges, target_of
from pytest_tokenbudget.gates.unjudged import GateResults, Unjudged, known_names, unjudged
from pytest_tokenbudget.gates.verdicts import GateJudgement, records
from pytest_tokenbudget.report.outcomes import CAUSE
from pytest_tokenbudget.report.problems import ReportFaults
from pytest_tokenbudget.settings.config_file import ConfigError
from pytest_tokenbudget.settings.option_flags import NamingTerminal, working_names
from pytest_tokenbudget.settings.read_settings import refuse_budget

if TYPE_CHECKING:
    from pytest_tokenbudget.session import Session

TARGET, JUDGED, USED = "tokenbudget_target", "tokenbudget_gates", "tokenbudget_used"
COLLECTED = "tokenbudget_collected"
SHOWN = 3
NAME = "tokenbudget-gates"  # of the plugin


class GatesPlugin:
    """The plugin object of the gates, in every process of a run.

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
        self.targets: dict[str, GateTarget] = {}
        self.judgements: list[GateJudgement] = []
        self.missing: list[Unjudged] = []
        self.outcomes: dict[str, str] = {}
        self.used = False
        self.files: set[str] = set()  # names of the collected test files
        self.deselected: list[GateTarget] = []
        self._left_out: list[pytest.Item] = []
        self.selection = Selection()
        self.complete = False  # until the tests ran to their end
        self.problems = ReportFaults(config, "gates")

    # Where tests run

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        self._left_out += items

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in (*session.items, *self._left_out):
            self.files.add(item.path.stem)

    def refuse_unknown_budgets(self, items: Sequence[pytest.Item]) -> None:
        """End the run if an option is a gate at a budget that no selected test looks at.

        Raises:
            pytest.UsageError: With the nearest budget.
        """
        settings = self.session.settings
        options = (
            registry.parameters()[name].option.removeprefix("--").replace("-", "_")
            for each in registry.judged().values()
            if each.by_option
            for name in registry.judged_parameters(each)
        )
        values = (value for option in options if option for value in getattr(settings, option))
        usual = {value for value in values if isinstance(value, int)}
        asked = [
            gate
            for gate in self.gates
            if gate.option
            and not set(gate.budgets) <= usual
            and on_command_line(self.config, gate.option)
        ]
        targets = [p for item in items if (p := self.target(item)) is not None] if asked else []
        # A test without a budget of its own may look at any.
        if any(target.budget is None and target.answers for target in targets):
            return
        looked = {target.budget for target in targets if target.budget is not None}
        for gate in asked:
            refuse_budget(gate.option, gate.label.partition(" ")[2], settings.budgets, looked)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[Any]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if self.gates and report.when == "setup":
            from pytest_tokenbudget.collection.selection import model_under_test

            setattr(report, USED, model_under_test(item) is not None)
            self.used |= model_under_test(item) is not None
            if (target := self.target(item)) is not None:
                setattr(report, TARGET, asdict(target))
        if report.when == "call" and (found := item.stash.get(JUDGEMENTS, None)):
            setattr(report, JUDGED, records(found))
        return report

    def target(self, item: pytest.Item) -> GateTarget | None:
        """The target that a test is; None where it judges nothing."""
        # What cannot be known fails the test itself.
        with suppress(pytest.UsageError, SetupError):
            return target_of(item, self.session)
        return None

    def _deselected_targets(self) -> list[GateTarget]:
        """Tests that could judge gates and were not selected; none where no test used a model."""
        items = self._left_out if self.gates and self.used else []
        return [target for item in items if (target := self.target(item)) is not None]

    # Where they are reported

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: object) -> None:
        """Take over what a worker of pytest-xdist collected; all workers collect the same."""
        found = getattr(node, "workeroutput", {}).get(COLLECTED)
        if found is not None:
            self.files.update(found["files"])
            self.deselected = [_target_from(values) for values in found["deselected"]]

    @property
    def reports(self) -> bool:
        """Whether this process is the one that reports."""
        return bool(self.gates) and not hasattr(self.config, "workerinput")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not self.reports:
            return
        self.used |= getattr(report, USED, False)
        if (target := getattr(report, TARGET, None)) is not None:
            self.targets[report.nodeid] = _target_from(target)
        self.judgements += [GateJudgement(**each) for each in getattr(report, JUDGED, ())]
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
        if self.reports and not runs_no_test(self.config):
            asked = any(
                gate.option and on_command_line(self.config, gate.option) for gate in self.gates
            )
            if self.used or asked:
                self._account(session)
        return result

    def _account(self, session: pytest.Session) -> None:
        self.complete = True
        order = [gate.label for gate in self.gates]
        self.judgements.sort(key=lambda j: (order.index(j.gate), j.model, j.budget or 0, j.test))
        self.deselected += self._deselected_targets()
        self.selection = Selection(self.config, self.files, self.deselected)
        known = known_names(
            self.session, (*registry.markers(), *self.selection.eval_names(self.gates))
        )
        targets = list(self.targets.values())
        self.missing = list(
            unjudged(
                self.gates, targets, self.judgements, self.outcomes, known, selection=self.selection
            )
        )
        failing = [each for each in self.missing if each.fails]
        session.testscollected += len(failing)
        for each in failing:
            report = failed_report(each)
            report.longrepr = working_names(self.config, str(report.longrepr))
            setattr(report, CAUSE, f"gates: {each.reason}")
            self.config.hook.pytest_runtest_logstart(nodeid=report.nodeid, location=report.location)
            self.config.hook.pytest_runtest_logreport(report=report)
            self.config.hook.pytest_runtest_logfinish(
                nodeid=report.nodeid, location=report.location
            )

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        if hasattr(self.config, "workeroutput"):
            self.config.workeroutput[COLLECTED] = {
                "files": sorted(self.files),
                "deselected": [asdict(target) for target in self._deselected_targets()],
            }
        if self.reports and (self.judgements or self.missing):
            from pytest_tokenbudget.gates.report import write_gates

            with self._noting():
                write_gates(self._results(), self.session, list(self.targets.values()))

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.reports and (self.judgements or self.missing):
            from pytest_tokenbudget.gates.report import show_gates

            terminal = NamingTerminal(terminalreporter, self.config)
            base, written = self.config.invocation_params.dir, not self.problems
            with self._noting():
                show_gates(self._results(), self.session, terminal, base, written=written)
        self.problems.show(NamingTerminal(terminalreporter, self.config))

    def _results(self) -> GateResults:
        return GateResults(self.gates, self.judgements, self.missing, self.complete)

    def _noting(self) -> AbstractContextManager[None]:
        return self.problems.noting("verdicts cannot be written", "verdicts are not complete")


def _target_from(values: dict[str, Any]) -> GateTarget:
    # What travels between processes comes as lists.
    tuples: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return GateTarget(**tuples)


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
    """Lists gates instead of running tests."""

    def __init__(self, plugin: GatesPlugin) -> None:
        self.plugin = plugin

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> object:
        plugin = self.plugin
        if session.config.option.collectonly or session.testsfailed:
            return None
        targets = [p for item in session.items if (p := plugin.target(item)) is not None]
        left_out = [p for item in plugin._left_out if (p := plugin.target(item)) is not None]
        selection = Selection(plugin.config, plugin.files, left_out)
        known = known_names(
            plugin.session, (*registry.markers(), *selection.eval_names(plugin.gates))
        )
        judged = _as_if_judged(plugin.gates, targets)
        missing = list(unjudged(plugin.gates, targets, judged, {}, known, selection=selection))
        terminal = session.config.pluginmanager.getplugin("terminalreporter")
        if terminal is not None:
            terminal.ensure_newline()
            named = NamingTerminal(terminal, session.config)
            for line in listed(plugin.gates, targets, missing):
                named.write_line(line)
        session.testsfailed += sum(each.fails for each in missing)
        return True


def _as_if_judged(gates: Sequence[Gate], targets: Sequence[GateTarget]) -> list[GateJudgement]:
    from pytest_tokenbudget.gates.verdicts import judgement_at

    return [
        judgement_at(gate, target, budget)
        for gate in gates
        for target in targets
        if judges(gate, target)
        for budget in ((target.budget,) if target.budget is not None else gate.budgets or (None,))
    ]


def listed(
    gates: Sequence[Gate], targets: Sequence[GateTarget], missing: Sequence[Unjudged]
) -> list[str]:
    """Every gate with the tests that judge it, for people."""
    if not gates:
        return ["tokenbudget: there are no gates"]
    lines = []
    for gate in gates:
        tests = [target.test for target in targets if judges(gate, target)]
        about = f"{gate.label}: {gate.measured.name} {gate.shown()}"
        how = [gate.where(), how_it_decides(gate)]
        lines.append("; ".join(part for part in (about, *how) if part))
        lines += [f"    judged by {test}" for test in tests[:SHOWN]]
        if len(tests) > SHOWN:
            lines.append(f"    and {len(tests) - SHOWN} more")
        lines += [
            f"    {_not_failing(each)}{each.sentence()}".replace("was not judged", "is not judged")
            for each in missing
            if each.gate is gate
        ]
    return lines


def _not_failing(missing: Unjudged) -> str:
    if missing.selection:
        return f"not in this selection ({missing.selection}): "
    return "" if missing.fails else "not required, and "


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


def _by_budget(kind: Kind) -> bool:
    """Whether each budget of a kind of study has requests, and so errors, of its own."""
    study = registry.studies().get(kind)
    judged = registry.judged().get(study.fixture) if study is not None else None
    return judged is not None and bool(judged.modes)


def tolerates_errors(item: pytest.Item, kind: Kind) -> bool:
    """Whether a gate on engine errors decides if too many answers are missing.

    It must be one on all problems, which a selected test judges for the same model by answers of
    the same kind.
    """
    from pytest_tokenbudget.collection.selection import kinds_of, model_under_test

    gates = [
        gate
        for gate in item.config.stash.get(GATES, ())
        if gate.metric == ERRORS
        and not gate.categories
        # Each thinking budget has requests of its own, and so errors of its own.
        and (gate.every or not _by_budget(kind))
    ]
    spec = model_under_test(item)
    if not gates or spec is None:
        return False
    plugin = item.config.pluginmanager.get_plugin(NAME)
    assert isinstance(plugin, GatesPlugin)
    targets = (
        plugin.target(other)
        for other in item.session.items
        if model_under_test(other) == spec and kind in kinds_of(other)
    )
    return any(judges(gate, target) for target in targets if target is not None for gate in gates)


def register(config: pytest.Config, session: Session) -> None:
    """Register what keeps the gates.

    Raises:
        pytest.UsageError: If a gate cannot be used.
    """
    plugin = GatesPlugin(config, session)
    config.pluginmanager.register(plugin, NAME)
    if session.settings.list_gates:
        # Workers would collect, and there is nothing to run.
        if hasattr(config.option, "dist"):
            config.option.dist, config.option.tx = "no", []
        config.pluginmanager.register(Lister(plugin), "tokenbudget-gates-list")
