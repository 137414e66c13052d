"""What ``--tokenbudget-compare-fail`` tolerates, held against a comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest

from pytest_tokenbudget.baselines.comparison import BaselineComparison
from pytest_tokenbudget.baselines.run_statistics import Scores, problem_pairs, ratio_of_means
from pytest_tokenbudget.settings.option_values import Tolerance
from pytest_tokenbudget.stats.decision_rules import (
    DecisionRule,
    MetricUnit,
    Threshold,
    ThresholdDecision,
    decide,
)
from pytest_tokenbudget.stats.evidence import Change, Evidence, Mean, mean_evidence
from pytest_tokenbudget.stats.intervals import Estimate, Floats
from pytest_tokenbudget.stats.paired import losses_and_wins, paired_bounds

NAMES = {
    "accuracy": "change of accuracy",
    "completed": "change of the accuracy of the completed",
    "truncation": "change of truncation",
    "tokens": "change of mean tokens",
}


@dataclass(frozen=True)
class Check:
    """One tolerance, judged.

    Attributes:
        tolerance: What is tolerated, as it was given.
        budget: At which budget it was judged.
        verdict: What was decided.
    """

    tolerance: Tolerance
    budget: int
    verdict: ThresholdDecision

    @property
    def failed(self) -> bool:
        """Whether the test of this budget fails."""
        return not self.verdict.kept

    def sentence(self) -> str:
        """The verdict with its evidence, for people."""
        tolerance = self.tolerance
        margin = self.verdict.demand.rule is DecisionRule.NONINFERIOR
        than = "a change of" if margin else "the tolerated"
        said = self.verdict.sentence(NAMES[tolerance.metric], _unit(tolerance), than)
        return f"{said} at {self.budget:,} tokens"

    def record(self) -> dict[str, object]:
        """As plain values."""
        return {
            "check": str(self.tolerance),
            "budget": self.budget,
            "failed": self.failed,
            "ruling": self.verdict.ruling,
            "sentence": self.sentence(),
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class SampledChange(Mean):
    """The change of a rate where a problem has several samples.

    Attributes:
        values: Difference of each problem, -1 to 1.
    """

    values: tuple[float, ...] = ()

    def estimate(self, confidence: float) -> Estimate:
        """The change with an interval that has a width where no two problems differ, too."""
        values = np.array(self.values)
        if not values.size:
            return Estimate(math.nan, self.least, self.most, 0)
        low, high = paired_bounds(values, False, (1 + confidence) / 2)
        return Estimate(self.value, low, high, values.size)


class BaselineGates:
    """The tolerances of a run, as they apply to one comparison.

    Args:
        tolerances: What is tolerated.
        comparison: What was compared.
        confidence: Two-sided confidence of the intervals that decide.
        largest: The budget that a tolerance without one means; None for the largest compared.
    """

    def __init__(
        self,
        tolerances: Sequence[Tolerance],
        comparison: BaselineComparison,
        confidence: float = 0.95,
        largest: int | None = None,
    ) -> None:
        self.tolerances, self.comparison = tuple(tolerances), comparison
        self.confidence, self.largest = confidence, largest or comparison.largest
        self._judged: dict[int, tuple[Check, ...]] = {}

    def applying(self, budget: int) -> list[Tolerance]:
        """Those that judge a budget; without one of their own they are for the largest."""
        return [t for t in self.tolerances if (t.budget or self.largest) == budget]

    def judge(self, budget: int) -> tuple[Check, ...]:
        """Every tolerance that applies to a budget, judged."""
        if budget not in self._judged:
            applying = self.applying(budget)
            self._judged[budget] = tuple(self._judge(each, budget) for each in applying)
        return self._judged[budget]

    def record(self, budget: int) -> dict[str, object]:
        """What was compared at a budget and what came of it, as plain values."""
        comparison = self.comparison
        return {
            "label": comparison.label,
            "model": comparison.after.model,
            "budget": budget,
            "accuracy": comparison.at(budget).accuracy.sentence("accuracy"),
            "checks": [each.record() for each in self.judge(budget)],
        }

    def check(self, budget: int) -> None:
        """Fail the test if the change at a budget goes beyond what is tolerated there.

        Raises:
            pytest.fail.Exception: With each verdict and its evidence.
        """
        __tracebackhide__ = True
        if found := [each.sentence() for each in self.judge(budget) if each.failed]:
            pytest.fail(f"against {self.comparison.label}: {'; '.join(found)}", pytrace=False)

    def _judge(self, tolerance: Tolerance, budget: int) -> Check:
        evidence = _evidence(self.comparison.scores(budget), tolerance)
        return Check(tolerance, budget, decide(evidence, _demand(tolerance, self.confidence)))


def _unit(tolerance: Tolerance) -> MetricUnit:
    if tolerance.metric != "tokens":
        return MetricUnit.CHANGE
    return MetricUnit.SHARE if tolerance.relative else MetricUnit.TOKENS


def _demand(tolerance: Tolerance, confidence: float) -> Threshold:
    rule, least, value = DecisionRule(tolerance.rule), tolerance.falls, tolerance.value
    if rule is DecisionRule.NONINFERIOR and value:
        return Threshold(0.0, least, rule, margin=abs(value), confidence=confidence)
    # No change at all leaves no margin: what the interval does not show is then not kept.
    strict = rule is DecisionRule.NONINFERIOR
    rule = DecisionRule.CONFIDENT if strict else rule
    allow = rule is DecisionRule.CONFIDENT and not strict
    return Threshold(value, least, rule, confidence=confidence, allow_inconclusive=allow)


def _evidence(scores: tuple[Scores, Scores], tolerance: Tolerance) -> Evidence:
    before, after = scores
    match tolerance.metric:
        case "tokens":
            return _of_tokens(before.tokens, after.tokens, tolerance)
        case "truncation":
            return _of_rates(before.truncated, after.truncated)
        case "completed":
            return _of_rates(before.completed(), after.completed())
    return _of_rates(before.correct, after.correct)


def _of_rates(before: Floats, after: Floats) -> Evidence:
    one, other, single = problem_pairs(before, after)
    values = other - one
    if single:
        return Change(*losses_and_wins(values), values.size)
    # One more problem than was seen, and of the largest difference: as for one sample a problem.
    square = (float((values**2).sum()) + 1) / (values.size + 1)
    mean = float(values.mean()) if values.size else math.nan
    deviation = math.sqrt(max(square - mean**2, 1e-9)) if values.size else math.nan
    measured = Estimate(mean, -1.0, 1.0, values.size)
    return SampledChange(measured, deviation, -1.0, 1.0, values=tuple(values.tolist()))


def _of_tokens(before: Floats, after: Floats, tolerance: Tolerance) -> Evidence:
    one, other, _ = problem_pairs(before, after)
    if not tolerance.relative:
        return mean_evidence((other - one).reshape(-1, 1))
    # What each problem adds to the ratio, to first order.
    mean = one.mean() if one.any() else float("nan")
    ratio = other.mean() / mean
    left = (other - ratio * one) / mean + ratio - 1
    evidence = mean_evidence(left.round(12).reshape(-1, 1), -1.0)
    return replace(evidence, interval=partial(ratio_of_means, one, other))
