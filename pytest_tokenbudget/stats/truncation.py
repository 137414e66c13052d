"""What a token limit truncates, with exact bounds, and how many problems a promise takes.

Traces that met their cap need more than that, nobody knows how much. A limit up to the cap
truncates them for certain; above it, they are taken to be truncated in every upper bound.

References:
    Clopper and Pearson (1934), Biometrika 26:404: the exact bound of a rate.
    Wilks (1941), Annals of Mathematical Statistics 12:91: distribution-free tolerance limits.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pytest_tokenbudget.stats.intervals import (
    Estimate,
    Floats,
    bootstrap_lower,
    clustered_rate,
    exact_interval,
)
from pytest_tokenbudget.stats.tokens import by_sample

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Truncation:
    """What one limit truncates.

    Attributes:
        limit: The limit.
        problems: Problems behind it.
        truncated: Traces that need more than the limit, for certain.
        unknown: Traces that met a cap below the limit.
        share: Share of truncated traces, with a two-sided interval by problem. With unknown ones
            its value is NaN, and its ends are those of none of them and all of them truncated.
        lower: One-sided lower bound of the share, with no unknown trace truncated.
        upper: One-sided upper bound of the share, with every unknown trace truncated.
    """

    limit: int
    problems: int
    truncated: int
    unknown: int
    share: Estimate
    lower: float
    upper: float


class LimitVerdict(StrEnum):
    """What traces say about a limit that someone proposed."""

    HOLDS = "holds"  # truncates at most the target
    REFUTED = "refuted"  # truncates more than the target
    UNRESOLVED = "unresolved"  # neither is shown
    UNMEASURED = "not measured"  # the traces were capped below it


def truncates(
    tokens: ArrayLike, complete: ArrayLike, limit: int, confidence: float = 0.95
) -> Truncation:
    """What a limit that was fixed beforehand truncates.

    Tokens have one value a problem or are problems x samples, NaN where there is none (an error). A
    trace that is not complete met its cap. The confidence is that of each interval and bound.
    """
    needs, ended = as_traces(tokens, complete)
    seen = np.isfinite(needs)
    over = seen & np.where(ended, needs > limit, needs >= limit)
    hidden = seen & ~ended & (needs < limit)
    least = np.where(seen, over, np.nan)
    most = np.where(seen, over | hidden, np.nan)
    low, high = clustered_rate(least, confidence), clustered_rate(most, confidence)
    share = low
    if hidden.any():
        share = Estimate(math.nan, low.low, high.high, low.n)
    return Truncation(
        limit=limit,
        problems=low.n,
        truncated=int(over.sum()),
        unknown=int(hidden.sum()),
        share=share,
        lower=1 - upper_rate(1 - least, confidence),
        upper=upper_rate(most, confidence),
    )


def judge_limit(cut: Truncation, target: float) -> LimitVerdict:
    """Whether a limit that was fixed beforehand keeps to the target."""
    if cut.upper <= target:
        return LimitVerdict.HOLDS
    if cut.lower > target:
        return LimitVerdict.REFUTED
    return LimitVerdict.UNMEASURED if cut.unknown else LimitVerdict.UNRESOLVED


def problems_needed(target: float, confidence: float = 0.95, share: float = 0.0) -> int | None:
    """How many problems promise, one-sided, a truncation of at most ``target``.

    With none truncated it is the n at which (1 - target)^n falls to 1 - confidence: 299 for 1 % at
    95 %. A share that is truncated all the same counts in whole problems upwards; None where it is
    not below the target: no number would do.
    """
    from scipy.stats import binom

    if share >= target:
        return None
    none = math.ceil(math.log(1 - confidence) / math.log1p(-target) - 1e-9)
    if share == 0:
        return none

    def promised(n: int) -> bool:
        return float(binom.cdf(math.ceil(share * n - 1e-9), n, target)) <= 1 - confidence

    low, high = none - 1, none
    while not promised(high):
        low, high = high, high * 2
        if high > 10**9:
            return None
    return low + 1 + bisect_left(range(low + 1, high), True, key=promised)


def as_traces(tokens: ArrayLike, complete: ArrayLike) -> tuple[Floats, Bools]:
    """Tokens, and whether each trace ended by itself, as problems x samples.

    Raises:
        ValueError: If shapes disagree.
    """
    needs, ended = by_sample(tokens), by_sample(complete) > 0
    if needs.shape != ended.shape or needs.ndim != 2:
        raise ValueError(f"tokens have shape {needs.shape}, complete has {ended.shape}")
    return needs, ended


def upper_rate(hits: Floats, confidence: float) -> float:
    """One-sided upper bound of a rate: exact for one sample a problem, else by problem."""
    known = hits[np.isfinite(hits).any(axis=1)]
    n = known.shape[0]
    if n == 0:
        return 1.0
    rates = np.nanmean(known, axis=1)
    if not np.isin(rates, (0.0, 1.0)).all():
        return -bootstrap_lower(-rates, confidence=confidence)
    return exact_interval(float(rates.sum()), n, 2 * confidence - 1)[1]
