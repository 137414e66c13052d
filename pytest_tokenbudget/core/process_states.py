"""What the processes of a run publish about themselves: generating, or waiting for others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from typing import Any

from pytest_tokenbudget.core.engine import Request
from pytest_tokenbudget.core.journal import Journal
from pytest_tokenbudget.core.shares import ClaimedShare
from pytest_tokenbudget.core.store import TraceStore
from pytest_tokenbudget.core.store_file import StoreError

GENERATING = "generating"
"""Name of the state that a process publishes while it generates."""
PROBING = "probing"
"""The same while it probes an engine for conformance."""

PUBLISH_SECONDS = 1.0


@contextmanager
def running_thread(name: str, work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run ``work`` in a thread while the block runs, and wait for its end.

    Args:
        name: What the thread does, for its name.
        work: Is given an event that is set when the block ends, and returns soon after.
    """
    stop = threading.Event()
    thread = threading.Thread(target=work, args=(stop,), name=f"tokenbudget-{name}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def published(
    journal: Journal,
    name: str,
    state: Callable[[], object],
    seconds: float = PUBLISH_SECONDS,
    on_publish: Callable[[Journal], None] = lambda own: None,
) -> Iterator[None]:
    """Publish what this process is doing while the block runs, every ``seconds`` from a thread.

    ``on_publish`` is called as often, with the thread's own connection.
    """

    def publish(stop: threading.Event) -> None:
        # What fails is tried again. SQLite connections do not cross threads.
        with (
            suppress(StoreError),
            closing(journal.second_connection()) as own,
        ):
            while not stop.wait(seconds):
                with suppress(StoreError):
                    own.put_state(name, state())
                    on_publish(own)
            own.drop_state(name)

    with running_thread(name, publish):
        yield


class Tally:
    """Counts the output tokens of traces that are not finished; engines call it from any thread."""

    def __init__(self, requests: Iterable[Request]) -> None:
        self._tokens = {each.key: len(each.prefix_ids) for each in requests}
        self._prefixes = dict(self._tokens)

    def __call__(self, request: Request, tokens: int) -> None:
        """Take the output tokens that a trace has now, those of its prefix included."""
        if request.key in self._tokens:
            self._tokens[request.key] = tokens

    def ended(self, request: Request) -> None:
        self._tokens.pop(request.key, None)

    def lengths(self) -> dict[str, tuple[int, int]]:
        """By key the output tokens that a trace began with, and those that it has now."""
        # A copy is made in one step, whatever other threads do.
        return {key: (self._prefixes[key], now) for key, now in self._tokens.copy().items()}


WAITING = "waiting"
"""Name of the state that a process publishes while it waits for others."""

NOTE_SECONDS = 1.0


class Waiting:
    """Publishes for whom this process waits, and leaves a line about processes of other runs."""

    def __init__(self, store: TraceStore, plan: str) -> None:
        self._store, self._plan = store, plan
        self._since: float | None = None
        self._published = 0.0
        self._noted: set[str] = set()

    def note_missing(self, missing: int) -> None:
        """Take that there is nothing to generate here, although traces are missing."""
        now = time.monotonic()
        self._since = self._since or now
        if now - self._published < NOTE_SECONDS:
            return
        self._published = now
        for claim in self._store.claims()[:1]:
            state = {"plan": self._plan, "who": holder_name(claim), "until": claim.until}
            self._store.put_state(WAITING, state)
            name = holder_name(claim)
            known = claim.run == self._store.run or name in self._noted
            if now - self._since >= NOTE_SECONDS and not known:
                self._noted.add(name)
                self._store.note(
                    f"waiting for {name}, which has claimed {claim.traces:,} of the {missing:,} "
                    f"missing traces until {time_of_day(claim.until)}, and longer while it works "
                    "on them"
                )

    def close(self) -> None:
        if self._published:
            self._store.drop_state(WAITING)
        self._since, self._published = None, 0.0


def holder_name(claim: ClaimedShare) -> str:
    if claim.process is None:
        return "another process"
    return f"process {claim.process.pid} on {claim.process.host_name}"


def time_of_day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%H:%M:%S")


def waiting_sentence(states: list[Any], plan: str) -> str:
    """What the processes of a run wait for, in words; empty if they do not wait."""
    for state in states:
        if state["plan"] == plan:
            return f"waiting for {state['who']} until {time_of_day(state['until'])}"
    return ""
