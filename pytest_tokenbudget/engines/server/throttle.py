"""How many requests a server is given at once, found out from what it sustains."""

from __future__ import annotations

import time
from collections.abc import Callable

FIRST = 4
MOST = 256

# Growth of the rate that counts as growth, as a share of the growth in requests.
_WORTH = 0.1
_LEAST_GAIN = 0.03
# Windows without gain before the limit goes back, and windows it then stays there.
_DOUBTS = 2
_REST = 15
_REST_AFTER_SHRINKING = 5


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
