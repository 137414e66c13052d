"""Resampling by problem: bootstrap intervals, exact paired tests, and where a maximum may lie.

The bootstrap of scipy draws whole problems and knows no worst one, and its permutation test of
signs draws or goes through all 2^n; here both distributions are computed. Many means, or a ratio,
take drawn weights from a fixed seed, so that one draw serves any number of statistics: every
problem gets a random weight (Dirichlet), and so does half a problem on either side of what was
seen, so that an interval has a width even where no two problems differ.

References:
    Rubin (1981), Annals of Statistics 9:130: the Bayesian bootstrap.
    Bedrick, Christensen and Johnson (1996), JASA 91:1450: priors as pseudo observations.
    Fisher (1935), The Design of Experiments: tests by changing signs.
    Holm (1979), Scandinavian Journal of Statistics 6:65.
    Hsu (1981), Annals of Statistics 9:1026: which of several means may be the largest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pytest_tokenbudget.stats.intervals import (
    Estimate,
    Floats,
    chance_below,
    distinct_values,
)

REPLICATES = 2000


def bootstrap_mean(values: ArrayLike, confidence: float = 0.95) -> Estimate:
    """Mean of differences, one a problem, with the interval of a Bayesian bootstrap by problem.

    Every problem gets a random weight (Dirichlet). Half a problem is added on either side, as far
    from 0 as differences typically are (root mean square of those that are not 0; 1 if all are): an
    interval then has a width even where no two problems differ, which is where a bootstrap of the
    data alone is surest and most wrong. For values of -1, 0 and 1 this is the interval of Jeffreys'
    prior on losses and gains. The quantiles are computed, not simulated, as under infinitely many
    replicates, so there is no seed. Differences are from -1 to 1.
    """
    from scipy.optimize import brentq

    given = np.asarray(values, dtype=np.float64).ravel()
    if given.size == 0:
        return Estimate(math.nan, -1.0, 1.0, 0)
    levels, times = np.unique(np.round(given, 12), return_counts=True)
    unlike = given[np.abs(given) > 1e-12]
    size = math.sqrt(float(np.mean(unlike**2))) if unlike.size else 1.0
    lowest, highest = min(-size, float(levels[0])), max(size, float(levels[-1]))
    levels = np.append(levels, [-size, size])
    shapes = np.append(times.astype(np.float64), [0.5, 0.5])
    total = shapes.sum()
    mean = float(shapes @ levels / total)
    spread = math.sqrt(float(shapes @ (levels - mean) ** 2 / total / (total + 1)))
    tail = (1 - confidence) / 2
    # Cantelli's inequality: no distribution has its quantile farther out.
    reach = spread * math.sqrt((1 - tail) / tail)

    def quantile(probability: float, low: float, high: float) -> float:
        def excess(bound: float) -> float:
            return chance_below(levels, shapes, bound) - probability

        low, high = max(low, lowest), min(high, highest)
        if low <= lowest and excess(lowest + 1e-9) >= 0:
            return lowest
        if high >= highest and excess(highest - 1e-9) <= 0:
            return highest
        return float(brentq(excess, low + 1e-9, high - 1e-9, xtol=1e-7))

    value = float(given.mean())
    low = quantile(tail, mean - reach, mean)
    high = quantile(1 - tail, mean, mean + reach)
    return Estimate(value, min(low, value), max(high, value), given.size)


def bootstrap_p(values: ArrayLike, counts: ArrayLike | None = None, lowest: float = -1.0) -> float:
    """One-sided p-value against a mean of 0 or less.

    Below 1 - c exactly where ``bootstrap_lower`` with confidence c is above 0: the Bayesian
    bootstrap with one more problem at the least possible value. The counts say how often each value
    occurs, fractions allowed; ``lowest`` is the least possible value.
    """
    levels, shapes = distinct_values(values, counts, lowest)
    if levels.max() <= 0:
        return 1.0
    return float(np.clip(chance_below(levels, shapes, 0.0), 0.0, 1.0))


def sign_test(sums: ArrayLike) -> float:
    """Exact two-sided paired test by problem: the distribution under random signs.

    Were two budgets alike, each problem's difference would be as likely the other way round. The
    p-value is the share of all 2^n ways to choose signs in which the sum is at least as far from 0
    as the one seen. With one sample a problem, where differences are -1, 0 or 1, it is the exact
    McNemar test. ``sums`` has one whole number a problem: right samples at the second budget less
    those at the first.
    """
    from scipy.stats import binom

    given = np.asarray(sums, dtype=np.float64).ravel()
    whole = np.rint(given).astype(np.int64)
    if not np.allclose(given, whole):
        raise ValueError("differences must be whole numbers of samples")
    chance: Floats = np.ones(1)
    # Signs of n equal sizes m: their sum is m (2 K - n) with K binomial. Sizes add up.
    for size, times in zip(*np.unique(np.abs(whole[whole != 0]), return_counts=True), strict=True):
        part = np.zeros(2 * int(size) * int(times) + 1)
        part[:: 2 * int(size)] = binom.pmf(np.arange(times + 1), times, 0.5)
        chance = np.convolve(chance, part) if chance.size > 1 else part
    middle = chance.size // 2
    reached = abs(int(whole.sum()))
    if reached == 0:
        return 1.0
    return float(min(1.0, 2 * chance[middle + reached :].sum()))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """P-values adjusted by Holm's step-down rule, in the order given."""
    # statsmodels' multipletests gives the same, but collects garbage at every call: a third of a
    # second in a process with a model.
    order = np.argsort(p_values)
    raised = np.asarray(p_values, dtype=np.float64)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty_like(raised)
    adjusted[order] = np.minimum(np.maximum.accumulate(raised), 1.0)
    return tuple(adjusted.tolist())


