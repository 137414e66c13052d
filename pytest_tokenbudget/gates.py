"""Gates: thresholds that turn a metric into a failed test."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import pytest

from pytest_tokenbudget.config_file import nearest
from pytest_tokenbudget.options import Settings, Threshold

if TYPE_CHECKING:
    from pytest_tokenbudget.analysis.curve import Point
    from pytest_tokenbudget.analysis.intervals import Estimate
    from pytest_tokenbudget.conformance.results import WayResult
    from pytest_tokenbudget.report.conformance_study import ConformanceReport

_REACHING = {"enforced": ("enforced",), "soft": ("enforced", "soft")}


class Gates:
    """The thresholds of a run, as they apply to one model.

    Args:
        min_accuracy: Lower bounds on accuracy over all problems.
        max_truncation: Upper bounds on the truncation rate.
        largest: The budget that a threshold without one means.
        left_out: Budgets that the model's context has no room for.
    """

    def __init__(
        self,
        min_accuracy: Sequence[Threshold],
        max_truncation: Sequence[Threshold],
        largest: int,
        left_out: Collection[int] = (),
    ) -> None:
        self.min_accuracy = tuple(min_accuracy)
        self.max_truncation = tuple(max_truncation)
        self.largest = largest
        self.left_out = frozenset(left_out)

    def applying(self, thresholds: Sequence[Threshold], budget: int) -> list[Threshold]:
        """Those of ``thresholds`` that judge ``budget``."""
        return [t for t in thresholds if (t.budget or self.largest) == budget]

    def violations(self, point: Point) -> list[str]:
        """A sentence for every threshold that the point does not keep.

        The largest budget also answers for the thresholds of budgets that were left out.
        """
        found = []
        for threshold in self.applying(self.min_accuracy, point.budget):
            if not point.accuracy.value >= threshold.value:
                found.append(_sentence("accuracy", point.accuracy, "below", threshold.value))
        for threshold in self.applying(self.max_truncation, point.budget):
            if not point.truncation.value <= threshold.value:
                found.append(_sentence("truncation", point.truncation, "above", threshold.value))
        if point.budget == self.largest:
            found += [
                f"the gate {threshold} cannot be judged: the model's context has no room for "
                f"{threshold.budget:,} tokens"
                for threshold in (*self.min_accuracy, *self.max_truncation)
                if threshold.budget in self.left_out
            ]
        return found

    def check(self, point: Point) -> None:
        """Fail the test if the point does not keep a threshold that applies to its budget.

        Args:
            point: A point of the curve.

        Raises:
            pytest.fail.Exception: With estimate, interval, n, threshold, and how many problems
                would tell the two apart.
        """
        __tracebackhide__ = True
        if found := self.violations(point):
            pytest.fail("; ".join(found), pytrace=False)


class ConformanceGates:
    """What ``--min-conformance`` demands of an engine.

    Args:
        demands: ``limits``: no limit is broken. ``enforced`` or ``soft``: one way to set a
            thinking budget reaches that at least. ``WAY:enforced``, ``WAY:soft``: this way does.
    """

    def __init__(self, demands: Sequence[str]) -> None:
        self.demands = tuple(demands)

    def violations_of(self, way: WayResult) -> list[str]:
        """A sentence for every demand on this way that it does not keep."""
        demanded = [demand for name, demand in self._of_ways() if name == way.way]
        return [
            f"{way.way} was to be {demand}, and is {way.sentence}"
            for demand in demanded
            if way.verdict not in _REACHING[demand]
        ]

    def check(self, way: WayResult) -> None:
        """Fail the test if a way does not keep what is demanded of it.

        Raises:
            pytest.fail.Exception: With the verdict and its evidence.
        """
        __tracebackhide__ = True
        if found := self.violations_of(way):
            pytest.fail("; ".join(found), pytrace=False)

    def violations(self, report: ConformanceReport) -> list[str]:
        """A sentence for every demand on the engine as a whole that is not kept.

        A demand on a way that was not measured, or that nobody knows, is not kept.
        """
        found = []
        for demand in self.demands:
            if demand == "limits":
                found += _limits_violated(report)
            elif demand in _REACHING and not any(
                way.verdict in _REACHING[demand] for way in report.setting
            ):
                least = "" if demand == "enforced" else " at least"
                found.append(
                    f"a thinking budget was to be {demand}{least} in one way: "
                    f"{report.thinking_sentence()}"
                )
        measured = {way.way for way in report.ways}
        for name, demand in self._of_ways():
            if name not in measured:
                found.append(f"the gate {name}:{demand} cannot be judged: {_why(name, report)}")
        return found

    def check_all(self, report: ConformanceReport) -> None:
        """Fail the test if the engine does not keep what is demanded of it as a whole.

        Raises:
            pytest.fail.Exception: With a sentence for each demand that is not kept.
        """
        __tracebackhide__ = True
        if found := self.violations(report):
            pytest.fail("; ".join(found), pytrace=False)

    def unjudged(self, reports: Sequence[ConformanceReport]) -> list[str]:
        """A line for every demand that no selected test judged."""
        if not reports:
            return [
                f"--min-conformance {demand} was not judged: no selected test is of -m conformance"
                for demand in self.demands
            ]
        return [
            f"--min-conformance {demand} was not judged for {report.alias}: test_gates, which "
            "judges it, did not run"
            for report in reports
            if not report.judged
            for demand in self.demands
            if demand.rpartition(":")[0] not in {way.way for way in report.ways}
        ]

    def _of_ways(self) -> list[tuple[str, str]]:
        parts = [demand.rpartition(":") for demand in self.demands]
        return [(name, demand) for name, colon, demand in parts if colon]


def _limits_violated(report: ConformanceReport) -> list[str]:
    broken = [each for each in report.limits if each.finding == "broken"]
    if not report.limits:
        return ["the gate limits cannot be judged: no limit was probed"]
    return [f"{each.probe}: {each.sentence}" for each in broken]


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


def unjudged(
    settings: Settings, alias: str, budgets: Collection[int], left_out: Collection[int]
) -> list[str]:
    """A line for every threshold whose budget no selected test needs.

    Args:
        settings: Hold the thresholds.
        alias: The model's name.
        budgets: Budgets that the selected tests needed of it.
        left_out: Budgets that its context has no room for.
    """
    largest = max((b for b in settings.budgets if b not in left_out), default=None)
    lines = []
    for option, thresholds in (
        ("--min-accuracy", settings.min_accuracy),
        ("--max-truncation", settings.max_truncation),
    ):
        for threshold in thresholds:
            budget = threshold.budget or largest
            if budget is not None and budget not in budgets and budget not in left_out:
                lines.append(
                    f"{option} {threshold} was not judged for {alias}: no selected test looks at "
                    f"{budget:,} tokens"
                )
    return lines


def _sentence(metric: str, estimate: Estimate, side: str, threshold: float) -> str:
    from pytest_tokenbudget.analysis.intervals import problems_to_tell

    value = 100 * estimate.value
    n = f"n = {estimate.n:,}"
    if estimate.value != threshold and estimate.n:
        needed = problems_to_tell(estimate.value, threshold)
        if needed > estimate.n:
            n += f"; about {needed:,} problems would tell {value:.1f} from {100 * threshold:g}"
    return (
        f"{metric} {value:.1f} % [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}] is {side} "
        f"the gate's {100 * threshold:g} % ({n})"
    )
