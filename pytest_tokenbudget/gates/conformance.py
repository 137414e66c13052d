"""Gates on what an engine keeps: its limits, and thinking budgets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_tokenbudget.gates.judging import judgement_at, settle
from pytest_tokenbudget.gates.table import CONFORMANCE, Gate
from pytest_tokenbudget.gates.targets import Place, goes_with
from pytest_tokenbudget.gates.verdicts import Judgement
from pytest_tokenbudget.settings.config_file import nearest

if TYPE_CHECKING:
    from pytest_tokenbudget.studies.conformance.analysis import ConformanceReport
    from pytest_tokenbudget.studies.conformance.results import WayResult

_REACHING = {"enforced": ("enforced",), "soft": ("enforced", "soft")}


class ConformanceGates:
    """What gates demand of an engine.

    A demand is ``limits``: no limit is broken. ``enforced`` or ``soft``: one way to set a thinking
    budget reaches that at least. ``WAY:enforced``, ``WAY:soft``: this way does.

    Args:
        gates: All gates.
        place: The test.
        kept: Where judgements are kept.
    """

    def __init__(self, gates: Sequence[Gate], place: Place, kept: list[Judgement]) -> None:
        self.gates = tuple(g for g in gates if g.metric == CONFORMANCE and goes_with(g, place))
        self.place = place
        self._kept = kept

    @property
    def demands(self) -> tuple[str, ...]:
        """What is demanded."""
        return tuple(str(gate.threshold) for gate in self.gates)

    def check(self, way: WayResult) -> None:
        """Fail the test if a way does not keep what is demanded of it.

        Raises:
            pytest.fail.Exception: With the verdict and its evidence.
        """
        __tracebackhide__ = True
        settle(self.judge(way), self._kept)

    def check_all(self, report: ConformanceReport) -> None:
        """Fail the test if the engine does not keep what is demanded of it as a whole.

        A demand on a way that was not measured, or that nobody knows, is not kept.

        Raises:
            pytest.fail.Exception: With a sentence for each demand that is not kept.
        """
        __tracebackhide__ = True
        settle(self.judge_all(report), self._kept)

    def judge(self, way: WayResult) -> list[Judgement]:
        """Every gate on this way, judged."""
        return [
            self._judgement(gate, of_way(demand, way), f"{way.way} is {way.sentence}")
            for gate in self.gates
            for name, _, demand in [str(gate.threshold).rpartition(":")]
            if name == way.way
        ]

    def judge_all(self, report: ConformanceReport) -> list[Judgement]:
        """Every gate on the engine as a whole, and on ways that were not measured, judged."""
        measured = {way.way for way in report.ways}
        return [
            self._judgement(gate, of_engine(str(gate.threshold), report), _kept_by(report))
            for gate in self.gates
            if str(gate.threshold).rpartition(":")[0] not in measured
        ]

    def _judgement(self, gate: Gate, broken: str, evidence: str) -> Judgement:
        unknown = "cannot be judged" in broken
        return replace(
            judgement_at(gate, self.place),
            ruling="unknown" if unknown else "failed" if broken else "passed",
            kept=not broken,
            sentence=broken or f"{gate.threshold} is kept: {evidence}",
        )


def of_way(demand: str, way: WayResult) -> str:
    """What is wrong with a way that was to be ``enforced`` or ``soft``; empty if nothing is."""
    if way.verdict in _REACHING[demand]:
        return ""
    return f"{way.way} was to be {demand}, and is {way.sentence}"


def of_engine(demand: str, report: ConformanceReport) -> str:
    """What is wrong with an engine that something was demanded of; empty if nothing is."""
    name = demand.rpartition(":")[0]
    if name:
        return f"the gate {demand} cannot be judged: {_why(name, report)}"
    if demand == "limits":
        if not report.limits:
            return "the gate limits cannot be judged: no limit was probed"
        broken = [each for each in report.limits if each.finding == "broken"]
        return "; ".join(f"{each.probe}: {each.sentence}" for each in broken)
    if any(way.verdict in _REACHING[demand] for way in report.setting):
        return ""
    least = "" if demand == "enforced" else " at least"
    return f"a thinking budget was to be {demand}{least} in one way: {report.thinking_sentence()}"


def _kept_by(report: ConformanceReport) -> str:
    return f"{report.limits_sentence()}; {report.thinking_sentence()}"


def _why(name: str, report: ConformanceReport) -> str:
    """Why a way was not measured."""
    for each in report.not_asked:
        if each.way == name:
            return f"it was not tried: {each.reason}"
    ways = [way.way for way in report.ways]
    if name in report.missing:
        return "it was not tried in this run"
    close = nearest(name, [*ways, *(each.way for each in report.not_asked)], count=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"there is no such way; measured here: {', '.join(ways) or 'none'}{hint}"
