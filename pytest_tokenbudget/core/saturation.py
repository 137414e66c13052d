"""The saturation point: the smallest budget that is not worse than the largest by a margin.

Going down from the largest budget, each smaller one is tested for non-inferiority, paired by
problem, at the full level; the sequence stops at the first that fails. Because it is fixed
beforehand, the chance of calling any inferior budget "not worse" stays below that level without a
correction for the number of budgets. What could not be shown is said to be unresolved, and a budget
is only called worse where that in turn was shown.

With one sample a problem the bounds are ``paired_lower``'s, Tango's score bound made exact. With
several, each problem has one difference in accuracy, a number between -1 and 1, and the bounds are
``bootstrap_lower``'s. Both hold at few problems and without a single discordant one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike

from pytest_tokenbudget.core.curve import check_axis
from pytest_tokenbudget.stats.intervals import (
    Estimate,
    Floats,
    bootstrap_lower,
    clustered_rate,
    normal_quantile,
)
from pytest_tokenbudget.stats.paired import (
    losses_and_wins,
    mcnemar,
    paired_bounds,
    paired_p,
    tango_score,
)


class Status(StrEnum):
    """What is known about the saturation point."""

    SATURATED = "saturated"
    NOT_REACHED = "not_reached"
    UNRESOLVED = "unresolved"


@dataclass(frozen=True)
class BudgetComparison:
    """One budget against the largest, by problem.

    Attributes:
        problems: Problems that were scored at both.
        difference: Its accuracy less that of the largest, with one-sided bounds.
        lost: Problems in which it does worse than the largest; ``won``, in which it does better.
        p_mcnemar: Exact two-sided McNemar test of lost against won, against no difference at all.
        holds: Whether the lower bound is above -margin: shown to be not worse. For budgets below
            the first that fails, outside of the sequence, this stands for itself only.
        worse: Whether the upper bound is below -margin: shown to be worse.
    """

    budget: int
    problems: int
    difference: float
    lower_bound: float
    upper_bound: float
    lost: int
    won: int
    p_mcnemar: float
    holds: bool
    worse: bool


@dataclass(frozen=True)
class Saturation:
    """The saturation point, or what is known instead.

    Attributes:
        budget: The saturation point; None unless ``status`` is ``saturated``.
        status: ``not_reached`` where the next smaller budget is shown to be worse than the largest:
            then the curve may still be rising there.
        largest: The budget that all others are compared with, with its ``accuracy``.
        margin: Loss of accuracy that does not matter.
        confidence: One-sided confidence of every bound.
        problems: Problems that were scored at the largest budget.
        comparisons: Every smaller budget against the largest, in the order of testing (falling).
        needed: Problems at which the first comparison that failed would be resolved if discordance
            and difference stayed as observed (an even chance, not a promise); None where nothing
            is unresolved or no number of problems would do.
    """

    budget: int | None
    status: Status
    largest: int
    margin: float
    confidence: float
    problems: int
    accuracy: Estimate
    comparisons: tuple[BudgetComparison, ...]
    needed: int | None

    @property
    def failed(self) -> BudgetComparison | None:
        """The comparison at which the sequence stopped, if it did."""
        return next((each for each in self.comparisons if not each.holds), None)

    @property
    def meaningful(self) -> bool:
        """Whether accuracy at the largest budget is above the margin, so that there is a loss.

        Otherwise a budget of no tokens at all would be "not worse", too.
        """
        return self.accuracy.low > self.margin

    def sentence(self) -> str:
        if self.status is Status.SATURATED:
            return self._saturated()
        if self.status is Status.NOT_REACHED:
            return self._not_reached()
        return self._unresolved()

    def _saturated(self) -> str:
        lowest = self.comparisons[-1].budget == self.budget
        text = (
            f"saturates at {self.budget}{' or below' if lowest else ''}: not worse than "
            f"{self.largest} by more than {points(self.margin)} "
            f"(one-sided {_percent(self.confidence)})"
        )
        failed = self.failed
        if failed is None:
            return text
        if failed.worse:
            return f"{text}; {failed.budget} is worse by more than that"
        unresolved = f"not resolved at n = {failed.problems:,}{self._problems_needed()}"
        return f"{text}; {failed.budget} is {unresolved}"

    def _not_reached(self) -> str:
        failed = self.failed
        assert failed is not None
        return (
            f"not reached below {self.largest}: {failed.budget} is worse by at least "
            f"{points(-failed.upper_bound)} (one-sided {_percent(self.confidence)}); "
            f"only a larger budget would show whether {self.largest} is enough"
        )

    def _unresolved(self) -> str:
        failed = self.failed
        if not self.comparisons:
            return f"not resolved: {self.largest} is the only budget, there is none to compare"
        if self.problems == 0 or (failed is not None and failed.problems == 0):
            return "not resolved: no problem was scored at the budgets to compare"
        if not self.meaningful:
            return (
                f"not resolved at n = {self.problems:,}: accuracy at {self.largest} is "
                f"{_percent(self.accuracy.value, 1)}, not shown to be above the margin of "
                f"{points(self.margin)}, so that no loss could be seen"
            )
        assert failed is not None
        text = f"not resolved at n = {failed.problems:,}{self._problems_needed()}"
        loss = f"{failed.budget} is {_seen(failed.difference)} {self.largest}"
        return f"{text}; {loss}, and a loss of {points(self.margin)} is neither shown nor ruled out"

    def _problems_needed(self) -> str:
        if self.needed is None:
            return "; no number of problems would do if the difference stayed at the margin"
        return f"; about {rounded_up(self.needed):,} problems would be needed"


def saturation_point(
    budgets: Sequence[int],
    correct: ArrayLike,
    margin: float = 0.02,
    confidence: float = 0.95,
) -> Saturation:
    """Find the saturation point of one model on one task.

    Args:
        budgets: Budgets in rising order.
        correct: Problems x samples x budgets, 1 for a right answer and 0 for any other; NaN where
            there is none to judge (an error). Pairs with a NaN are left out. The samples of a
            problem at two budgets are cuts of the same traces.
        margin: Loss of accuracy that does not matter, between 0 and 1.
        confidence: One-sided confidence.

    Raises:
        ValueError: If shapes disagree, budgets do not rise, or a number is out of its range.
    """
    scores = np.asarray(correct, dtype=np.float64)
    check_axis(budgets, scores.shape, "correct")
    if not 0 < margin < 1:
        raise ValueError(f"margin {margin} is not between 0 and 1 (0.02 is 2 points)")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} is not between 0 and 1")
    if (scores < 0).any() or (scores > 1).any():
        raise ValueError("scores must be between 0 and 1, or NaN where there is none")
    differences = [_differences(scores[:, :, b], scores[:, :, -1]) for b in range(len(budgets) - 1)]
    single = scores.shape[1] == 1
    comparisons = tuple(
        _compare(budget, values, single, margin, confidence)
        for budget, values in reversed(list(zip(budgets, differences, strict=False)))
    )
    held = 0
    while held < len(comparisons) and comparisons[held].holds:
        held += 1
    accuracy = clustered_rate(scores[:, :, -1])
    status, needed = Status.UNRESOLVED, None
    if accuracy.low > margin:
        failed = comparisons[held] if held < len(comparisons) else None
        if held:
            status = Status.SATURATED
        elif failed is not None and failed.worse:
            status = Status.NOT_REACHED
        if failed is not None and not failed.worse:
            needed = _needed(differences[len(comparisons) - 1 - held], single, margin, confidence)
    return Saturation(
        budget=comparisons[held - 1].budget if status is Status.SATURATED else None,
        status=status,
        largest=budgets[-1],
        margin=margin,
        confidence=confidence,
        problems=accuracy.n,
        accuracy=accuracy,
        comparisons=comparisons,
        needed=needed,
    )


def _differences(smaller: Floats, largest: Floats) -> Floats:
    """Difference in accuracy of each problem that has a pair of samples."""
    pairs = smaller - largest
    seen = np.isfinite(pairs)
    kept = seen.any(axis=1)
    sums = np.where(seen, pairs, 0.0).sum(axis=1)[kept]
    means: Floats = sums / seen.sum(axis=1)[kept]
    return means


def _compare(
    budget: int, values: Floats, single: bool, margin: float, confidence: float
) -> BudgetComparison:
    lost, won = losses_and_wins(values)
    n = values.size
    lower, upper = paired_bounds(values, single, confidence, margin)
    return BudgetComparison(
        budget=budget,
        problems=n,
        difference=float(values.mean()) if n else math.nan,
        lower_bound=lower,
        upper_bound=upper,
        lost=lost,
        won=won,
        p_mcnemar=mcnemar(lost, won),
        holds=lower > -margin,
        worse=upper < -margin,
    )


def _needed(values: Floats, single: bool, margin: float, confidence: float) -> int | None:
    """Problems that would resolve a comparison, the one way or the other."""
    n = values.size
    if n == 0 or abs(float(values.mean()) + margin) < 1e-9:
        return None
    # Whether it would turn out to be not worse than the margin, or worse.
    if float(values.mean()) > -margin:
        shown, bar = values, -margin
    else:
        shown, bar = -values, margin
    if not single:
        levels, counts = np.unique(np.round(shown, 12), return_counts=True)
        return first_resolved(
            lambda size: bootstrap_lower(levels, counts * (size / n), confidence) > bar, n + 1, 2.0
        )
    lost, won = float((shown < -1e-9).sum()), float((shown > 1e-9).sum())
    # Tango's score grows with the root of the problems; the exact test asks for a little more.
    score = float(tango_score(lost, won, n, bar))
    enough = math.ceil(n * (normal_quantile(confidence) / score) ** 2)
    return first_resolved(
        lambda size: paired_p(lost * size / n, won * size / n, size, bar) <= 1 - confidence,
        max(enough, n + 1),
        1.05,
    )


def first_resolved(resolved: Callable[[int], bool], start: int, growth: float) -> int | None:
    """The smallest size from ``start`` that is resolved, to within one in two hundred."""
    low, high = start - 1, start
    while not resolved(high):
        low, high = high, math.ceil(high * growth)
        if high > 10**9:
            return None
    while high - low > max(1, high // 200):
        middle = (low + high) // 2
        if resolved(middle):
            high = middle
        else:
            low = middle
    return high


def points(share: float) -> str:
    number = f"{100 * share:.1f}".removesuffix(".0")
    return f"{number} point" if number == "1" else f"{number} points"


def _percent(share: float, digits: int | None = None) -> str:
    return f"{100 * share:g} %" if digits is None else f"{100 * share:.{digits}f} %"


def _seen(difference: float) -> str:
    if abs(difference) < 1e-9:
        return "as good here as"
    return f"{points(abs(difference))} {'below' if difference < 0 else 'above'}"


def rounded_up(count: int) -> int:
    """To two significant digits, upwards: a plan, not a promise."""
    step: int = 10 ** max(0, len(str(count)) - 2)
    return -(-count // step) * step
