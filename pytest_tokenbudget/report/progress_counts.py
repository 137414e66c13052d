"""Numbers and the bar of the progress display: traces, tokens, rate, tokens and time left."""

from __future__ import annotations

import math
import time
from bisect import bisect_left, bisect_right
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from pytest_tokenbudget.core.plan import Plan
from pytest_tokenbudget.core.process_states import GENERATING
from pytest_tokenbudget.core.store import PlanRow, TraceStore

if TYPE_CHECKING:
    from tqdm import tqdm

RECENT_SECONDS = 10.0
ESTIMATE_SECONDS = 1.0
STEPS = 1000
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
    """

    def __init__(self, lengths: Sequence[TraceLength], cap: int) -> None:
        self.cap = cap
        ends = Counter(each.tokens for each in lengths if each.ended)
        self._times = sorted(ends)
        starts = sorted(each.start for each in lengths)
        stops = sorted(each.tokens for each in lengths)
        survival = 1.0
        self._survival = []
        for tokens in self._times:
            # At risk are those that had begun before and were not over.
            at_risk = bisect_left(starts, tokens) - bisect_left(stops, tokens)
            survival *= 1 - ends[tokens] / max(at_risk, ends[tokens])
            self._survival.append(survival)
        self._last = min(max(stops, default=0), cap)
        self._rate = _rate(lengths, ends, self._last)

    def expected(self, tokens: int) -> float:
        """Expected further tokens of a trace that has ``tokens`` and goes on."""
        if tokens >= self.cap:
            return 0.0
        first = bisect_right(self._times, tokens)
        now = self._survival[first - 1] if first else 1.0
        if now <= 0 or tokens >= self._last:
            return self._tail(max(tokens, 0))
        area, start, share = 0.0, tokens, now
        for end, survival in zip(self._times[first:], self._survival[first:], strict=True):
            area += share * (min(end, self._last) - start)
            start, share = min(end, self._last), survival
        area += share * (self._last - start)
        return (area + share * self._tail(self._last)) / now

    def _tail(self, tokens: int) -> float:
        """Expected further tokens where nothing is known but the rate of ends."""
        room = self.cap - tokens
        return room if self._rate <= 0 else (1 - math.exp(-self._rate * room)) / self._rate


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

    Returns:
        The sum over all traces, and the largest of those going on or waiting; None before the
        first trace is finished.
    """
    if not finished:
        return None
    estimate = Remaining([*finished, *going_on], cap)
    each = [estimate.expected(one.tokens) for one in going_on]
    starts = [one.start for one in (*finished, *going_on)]
    fresh = estimate.expected(round(sum(starts) / len(starts)) if starts else 0)
    return sum(each) + waiting * fresh, max([*each, fresh] if waiting else each, default=0.0)


