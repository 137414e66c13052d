"""Questions that are asked again where the answer was lost, or the server says "not now"."""

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


async def retry_lost_answers(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask, and ask again where an answer was lost or spoilt on its way.

    Raises:
        Fault: If it was so three times, or nothing listens there; anything else at once.
    """

    def passes(fault: Fault) -> bool:
        return fault.kind in _PASSING and not fault.unreachable

    wait = tenacity.wait_exponential(multiplier=PAUSE)
    return await _retried(ask, passes, wait, tenacity.stop_after_attempt(TRIES))


async def retry_while_busy(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask, and ask again while the server is overloaded or still loads its model.

    Raises:
        Fault: If it is so for a minute, or loads for ten; anything else at once.
    """

    def wait(state: tenacity.RetryCallState) -> float:
        fault = _fault(state)
        seconds = fault.retry_after if fault else None
        return min(LONGEST, 0.5 * state.attempt_number if seconds is None else seconds)

    def stop(state: tenacity.RetryCallState) -> bool:
        fault = _fault(state)
        longest = LOADING if fault and fault.loading else BUSY
        return (state.seconds_since_start or 0.0) > longest

    return await _retried(ask, lambda fault: fault.kind is FaultKind.OVERLOADED, wait, stop)


async def _retried(
    ask: Callable[[], Awaitable[T]],
    passes: Callable[[Fault], bool],
    wait: Callable[[tenacity.RetryCallState], float],
    stop: Callable[[tenacity.RetryCallState], bool],
) -> T:
    async def once() -> T:  # tenacity awaits coroutine functions only
        return await ask()

    retry = tenacity.retry_if_exception(lambda error: isinstance(error, Fault) and passes(error))
    retrying = tenacity.AsyncRetrying(
        sleep=asyncio.sleep, retry=retry, wait=wait, stop=stop, reraise=True
    )
    return await retrying(once)


def _fault(state: tenacity.RetryCallState) -> Fault | None:
    error = state.outcome.exception() if state.outcome else None
    return error if isinstance(error, Fault) else None
