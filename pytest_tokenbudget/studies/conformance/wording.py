"""What is said of an engine, wherever it is shown: terminal, figure, badge, gates.

A gate's threshold is ``limits``: no limit is broken. ``enforced`` or ``soft``: one method to set a
thinking budget reaches that at least. ``METHOD:enforced``, ``METHOD:soft``: this method does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from pytest_tokenbudget.common.messages import nearest
from pytest_tokenbudget.common.text_layout import count, decimal, listed, plural
from pytest_tokenbudget.studies.conformance.analysis import (
    BudgetResult,
    BudgetVerdict,
    ConformanceReport,
    LimitFinding,
    MethodResult,
)

NO_BUDGET = "none"
_REACHING = {"enforced": ("enforced",), "soft": ("enforced", "soft")}


def budget_name(budget: int | None) -> str:
    """A budget as tables and figures name it."""
    return NO_BUDGET if budget is None else count(budget)


def mean_thinking(result: BudgetResult) -> str:
    """Mean thinking tokens as tables and figures show them; ``-`` where nothing was observed.

    A star says that the model went on thinking after the close, where no budget reaches.
    """
    mean = result.mean_thinking
    if math.isnan(mean):
        return "-"
    return (decimal(mean) if mean < 1000 else count(mean)) + ("*" if result.goes_on else "")


def star_sentence(report: ConformanceReport) -> str:
    """What the star means; empty where there is none."""
    more = [
        each.spill
        for method in report.methods
        for result in method.budgets
        if result.goes_on
        for each in result.observations
    ]
    if not more:
        return ""
    mean = decimal(sum(more) / len(more))
    return f"* the model went on thinking after the close, {mean} tokens more on average"


def thinking_sentence(report: ConformanceReport) -> str:
    """Whether a thinking budget is kept, and in which way it must be set."""
    best = report.best
    if best is None:
        return "no way to set a thinking budget was tried"
    tried = plural(len(report.setting), "way")
    alike = [method for method in report.setting if method.verdict is best.verdict]
    names = _names(alike)
    match best.verdict:
        case BudgetVerdict.ENFORCED | BudgetVerdict.SOFT:
            said = f"thinking budget {best.verdict} by {names}"
            going_on = [method for method in alike if method.goes_on]
            if not going_on:
                return said
            which = "" if len(going_on) == len(alike) else f" with {_names(going_on)}"
            return f"{said}, but the model goes on thinking after the close{which}"
        case BudgetVerdict.NOT_RESOLVED:
            return (
                f"thinking budget not resolved: of {tried} none is shown to keep one, and "
                f"{names} could not be judged"
            )
        case BudgetVerdict.REFUSED:
            return f"thinking budget refused: {tried} tried, none is taken"
    return f"thinking budget {best.verdict}: {tried} tried, none keeps one"


def switch_sentence(report: ConformanceReport) -> str:
    """Which switches turn thinking off; empty where none was tried."""
    switches = [method for method in report.methods if method.is_switch]
    if not switches:
        return ""
    off = [method for method in switches if method.verdict is BudgetVerdict.ENFORCED]
    if not off:
        return f"no switch is shown to turn thinking off ({plural(len(switches), 'way')} tried)"
    return f"thinking is turned off by {_names(off)}"


def limits_sentence(report: ConformanceReport) -> str:
    """Whether the limits are kept."""
    if not report.limits:
        return "no limit was probed"
    if broken := report.limits_with(LimitFinding.BROKEN):
        verb = "is" if len(broken) == 1 else "are"
        return f"{plural(len(broken), 'limit')} {verb} broken: {', '.join(broken)}"
    kept = report.limits_with(LimitFinding.KEPT)
    differs = report.limits_with(LimitFinding.DIFFERS)
    also = f"; outputs differ in {', '.join(differs)}" if differs else ""
    return f"no limit broken, {len(kept)} of {len(report.limits)} kept{also}"


def _names(methods: Sequence[MethodResult]) -> str:
    return listed([method.way for method in methods], most=len(methods))


class ThresholdVerdict(NamedTuple):
    """A threshold of a gate, held against what was found.

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
    """
    if isinstance(finding, MethodResult):
        evidence = f"{finding.way} is {finding.sentence}"
        return [
            ThresholdVerdict(threshold, method_fault(demand, finding), evidence)
            for threshold in thresholds
            for name, _, demand in [threshold.rpartition(":")]
            if name == finding.way
        ]
    measured = {method.way for method in finding.methods}
    evidence = f"{limits_sentence(finding)}; {thinking_sentence(finding)}"
    return [
        ThresholdVerdict(threshold, engine_fault(threshold, finding), evidence)
        for threshold in thresholds
        if threshold.rpartition(":")[0] not in measured
    ]


def method_fault(demand: str, method: MethodResult) -> str:
    """What is wrong with a method that was to be ``enforced`` or ``soft``; empty if nothing is."""
    if method.verdict in _REACHING[demand]:
        return ""
    return f"{method.way} was to be {demand}, and is {method.sentence}"


def engine_fault(demand: str, report: ConformanceReport) -> str:
    """What is wrong with an engine that something was demanded of; empty if nothing is."""
    name = demand.rpartition(":")[0]
    if name:
        return f"the gate {demand} cannot be judged: {_why_not_measured(name, report)}"
    if demand == "limits":
        if not report.limits:
            return "the gate limits cannot be judged: no limit was probed"
        broken = [each for each in report.limits if each.finding is LimitFinding.BROKEN]
        return "; ".join(f"{each.probe}: {each.sentence}" for each in broken)
    if any(method.verdict in _REACHING[demand] for method in report.setting):
        return ""
    least = "" if demand == "enforced" else " at least"
    return f"a thinking budget was to be {demand}{least} in one way: {thinking_sentence(report)}"


def _why_not_measured(name: str, report: ConformanceReport) -> str:
    reasons = {each.way: each.reason for each in report.not_asked}
    if name in reasons:
        return f"it was not tried: {reasons[name]}"
    if name in report.missing:
        return "it was not tried in this run"
    measured = [method.way for method in report.methods]
    close = nearest(name, [*measured, *reasons], count=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"there is no such way; measured here: {', '.join(measured) or 'none'}{hint}"
