"""How many tokens traces that are not there yet will take, from those that are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pytest_tokenbudget.stats.intervals import Floats, normal_quantile


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
    begun: Sequence[int],
    cap: int,
    lengths: ArrayLike,
    ended: ArrayLike,
    confidence: float = 0.95,
) -> Forecast | None:
    """What traces will still take; None where there is nothing to tell it from.

    A trace that is gone on from has not ended by then, so it is expected to take what traces take
    that are longer than that; without any such it goes up to the cap.

    Args:
        begun: For each trace that is to come, the tokens that it has already; 0 for a new one.
        cap: Output tokens allowed.
        lengths: Tokens of the traces that are there.
        ended: Whether each ended by itself; the others may have needed more.
        confidence: Two-sided confidence of the interval.
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
    half = normal_quantile((1 + confidence) / 2) * math.sqrt(variance + doubt)
    most = sum(max(0, cap - start) for start in begun)
    return Forecast(
        tokens=mean,
        low=max(0.0, mean - half),
        high=min(float(most), mean + half),
        traces=int(known.size),
        at_least=at_least,
    )


def beyond(
    count: int, start: int, cap: int, lengths: ArrayLike, ended: ArrayLike
) -> Forecast | None:
    """What new traces take beyond ``start`` tokens, where many will have ended by then.

    Args:
        count: How many there will be.
        start: Tokens that are counted elsewhere.
        cap: Output tokens allowed.
        lengths: Tokens of the traces that are there.
        ended: Whether each ended by itself; the others may have needed more.
    """
    known, whole = np.asarray(lengths, np.float64).ravel(), np.asarray(ended, bool).ravel()
    rest = np.maximum(known - start, 0)
    return forecast([0] * count, cap - start, rest, whole)


def together(parts: Sequence[Forecast | None]) -> Forecast | None:
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
