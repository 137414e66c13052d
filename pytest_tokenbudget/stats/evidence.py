"""What was measured, as far as a decision about it needs to know: an estimate, and its chances.

Three kinds: a rate over problems, a mean over problems, and the change of a rate between two runs
on the same problems. Each gives the interval that reports show, which tables, figures and result
files compute with the same function (`shown`); the two-sided bounds of the test that decides
(`estimate`), which differ where the former does not keep its level on either side; and the chance
that a run of ``n`` problems, or as many as here, would show it beyond a limit, were something else
true. For that chance a value right at the limit counts; with a ``level`` the end of an interval of
this one-sided error must be beyond the limit, else the estimate itself. What could be true lies
between ``least`` and ``most``, and ``test`` names the test for people.

References:
    Clopper and Pearson (1934), Biometrika 26:404: the exact interval of a rate.
    Hall (1992), J. R. Statist. Soc. B 54:221: the interval of a mean of skewed values.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from pytest_tokenbudget.stats.intervals import (
    Estimate,
    Floats,
    clustered_rate,
    clustered_standard_error,
    exact_interval,
    mean_estimate,
    normal_quantile,
    t_quantile,
    wilson,
)
from pytest_tokenbudget.stats.paired import paired_lower

# Thresholds such as 0.6 have no exact binary form, and neither have shares such as 6 of 10.
ROUNDING = 1e-12
NO_SPREAD = 1e-9
MIN_SPREAD = 0.25


@dataclass(frozen=True)
class Rate:
    """A rate with one sample a problem, judged exactly.

    Attributes:
        successes: Problems that count; a fraction where every problem has the same share of
            successful samples.
        n: All problems.
    """

    successes: float
    n: int
    least = 0.0
    most = 1.0
    test = "the exact binomial test"

    @property
    def value(self) -> float:
        return self.successes / self.n if self.n else math.nan

    def shown(self, confidence: float) -> Estimate:
        """The rate with Wilson's interval, as everywhere."""
        return wilson(self.successes, self.n, confidence)

    def estimate(self, confidence: float) -> Estimate:
        """The rate with the bounds of Clopper and Pearson, whose error is at most as stated."""
        if not self.n:
            return Estimate(math.nan, 0.0, 1.0, 0)
        return Estimate(self.value, *exact_interval(self.successes, self.n, confidence), self.n)

    def chance(
        self, above: bool, limit: float, truth: float, level: float | None, n: int | None = None
    ) -> float:
        from scipy.special import bdtr

        count = self.n if n is None else n
        if not above:
            return Rate(0, count).chance(True, 1 - limit, 1 - truth, level)
        if limit <= ROUNDING:
            return 1.0
        least = _least_above(count, min(limit, 1.0), level)
        if least > count:
            return 0.0
        chance_of = min(max(truth, 0.0), 1.0)
        return 1.0 if least == 0 else float(1 - bdtr(least - 1, count, chance_of))


def _least_above(n: int, limit: float, level: float | None) -> int:
    """The fewest successes of ``n`` that show a rate of at least ``limit``; n + 1 if none do."""
    from scipy.special import bdtr

    if level is None:
        return math.ceil(n * limit - n * ROUNDING)

    # As the interval of Clopper and Pearson: so many or more have at most this chance at the limit.
    def is_enough(count: int) -> bool:
        return count > 0 and 1 - float(bdtr(count - 1, n, limit)) <= level

    return bisect_left(range(n + 1), True, key=is_enough)


