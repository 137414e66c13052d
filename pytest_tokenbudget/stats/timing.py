"""How long answers take at each budget, modelled from how long the whole traces took.

What is measured is one time a trace: from the start of its batch, or of its request, to its end.
It holds for the company in which the trace was generated: the same model answers faster alone, and
slower the more it does at once. A smaller budget would have ended some traces earlier. Each is
taken to have written at its own steady pace after a beginning (the prompt, the waiting) that is the
same for all, so a cut trace keeps the beginning and its share of the rest. What a smaller budget
would have done for the others, who had the machine for themselves sooner, is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pytest_tokenbudget.stats.intervals import Estimate, Floats, mean_estimate
from pytest_tokenbudget.stats.tokens import by_sample

# Fewer traces, or traces of one length, do not tell a beginning from a pace.
FEWEST_TO_FIT = 8


@dataclass(frozen=True)
class TimePoint:
    """How long answers take at one budget.

    Attributes:
        budget: The budget.
        each: Seconds of one answer, with an interval by problem.
        p95: The smallest number of seconds within which 95 % of the answers end.
        tokens_per_second: Tokens of the answers over the seconds that each of them took.
        run_seconds: Seconds from the first start to the last end of all answers, pauses left out;
            None where it is not known when traces ended.
        run_tokens_per_second: Tokens of all answers over these.
    """

    budget: int
    each: Estimate
    p95: float
    tokens_per_second: float
    run_seconds: float | None
    run_tokens_per_second: float | None


@dataclass(frozen=True)
class Timing:
    """How long answers take at each budget.

    Attributes:
        traces: Traces whose time is known.
        untimed: Traces whose time is not known.
        beginning: Seconds before the first token, as far as that can be told from the pace.
        pace: Median seconds that a further token takes within a trace.
        at_once: How many traces were generated at once on average; None where it is not known.
        points: One a budget.
    """

    traces: int
    untimed: int
    beginning: float
    pace: float
    at_once: float | None
    points: tuple[TimePoint, ...]

    def at(self, budget: int) -> TimePoint:
        """The point of a budget.

        Raises:
            ValueError: If there is none.
        """
        for point in self.points:
            if point.budget == budget:
                return point
        raise ValueError(f"no time is known at {budget}")


@dataclass(frozen=True)
class Times:
    """What is known of the time of traces; arrays of problems x samples.

    Attributes:
        tokens: Output tokens; NaN for an error.
        seconds: Wall seconds.
        timed: Tokens that were generated in these; 0 where that is not known.
        ended: When each ended, in seconds; 0 where that is not known.
        in_batches: Whether traces begin and end in batches, as where one engine decodes them in
            step; otherwise another takes a trace's place as soon as it ends.
    """

    tokens: Floats
    seconds: Floats
    timed: Floats
    ended: Floats
    in_batches: bool = False

    @property
    def known(self) -> NDArray[np.bool_]:
        there: NDArray[np.bool_] = (self.seconds > 0) & (self.timed > 0) & np.isfinite(self.tokens)
        return there

    @property
    def beginning(self) -> float:
        """Seconds before the first token: where a line through times and tokens begins."""
        seconds, timed = self.seconds[self.known], self.timed[self.known]
        if seconds.size < FEWEST_TO_FIT or np.ptp(timed) == 0:
            return 0.0
        apart = timed - timed.mean()
        slope = float(apart @ seconds / (apart @ apart))
        return float(np.clip(seconds.mean() - slope * timed.mean(), 0.0, seconds.min()))

    def cut(self, used: ArrayLike) -> Floats:
        """Seconds of each trace when it ends after ``used`` tokens; NaN where that is unknown."""
        begun = self.beginning
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.asarray(used, np.float64) / self.timed
            seconds = begun + (self.seconds - begun) * share
        return np.where(self.known, seconds, np.nan)


def times_of(
    tokens: ArrayLike,
    seconds: ArrayLike,
    timed: ArrayLike,
    ended: ArrayLike,
    in_batches: bool = False,
) -> Times:
    """What is known of the time of traces, one a problem or problems x samples."""
    return Times(
        by_sample(tokens), by_sample(seconds), by_sample(timed), by_sample(ended), in_batches
    )


def timing(budgets: Sequence[int], used: ArrayLike, times: Times) -> Timing | None:
    """How long answers take at each budget; None where no trace has a time.

    Tokens used at each budget are problems x samples x budgets; NaN for errors.
    """
    known = times.known
    if not known.any():
        return None
    cuts = np.asarray(used, np.float64)
    whole = known & (times.timed >= times.tokens) & (times.ended > 0)
    busy = _busy(times, times.seconds, whole)
    scale = float(np.isfinite(times.tokens).sum() / whole.sum()) if whole.any() else math.nan
    paces = (times.seconds[known] - times.beginning) / times.timed[known]
    points = []
    for place, budget in enumerate(budgets):
        tokens = cuts[..., place]
        seconds = times.cut(tokens)
        run = None
        if busy:
            if times.in_batches:
                run = _busy(times, seconds, whole) * scale
            else:
                run = busy * scale * float(seconds[whole].sum() / times.seconds[whole].sum())
        points.append(
            TimePoint(
                budget=budget,
                each=mean_estimate(seconds),
                p95=float(np.quantile(seconds[known], 0.95, method="inverted_cdf")),
                tokens_per_second=float(tokens[known].sum() / seconds[known].sum()),
                run_seconds=run,
                run_tokens_per_second=float(np.nansum(tokens) / run) if run else None,
            )
        )
    return Timing(
        traces=int(known.sum()),
        untimed=int((np.isfinite(times.tokens) & ~known).sum()),
        beginning=times.beginning,
        pace=float(np.median(paces)),
        at_once=float(times.seconds[whole].sum() / busy) if busy else None,
        points=tuple(points),
    )


def token_rate(times: Times) -> float | None:
    """Tokens a second of all traces together, pauses left out; None where it is not known."""
    known = times.known & (times.ended > 0)
    busy = _busy(times, times.seconds, known)
    return float(times.timed[known].sum() / busy) if busy else None


def _busy(times: Times, seconds: Floats, which: NDArray[np.bool_]) -> float:
    """Seconds in which at least one of the traces was generated, had each taken so long."""
    starts = (times.ended - times.seconds)[which]
    ends = starts + seconds[which]
    total, until = 0.0, -math.inf
    for place in np.argsort(starts, kind="stable"):
        start, end = float(starts[place]), float(ends[place])
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total
