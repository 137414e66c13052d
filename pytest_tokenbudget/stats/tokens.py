"""How many tokens traces took, and what a right answer cost."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pytest_tokenbudget.stats.influence import ratio_estimate
from pytest_tokenbudget.stats.intervals import Estimate, Floats, mean_estimate


@dataclass(frozen=True)
class TokenSpread:
    """How many tokens traces took.

    A percentile is the smallest number seen such that at least this share took no more.

    Attributes:
        problems: Problems behind it.
        traces: Traces behind it.
        capped: Traces that were stopped by a cap; they count with what they took until then.
        mean: Mean with its interval by problem.
        median: The 50th percentile; NaN, like the next four, where there is no trace.
        p90: The 90th percentile.
        p95: The 95th percentile.
        p99: The 99th percentile.
        max: The most that a trace took.
        lower_bounds: Names of the fields that say "at least", because of capped traces.
    """

    problems: int
    traces: int
    capped: int
    mean: Estimate
    median: float
    p90: float
    p95: float
    p99: float
    max: float
    lower_bounds: tuple[str, ...]


def token_spread(
    tokens: ArrayLike, capped: ArrayLike | None = None, confidence: float = 0.95
) -> TokenSpread:
    """Describe how many tokens traces took.

    Args:
        tokens: One a problem, or problems x samples; NaN where there is none.
        capped: Whether each was stopped by a cap, in the same shape.
        confidence: Two-sided confidence of the mean's interval.
    """
    table = by_sample(tokens)
    stopped = np.zeros(table.shape, bool) if capped is None else by_sample(capped) > 0
    seen = np.isfinite(table)
    values, stopped = table[seen], stopped[seen]
    marks = {"median": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "max": 1.0}
    places = {
        name: float(np.quantile(values, share, method="inverted_cdf")) if values.size else math.nan
        for name, share in marks.items()
    }
    bounds: tuple[str, ...] = ()
    if stopped.any():
        least = float(values[stopped].min())
        bounds = ("mean", *(name for name, value in places.items() if value >= least))
    return TokenSpread(
        problems=int(seen.any(axis=1).sum()),
        traces=int(values.size),
        capped=int(stopped.sum()),
        mean=mean_estimate(table, confidence),
        **places,
        lower_bounds=bounds,
    )


def by_sample(values: ArrayLike) -> Floats:
    """Values as problems x samples; one a problem becomes a column."""
    table = np.asarray(values, dtype=np.float64)
    return table[:, None] if table.ndim == 1 else table


def token_stats(tokens: ArrayLike, truncated: ArrayLike) -> dict[str, float | int | None]:
    """Average, maximum, and how many responses were truncated; None where there is none."""
    used = np.asarray(tokens, np.float64).ravel()
    seen = np.isfinite(used)
    return {
        "avg_tokens": float(used[seen].mean()) if seen.any() else None,
        "max_tokens": int(used[seen].max()) if seen.any() else None,
        "truncated_responses": int((np.asarray(truncated, bool).ravel() & seen).sum()),
    }


def tokens_per_correct(
    tokens: ArrayLike, correct: ArrayLike, confidence: float = 0.95
) -> Estimate | None:
    """All tokens spent over the answers that are right, one pair a problem; None if none is."""
    spent, right = np.asarray(tokens, np.float64), np.asarray(correct, np.float64)
    kept = np.isfinite(spent) & np.isfinite(right)
    if not kept.any():
        return None
    mean = float(spent[kept].mean())
    return ratio_estimate(
        spent[kept], right[kept], ((mean, 0.0), (mean, 1.0)), confidence=confidence
    )
