"""What gates demand of an engine, held against what its probes found.

A threshold is ``limits``: no limit is broken. ``enforced`` or ``soft``: one method to set a
thinking budget reaches that at least. ``METHOD:enforced``, ``METHOD:soft``: this method does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pytest_tokenbudget.common.messages import nearest
from pytest_tokenbudget.studies.conformance.analysis import ConformanceReport
from pytest_tokenbudget.studies.conformance.results import MethodResult

_REACHING = {"enforced": ("enforced",), "soft": ("enforced", "soft")}


class ThresholdVerdict(NamedTuple):
    """A threshold that was held against a finding.

    Attributes:
        threshold: What was demanded.
        fault: What is wrong; empty if the threshold is kept.
        evidence: What was found, in a sentence.
    """

    threshold: str
    fault: str
    evidence: str


def verdicts(
    thresholds: Sequence[str], finding: MethodResult | ConformanceReport
) -> list[ThresholdVerdict]:
    """Hold thresholds against one method, or against the engine as a whole.

    A threshold on a method that was not measured, or that nobody knows, is judged with the whole:
    it is not kept.

    Args:
        thresholds: What is demanded.
        finding: What one method came to, or everything that was found of the engine.
    """
    if isinstance(finding, MethodResult):
        evidence = f"{finding.way} is {finding.sentence}"
        return [
            ThresholdVerdict(threshold, of_way(demand, finding), evidence)
            for threshold in thresholds
            for name, _, demand in [threshold.rpartition(":")]
            if name == finding.way
        ]
    measured = {way.way for way in finding.ways}
    return [
        ThresholdVerdict(threshold, of_engine(threshold, finding), _kept_by(finding))
        for threshold in thresholds
        if threshold.rpartition(":")[0] not in measured
    ]


def of_way(demand: str, way: MethodResult) -> str:
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
