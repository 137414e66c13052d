"""What a policy spent and answered, against one limit for all and against an oracle.

References:
    Lin et al. (2025), Plan and Budget, arXiv 2505.16122: accuracy squared over tokens (E3).
    Rubin (1981), Annals of Statistics 9:130: the Bayesian bootstrap.
    Nadeau and Bengio (2003), Machine Learning 52:239: the variance of a cross-validation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pytest_tokenbudget.stats.intervals import Estimate, Floats, mean_estimate, wilson
from pytest_tokenbudget.stats.resampling import advantages, pseudo_weights
from pytest_tokenbudget.studies.allocation.replay import Replay


class Spent(NamedTuple):
    """What each problem came to under a policy."""

    correct: Floats
    tokens: Floats


@dataclass(frozen=True)
class PolicyPoint:
    """A policy at one working point, on problems that it did not learn on.

    Attributes:
        accuracy: Share of right answers.
        mean_tokens: Mean tokens an answer, of everything that the policy spends.
        e3: Accuracy squared over mean tokens, accuracy as a share of 1. Times 10,000 it is that of
            accuracy in percent.
        regret: Accuracy lost against an oracle with as many tokens.
        advantage: Accuracy less that of one limit for all at the same mean tokens (see ``Judge``).
    """

    accuracy: Estimate
    mean_tokens: Estimate
    e3: float
    regret: float
    advantage: Estimate


def oracle(replay: Replay) -> Spent:
    """The cheapest budget that is right, for each problem; the cheapest one where none is.

    That is mostly the smallest one, and not always: thinking that is ended early can be followed by
    a longer answer.
    """
    right = replay.correct > 0.5
    cost = np.where(right | ~right.any(axis=1, keepdims=True), replay.tokens, np.inf)
    rows, place = np.arange(replay.problems), cost.argmin(axis=1)
    return Spent(replay.correct[rows, place], replay.tokens[rows, place])


def oracle_accuracy(replay: Replay, mean_tokens: float) -> float:
    """The most that an oracle could answer with ``mean_tokens`` on average.

    It begins with the cheapest budget for each, and buys right answers, the cheapest first, as far
    as the tokens go. (All right answers are worth the same, so that no other order does better; the
    last one may be bought in part.)
    """
    best = oracle(replay)
    least = replay.tokens.min(axis=1)
    extra = (best.tokens - least)[best.correct > 0.5]
    paid = np.cumsum(np.sort(extra))
    left = max(mean_tokens * replay.problems - float(least.sum()), 0.0)
    whole = int(np.searchsorted(paid, left + 1e-9, side="right"))
    if whole == paid.size:
        return whole / replay.problems
    before = paid[whole - 1] if whole else 0.0
    part = max(0.0, (left - before) / (paid[whole] - before))
    return float((whole + part) / replay.problems)


class Judge:
    """Judges what policies spent against one limit for all at the same mean tokens.

    Between two limits, one limit does as the straight line between them does: as giving the one
    to some problems and the other to the rest, at random. Where doing so beats a limit in between,
    the line counts and not that limit (the upper convex hull of all limits). Otherwise any policy
    that spreads limits, however blindly, would seem to know something.

    Attributes:
        corners: Places of the budgets at the corners of the hull, from few tokens to many.
    """

    def __init__(self, replay: Replay, confidence: float) -> None:
        """Find the hull of one limit for all."""
        self.replay = replay
        self.confidence = confidence
        means, rates = replay.tokens.mean(axis=0), replay.correct.mean(axis=0)
        self.corners = _hull(means, rates)
        self.correct, self.tokens = replay.correct[:, self.corners], replay.tokens[:, self.corners]
        self.means, self.rates = means[self.corners], rates[self.corners]

    def gains(self, spent: Spent) -> Floats:
        """For each problem its part in the advantage over one limit at the same mean tokens.

        The mean is the difference in accuracy to the straight line between the two limits around.
        What a problem spends more or less than on that line is charged at the line's slope: that is
        what it changes in the comparison if it is drawn more often.
        """
        mean = float(spent.tokens.mean())
        above = int(np.searchsorted(self.means, mean, side="left"))
        if above in {0, self.means.size}:
            end = min(above, self.means.size - 1)
            return spent.correct - self.correct[:, end]
        below = above - 1
        width = self.means[above] - self.means[below]
        part = (mean - self.means[below]) / width
        slope = (self.rates[above] - self.rates[below]) / width
        correct = (1 - part) * self.correct[:, below] + part * self.correct[:, above]
        tokens = (1 - part) * self.tokens[:, below] + part * self.tokens[:, above]
        return np.asarray(spent.correct - correct - slope * (spent.tokens - tokens), np.float64)

    def points(
        self, spent: list[Spent], together: float | None = None, learned: bool = False
    ) -> list[PolicyPoint]:
        """Describe what policies spent.

        Args:
            spent: What each problem came to.
            together: Confidence of the advantages, if another one.
            learned: As in ``advantages``.
        """
        confidence = self.confidence if together is None else together
        found = advantages([self.gains(each) for each in spent], confidence, learned)
        return [
            PolicyPoint(
                accuracy=wilson(int(each.correct.sum()), each.correct.size, self.confidence),
                mean_tokens=mean_estimate(each.tokens[:, None], self.confidence),
                e3=e3(float(each.correct.mean()), float(each.tokens.mean())),
                regret=oracle_accuracy(self.replay, float(each.tokens.mean()))
                - float(each.correct.mean()),
                advantage=advantage,
            )
            for each, advantage in zip(spent, found, strict=True)
        ]


def _hull(means: Floats, rates: Floats) -> list[int]:
    """Corners of the upper convex hull, to its highest point, in rising order of the means."""
    corners: list[int] = []
    for place in np.lexsort((-rates, means)).tolist():
        if corners and rates[place] <= rates[corners[-1]]:
            continue
        while len(corners) > 1:
            first, last = corners[-2:]
            rise = (rates[last] - rates[first]) * (means[place] - means[first])
            if rise > (rates[place] - rates[first]) * (means[last] - means[first]):
                break
            corners.pop()
        corners.append(place)
    return corners


def e3_estimate(spent: Spent, confidence: float) -> Estimate:
    """Accuracy squared over mean tokens, with an interval by problem."""
    typical = float(spent.tokens.mean())
    rows = np.vstack([np.column_stack(spent), [[0.0, typical], [1.0, typical]]])
    sums = pseudo_weights(spent.correct.size) @ rows
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = sums[:, 0] ** 2 / sums[:, 1]
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    value = e3(float(spent.correct.mean()), typical)
    return Estimate(value, min(float(low), value), max(float(high), value), spent.correct.size)


def e3(accuracy: float, tokens: float) -> float:
    """Accuracy squared over mean tokens; NaN without tokens."""
    return accuracy**2 / tokens if tokens > 0 else math.nan
