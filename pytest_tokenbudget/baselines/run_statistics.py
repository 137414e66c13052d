"""Two runs on the same problems: how far one is from the other, problem by problem.

References:
    Tango (1998), Statistics in Medicine 17:891: the score interval of a paired difference.
    Fieller (1954), J. Royal Statistical Society B 16:175: the interval of a ratio of means.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pytest_tokenbudget.common.text_layout import decimal, percent, point_change
from pytest_tokenbudget.core.curve import check_axis
from pytest_tokenbudget.stats.intervals import (
    Estimate,
    Floats,
    check_confidence,
    mean_estimate,
    t_quantile,
)
from pytest_tokenbudget.stats.paired import losses_and_wins, mcnemar, paired_bounds
from pytest_tokenbudget.stats.resampling import holm, p_words


class Scores(NamedTuple):
    """What one run measured: arrays of problems x samples x budgets.

    Attributes:
        correct: 1 for a right answer and 0 for any other; NaN where there is none (an error).
        truncated: 1 where the budget cut the answer; NaN as above.
        tokens: Output tokens used; NaN as above.
    """

    correct: Floats
    truncated: Floats
    tokens: Floats

    def completed(self) -> Floats:
        """Right answers among those that the budget did not cut; NaN for the others."""
        return np.where(self.truncated > 0, np.nan, self.correct)


@dataclass(frozen=True)
class RateChange:
    """A rate in two runs, over the problems that both scored.

    Attributes:
        before: The rate in the first run.
        after: The rate in the second.
        difference: After less before, with a two-sided interval; ``n`` counts the problems.
        fell: Problems in which the second run is lower.
        rose: Problems in which it is higher.
        p_mcnemar: Exact two-sided McNemar test of those that fell against those that rose.
    """

    before: float
    after: float
    difference: Estimate
    fell: int
    rose: int
    p_mcnemar: float

    def sentence(self, what: str) -> str:
        """What is known of the rate of this name, for people."""
        if not self.difference.n:
            return f"{what}: no problem was scored by both"
        value, interval = point_change(self.difference).split(" ", 1)
        change = "unchanged" if not self.fell + self.rose else f"{value} points"
        text = (
            f"{what} {percent(self.before)} -> {percent(self.after)} %, {change} {interval}, "
            f"n = {self.difference.n:,}"
        )
        if not self.fell + self.rose:
            return f"{text}: no problem differs"
        return f"{text}: exact McNemar {p_words(self.p_mcnemar)}"


@dataclass(frozen=True)
class TokenChange:
    """Mean output tokens in two runs, over the problems that both scored.

    Attributes:
        before: The mean in the first run.
        after: The mean in the second.
        difference: After less before, with a two-sided t interval.
        ratio: After over before, less 1, with Fieller's interval; its ends are NaN where the data
            do not bound it.
    """

    before: float
    after: float
    difference: Estimate
    ratio: Estimate

    def sentence(self) -> str:
        """What is known, for people."""
        if not self.ratio.n:
            return "mean tokens: no problem was scored by both"
        text = f"mean tokens {decimal(self.before)} -> {decimal(self.after)}"
        if math.isnan(self.ratio.value):
            return text
        value, interval = point_change(self.ratio).split(" ", 1)
        return f"{text}, {value} %" + ("" if math.isnan(self.ratio.low) else f" {interval}")


@dataclass(frozen=True)
class PointChange:
    """Two runs at one budget.

    Attributes:
        problems: Problems that both scored there.
        accuracy: Right answers over all of them.
        completed: Right answers over those that neither run truncated.
        truncation: Truncated answers.
        tokens: Output tokens used.
    """

    budget: int
    problems: int
    accuracy: RateChange
    completed: RateChange
    truncation: RateChange
    tokens: TokenChange


@dataclass(frozen=True)
class Pair:
    """Two of several models at one budget.

    Attributes:
        first: One model's name.
        second: The other's.
        change: From the first to the second.
        p_holm: The p-value of their accuracies, adjusted by Holm over all pairs.
    """

    first: str
    second: str
    change: PointChange
    p_holm: float

    def shown(self, level: float = 0.05) -> bool:
        """Whether a difference is shown among so many comparisons."""
        return self.p_holm <= level


def compare(
    budgets: Sequence[int], before: Scores, after: Scores, confidence: float = 0.95
) -> tuple[PointChange, ...]:
    """Compare two runs at every budget.

    Args:
        budgets: Budgets in rising order.
        before: The first run.
        after: The second, on the same problems in the same order; its samples a problem may be
            others.
        confidence: Two-sided confidence of every interval.

    Raises:
        ValueError: If shapes disagree or budgets do not rise.
    """
    check_confidence(confidence)
    for run in (before, after):
        for name, array in run._asdict().items():
            check_axis(budgets, array.shape, name)
            if array.shape != run.correct.shape or len(array) != len(before.correct):
                raise ValueError(f"{name}: shape {array.shape} is not that of the other arrays")
    return tuple(
        _point(budget, _at_budget(before, place), _at_budget(after, place), confidence)
        for place, budget in enumerate(budgets)
    )


def _at_budget(run: Scores, place: int) -> Scores:
    return Scores(*(array[:, :, place] for array in run))


def _point(budget: int, before: Scores, after: Scores, confidence: float) -> PointChange:
    accuracy = rate_change(before.correct, after.correct, confidence)
    return PointChange(
        budget=budget,
        problems=accuracy.difference.n,
        accuracy=accuracy,
        completed=rate_change(before.completed(), after.completed(), confidence),
        truncation=rate_change(before.truncated, after.truncated, confidence),
        tokens=token_change(before.tokens, after.tokens, confidence),
    )


def rate_change(before: ArrayLike, after: ArrayLike, confidence: float = 0.95) -> RateChange:
    """How a rate changed between two runs: problems x samples, 0 to 1, NaN where there is none."""
    one, other, single = problem_pairs(before, after)
    values = other - one
    fell, rose = losses_and_wins(values)
    low, high = paired_bounds(values, single, (1 + confidence) / 2)
    value = float(values.mean()) if values.size else math.nan
    return RateChange(
        before=float(one.mean()) if one.size else math.nan,
        after=float(other.mean()) if other.size else math.nan,
        difference=Estimate(value, low, high, values.size),
        fell=fell,
        rose=rose,
        p_mcnemar=mcnemar(fell, rose),
    )


def token_change(before: ArrayLike, after: ArrayLike, confidence: float = 0.95) -> TokenChange:
    """How mean tokens changed between two runs.

    Args:
        before: Problems x samples of the first run; NaN where there is none.
        after: The same of the second.
        confidence: Two-sided confidence.
    """
    one, other, _ = problem_pairs(before, after)
    return TokenChange(
        before=float(one.mean()) if one.size else math.nan,
        after=float(other.mean()) if other.size else math.nan,
        difference=mean_estimate((other - one).reshape(-1, 1), confidence),
        ratio=ratio_of_means(one, other, confidence),
    )


def ratio_of_means(one: Floats, other: Floats, confidence: float = 0.95) -> Estimate:
    """The mean of ``other`` over that of ``one``, less 1, with Fieller's interval.

    A ratio belongs to it where the mean of ``other - ratio * one`` is not shown to differ from 0.
    """
    n = one.size
    if not n or not one.any():
        return Estimate(math.nan, math.nan, math.nan, n)
    value = float(other.mean() / one.mean())
    if n == 1:
        return Estimate(value - 1, math.nan, math.nan, n)
    spread = t_quantile((1 + confidence) / 2, n - 1) ** 2 * np.cov(one, other) / n
    square = one.mean() ** 2 - spread[0, 0]
    linear = one.mean() * other.mean() - spread[0, 1]
    constant = other.mean() ** 2 - spread[1, 1]
    if square <= 0:
        return Estimate(value - 1, math.nan, math.nan, n)
    half = math.sqrt(max(float(linear**2 - square * constant), 0.0))
    low, high = (float(linear - half) / square, float(linear + half) / square)
    return Estimate(value - 1, min(low, value) - 1, max(high, value) - 1, n)


def problem_pairs(before: ArrayLike, after: ArrayLike) -> tuple[Floats, Floats, bool]:
    """Each problem's mean over its samples in both runs, where both have one.

    Returns:
        The means before and after, and whether there is one sample a problem in both.
    """
    one, other = problem_means(before), problem_means(after)
    both = np.isfinite(one) & np.isfinite(other)
    single = np.shape(before)[1] == np.shape(after)[1] == 1
    return one[both], other[both], single


def problem_means(values: ArrayLike) -> Floats:
    """Each problem's mean over its samples (problems x samples); NaN where it has none."""
    table = np.asarray(values, dtype=np.float64)
    seen = np.isfinite(table)
    sums, counts = np.where(seen, table, 0.0).sum(axis=1), seen.sum(axis=1)
    means: Floats = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return means


def pairwise(changes: Sequence[tuple[str, str, PointChange]]) -> tuple[Pair, ...]:
    """Several models against each other, p-values adjusted by Holm over all pairs."""
    adjusted = holm([change.accuracy.p_mcnemar for _, _, change in changes])
    return tuple(
        Pair(first, second, change, p)
        for (first, second, change), p in zip(changes, adjusted, strict=True)
    )


class ParetoPoint(NamedTuple):
    """One model at one budget on the plane of accuracy and what it takes.

    Attributes:
        accuracy: Accuracy there.
        price: Mean tokens, or a cost.
    """

    name: str
    budget: int
    accuracy: float
    price: float


def pareto(places: Sequence[ParetoPoint]) -> tuple[ParetoPoint, ...]:
    """Those that no other place beats by being as good for less, or better for as much.

    In rising order of price. Of places that are alike in both the first is kept.
    """
    front: list[ParetoPoint] = []
    for place in sorted(places, key=lambda each: (each.price, -each.accuracy)):
        known = math.isfinite(place.price) and math.isfinite(place.accuracy)
        if known and (not front or place.accuracy > front[-1].accuracy + 1e-12):
            front.append(place)
    return tuple(front)
