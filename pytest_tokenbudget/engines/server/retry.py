"""Questions to a server that says "not now": asked again, so that a busy one can be used."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import tenacity

from pytest_tokenbudget.engines.server.http import Fault, FaultKind

T = TypeVar("T")

TRIES = 3
PAUSE = 0.3
BUSY = 60.0
LOADING = 600.0
LONGEST = 10.0


# Faults of one exchange that say nothing of the next one.
_PASSING = (
    *(FaultKind.CONNECTION, FaultKind.CUT, FaultKind.SERVER, FaultKind.MALFORMED),
    FaultKind.TOO_MUCH,
)


async def persistently(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask, and ask again where an answer was lost or spoilt on its way.

    Raises:
        Fault: If it was so three times, or nothing listens there; anything else at once.
    """

    def passes(error: BaseException) -> bool:
        return isinstance(error, Fault) and error.kind in _PASSING and not error.unreachable

    retrying = tenacity.AsyncRetrying(
        sleep=asyncio.sleep,
        retry=tenacity.retry_if_exception(passes),
        wait=tenacity.wait_exponential(multiplier=PAUSE),
        stop=tenacity.stop_after_attempt(TRIES),
        reraise=True,
    )

    async def once() -> T:
        return await ask()

    return await retrying(once)


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask, and ask again while the server is overloaded or still loads its model.

    Raises:
        Fault: If it is so for a minute, or loads for ten; anything else at once.
    """

    def wait(state: tenacity.RetryCallState) -> float:
        fault = _fault(state)
        asked = fault.retry_after if fault else None
        return min(LONGEST, 0.5 * state.attempt_number if asked is None else asked)

    def stop(state: tenacity.RetryCallState) -> bool:
        fault = _fault(state)
        patience = LOADING if fault and fault.loading else BUSY
        return (state.seconds_since_start or 0.0) > patience

    retrying = tenacity.AsyncRetrying(
        sleep=asyncio.sleep,
        retry=tenacity.retry_if_exception(
            lambda error: isinstance(error, Fault) and error.kind is FaultKind.OVERLOADED
        ),
        wait=wait,
        stop=stop,
        reraise=True,
    )

    async def once() -> T:
        return await ask()

    return await retrying(once)


def _fault(state: tenacity.RetryCallState) -> Fault | None:
    error = state.outcome.exception() if state.outcome else None
    return error if isinstance(error, Fault) else None
