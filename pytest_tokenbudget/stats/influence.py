"""Simulated bootstrap by problem, for many means or a ratio at once.

Every problem gets a random weight (Dirichlet), and so does half a problem on either side of what
was seen, as in ``resampling.bootstrap_mean``: an interval then has a width even where no two
problems differ. Here the weights are drawn, from a fixed seed, so that one draw serves any number
of statistics.

References:
    Rubin (1981), Annals of Statistics 9:130: the Bayesian bootstrap.
    Bedrick, Christensen and Johnson (1996), JASA 91:1450: priors as pseudo observations.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pytest_tokenbudget.stats.intervals import Estimate, Floats

Ints = NDArray[np.int64]
FOLDS = 10

REPLICATES = 4000


def pseudo_weights(problems: int, replicates: int = REPLICATES, seed: int = 0) -> Floats:
    """Weights of the problems and of two half ones: replicates x (problems + 2), rows sum to 1."""
    return _drawn(problems, replicates, seed)


@lru_cache(maxsize=1)
def _drawn(problems: int, replicates: int, seed: int) -> Floats:
    random = np.random.default_rng(seed)
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
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
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
        seed: Where the draw begins.
    """
    table = np.asarray(values, dtype=np.float64)
    problems = table.shape[0]
    if problems == 0:
        return tuple(Estimate(math.nan, -1.0, 1.0, 0) for _ in range(table.shape[1]))
    counts = (np.abs(table) > 1e-12).sum(axis=0)
    far = np.where(counts, np.sqrt((table**2).sum(axis=0) / np.maximum(counts, 1)), 1.0)
    if size is not None:
        far = np.full(table.shape[1], size)
    means = pseudo_weights(problems, replicates, seed) @ np.vstack([table, -far, far])
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
    *,
    confidence: float = 0.95,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Estimate | None:
    """Sum of ``top`` over sum of ``bottom`` with an interval by problem; None if that is nothing.

    Args:
        top: One number a problem.
        bottom: One number a problem, none below 0.
        pseudo: Top and bottom of the two half problems: extremes between which the truth may lie.
        confidence: Two-sided confidence.
        replicates: How many weightings are drawn.
        seed: Where the draw begins.
    """
    above, below = np.asarray(top, np.float64).ravel(), np.asarray(bottom, np.float64).ravel()
    if below.sum() <= 0:
        return None
    value = float(above.sum() / below.sum())
    pairs = np.vstack([np.column_stack([above, below]), np.asarray(pseudo, np.float64)])
    sums = pseudo_weights(above.size, replicates, seed) @ pairs
    with np.errstate(divide="ignore"):
        ratios = sums[:, 0] / sums[:, 1]
    low, high = np.quantile(ratios, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(value, float(min(low, value)), float(max(high, value)), above.size)


def advantages(
    columns: list[Floats], confidence: float, learned: bool = False
) -> tuple[Estimate, ...]:
    """Intervals of differences in accuracy; one problem may make a difference of 1.

    Args:
        columns: One number a problem, for each difference.
        confidence: Two-sided confidence.
        learned: Whether what is judged was learned in the cross-validation. Folds share what they
            learned on, so that their results vary together, by more than problems redrawn show; the
            intervals are then made wider as Nadeau and Bengio do.
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


def folds(problems: int, count: int = FOLDS, seed: int = 0) -> tuple[Ints, ...]:
    """Problems drawn into folds of nearly equal size."""
    order = np.random.default_rng(seed).permutation(problems)
    return tuple(np.sort(part) for part in np.array_split(order, min(count, problems)))
