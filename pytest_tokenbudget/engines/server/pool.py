"""Several servers as one: who gets which request, and what is asked again after a fault.

A request goes to the server that had its prompt before, unless another one is clearly less busy. A
server that drops connections is left out until it answers again; one that complains of too much
work is given less. What fails for good comes out as its ``Fault``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import tenacity

from pytest_tokenbudget.engines.server.http import Fault, FaultKind, Key, Server
from pytest_tokenbudget.engines.server.server_state import ServerState, ServerTiming, Throttle

T = TypeVar("T")

# Refusals for too much work that one request may meet, in multiples of the tries it has.
_REFUSALS = 4
# Timeouts in a row, with nothing from any server between, after which others would be no better.
_SILENCES = 6
# Shares of a server's limit by which another one must be less busy to get a prompt not its own.
_BUSIER = 0.5
_BUSIER_AND_FULL = 0.25

_LOST = frozenset({FaultKind.CONNECTION, FaultKind.CUT})
_SUSPECT = _LOST | {FaultKind.TIMEOUT}


@dataclass(eq=False)
class _Work:
    """One job on its way through its tries."""

    sticky: Hashable
    tries: int
    attempts: int = 0
    counted: int = 0
    refused: int = 0
    moved: int = 0
    at_once: bool = False
    avoid: ServerState | None = None
    slot: asyncio.Future[ServerState] | None = None

    @property
    def spent(self) -> bool:
        return self.counted >= self.tries or self.refused >= _REFUSALS * self.tries


class Pool:
    """Runs jobs on servers; used inside one asyncio loop.

    Args:
        urls: Base URLs; the same one twice counts once.
        key: Sent to all of them.
        timeout: Seconds without a byte after which a request has failed.
        in_flight: Requests that each server is given at once; None finds out what it sustains.
        say: Told, from the loop's thread, what a person who waits should know.
        timing: Pauses.
    """

    def __init__(
        self,
        urls: Sequence[str],
        key: Key | None = None,
        *,
        timeout: float = 120.0,
        in_flight: int | None = None,
        say: Callable[[str], None] = lambda line: None,
        timing: ServerTiming | None = None,
    ) -> None:
        self._timing = timing or ServerTiming()
        self._tell = say
        self.states: dict[str, ServerState] = {}
        for url in urls:
            server = Server(url, key, timeout)
            throttle = Throttle(in_flight, self._timing.window)
            self.states.setdefault(server.url, ServerState(server, throttle))
        self._homes: dict[Hashable, ServerState] = {}
        self._waiting: dict[_Work, None] = {}
        self._running = 0
        self._came = 0.0  # when something came last, from any of them
        self._silence = max(self._timing.overloaded, _SILENCES * timeout)

    def _say(self, line: str) -> None:
        # Whoever shows lines may fail; the tasks that look at servers must not end by that.
        with suppress(Exception):
            self._tell(line)

    async def close(self) -> None:
        """Stop looking at servers that are down, and close all connections."""
        checks = [state.check for state in self.states.values() if state.check]
        for check in checks:
            check.cancel()
        await asyncio.gather(*checks, return_exceptions=True)
        for state in self.states.values():
            await state.server.close()

    def tick(self, server: Server, tokens: int) -> None:
        """Tell that tokens came from a server: the number in flight is chosen by it."""
        state = self.states[server.url]
        state.tokens += tokens
        if tokens:
            self._came = self._now()
        before = state.throttle.limit
        if not self._waiting and state.outstanding < before:
            state.throttle.spare()
        state.throttle.tick(tokens)
        if state.throttle.limit > before:
            self._hand_out()

    async def run(
        self, job: Callable[[Server], Awaitable[T]], *, sticky: Hashable = None, tries: int = 5
    ) -> T:
        """Run a job on one of the servers, and again where that can help.

        Args:
            job: Does its work with the server it is given; called anew for every try, so what came
                before a fault is for it to keep.
            sticky: Jobs with equal values share a prompt and go to one server; None: none does.
            tries: How often it may fail. A connection that broke does not count while another
                server is up; being refused for too much work counts a quarter.

        Raises:
            Fault: What is not worth another try, or was tried often enough. With ``fatal``, the
                others cannot fare better.
        """
        work = _Work(sticky, tries)
        retrying = tenacity.AsyncRetrying(
            sleep=asyncio.sleep,
            retry=tenacity.retry_if_exception(lambda e: isinstance(e, Fault) and e.retryable),
            wait=lambda _: 0.0 if work.at_once else self._timing.pause(work.counted - 1),
            stop=lambda _: work.spent,
            reraise=True,
        )
        if not self._running:
            self._came = self._now()
        self._running += 1
        try:
            return await retrying(self._try, job, work)
        finally:
            self._running -= 1

    async def _try(self, job: Callable[[Server], Awaitable[T]], work: _Work) -> T:
        state = await self._slot(work)
        work.attempts += 1
        try:
            result = await job(state.server)
        except Fault as fault:
            fault.tried = work.attempts
            self._failed(state, work, fault)
            raise
        else:
            self._came = self._now()
            state.done += 1
            state.breaks = state.refusals = 0
            state.throttle.ended()
            return result
        finally:
            self._free(state)

    async def _slot(self, work: _Work) -> ServerState:
        """Wait for a server that takes the job; the job counts there when this returns."""
        if (fault := self._given_up()) is not None:
            raise fault
        slot: asyncio.Future[ServerState] = asyncio.get_running_loop().create_future()
        work.slot = slot
        self._waiting[work] = None
        self._hand_out()
        try:
            return await slot
        except asyncio.CancelledError:
            if slot.done() and not slot.cancelled() and not slot.exception():
                self._free(slot.result())
            raise
        finally:
            self._waiting.pop(work, None)

    def _free(self, state: ServerState) -> None:
        state.outstanding -= 1
        self._hand_out()

    def _hand_out(self) -> None:
        """Give free servers to the jobs that wait, first come first served."""
        now = self._now()
        for work in list(self._waiting):
            takers = [state for state in self.states.values() if state.takes(now)]
            if not takers:
                return
            state = self._choose(work, takers)
            if state is None or work.slot is None or work.slot.done():
                continue
            if work.sticky is not None:
                home = self._homes.setdefault(work.sticky, state)
                if home.down is not None:
                    self._homes[work.sticky] = state
            state.outstanding += 1
            del self._waiting[work]
            work.slot.set_result(state)
        if not self._waiting:
            for state in self.states.values():
                if state.outstanding < state.throttle.limit:
                    state.throttle.spare()

    def _choose(self, work: _Work, takers: Sequence[ServerState]) -> ServerState | None:
        """The server for a job; None: it had better wait for its own."""
        others = [state for state in takers if state is not work.avoid] or takers
        least = min(others, key=lambda state: state.busy_with_one_more)
        home = self._homes.get(work.sticky) if work.sticky is not None else None
        if home is None or home is least or home is work.avoid or home.down is not None:
            return least
        if home in takers:
            return least if home.busy - least.busy_with_one_more >= _BUSIER else home
        paused = self._now() < home.paused_until
        if paused or not least.outstanding:
            return least
        return least if home.busy - least.busy_with_one_more >= _BUSIER_AND_FULL else None

    def _failed(self, state: ServerState, work: _Work, fault: Fault) -> None:
        state.faults[str(fault.kind)] += 1
        if not fault.retryable:
            return
        overloaded = fault.kind is FaultKind.OVERLOADED
        longest = self._timing.overloaded if overloaded else self._silence
        if self._now() - self._came > longest:
            fault.fatal = True
            fault.message += f"; nothing got through for {longest:g} s"
            return
        work.avoid = state
        work.at_once = False
        if fault.kind in _SUSPECT or fault.loading:
            self._take_out(state, fault)
        elif fault.kind is FaultKind.OVERLOADED:
            self._pause(state, fault)
        if fault.kind in (FaultKind.OVERLOADED, FaultKind.TIMEOUT) and not fault.loading:
            state.throttle.shrink()
        others = any(s.down is None for s in self.states.values() if s is not state)
        if fault.kind is FaultKind.OVERLOADED:
            work.refused += 1
            work.at_once = True
        elif fault.kind in _LOST and others and work.moved < len(self.states):
            work.moved += 1
            work.at_once = True
        else:
            work.counted += 1
        # Once is usual; who waits shall know of what goes on.
        if work.counted + work.refused == 2 and fault.kind not in state.reported:
            state.reported.add(fault.kind)
            self._say(f"{fault.message}; it is tried again")

    def _pause(self, state: ServerState, fault: Fault) -> None:
        """Leave a server alone for the time it asks for, or for one that grows."""
        now = self._now()
        if fault.retry_after is None:
            seconds = self._timing.pause(state.refusals)
        else:
            seconds = min(fault.retry_after, self._timing.retry_after)
        # Refusals of requests that were on their way together are one refusal.
        if now >= state.paused_until:
            state.refusals += 1
            if fault.retry_after is not None and seconds < fault.retry_after:
                self._say(
                    f"{state.server.url} asks to wait {fault.retry_after:,.0f} s;"
                    f" it is asked again after {seconds:g} s"
                )
        self._rest(state, now + seconds)

    def _rest(self, state: ServerState, until: float) -> None:
        if until > state.paused_until:
            state.paused_until = until
            asyncio.get_running_loop().call_at(until, self._hand_out)

    def _take_out(self, state: ServerState, fault: Fault) -> None:
        """Leave a server out until it has shown that it answers."""
        if state.down is None:
            state.down, state.down_since = fault, self._now()
            state.breaks += 1
            state.check = asyncio.get_running_loop().create_task(self._check(state))

    async def _check(self, state: ServerState) -> None:
        reported = False
        while (fault := await state.server.ready(self._timing.look_timeout)) is not None:
            state.down = fault
            if not reported:
                reported = True
                others = any(s.down is None for s in self.states.values())
                self._say(
                    f"{fault.message}; "
                    + ("its requests go to the others" if others else "waiting for it")
                    + f", it is looked at every {self._timing.look:g} s"
                )
            for work in list(self._waiting):
                given_up = self._given_up()
                if given_up and work.slot and not work.slot.done():
                    work.slot.set_exception(given_up)
            await asyncio.sleep(self._timing.look)
        state.down = None
        if reported:
            self._say(
                f"{state.server.url} answers again after {self._now() - state.down_since:.0f} s"
            )
        if state.breaks > 1:  # it answers looks, and drops requests
            self._rest(state, self._now() + self._timing.pause(state.breaks - 2))
        self._hand_out()

    def _given_up(self) -> Fault | None:
        """The end of the run, where every server was down for longer than is worth waiting."""
        faults = []
        for state in self.states.values():
            if state.down is None:
                return None
            timing = self._timing
            longest = timing.overloaded if state.down.loading else timing.all_down
            if self._now() - state.down_since < longest:
                return None
            faults.append(state.down.message)
        return Fault(FaultKind.CONNECTION, "no server is left: " + "; ".join(faults), fatal=True)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