def p_words(p: float) -> str:
    """A p-value for people: no more digits than it deserves."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def problem_weights(problems: int, replicates: int = REPLICATES, seed: int = 0) -> Floats:
    """Weights of problems in each replicate of a Bayesian bootstrap: replicates x problems.

    Rows sum to 1, so a replicate of any mean over problems is one product of matrices.
    """
    drawn = np.random.default_rng(seed).standard_exponential((replicates, problems))
    weights: Floats = drawn / drawn.sum(axis=1, keepdims=True)
    return weights


def may_be_largest(
    means: Floats, replicates: NDArray[np.floating], confidence: float = 0.95
) -> tuple[NDArray[np.bool_], Floats]:
    """Which of several means may be the largest of the true ones.

    Bootstrapping the place of a maximum misleads: neighbours share their data, near ties swap
    places, and along a smooth curve its error does not even shrink as fast as the bootstrap
    believes. So a test is inverted instead. Each candidate is tested for being the largest: how far
    it stays behind the best one seen is compared with how far the best of all contenders gets
    ahead of it by chance alone, by the replicates. Only one of these tests concerns the truly
    largest, so it is among those kept with the full confidence and no correction. Contenders are
    those that a first such round, at a tenth of the error, leaves in.

    Args:
        means: One for each candidate.
        replicates: Replicates x candidates, by resampling problems.
        confidence: Chance that the largest is among those kept.

    Returns:
        Whether each is kept, and how far it is behind as a share of how far would exclude it.
    """
    chance = np.asarray(replicates) - means.astype(replicates.dtype)
    behind = means.max() - means
    error = 1 - confidence
    kept = np.ones(means.size, dtype=np.bool_)
    ratio: Floats = np.zeros(means.size)
    for level in (error / 10, error * 9 / 10):
        ahead = chance[:, kept].max(axis=1)
        candidates = np.flatnonzero(kept)
        ratio[~kept] = np.inf
        for start in range(0, candidates.size, 256):
            some = candidates[start : start + 256]
            gaps = ahead[:, None] - chance[:, some]
            limit = np.quantile(gaps, 1 - level, axis=0, method="higher")
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio[some] = np.where(behind[some] <= 1e-12, 0.0, behind[some] / limit)
        kept = kept & (ratio <= 1 + 1e-9)
    return kept, ratio


Ints = NDArray[np.int64]
FOLDS = 10
PSEUDO_REPLICATES = 4000


@lru_cache(maxsize=1)
def pseudo_weights(problems: int, replicates: int = PSEUDO_REPLICATES) -> Floats:
    """Weights of the problems and of two half ones: replicates x (problems + 2), rows sum to 1."""
    random = np.random.default_rng(0)
    drawn = np.hstack(
        [
            random.standard_exponential((replicates, problems)),
            random.standard_gamma(0.5, (replicates, 2)),
        ]
    )
    weights: Floats = drawn / drawn.sum(axis=1, keepdims=True)
    weights.setflags(write=False)
    return weights


def mean_intervals(
    values: ArrayLike,
    confidence: float = 0.95,
    size: float | None = None,
    replicates: int = PSEUDO_REPLICATES,
) -> tuple[Estimate, ...]:
    """Interval of the mean of each column of differences, by problem.

    Half a problem is added on either side.

    Args:
        values: Problems x statistics.
        confidence: Two-sided confidence of each interval.
        size: How far from 0 the half problems are. Without it, as far as differences typically are
            (root mean square of those that are not 0; 1 if all are). Where a large difference is
            possible and rare, that is too near.
        replicates: How many weightings are drawn.
    """
    table = np.asarray(values, dtype=np.float64)
    problems = table.shape[0]
    if problems == 0:
        return tuple(Estimate(math.nan, -1.0, 1.0, 0) for _ in range(table.shape[1]))
    counts = (np.abs(table) > 1e-12).sum(axis=0)
    far = np.where(counts, np.sqrt((table**2).sum(axis=0) / np.maximum(counts, 1)), 1.0)
    if size is not None:
        far = np.full(table.shape[1], size)
    means = pseudo_weights(problems, replicates) @ np.vstack([table, -far, far])
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    seen = table.mean(axis=0)
    return tuple(
        Estimate(float(v), float(min(a, v)), float(max(b, v)), problems)
        for v, a, b in zip(seen, low, high, strict=True)
    )


def ratio_estimate(
    top: ArrayLike,
    bottom: ArrayLike,
    pseudo: tuple[tuple[float, float], tuple[float, float]],
    confidence: float = 0.95,
) -> Estimate | None:
    """Sum of ``top`` over sum of ``bottom`` with an interval by problem; None if that is nothing.

    Args:
        top: One number a problem.
        bottom: One number a problem, none below 0.
        pseudo: Top and bottom of the two half problems: extremes between which the truth may lie.
        confidence: Two-sided confidence.
    """
    above, below = np.asarray(top, np.float64).ravel(), np.asarray(bottom, np.float64).ravel()
    if below.sum() <= 0:
        return None
    value = float(above.sum() / below.sum())
    pairs = np.vstack([np.column_stack([above, below]), np.asarray(pseudo, np.float64)])
    sums = pseudo_weights(above.size) @ pairs
    with np.errstate(divide="ignore"):
        ratios = sums[:, 0] / sums[:, 1]
    low, high = np.quantile(ratios, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(value, float(min(low, value)), float(max(high, value)), above.size)


def advantages(
    columns: list[Floats], confidence: float, learned: bool = False
) -> tuple[Estimate, ...]:
    """Intervals of differences in accuracy, one number a problem in each column.

    One problem may make a difference of 1. If what is judged was ``learned`` in the cross-
    validation, folds share what they learned on, so that their results vary together, by more than
    problems redrawn show; the intervals are then made wider as Nadeau and Bengio do.
    """
    if not columns:
        return ()
    found = mean_intervals(np.column_stack(columns), confidence, 1.0)
    if not learned:
        return found
    wider = math.sqrt(1 + FOLDS / (FOLDS - 1))
    return tuple(
        Estimate(
            each.value,
            max(-1.0, each.value - wider * (each.value - each.low)),
            min(1.0, each.value + wider * (each.high - each.value)),
            each.n,
        )
        for each in found
    )


def folds(problems: int, seed: int = 0) -> tuple[Ints, ...]:
    """Problems drawn into folds of nearly equal size."""
    order = np.random.default_rng(seed).permutation(problems)
    return tuple(np.sort(part) for part in np.array_split(order, min(FOLDS, problems)))
