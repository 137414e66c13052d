"""Intervals for rates and means, by problem.

Problems are drawn independently; samples of one problem are not. Every interval here therefore
counts problems, never samples, as its pieces of evidence.

References:
    Clopper and Pearson (1934), Biometrika 26:404: the exact interval of a proportion.
    Wilson (1927), JASA 22:209: the score interval of a proportion.
    Dean and Pagano (2015), J. Surv. Stat. Methodol. 3:484: the score interval in clustered data.
    Miller (2024), arXiv 2411.00640: standard errors clustered by problem.
    Rubin (1981), Annals of Statistics 9:130: the Bayesian bootstrap.
    Gaffke (2005), Math. Methods of Statistics 14:451, and Learned-Miller and Thomas (2019),
        arXiv 1905.06208: that bootstrap with one more observation at the worst possible value.
    Gil-Pelaez (1951), Biometrika 38:481: probabilities from a characteristic function.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


class Estimate(NamedTuple):
    """A number with its interval.

    Attributes:
        value: The estimate; NaN where there was nothing to estimate it from.
        low: Lower end of the interval.
        high: Upper end of the interval.
        n: Problems behind it.
    """

    value: float
    low: float
    high: float
    n: int


def wilson(successes: float, n: int, confidence: float = 0.95) -> Estimate:
    """Wilson's score interval of a rate.

    With ``n`` of 0 nothing is known: the value is NaN and the interval is all of [0, 1].

    Raises:
        ValueError: If the counts are impossible or the confidence is not between 0 and 1.
    """
    check_confidence(confidence)
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}: between 0 and n are possible")
    if n == 0:
        return Estimate(math.nan, 0.0, 1.0, 0)
    rate = successes / n
    return Estimate(rate, *_score_interval(rate, n, normal_quantile((1 + confidence) / 2)), n)


def exact_interval(successes: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Clopper and Pearson's two-sided interval of a rate, whose error is at most as stated.

    Each end is a one-sided bound with half the error.
    """
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(successes, n, 1 - confidence, method="beta")
    return float(low), float(high)


def clustered_standard_error(values: ArrayLike) -> float:
    """Standard error of the mean over all samples, clustered by problem (Miller 2024).

    SE^2 = n^-2 sum_c sum_{i,j in c} (s_ic - mean)(s_jc - mean); the inner double sum is the square
    of a problem's summed deviations. Values are problems x samples; NaN where a sample is missing.
    """
    table = _table(values)
    count = int(np.isfinite(table).sum())
    if count == 0:
        return math.nan
    per_problem = np.nansum(table - np.nanmean(table), axis=1)
    return float(np.sqrt(np.sum(per_problem**2)) / count)


def clustered_rate(scores: ArrayLike, confidence: float = 0.95) -> Estimate:
    """Interval of a rate when each problem may have several samples.

    One sample a problem gives Wilson's interval. Several give the same score interval at the
    effective number of samples, rate (1 - rate) / SE^2 with the clustered standard error, and the t
    quantile for one less than the problems. So the interval stays within [0, 1] and does not shrink
    to nothing when hardly any sample differs. Where the problems do not differ at all, it is
    Wilson's over the problems. Scores are problems x samples, 0 to 1; NaN where a sample is
    missing.
    """
    check_confidence(confidence)
    table = _table(scores)
    seen = np.isfinite(table)
    problems = int(seen.any(axis=1).sum())
    samples = int(seen.sum())
    if problems == 0:
        return Estimate(math.nan, 0.0, 1.0, 0)
    rate = float(np.clip(np.nanmean(table), 0.0, 1.0))
    normal = normal_quantile((1 + confidence) / 2)
    if samples == problems:
        return Estimate(rate, *_score_interval(rate, problems, normal), problems)
    error = clustered_standard_error(table)
    if problems == 1 or error < 1e-9:
        return Estimate(rate, *_score_interval(rate, problems, normal), problems)
    error *= math.sqrt(problems / (problems - 1))
    effective = min(rate * (1 - rate) / error**2, float(samples))
    quantile = t_quantile((1 + confidence) / 2, problems - 1)
    return Estimate(rate, *_score_interval(rate, effective, quantile), problems)


def mean_estimate(values: ArrayLike, confidence: float = 0.95) -> Estimate:
    """Interval of a mean, clustered by problem, with the t quantile.

    With one sample a problem it is the ordinary t interval. One problem alone says nothing about
    how problems differ: the interval's ends are then NaN. Values are problems x samples; NaN where
    a sample is missing.
    """
    check_confidence(confidence)
    table = _table(values)
    problems = int(np.isfinite(table).any(axis=1).sum())
    if problems == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    mean = float(np.nanmean(table))
    if problems == 1:
        return Estimate(mean, math.nan, math.nan, 1)
    error = clustered_standard_error(table) * math.sqrt(problems / (problems - 1))
    half = t_quantile((1 + confidence) / 2, problems - 1) * error
    return Estimate(mean, mean - half, mean + half, problems)