@dataclass(frozen=True)
class Mean:
    """A mean over problems, of anything; also a rate with several samples a problem.

    Attributes:
        measured: The mean with its interval at 95 %, clustered by problem.
        deviation: Standard deviation between problems, such that the standard error is this over
            the root of the number of problems; NaN for one problem alone.
        least: The least that could be true.
        most: The most that could be true.
        scales: Whether values that are larger on average also scatter more, as lengths do.
        skewness: Of the problems' values: how far the interval reaches further on one side.
        interval: The estimate with the interval that reports show, by confidence; None for the
            bounds of the test.
    """

    test = "the t test that allows for skewed values"

    measured: Estimate
    deviation: float
    least: float = -math.inf
    most: float = math.inf
    scales: bool = False
    skewness: float = 0.0
    interval: Callable[[float], Estimate] | None = field(default=None, compare=False, repr=False)

    @property
    def value(self) -> float:
        return self.measured.value

    @property
    def n(self) -> int:
        return self.measured.n

    def shown(self, confidence: float) -> Estimate:
        """The mean with the interval that tables show of it, if the values bound one."""
        if self.interval is not None:
            found = self.interval(confidence)
            if math.isfinite(found.low) and math.isfinite(found.high):
                return found
        return self.estimate(confidence)

    def estimate(self, confidence: float) -> Estimate:
        """The mean with the t interval, within what is possible.

        Skewed values have Hall's correction.
        """
        if self.n < 2:
            return Estimate(self.value, self.least, self.most, self.n)
        reach = t_quantile((1 + confidence) / 2, self.n - 1)
        low = self.value - self.deviation * self._away(reach, self.n)
        high = self.value - self.deviation * self._away(-reach, self.n)
        return Estimate(self.value, max(low, self.least), min(high, self.most), self.n)

    def _away(self, quantile: float, n: int) -> float:
        """The distance from the mean, in deviations, that a quantile of its t stands for."""
        t, skew = quantile / math.sqrt(n), self.skewness
        if not skew:
            return t
        return 3 / skew * (math.cbrt(1 + skew * (t - skew / (6 * n))) - 1)

    def chance(
        self, above: bool, limit: float, truth: float, level: float | None, n: int | None = None
    ) -> float:
        """The chance by the central limit theorem, with deviation and skewness that were seen.

        Where values are skewed, a run with a large mean also has a large deviation: the end of its
        interval scatters more than its mean, to the first order by half the skewness.
        """
        from scipy.special import ndtr

        count = self.n if n is None else n
        if count < 2 or not math.isfinite(self.deviation):
            return math.nan
        deviation = self.deviation
        if self.scales and self.value > 0:
            deviation *= max(truth, 0.0) / self.value
        if deviation == 0:
            return float(truth >= limit if above else truth <= limit)
        edge, skew = 0.0, self.skewness
        if level is not None:
            reach = t_quantile(1 - level, count - 1)
            edge = self._away(reach if above else -reach, count)
        # Of a gamma distribution, whose skewness is that of lengths, this is the fourth moment.
        kurtosis = 3 + 1.5 * skew**2
        spread = 1 - edge * skew + edge**2 * (kurtosis - 1) / 4
        z = ((limit - truth) / deviation + edge) * math.sqrt(count / max(spread, MIN_SPREAD))
        density = math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
        below = float(ndtr(z)) - skew / (6 * math.sqrt(count)) * (z**2 - 1) * density
        below = min(max(below, 0.0), 1.0)
        return 1 - below if above else below


