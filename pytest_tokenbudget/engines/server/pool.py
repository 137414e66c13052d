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
from types import TracebackType
from typing import TypeVar

import tenacity

from pytest_tokenbudget.engines.server.http import Fault, FaultKind, Key, Server
from pytest_tokenbudget.engines.server.server_state import Load, Member, ServerTiming
from pytest_tokenbudget.engines.server.throttle import Throttle

__all__ = ["Load", "Pool", "ServerTiming"]

T = TypeVar("T")

# Refusals for too much work that one request may meet, in multiples of the tries it has.
_REFUSALS = 4
# Timeouts in a row, with nothing from any server between, after which others would be no better.
_SILENCES = 6
# Shares of a server's limit by which another one must be less busy to get a prompt not its own.
_BUSIER = 0.5
_BUSIER_AND_FULL = 0.25

_LOST = frozenset({FaultKind.CONNECTION, FaultKind.CUT})
_DOUBTFUL = _LOST | {FaultKind.TIMEOUT}


@dataclass(eq=False)
class _Work:
    """One job on its way through its tries."""

    sticky: Hashable
    tries: int
    asked: int = 0
    counted: int = 0
    refused: int = 0
    moved: int = 0
    at_once: bool = False
    avoid: Member | None = None
    place: asyncio.Future[Member] | None = None

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
        self._members: dict[str, Member] = {}
        for url in urls:
            server = Server(url, key, timeout)
            throttle = Throttle(in_flight, self._timing.window)
            self._members.setdefault(server.url, Member(server, throttle))
        self._homes: dict[Hashable, Member] = {}
        self._waiting: dict[_Work, None] = {}
        self._running = 0
        self._came = 0.0  # when something came last, from any of them
        self._silence = max(self._timing.overloaded, _SILENCES * timeout)

    def _say(self, line: str) -> None:
        # Whoever shows lines may fail; the tasks that look at servers must not end by that.
        with suppress(Exception):
            self._tell(line)

    async def start(self) -> None:
        """Be ready; connections are opened as they are needed."""

    async def close(self) -> None:
        """Stop looking at servers that are down, and close all connections."""
        looks = [member.look for member in self._members.values() if member.look]
        for look in looks:
            look.cancel()
        await asyncio.gather(*looks, return_exceptions=True)
        for member in self._members.values():
            await member.server.close()

    async def __aenter__(self) -> Pool:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def servers(self) -> tuple[Server, ...]:
        """The servers, in the order they were named."""
        return tuple(member.server for member in self._members.values())

    @property
    def loads(self) -> dict[str, Load]:
        """What each server did so far, by its URL."""
        return {
            url: Load(m.done, m.tokens, dict(m.faults), m.throttle.limit)
            for url, m in self._members.items()
        }

    def tick(self, server: Server, tokens: int) -> None:
        """Tell that tokens came from a server: the number in flight is chosen by it."""
        member = self._members[server.url]
        member.tokens += tokens
        if tokens:
            self._came = self._now()
        before = member.throttle.limit
        if not self._waiting and member.outstanding < before:
            member.throttle.spare()
        member.throttle.tick(tokens)
        if member.throttle.limit > before:
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
            wait=lambda state: 0.0 if work.at_once else self._timing.pause(work.counted - 1),
            stop=lambda state: work.spent,
            reraise=True,
        )
        if not self._running:
            self._came = self._now()
        self._running += 1
        try:
            return await retrying(self._once, job, work)
        finally:
            self._running -= 1

    async def _once(self, job: Callable[[Server], Awaitable[T]], work: _Work) -> T:
        member = await self._place(work)
        work.asked += 1
        try:
            result = await job(member.server)
        except Fault as fault:
            fault.tried = work.asked
            self._failed(member, work, fault)
            raise
        else:
            self._came = self._now()
            member.done += 1
            member.breaks = member.refusals = 0
            member.throttle.ended()
            return result
        finally:
            self._free(member)

    # Places

    async def _place(self, work: _Work) -> Member:
        """Wait for a server that takes the job; its place is taken when this returns."""
        if (fault := self._hopeless()) is not None:
            raise fault
        place: asyncio.Future[Member] = asyncio.get_running_loop().create_future()
        work.place = place
        self._waiting[work] = None
        self._hand_out()
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and not place.exception():
                self._free(place.result())
            raise
        finally:
            self._waiting.pop(work, None)

    def _free(self, member: Member) -> None:
        member.outstanding -= 1
        self._hand_out()

    def _hand_out(self) -> None:
        """Give the places that are free to those who wait, first come first served."""
        now = self._now()
        for work in list(self._waiting):
            takers = [m for m in self._members.values() if m.takes(now)]
            if not takers:
                return
            member = self._choose(work, takers)
            if member is None or work.place is None or work.place.done():
                continue
            if work.sticky is not None:
                home = self._homes.setdefault(work.sticky, member)
                if home.down is not None:
                    self._homes[work.sticky] = member
            member.outstanding += 1
            del self._waiting[work]
            work.place.set_result(member)
        if not self._waiting:
            for member in self._members.values():
                if member.outstanding < member.throttle.limit:
                    member.throttle.spare()

    def _choose(self, work: _Work, takers: Sequence[Member]) -> Member | None:
        """The server for a job; None: it had better wait for its own."""
        others = [member for member in takers if member is not work.avoid] or takers
        least = min(others, key=lambda member: member.busy_with_one_more)
        home = self._homes.get(work.sticky) if work.sticky is not None else None
        if home is None or home is least or home is work.avoid or home.down is not None:
            return least
        if home in takers:
            return least if home.busy - least.busy_with_one_more >= _BUSIER else home
        paused = self._now() < home.paused_until
        if paused or not least.outstanding:
            return least
        return least if home.busy - least.busy_with_one_more >= _BUSIER_AND_FULL else None

    # Faults

    def _failed(self, member: Member, work: _Work, fault: Fault) -> None:
        member.faults[str(fault.kind)] += 1
        if not fault.retryable:
            return
        overloaded = fault.kind is FaultKind.OVERLOADED
        patience = self._timing.overloaded if overloaded else self._silence
        if self._now() - self._came > patience:
            fault.fatal = True
            fault.message += f"; nothing got through for {patience:g} s"
            return
        work.avoid = member
        work.at_once = False
        if fault.kind in _DOUBTFUL or fault.loading:
            self._doubt(member, fault)
        elif fault.kind is FaultKind.OVERLOADED:
            self._pause(member, fault)
        if fault.kind in (FaultKind.OVERLOADED, FaultKind.TIMEOUT) and not fault.loading:
            member.throttle.shrink()
        others = any(m.down is None for m in self._members.values() if m is not member)
        if fault.kind is FaultKind.OVERLOADED:
            work.refused += 1
            work.at_once = True
        elif fault.kind in _LOST and others and work.moved < len(self._members):
            work.moved += 1
            work.at_once = True
        else:
            work.counted += 1
        # Once is usual; who waits shall know of what goes on.
        if work.counted + work.refused == 2 and fault.kind not in member.told:
            member.told.add(fault.kind)
            self._say(f"{fault.message}; it is tried again")

    def _pause(self, member: Member, fault: Fault) -> None:
        """Leave a server alone for the time it asks for, or for one that grows."""
        now = self._now()
        if fault.retry_after is None:
            seconds = self._timing.pause(member.refusals)
        else:
            seconds = min(fault.retry_after, self._timing.retry_after)
        # Refusals of requests that were on their way together are one refusal.
        if now >= member.paused_until:
            member.refusals += 1
            if fault.retry_after is not None and seconds < fault.retry_after:
                self._say(
                    f"{member.server.url} asks to wait {fault.retry_after:,.0f} s;"
                    f" it is asked again after {seconds:g} s"
                )
        self._rest(member, now + seconds)

    def _rest(self, member: Member, until: float) -> None:
        if until > member.paused_until:
            member.paused_until = until
            asyncio.get_running_loop().call_at(until, self._hand_out)

    def _doubt(self, member: Member, fault: Fault) -> None:
        """Leave a server out until it has shown that it answers."""
        if member.down is None:
            member.down, member.down_since = fault, self._now()
            member.breaks += 1
            member.look = asyncio.get_running_loop().create_task(self._look_at(member))

    async def _look_at(self, member: Member) -> None:
        told = False
        url = member.server.url
        while (fault := await member.server.ready(self._timing.look_timeout)) is not None:
            member.down = fault
            if not told:
                told = True
                others = any(m.down is None for m in self._members.values())
                self._say(
                    f"{fault.message}; "
                    + ("its requests go to the others" if others else "waiting for it")
                    + f", it is looked at every {self._timing.look:g} s"
                )
            for work in list(self._waiting):
                hopeless = self._hopeless()
                if hopeless and work.place and not work.place.done():
                    work.place.set_exception(hopeless)
            await asyncio.sleep(self._timing.look)
        member.down = None
        if told:
            self._say(f"{url} answers again after {self._now() - member.down_since:.0f} s")
        if member.breaks > 1:  # it answers looks, and drops requests
            self._rest(member, self._now() + self._timing.pause(member.breaks - 2))
        self._hand_out()

    def _hopeless(self) -> Fault | None:
        """The end of the run, where every server was down for longer than is worth waiting."""
        faults = []
        for member in self._members.values():
            if member.down is None:
                return None
            timing = self._timing
            patience = timing.overloaded if member.down.loading else timing.all_down
            if self._now() - member.down_since < patience:
                return None
            faults.append(member.down.message)
        return Fault(FaultKind.CONNECTION, "no server is left: " + "; ".join(faults), fatal=True)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
