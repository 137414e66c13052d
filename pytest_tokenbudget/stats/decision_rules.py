"""How a threshold decides: by the estimate, by its interval, or by what was shown to be no worse.

The rules differ in who bears the burden of proof.

- ``point``: the estimate decides. It always decides, and where the truth is at the threshold it
  decides by chance.
- ``confident``: it fails only if the whole interval is beyond the threshold, and passes only if the
  whole interval keeps it. Between these it is ``inconclusive``.
- ``noninferior``: it passes only if the whole interval misses the threshold by no more than a
  margin. What is not shown fails.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from pytest_tokenbudget.stats.evidence import ROUNDING, Evidence
from pytest_tokenbudget.stats.intervals import Estimate, check_confidence

POWER = 0.8
CONFIDENCE = 0.95
"""Of intervals in every table; an interval with another one says so."""
MOST_PROBLEMS = 10_000_000


class DecisionRule(StrEnum):
    """Which rule decides."""

    POINT = "point"
    CONFIDENT = "confident"
    NONINFERIOR = "noninferior"


class Decision(StrEnum):
    """What was decided; ``unknown`` where there was nothing to decide by."""

    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    UNKNOWN = "unknown"


class MetricUnit(StrEnum):
    """What the numbers are, for people."""

    SHARE = "share"
    CHANGE = "change"  # of a share
    TOKENS = "tokens"

    def number(self, value: float) -> str:
        """A measured value without its unit."""
        if self is MetricUnit.TOKENS:
            return f"{value:,.1f}"
        return f"{100 * value:+.1f}" if self is MetricUnit.CHANGE else f"{100 * value:.1f}"

    def limit(self, value: float) -> str:
        """A value that somebody chose, without its unit and no longer than they wrote it."""
        if self is MetricUnit.TOKENS:
            return f"{value:,.10g}"
        return f"{100 * value:+.10g}" if self is MetricUnit.CHANGE else f"{100 * value:.10g}"

    @property
    def suffix(self) -> str:
        return {"share": " %", "change": " points", "tokens": " tokens"}[self.value]

    def distance(self, value: float) -> str:
        return f"{value:,.1f} tokens" if self is MetricUnit.TOKENS else f"{100 * value:.1f} points"


@dataclass(frozen=True)
class Threshold:
    """A threshold, and how it decides.

    Attributes:
        threshold: The least or the most that is allowed.
        at_least: Whether it is the least.
        rule: How it decides.
        margin: By how much ``noninferior`` lets the threshold be missed.
        confidence: Two-sided confidence of the interval that decides.
        change: The change that one wants to find; None for the one from the threshold to what was
            measured. For ``noninferior`` it is the margin.
        allow_inconclusive: Whether an inconclusive verdict keeps the demand.

    Raises:
        ValueError: If they do not go together.
    """

    threshold: float
    at_least: bool = True
    rule: DecisionRule = DecisionRule.POINT
    margin: float = 0.0
    confidence: float = 0.95
    change: float | None = None
    allow_inconclusive: bool = False

    def __post_init__(self) -> None:
        check_confidence(self.confidence)
        if (self.rule is DecisionRule.NONINFERIOR) != (self.margin > 0):
            raise ValueError(
                "noninferior needs a margin above 0"
                if self.rule is DecisionRule.NONINFERIOR
                else f"a margin is for noninferior, not for {self.rule}"
            )
        if self.change is not None and (self.change <= 0 or self.rule is DecisionRule.NONINFERIOR):
            raise ValueError(
                "the change that noninferior looks for is its margin"
                if self.rule is DecisionRule.NONINFERIOR
                else f"a change to be found is above 0, not {self.change:g}"
            )
        if self.allow_inconclusive and self.rule is not DecisionRule.CONFIDENT:
            raise ValueError(f"only confident can be inconclusive, not {self.rule}")

    @property
    def level(self) -> float:
        """Error of either end of the interval."""
        return (1 - self.confidence) / 2

    @property
    def bound(self) -> float:
        """What the interval must keep: the threshold, less the margin if there is one."""
        return self.threshold - self.margin if self.at_least else self.threshold + self.margin

    def kept_by(self, ruling: Decision) -> bool:
        return ruling is Decision.PASSED or (
            ruling is Decision.INCONCLUSIVE and self.allow_inconclusive
        )


@dataclass(frozen=True)
class ThresholdDecision:
    """What a demand decided, with all that it rests on.

    Attributes:
        demand: What was demanded.
        ruling: What was decided.
        estimate: The measured value, the interval that every report shows of it, and the problems
            behind it.
        detectable: The smallest change from the threshold that this demand would have found with a
            power of 80 %; for ``noninferior`` the smallest margin that it would have shown to be
            kept. None where there is none.
        wanted: The change that was to be found.
        needed: Problems that it takes to find it with that power, by the interval; None where no
            number is enough.
        by_chance: How often it would not be kept although the truth is exactly at the threshold.
        decided_by: The test that decided, where the interval alone would have decided otherwise.
    """

    demand: Threshold
    ruling: Decision
    estimate: Estimate
    detectable: float | None = None
    wanted: float | None = None
    needed: int | None = None
    by_chance: float | None = None
    decided_by: str = ""

    @property
    def kept(self) -> bool:
        return self.demand.kept_by(self.ruling)

    def sentence(self, name: str, unit: MetricUnit, threshold: str = "the gate's") -> str:
        if self.ruling is Decision.UNKNOWN:
            return f"{name} was not measured (n = {self.estimate.n:,})"
        value, low, high = (unit.number(each) for each in self.estimate[:3])
        limit = f"{threshold} {unit.limit(self.demand.threshold)}{unit.suffix}"
        confidence = self.demand.confidence
        level = "" if confidence == CONFIDENCE else f" at {100 * confidence:.10g} %"
        by = f", by {self.decided_by}" if self.decided_by else ""
        return (
            f"{name} {value}{unit.suffix} [{low}, {high}]{level} {self._found(unit)} {limit}{by} "
            f"({self.evidence(unit)})"
        )

    def _found(self, unit: MetricUnit) -> str:
        demand = self.demand
        good, misses = ("at least", "below") if demand.at_least else ("at most", "above")
        if demand.rule is DecisionRule.NONINFERIOR:
            margin = unit.distance(demand.margin)
            if self.ruling is Decision.PASSED:
                return f"is shown to be no more than {margin} {misses}"
            return f"may be more than {margin} {misses}"
        if self.ruling is Decision.INCONCLUSIVE:
            return "is inconclusive about"
        return f"is {good if self.ruling is Decision.PASSED else misses}"

    def evidence(self, unit: MetricUnit) -> str:
        """How many problems there were, and what they could have shown, for people."""
        said = [f"n = {self.estimate.n:,}"]
        nonin = self.demand.rule is DecisionRule.NONINFERIOR
        what = "margin" if nonin else "change"
        if self.detectable is None:
            said.append(f"no {what} could have been found with 80 % power")
        else:
            size = unit.distance(self.detectable)
            said.append(f"a {what} of {size} would have been found with 80 % power")
        if self.wanted is None:
            return "; ".join(said)
        if nonin or self.demand.change is not None:
            told = f"find {unit.distance(self.wanted)}"
        else:
            told = (
                f"tell {unit.number(self.estimate.value)} from {unit.limit(self.demand.threshold)}"
            )
        if self.needed is None:
            said.append(f"no number of problems would {told}")
        elif self.needed > self.estimate.n:
            said.append(f"about {self.needed:,} problems would {told}")
        else:
            verb = "is" if self.needed == 1 else "are"
            said.append(f"{self.needed:,} {verb} enough to {told}")
        return "; ".join(said)


def decide(
    evidence: Evidence, demand: Threshold, estimate: Estimate | None = None
) -> ThresholdDecision:
    """Hold what was measured against a demand.

    An exact estimate takes its time: where one with an interval of the demand's confidence is known
    already, it is shown and decides.
    """
    ruling = ruling_of(
        evidence.estimate(demand.confidence) if estimate is None else estimate, demand
    )
    shown = evidence.shown(demand.confidence) if estimate is None else estimate
    if ruling is Decision.UNKNOWN:
        return ThresholdDecision(demand, ruling, shown)
    wanted, needed = _needed(evidence, demand)
    by_chance = not_kept_at(evidence, demand, demand.threshold)
    return ThresholdDecision(
        demand,
        ruling,
        shown,
        detectable=_detectable(evidence, demand),
        wanted=wanted,
        needed=needed,
        by_chance=None if math.isnan(by_chance) else by_chance,
        decided_by="" if ruling_of(shown, demand) is ruling else evidence.test,
    )


def not_kept_at(evidence: Evidence, demand: Threshold, truth: float) -> float:
    """How often a run does not keep a demand, were ``truth`` true."""
    good, level = demand.at_least, demand.level
    match demand.rule:
        case DecisionRule.POINT:
            return 1 - evidence.chance(good, demand.threshold, truth, None)
        case DecisionRule.CONFIDENT if demand.allow_inconclusive:
            return evidence.chance(not good, _beyond(evidence, demand), truth, level)
    return 1 - evidence.chance(good, demand.bound, truth, level)


def _beyond(evidence: Evidence, demand: Threshold) -> float:
    """The threshold, as an interval that is shown to miss it must exceed it.

    At the end of the range every interval reaches the threshold, and what misses it lies beyond.
    """
    threshold = demand.threshold
    if demand.at_least:
        return threshold - 2 * ROUNDING if threshold >= evidence.most - ROUNDING else threshold
    return threshold + 2 * ROUNDING if threshold <= evidence.least + ROUNDING else threshold


def ruling_of(estimate: Estimate, demand: Threshold) -> Decision:
    """What a demand decides by an estimate whose interval has the demand's confidence."""
    if math.isnan(estimate.value):
        return Decision.UNKNOWN
    sign = 1.0 if demand.at_least else -1.0
    worst, best = (estimate.low, estimate.high) if sign > 0 else (estimate.high, estimate.low)

    def within(value: float) -> bool:
        return sign * (value - demand.bound) >= -ROUNDING

    match demand.rule:
        case DecisionRule.POINT:
            return Decision.PASSED if within(estimate.value) else Decision.FAILED
        case DecisionRule.NONINFERIOR:
            return Decision.PASSED if within(worst) else Decision.FAILED
    if within(worst):
        return Decision.PASSED
    return Decision.INCONCLUSIVE if within(best) else Decision.FAILED