@dataclass(frozen=True)
class Change:
    """The change of a rate from one run to another on the same problems.

    Attributes:
        lost: Problems that were right in the first run only.
        won: Problems that are right in the second run only.
        n: All problems that both runs have.
    """

    lost: int
    won: int
    n: int
    least = -1.0
    most = 1.0
    test = "the exact paired test"

    @property
    def value(self) -> float:
        return (self.won - self.lost) / self.n if self.n else math.nan

    def shown(self, confidence: float) -> Estimate:
        """The change with the interval of its test, as everywhere."""
        return self.estimate(confidence)

    def estimate(self, confidence: float) -> Estimate:
        """The change with an interval whose ends keep their level at every n."""
        if not self.n:
            return Estimate(math.nan, -1.0, 1.0, 0)
        side = (1 + confidence) / 2
        low = paired_lower(self.lost, self.won, self.n, side)
        high = -paired_lower(self.won, self.lost, self.n, side)
        return Estimate(self.value, low, high, self.n)

    def chance(
        self, above: bool, limit: float, truth: float, level: float | None, n: int | None = None
    ) -> float:
        """The chance by the score test.

        As many problems are discordant as were seen, and more where the truth is farther from no
        change than what was seen.
        """
        from scipy.special import ndtr

        count = self.n if n is None else n
        if not self.n or not count:
            return math.nan
        away = truth - limit if above else limit - truth
        # One more pair than was seen: without any, nobody knows that there never is one.
        discordant = (self.lost + self.won + 1) / (self.n + 1)
        discordant += max(abs(truth) - abs(self.value), 0.0)
        reach = 0.0
        if level is not None:
            reach = normal_quantile(1 - level) * math.sqrt(max(discordant - limit**2, 1e-9))
        return float(
            ndtr((away * math.sqrt(count) - reach) / math.sqrt(max(discordant - truth**2, 1e-9)))
        )


Evidence: TypeAlias = Rate | Mean | Change


def quantile_estimate(
    values: ArrayLike, share: float, confidence: float = 0.95, most: float = math.inf
) -> Estimate:
    """A quantile with an exact interval between two of the values, whatever their distribution.

    Args:
        values: The values, one a problem.
        share: Which quantile.
        confidence: Two-sided confidence.
        most: The most that a value can be: the upper end where there are too few values for one.
    """
    from scipy.stats import quantile_test

    rising = np.sort(np.asarray(values, dtype=np.float64).ravel())
    if not rising.size:
        return Estimate(math.nan, 0.0, most, 0)
    low, high = map(float, quantile_test(rising, p=share).confidence_interval(confidence))
    return Estimate(
        float(np.quantile(rising, share, method="inverted_cdf")),
        0.0 if math.isnan(low) else low,
        most if math.isnan(high) else high,
        rising.size,
    )


def rate_evidence(scores: ArrayLike) -> Rate | Mean:
    """Evidence of a rate, from scores of 0 or 1: problems x samples, NaN where missing."""
    table = np.asarray(scores, dtype=np.float64)
    seen = np.isfinite(table)
    if (seen.sum(axis=1) <= 1).all():
        return Rate(round(float(np.nansum(table))), int(seen.sum()))
    if clustered_standard_error(table) < NO_SPREAD:
        # Samples that all agree say no more than one a problem: an interval is not a point.
        problems = int(seen.any(axis=1).sum())
        return Rate(round(float(np.nanmean(table)) * problems, 9), problems)
    return replace(mean_evidence(table, 0.0, 1.0), interval=partial(clustered_rate, table))


def mean_evidence(
    values: ArrayLike, least: float = -math.inf, most: float = math.inf, scales: bool = False
) -> Mean:
    """Evidence of a mean, clustered by problem, from problems x samples, NaN where missing.

    The other arguments are those of :class:`Mean`.
    """
    table = np.asarray(values, dtype=np.float64)
    estimate = mean_estimate(table)
    problems = estimate.n
    deviation = math.nan
    if problems > 1:
        # As in the interval: over the root of one less than the problems.
        deviation = clustered_standard_error(table) * problems / math.sqrt(problems - 1)
    skewness = _skewness(table) if scales else 0.0
    shown = partial(mean_estimate, table)
    return Mean(estimate, deviation, least, most, scales, skewness, shown)


def _skewness(table: Floats) -> float:
    there = table[np.isfinite(table).any(axis=1)]
    if len(there) < 3:
        return 0.0
    apart = np.nanmean(there, axis=1)
    # scipy's skew gives the same, but warns where values are alike.
    apart = apart - apart.mean()
    spread = float(np.mean(apart**2))
    return float(np.mean(apart**3)) / spread**1.5 if spread > 0 else 0.0