def bootstrap_lower(
    values: ArrayLike,
    counts: ArrayLike | None = None,
    confidence: float = 0.95,
    worst: float = -1.0,
) -> float:
    """One-sided lower bound of a bounded mean: the Bayesian bootstrap with a worst observation.

    Every problem gets a random weight (Dirichlet), and so does one more problem that stands at
    ``worst``, the least value there can be; the bound is a quantile of the weighted mean. That one
    problem keeps the bound honest where all values agree: none lost of n gives the bound of the
    exact binomial test, as do values that are only ever 0 or lost. That the level holds for every
    distribution is a conjecture (see the references above), supported by simulation there and in
    this package's tests.

    The quantile is not simulated but computed, as under infinitely many replicates, so there is no
    seed. The weighted mean is below x when a sum of independent gamma variables is negative, and
    the probability of that follows from its characteristic function. The counts say how often each
    value occurs, fractions allowed; once each without them.
    """
    from scipy.optimize import brentq

    check_confidence(confidence)
    levels, shapes = distinct_values(values, counts, worst)
    total = shapes.sum()
    mean = float(shapes @ levels / total)
    spread = math.sqrt(max(float(shapes @ (levels - mean) ** 2 / total / (total + 1)), 0.0))
    if spread < 1e-15:
        return mean
    tail = 1 - confidence
    # Cantelli's inequality: no distribution has its quantile beyond these.
    low = mean - spread * math.sqrt(confidence / tail)
    high = mean + spread * math.sqrt(tail / confidence)

    def excess(bound: float) -> float:
        return chance_below(levels, shapes, bound) - tail

    if excess(low) >= 0:
        return max(low, worst)
    if excess(high) <= 0:
        return high
    return max(float(brentq(excess, low, high, xtol=1e-9)), worst)


def distinct_values(
    values: ArrayLike, counts: ArrayLike | None, worst: float
) -> tuple[Floats, Floats]:
    """Distinct values and their gamma shapes, the worst one counted once more."""
    given = np.asarray(values, dtype=np.float64).ravel()
    times = np.ones_like(given) if counts is None else np.asarray(counts, np.float64).ravel()
    if given.size != times.size:
        raise ValueError(f"{given.size} values with {times.size} counts")
    if not np.isfinite(given).all() or (given < worst - 1e-9).any():
        raise ValueError(f"values must be numbers of at least {worst}")
    levels, place = np.unique(np.round(np.append(given, worst), 12), return_inverse=True)
    shapes = np.bincount(place.ravel(), weights=np.append(times, 1.0))
    present = shapes > 0
    return levels[present], shapes[present].astype(np.float64)


# On a logarithmic axis the inversion integral is smooth and dies out at both ends, where the
# trapezoidal rule converges faster than any power of the step.
_AXIS: Floats = np.arange(-25.0, 25.0, 0.02)


def chance_below(levels: Floats, shapes: Floats, bound: float) -> float:
    """Probability that the Dirichlet-weighted mean of ``levels`` is below ``bound``."""
    slopes = levels - bound
    slopes = slopes / math.sqrt(float(shapes @ slopes**2))
    steps = np.exp(_AXIS)[:, None] * slopes[None, :]
    angle = np.arctan(steps) @ shapes
    log_size = -0.5 * (np.log1p(steps**2) @ shapes)
    return float(0.5 - np.sum(np.sin(angle) * np.exp(log_size)) * 0.02 / math.pi)


def _score_interval(rate: float, n: float, quantile: float) -> tuple[float, float]:
    """Score interval of a rate seen in ``n`` trials, which need not be whole."""
    # Wilson's in scipy takes whole counts and in statsmodels the normal quantile. With Student's,
    # which for two problems is beyond the range of normal ones, there is none. See test_intervals.
    weight = quantile**2 / n
    middle = (rate + weight / 2) / (1 + weight)
    half = quantile * math.sqrt(rate * (1 - rate) / n + weight / (4 * n)) / (1 + weight)
    # The ends are 0 and 1 exactly where nothing or everything succeeded, rounding aside.
    low = 0.0 if rate == 0 else max(middle - half, 0.0)
    high = 1.0 if rate == 1 else min(middle + half, 1.0)
    return low, high


def _table(values: ArrayLike) -> Floats:
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2:
        raise ValueError(f"expected problems x samples, got an array of shape {table.shape}")
    return table


def check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} is not between 0 and 1")


def normal_quantile(probability: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(probability))


def t_quantile(probability: float, freedom: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, probability))
