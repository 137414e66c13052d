"""How many output tokens are still to come, estimated from the lengths of traces so far."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

# Parts of the range of lengths, from its upper end, and how many ends make one of them enough.
_PARTS = (0.25, 0.5, 1.0)
_ENOUGH = 5


class TraceLength(NamedTuple):
    """How long a trace is.

    Attributes:
        start: Output tokens that it began with.
        tokens: Output tokens that it has.
        ended: Whether it ended by itself there; False while it goes on and where a cap ended it.
    """

    start: int
    tokens: int
    ended: bool = False


class Remaining:
    """Expected further tokens of traces, by the product-limit (Kaplan-Meier) estimate.

    Traces that end early are seen first: a mean of the finished ones would be too low. So traces
    that still go on count as far as they have come. Beyond the longest, the rate at which traces
    ended of late is taken to go on.

    Args:
        lengths: Traces that are finished, and traces that go on.
        cap: Output tokens that are allowed.
    """

    def __init__(self, lengths: Sequence[TraceLength], cap: int) -> None:
        self.cap = cap
        ends = Counter(each.tokens for each in lengths if each.ended)
        self._times = sorted(ends)
        starts = sorted(each.start for each in lengths)
        stops = sorted(each.tokens for each in lengths)
        survival = 1.0
        self._survival = []
        for time in self._times:
            # At risk are those that had begun before and were not over.
            at_risk = bisect_left(starts, time) - bisect_left(stops, time)
            survival *= 1 - ends[time] / max(at_risk, ends[time])
            self._survival.append(survival)
        self._last = min(max(stops, default=0), cap)
        self._rate = _rate(lengths, ends, self._last)

    def of(self, tokens: int) -> float:
        """Expected further tokens of a trace that has ``tokens`` and goes on."""
        if tokens >= self.cap:
            return 0.0
        first = bisect_right(self._times, tokens)
        now = self._survival[first - 1] if first else 1.0
        if now <= 0 or tokens >= self._last:
            return self._tail(max(tokens, 0))
        area, at, share = 0.0, tokens, now
        for place in range(first, len(self._times)):
            time = min(self._times[place], self._last)
            area += share * (time - at)
            at, share = time, self._survival[place]
        area += share * (self._last - at)
        return (area + share * self._tail(self._last)) / now

    def _tail(self, tokens: int) -> float:
        """Expected further tokens where nothing is known but the rate of ends."""
        from math import exp

        room = self.cap - tokens
        return room if self._rate <= 0 else (1 - exp(-self._rate * room)) / self._rate


def _rate(lengths: Sequence[TraceLength], ends: Counter[int], last: int) -> float:
    """Ends a token in the latest part of the range in which there were enough of them."""
    for part in _PARTS:
        low = last * (1 - part)
        exposure = sum(max(0.0, each.tokens - max(each.start, low)) for each in lengths)
        ended = sum(times for at, times in ends.items() if at > low)
        if exposure and ended >= (_ENOUGH if part < 1 else 1):
            return ended / exposure
    return 0.0


def expected_tokens(
    finished: Sequence[TraceLength], going_on: Sequence[TraceLength], waiting: int, cap: int
) -> tuple[float, float] | None:
    """Tokens that are still to come, together and for the trace that takes longest.

    Args:
        finished: Finished traces.
        going_on: Traces that are being generated.
        waiting: How many have not begun.
        cap: Output tokens that are allowed.

    Returns:
        The sum over all traces, and the largest of those going on or waiting; None before the
        first trace is finished.
    """
    if not finished:
        return None
    estimate = Remaining([*finished, *going_on], cap)
    each = [estimate.of(one.tokens) for one in going_on]
    starts = [one.start for one in (*finished, *going_on)]
    fresh = estimate.of(round(sum(starts) / len(starts)) if starts else 0)
    return sum(each) + waiting * fresh, max([*each, fresh] if waiting else each, default=0.0)
