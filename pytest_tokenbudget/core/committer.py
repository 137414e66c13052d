"""Commits traces as they end, from a thread: what ends together shares one durable transaction."""

from __future__ import annotations

import threading
from contextlib import closing
from queue import Empty, SimpleQueue
from types import TracebackType

from pytest_tokenbudget.core.store import EndedTrace, TraceStore

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
        self._queue: SimpleQueue[EndedTrace | None] = SimpleQueue()
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

    def put(self, ended: EndedTrace) -> None:
        """Have a trace committed."""
        self._check()
        self._queue.put(ended)

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            # SQLite connections do not cross threads.
            with closing(self._store.beside()) as own:
                own.make_durable()
                more = True
                while more:
                    ended, more = self._next()
                    if ended:
                        own.check_place()
                        own.commit_all(self._model, ended, self._fresh, self._plan)
        except BaseException as error:  # raised where traces are given
            self._error = error

    def _next(self) -> tuple[list[EndedTrace], bool]:
        """The traces that have arrived, at least one, and whether more will come."""
        ended: list[EndedTrace] = []
        one = self._queue.get()
        while one is not None:
            ended.append(one)
            if len(ended) >= MOST_TOGETHER:
                return ended, True
            try:
                one = self._queue.get_nowait()
            except Empty:
                return ended, True
        return ended, False