def _detectable(evidence: Evidence, demand: Threshold) -> float | None:
    """The smallest change, or margin, with the power."""
    sign = -1.0 if demand.at_least else 1.0
    threshold, bad = demand.threshold, not demand.at_least

    def power(distance: float) -> float:
        beyond = threshold + sign * distance
        match demand.rule:
            case DecisionRule.POINT:
                return 1 - evidence.chance(not bad, threshold, beyond, None)
            case DecisionRule.CONFIDENT:
                return evidence.chance(bad, _beyond(evidence, demand), beyond, demand.level)
        return evidence.chance(not bad, beyond, threshold, demand.level)

    end = evidence.least if demand.at_least else evidence.most
    most = abs(end - threshold)
    if math.isinf(most):
        most = 1.0
        while power(most) < POWER and most < 1e12:
            most *= 2
    return _smallest(power, most)


def _smallest(power: Callable[[float], float], most: float) -> float | None:
    """The smallest distance up to ``most`` with the power; None where there is none."""
    if not power(most) >= POWER:
        return None
    low, high = 0.0, most
    for _ in range(60):
        middle = (low + high) / 2
        if power(middle) >= POWER:
            high = middle
        else:
            low = middle
    return high


def _needed(evidence: Evidence, demand: Threshold) -> tuple[float | None, int | None]:
    """The change that was to be found, and how many problems that takes."""
    good, threshold, level = demand.at_least, demand.threshold, demand.level
    sign = 1.0 if good else -1.0
    if demand.rule is DecisionRule.NONINFERIOR:
        wanted, above, limit, truth = demand.margin, good, demand.bound, threshold
    elif demand.change is not None:
        wanted, above, limit = demand.change, not good, _beyond(evidence, demand)
        truth = threshold - sign * wanted
    else:
        wanted, limit, truth = abs(evidence.value - threshold), threshold, evidence.value
        above = truth > threshold
        limit = threshold if above is good else _beyond(evidence, demand)
    if wanted <= ROUNDING:
        return None, None
    if not evidence.least <= truth <= evidence.most:
        return wanted, None

    def enough(n: int) -> bool:
        return evidence.chance(above, limit, truth, level, n) >= POWER

    high = 1
    while not enough(high):
        high *= 2
        if high > MOST_PROBLEMS:
            return wanted, None
    between = range(high // 2 + 1, high)
    return wanted, between.start + bisect_left(between, True, key=enough)
