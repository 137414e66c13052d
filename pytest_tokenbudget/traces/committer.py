"""Commits traces as they end, from a thread: what ends together shares one durable transaction."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import closing
from queue import Empty, SimpleQueue
from types import TracebackType

from pytest_tokenbudget.traces.store import Ended, TraceStore

MOST_TOGETHER = 500


class Committer:
    """Commits what it is given at once; what arrives during a commit goes into the next one.

    Leaving the block waits until everything is committed.

    Args:
        store: Where traces are kept.
        model: Hash of the model's identity.
        fresh: Whether traces of earlier runs count as missing.
        plan: Name of the plan whose progress is shown; empty if none is.

    Raises:
        StoreError: From every method and on leaving, if something could not be committed.
    """

    def __init__(self, store: TraceStore, model: str, fresh: bool, plan: str = "") -> None:
        self._store, self._model, self._fresh, self._plan = store, model, fresh, plan
        self._queue: SimpleQueue[Ended | threading.Event | None] = SimpleQueue()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="tokenbudget-commits", daemon=True)

    def __enter__(self) -> Committer:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._queue.put(None)
        self._thread.join()
        if error is None:
            self._check()

    def put(self, ended: Ended) -> None:
        """Have a trace committed."""
        self._check()
        self._queue.put(ended)

    def flush(self) -> None:
        """Wait until everything that was given so far is committed."""
        done = threading.Event()
        self._queue.put(done)
        done.wait()
        self._check()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        # SQLite connections do not cross threads.
        try:
            with closing(TraceStore(self._store.path, self._store.run, self._store.owner)) as own:
                own.make_durable()
                while self._commit(own, *self._next()):
                    pass
        except BaseException as error:  # raised where traces are given
            self._error = error
            # Whoever waits is told; nothing more is taken.
            while self._goes_on():
                pass

    def _goes_on(self) -> bool:
        one = self._queue.get()
        if isinstance(one, threading.Event):
            one.set()
        return one is not None

    def _next(self) -> tuple[list[Ended], list[threading.Event], bool]:
        """What has arrived: traces, those who wait for them, and whether more will come."""
        ended: list[Ended] = []
        waiting: list[threading.Event] = []
        one = self._queue.get()
        while True:
            if one is None:
                return ended, waiting, False
            if isinstance(one, threading.Event):
                waiting.append(one)
            else:
                ended.append(one)
            if len(ended) >= MOST_TOGETHER:
                return ended, waiting, True
            try:
                one = self._queue.get_nowait()
            except Empty:
                return ended, waiting, True

    def _commit(
        self,
        own: TraceStore,
        ended: Sequence[Ended],
        waiting: Sequence[threading.Event],
        more: bool,
    ) -> bool:
        try:
            if ended:
                own.commit_all(self._model, ended, self._fresh, self._plan)
        finally:
            for event in waiting:
                event.set()
        return more
