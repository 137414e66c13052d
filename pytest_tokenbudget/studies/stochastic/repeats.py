"""What repeated samples of the same problems say: pass@k, majority votes, how alike they are.

References:
    Chen et al. (2021), arXiv 2107.03374: the unbiased estimator of pass@k.
    Wang et al. (2023), arXiv 2203.11171: self-consistency, the majority vote.
    Shrout and Fleiss (1979), Psychological Bulletin 86:420: the intraclass correlation ICC(1).
    Fisher (1925), Statistical Methods for Research Workers: the scale of its interval.
    Arvesen (1969), Annals of Mathematical Statistics 40:2076: the jackknife of such ratios.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from pytest_tokenbudget.stats.intervals import Estimate, Floats, clustered_rate, t_quantile


def pass_at_k(correct: ArrayLike, k: int, confidence: float = 0.95) -> Estimate:
    """The chance that at least one of k samples is right: 1 - C(n - c, k) / C(n, k), unbiased.

    The interval is a score interval at the effective number of trials, clustered by problem, as
    ``clustered_rate``'s: k = 1 gives that very interval. Scores are problems x samples, NaN where a
    sample is missing; problems with fewer than k samples are left out.
    """
    table = np.asarray(correct, dtype=np.float64)
    if k == 1:
        return clustered_rate(table, confidence)
    counts = np.isfinite(table).sum(axis=1)
    right = np.nansum(table, axis=1).astype(np.int64)
    values = np.array(
        [
            1.0 - math.comb(n - c, k) / math.comb(n, k)
            for n, c in zip(counts.tolist(), right.tolist(), strict=True)
            if n >= k
        ]
    )
    # Copies leave the clustered error as it is, and let each problem count for as many trials as it
    # has samples at most. Where k takes all samples, each problem is one trial.
    columns = 1 if k == table.shape[1] else table.shape[1]
    return clustered_rate(np.repeat(values[:, None], columns, axis=1), confidence)


def majority_votes(correct: Floats, predicted: ArrayLike) -> Floats:
    """Whether the most frequent answer of each problem is right.

    Of answers that are equally frequent, the one that came first counts. Samples without an answer
    and missing ones have no vote.

    Returns:
        One value a problem: 1, 0 (also without any vote), NaN where no sample was scored.
    """
    votes = np.full(correct.shape[0], np.nan)
    for row, (scores, answers) in enumerate(
        zip(correct.tolist(), np.asarray(predicted, dtype=object).tolist(), strict=True)
    ):
        # The first sample with an answer stands for all with the same.
        found: dict[str, list[float]] = {}
        for score, answer in zip(scores, answers, strict=True):
            if not math.isnan(score):
                votes[row] = 0.0
                if answer is not None:
                    found.setdefault(answer, []).append(score)
        if found:
            # max keeps the first of equals, and a dict its order.
            votes[row] = max(found.values(), key=len)[0]
    return votes


def intraclass_correlation(correct: ArrayLike, confidence: float = 0.95) -> Estimate | None:
    """ICC(1) of a one-way analysis of variance with problems as groups.

    (MSB - MSW) / (MSB + (m - 1) MSW) with mean squares between and within problems and m samples a
    problem; where problems have different numbers of samples, m = (N - sum n_i^2 / N) / (P - 1). It
    can be below 0. The interval is a jackknife by problem on Fisher's scale. Scores are problems x
    samples, NaN where a sample is missing. None where all samples came out alike, or no problem has
    two.
    """
    table = np.asarray(correct, dtype=np.float64)
    counts = np.isfinite(table).sum(axis=1).astype(np.float64)
    sums = np.nansum(table, axis=1)[counts > 0]
    counts = counts[counts > 0]
    parts = np.stack([counts, sums, counts**2, sums**2 / np.maximum(counts, 1)])
    whole, n = parts.sum(axis=1), counts.size
    value = float(_icc(n, whole))
    if not math.isfinite(value):
        return None
    size = float(whole[0]) / n
    scaled, without = (_fisher(x, size) for x in (value, _icc(n - 1, whole[:, None] - parts)))
    if n < 3 or not math.isfinite(scaled) or not np.isfinite(without).all():
        return Estimate(value, -1.0, 1.0, n)
    error = math.sqrt((n - 1) / n * float(((without - without.mean()) ** 2).sum()))
    half = t_quantile((1 + confidence) / 2, n - 1) * error
    low, high = (
        math.expm1(2 * end) / (math.expm1(2 * end) + size)
        for end in (float(scaled) - half, float(scaled) + half)
    )
    return Estimate(value, low, high, n)


def _fisher(correlation: ArrayLike, size: float) -> Floats:
    """Fisher's scale, on which the error of an intraclass correlation hardly depends on it."""
    value = np.asarray(correlation, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled: Floats = 0.5 * np.log((1 + (size - 1) * value) / (1 - value))
    return scaled


def _icc(problems: int, sums: Floats) -> Floats:
    """ICC(1) from sums over problems, so that leaving one out is a subtraction.

    The sums are of samples, right ones, squared samples, and squared right ones over samples.
    """
    count, right, squared, between = sums
    with np.errstate(divide="ignore", invalid="ignore"):
        # Scores are 0 or 1, so that they are their own squares.
        within_square = (right - between) / (count - problems)
        between_square = (between - right**2 / count) / (problems - 1)
        size = (count - squared / count) / (problems - 1)
        bottom = between_square + (size - 1) * within_square
        icc: Floats = np.where(bottom > 1e-12, (between_square - within_square) / bottom, np.nan)
    return icc
