"""How many tokens traces took, what a right answer cost, and what further traces will take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pytest_tokenbudget.stats.intervals import Estimate, Floats, mean_estimate, normal_quantile
from pytest_tokenbudget.stats.resampling import ratio_estimate


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


def token_spread(tokens: ArrayLike, capped: ArrayLike | None = None) -> TokenSpread:
    """Describe how many tokens traces took, and which of them were stopped by a cap.

    Arrays have one value a problem, or are problems x samples; NaN where there is no trace.
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
        mean=mean_estimate(table),
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
    return ratio_estimate(spent[kept], right[kept], ((mean, 0.0), (mean, 1.0)), confidence)


@dataclass(frozen=True)
class Forecast:
    """Output tokens that are to be expected of several traces together.

    Attributes:
        tokens: The expectation.
        low: Lower end of a 95 % interval for their sum, the doubt about the mean in it.
        high: Upper end.
        traces: Traces that it is drawn from.
        at_least: Whether some of these met a cap below the one that is asked about, so that more
            is to be expected.
    """

    tokens: float
    low: float
    high: float
    traces: int
    at_least: bool = False


def forecast(
    begun: Sequence[int], cap: int, lengths: ArrayLike, ended: ArrayLike
) -> Forecast | None:
    """What traces will still take; None where there is nothing to tell it from.

    A trace that is gone on from has not ended by then, so it is expected to take what traces take
    that are longer than that; without any such it goes up to the cap.

    Args:
        begun: For each trace that is to come, the tokens that it has already; 0 for a new one.
        cap: Output tokens allowed.
        lengths: Tokens of the traces that are there.
        ended: Whether each ended by itself; the others may have needed more.
    """
    known, whole = np.asarray(lengths, np.float64).ravel(), np.asarray(ended, bool).ravel()
    if not known.size:
        return None
    taken = np.minimum(known, cap)
    at_least = bool((~whole & (known < cap)).any())
    mean = variance = doubt = 0.0
    for start in sorted(set(begun)):
        times = begun.count(start)
        # Everything reaches to its beginning, what has not come that far says nothing of the rest.
        more: Floats = taken[(known > start) | (start == 0)] - start
        if not more.size:
            mean += times * max(0, cap - start)
            continue
        mean += times * float(more.mean())
        spread = float(more.var(ddof=1)) if more.size > 1 else float((cap - start) ** 2)
        variance += times * spread
        # All that are alike share one mean, and what is not known of it.
        doubt += times**2 * spread / more.size
    half = normal_quantile(0.975) * math.sqrt(variance + doubt)
    most = sum(max(0, cap - start) for start in begun)
    return Forecast(
        tokens=mean,
        low=max(0.0, mean - half),
        high=min(float(most), mean + half),
        traces=int(known.size),
        at_least=at_least,
    )


def forecast_beyond(
    count: int, start: int, cap: int, lengths: ArrayLike, ended: ArrayLike
) -> Forecast | None:
    """What new traces take beyond ``start`` tokens, where many will have ended by then."""
    known, whole = np.asarray(lengths, np.float64).ravel(), np.asarray(ended, bool).ravel()
    rest = np.maximum(known - start, 0)
    return forecast([0] * count, cap - start, rest, whole)


def sum_forecasts(parts: Sequence[Forecast | None]) -> Forecast | None:
    """The sum of independent forecasts; None where one of them is missing, or there is none."""
    known = [part for part in parts if part is not None]
    if not known or len(known) < len(parts):
        return None
    tokens = sum(part.tokens for part in known)
    below = math.hypot(*(part.tokens - part.low for part in known))
    above = math.hypot(*(part.high - part.tokens for part in known))
    return Forecast(
        tokens=tokens,
        low=max(0.0, tokens - below),
        high=tokens + above,
        traces=sum(part.traces for part in known),
        at_least=any(part.at_least for part in known),
    )