class PlanProgress:
    """How far the traces of a plan are, tokens of unfinished ones among them."""

    def __init__(self, store: TraceStore, row: PlanRow) -> None:
        self._store = store
        plan = Plan.from_json(row.plan)
        self.name, self._model, self._cap = row.name, plan.model, plan.cap
        self._total, self._done = row.to_generate, row.to_generate - row.missing
        self._before = store.generated(plan.model)[1]
        self._finished: dict[str, TraceLength] = {}
        self._after = row.created
        self._began = time.monotonic()
        self._first: tuple[float, int] | None = None
        self._recent: deque[tuple[float, int]] = deque()
        self._estimated = 0.0
        self._left: float | None = None
        self.tokens = 0
        self.share = 0.0
        """Share of the work that is done, from 0 to 1."""
        self.generates = False
        """Whether a process of this run is generating."""

    def look(self, row: PlanRow) -> None:
        """Take the present state of the store."""
        now = time.monotonic()
        changed = self._done != row.to_generate - row.missing
        self._done = row.to_generate - row.missing
        # First: a trace that is stored at this moment may be in neither sum, but never in both.
        stored = self._store.generated(self._model)[1] - self._before
        found, self._after = self._store.lengths(self._model, self._after)
        self._finished |= {key: TraceLength(*each) for key, each in found.items()}
        states = [s for s in self._store.states(GENERATING) if s["plan"] == self.name]
        self.generates = bool(states)
        going_on = [
            TraceLength(*length)
            for state in states
            for key, length in state["lengths"].items()
            if key not in self._finished
        ]
        written = sum(each.tokens - each.start for each in going_on)
        self.tokens = max(self.tokens, stored + written)
        if self.tokens and self._first is None:
            self._first = (now, self.tokens)
        if self._first is not None:
            self._recent.append((now, self.tokens))
        while self._recent and now - self._recent[0][0] > RECENT_SECONDS:
            self._recent.popleft()
        if changed or now - self._estimated >= ESTIMATE_SECONDS:
            self._estimated = now
            self._estimate(going_on, row.missing, now)

    def _estimate(self, going_on: list[TraceLength], missing: int, now: float) -> None:
        waiting = max(missing - len(going_on), 0)
        expected = expected_tokens([*self._finished.values()], going_on, waiting, self._cap)
        self._left = None
        share = self._done / self._total
        if expected is not None:
            together, longest = expected
            share = self.tokens / max(self.tokens + together, 1)
            # Traces that decode together wait for the longest one in the end.
            alone = longest * len(going_on) / self.rate if self.rate else 0.0
            speed = self._average(now)
            self._left = max(together / speed, alone) if speed else None
        if not missing:
            self._left, share = 0.0, 1.0
        self.share = max(self.share, share)

    def _average(self, now: float) -> float:
        """Tokens a second since the first ones came, which leaves out the loading of the model."""
        if self._first is None or now <= self._first[0]:
            return 0.0
        since = now - self._first[0]
        if self.tokens == self._first[1]:
            return self.tokens / max(now - self._began, 1e-3)
        return (self.tokens - self._first[1]) / since

    @property
    def rate(self) -> float:
        """Tokens a second of late."""
        if not self._recent:
            return 0.0
        (since, before), (now, tokens) = self._recent[0], self._recent[-1]
        return (tokens - before) / (now - since) if now > since else 0.0

    def counts(self) -> str:
        """Traces and tokens."""
        return f"{self._done:,}/{self._total:,}, {self.tokens:,} tokens"

    def times(self) -> str:
        """Time so far, time left and rate, short."""
        left = "?" if self._left is None else clock(self._left)
        return f"[{clock(time.monotonic() - self._began)}<{left}, {self.rate:,.0f} tok/s]"

    def sentence(self) -> str:
        """Rate and time left, in words."""
        rate = f"{self.rate:,.0f} tok/s"
        if self._left is None:
            return rate
        long = self._left >= 600
        left = f"{self._left / 60:,.0f} min" if long else f"{self._left:,.0f} s"
        return f"{rate}, about {left} left"


class Bar:
    """A bar with text on both sides, on a terminal; without anything to draw there is none."""

    def __init__(self, stream: TextIO, begin_line: Callable[[], None]) -> None:
        self._stream, self._begin_line = stream, begin_line
        self._bar: tqdm[Any] | None = None

    def draw(self, left: str, share: float, right: str, *, leave: bool = True) -> None:
        """Draw the bar anew; ``leave`` is whether it stays when it is closed."""
        from tqdm import tqdm

        # Braces are tqdm's.
        left, right = (text.replace("{", "{{").replace("}", "}}") for text in (left, right))
        shape = f"{left} {{bar}} {right}"
        if self._bar is None:
            self._begin_line()
            self._bar = tqdm(
                total=STEPS, file=self._stream, dynamic_ncols=True, bar_format=shape, leave=leave
            )
        self._bar.bar_format = shape
        self._bar.n = round(STEPS * share)
        self._bar.refresh()

    def clear(self) -> None:
        """Wipe the bar, until it is drawn again."""
        if self._bar is not None:
            self._bar.clear()

    def close(self) -> None:
        """Leave the bar as it is, and begin a new line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def clock(seconds: float) -> str:
    """Seconds as minutes and seconds, with hours where there are some."""
    from tqdm import tqdm

    return str(tqdm.format_interval(seconds))
