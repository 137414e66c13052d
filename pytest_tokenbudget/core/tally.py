"""How far the traces are that a process is generating."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress

from pytest_tokenbudget.core.engine import Request
from pytest_tokenbudget.core.journal import Journal
from pytest_tokenbudget.core.store_file import StoreError

GENERATING = "generating"
"""Name of the state that a process publishes while it generates."""
PROBING = "probing"
"""The same while it probes an engine for conformance."""

PUBLISH_SECONDS = 1.0


@contextmanager
def published(
    journal: Journal,
    name: str,
    state: Callable[[], object],
    seconds: float = PUBLISH_SECONDS,
    also: Callable[[Journal], None] = lambda own: None,
) -> Iterator[None]:
    """Publish what this process is doing while the block runs, from a thread.

    Args:
        journal: The store of the run.
        name: Name of the state.
        state: Gives the present state.
        seconds: How often.
        also: Called as often, with the thread's own connection.
    """
    stop = threading.Event()

    def publish() -> None:
        # What fails is tried again. SQLite connections do not cross threads.
        with (
            suppress(StoreError),
            closing(journal.beside()) as own,
        ):
            while not stop.wait(seconds):
                with suppress(StoreError):
                    own.put_state(name, state())
                    also(own)
            own.drop_state(name)

    thread = threading.Thread(target=publish, name=f"tokenbudget-{name}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class Tally:
    """Counts the output tokens of traces that are not finished; engines call it from any thread.

    Args:
        requests: What is being generated.
    """

    def __init__(self, requests: Iterable[Request]) -> None:
        self._tokens = {each.key: len(each.prefix_ids) for each in requests}
        self._prefixes = dict(self._tokens)

    def __call__(self, request: Request, tokens: int) -> None:
        """Take the output tokens that a trace has now, those of its prefix included."""
        if request.key in self._tokens:
            self._tokens[request.key] = tokens

    def ended(self, request: Request) -> None:
        """Forget a trace that is finished."""
        self._tokens.pop(request.key, None)

    def lengths(self) -> dict[str, tuple[int, int]]:
        """By key the output tokens that a trace began with, and those that it has now."""
        # A copy is made in one step, whatever other threads do.
        return {key: (self._prefixes[key], now) for key, now in self._tokens.copy().items()}
