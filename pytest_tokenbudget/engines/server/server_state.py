"""One server of a pool: its state, its pauses, and how many requests it gets at a time."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from pytest_tokenbudget.engines.server.http import Fault, FaultKind, Server

FIRST = 4
MOST = 256

# Growth of the rate that counts as growth, as a share of the growth in requests.
_WORTH = 0.1
_LEAST_GAIN = 0.03
# Windows without gain before the limit goes back, and windows it then stays there.
_DOUBTS = 2
_REST = 15
_REST_AFTER_SHRINKING = 5


@dataclass(frozen=True)
class ServerTiming:
    """Seconds, for tests to shorten.

    Attributes:
        first: First pause before a request is tried again; it doubles each time, with jitter.
        longest: Longest such pause.
        retry_after: Longest pause that a server may ask for by Retry-After.
        look: Between two looks at a server that is down.
        look_timeout: How long a look may take.
        all_down: How long all servers may be down before the run is given up.
        overloaded: How long they may refuse everything, or load their models, before that.
        window: Over which a rate is measured to choose the number in flight.
    """

    first: float = 0.5
    longest: float = 30.0
    retry_after: float = 120.0
    look: float = 3.0
    look_timeout: float = 10.0
    all_down: float = 180.0
    overloaded: float = 600.0
    window: float = 2.0

    def pause(self, number: int) -> float:
        """A pause by how many came before it."""
        return min(self.longest, self.first * 2.0**number) * random.uniform(0.75, 1.25)


class Throttle:
    """The limit for one server: it grows while tokens a second grow with it.

    It doubles until more no longer helps or the server complains, goes back to what was best,
    stays there for a while, and then tries a little more again. A complaint halves it.

    Args:
        fixed: A limit that stays; None finds one out.
        window: Seconds over which a rate is measured.
        clock: Seconds, of any origin.
    """

    def __init__(
        self,
        fixed: int | None = None,
        window: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit = fixed or FIRST
        self._fixed = fixed is not None
        self._window = window
        self._clock = clock
        self._best: tuple[int, float] | None = None
        self._doubling = True
        self._doubts = 0
        self._rest = 0
        self._tokens = 0
        self._ended = 0
        self._tells_tokens = False
        self._shrunk_at = float("-inf")
        self._start = 0.0
        self._full = False
        self._restart(settle=True)

    def tick(self, tokens: int) -> None:
        """Count tokens that came."""
        self._tokens += tokens
        self._tells_tokens = True
        self._look()

    def ended(self) -> None:
        """Count a request that ended well: the measure where nobody counts tokens."""
        self._ended += 1
        self._look()

    def spare(self) -> None:
        """The server has free places and nobody wants them: this window shows no limit."""
        self._full = False

    def shrink(self) -> None:
        """The server complained: half as many; complaints about one burst count once."""
        if self._fixed or self._clock() - self._shrunk_at < self._window:
            return
        self._shrunk_at = self._clock()
        self.limit = max(1, self.limit // 2)
        self._best, self._doubling, self._doubts = None, False, 0
        self._rest = _REST_AFTER_SHRINKING
        self._restart(settle=True)

    def _look(self) -> None:
        """At the end of a window: is more at once worth it?"""
        now = self._clock()
        if self._fixed or now - self._start < self._window:
            if now < self._start:  # the server settles after a change
                self._tokens = self._ended = 0
            return
        rate = (self._tokens if self._tells_tokens else self._ended) / (now - self._start)
        full, before = self._full, self.limit
        if not full:
            pass
        elif self._rest:
            self._rest -= 1
            self._best = None
        else:
            self._decide(rate)
        self._restart(settle=self.limit != before)

    def _decide(self, rate: float) -> None:
        if self._best is not None and not self._gained(rate):
            self._doubts += 1
            if self._doubts >= _DOUBTS:
                self.limit = self._best[0]
                self._doubling, self._doubts, self._rest = False, 0, _REST
            return
        self._best, self._doubts = (self.limit, rate), 0
        more = self.limit if self._doubling else max(1, self.limit // 4)
        self.limit = min(MOST, self.limit + more)

    def _gained(self, rate: float) -> bool:
        if self._best is None or self._best[0] >= self.limit:
            return True
        limit, best = self._best
        return rate > best * (1 + max(_LEAST_GAIN, _WORTH * (self.limit / limit - 1)))

    def _restart(self, settle: bool) -> None:
        self._start = self._clock() + (self._window / 2 if settle else 0.0)
        self._tokens = self._ended = 0
        self._full = True


@dataclass(eq=False)
class ServerState:
    """One server, and how it fares."""

    server: Server
    throttle: Throttle
    outstanding: int = 0
    done: int = 0
    tokens: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    # Kinds of faults that a person was told of.
    reported: set[FaultKind] = field(default_factory=set)
    # Down: why, since when, and the task that asks it whether it is back.
    down: Fault | None = None
    down_since: float = 0.0
    check: asyncio.Task[None] | None = None
    # In a row, without a success between.
    breaks: int = 0
    refusals: int = 0
    paused_until: float = 0.0

    @property
    def busy(self) -> float:
        return self.outstanding / self.throttle.limit

    @property
    def busy_with_one_more(self) -> float:
        return (self.outstanding + 1) / self.throttle.limit

    def takes(self, now: float) -> bool:
        return (
            self.down is None
            and now >= self.paused_until
            and self.outstanding < self.throttle.limit
        )
