"""One server of a pool: how it fares, and the pauses that are kept with it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from pytest_tokenbudget.engines.server.http import Fault, FaultKind, Server
from pytest_tokenbudget.engines.server.throttle import Throttle


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


@dataclass(frozen=True)
class Load:
    """What one server did, for reports.

    Attributes:
        done: Requests that ended well.
        tokens: Tokens that came, as far as jobs told.
        faults: Faults by kind.
        limit: Requests that it may be given at once, in the end.
    """

    done: int
    tokens: int
    faults: Mapping[str, int]
    limit: int


@dataclass(eq=False)
class Member:
    """One server, and how it fares."""

    server: Server
    throttle: Throttle
    outstanding: int = 0
    done: int = 0
    tokens: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    # Kinds of faults that a person was told of.
    told: set[FaultKind] = field(default_factory=set)
    # Down: why, since when, and the task that looks at it.
    down: Fault | None = None
    down_since: float = 0.0
    look: asyncio.Task[None] | None = None
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
