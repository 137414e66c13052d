"""Says for whom a process waits that has nothing to generate itself."""

from __future__ import annotations

import time
from datetime import datetime
from types import TracebackType
from typing import Any

from pytest_tokenbudget.core.shares import ClaimedShare
from pytest_tokenbudget.core.store import TraceStore

WAITING = "waiting"
"""Name of the state that a process publishes while it waits for others."""

NOTE_SECONDS = 1.0


class Waiting:
    """Publishes for whom this process waits, and leaves a line about processes of other runs.

    Args:
        store: Where claims are found.
        plan: Name of the plan whose traces are missing.
    """

    def __init__(self, store: TraceStore, plan: str) -> None:
        self._store, self._plan = store, plan
        self._since: float | None = None
        self._published = 0.0
        self._noted: set[str] = set()

    def __enter__(self) -> Waiting:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.ended()

    def goes_on(self, missing: int) -> None:
        """Take that there is nothing to generate here, although traces are missing."""
        now = time.monotonic()
        self._since = self._since or now
        if now - self._published < NOTE_SECONDS:
            return
        self._published = now
        for claim in self._store.claims()[:1]:
            state = {"plan": self._plan, "who": who(claim), "until": claim.until}
            self._store.put_state(WAITING, state)
            name = who(claim)
            known = claim.run == self._store.run or name in self._noted
            if now - self._since >= NOTE_SECONDS and not known:
                self._noted.add(name)
                self._store.note(
                    f"waiting for {name}, which has claimed {claim.traces:,} of the {missing:,} "
                    f"missing traces until {clock(claim.until)}, and longer while it works on them"
                )

    def ended(self) -> None:
        """Take that this process waits no more."""
        if self._published:
            self._store.drop_state(WAITING)
        self._since, self._published = None, 0.0


def who(claim: ClaimedShare) -> str:
    """The process that holds a claim, in words."""
    if claim.process is None:
        return "another process"
    return f"process {claim.process.pid} on {claim.process.host_name}"


def clock(seconds: float) -> str:
    """A Unix time as people read it from a clock."""
    return datetime.fromtimestamp(seconds).strftime("%H:%M:%S")


def waits(states: list[Any], plan: str) -> str:
    """What the processes of a run wait for, in words; empty if they do not wait."""
    for state in states:
        if state["plan"] == plan:
            return f"waiting for {state['who']} until {clock(state['until'])}"
    return ""
