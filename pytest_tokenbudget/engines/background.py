"""An asyncio loop in a thread of its own, for callers that are not asynchronous.

Engines are asked in plain Python and work on hundreds of requests at once: the loop runs in the
background, and what ends is handed over as it ends. When the caller stops, by Ctrl-C or by closing
its iterator, what runs is cancelled and has ended before control comes back.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError, Future, wait
from concurrent.futures import TimeoutError as NotYet
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Any, Generic, TypeVar

T = TypeVar("T")

# Where waiting cannot be interrupted (Windows), Ctrl-C is noticed between two waits.
_LOOK_UP = 0.5


class _Job(Generic[T]):
    """One coroutine on the loop; made and cancelled from outside the loop's thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        coroutine: Coroutine[Any, Any, T],
        ended: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._task: asyncio.Task[T] | None = None
        self._ended = ended
        self.future: Future[T] = Future()
        loop.call_soon_threadsafe(self._begin, coroutine)

    def _begin(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._task = self._loop.create_task(coroutine)
        self._task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self.future.set_exception(CancelledError())
        elif error := task.exception():
            self.future.set_exception(error)
        else:
            self.future.set_result(task.result())
        self._ended()

    def _cancel(self) -> None:
        # Callbacks run in the order they were asked for: the task exists by now.
        if self._task:
            self._task.cancel()

    def result(self) -> T:
        while True:
            with suppress(NotYet):
                return self.future.result(_LOOK_UP)
            if self.future.done():  # the coroutine's own TimeoutError
                return self.future.result()

    def stop(self, seconds: float) -> None:
        """Cancel it and wait until it has ended, so many seconds at most."""
        if not self.future.done():
            self._loop.call_soon_threadsafe(self._cancel)
            wait([self.future], seconds)


class Background:
    """A loop in a daemon thread, started at first use.

    Args:
        name: Name of the thread.
        grace: Seconds that cancelled work may take to end.
    """

    def __init__(self, name: str = "tokenbudget-loop", grace: float = 10.0) -> None:
        self._name = name
        self._grace = grace
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end and give what it returns, or raise what it raises."""
        job = self._start(coroutine, lambda: None)
        try:
            return job.result()
        except BaseException:
            job.stop(self._grace)
            raise

    def stream(self, items: AsyncGenerator[T, None]) -> Iterator[T]:
        """Give what an asynchronous generator gives, as it comes.

        It starts with the first item that is asked for and does not wait for the caller between
        items. What it raises is raised after the items before.
        """
        arrived: queue.SimpleQueue[tuple[T] | None] = queue.SimpleQueue()

        async def pump() -> None:
            async with aclosing(items):
                async for item in items:
                    arrived.put((item,))

        job = self._start(pump(), lambda: arrived.put(None))
        try:
            while True:
                try:
                    item = arrived.get(timeout=_LOOK_UP)
                except queue.Empty:
                    continue
                if item is None:
                    break
                yield item[0]
            job.result()
        finally:
            job.stop(self._grace)

    def close(self) -> None:
        """Cancel what runs, stop the loop and end its thread."""
        with self._lock:
            self._closed = True
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            return
        loop.call_soon_threadsafe(loop.stop)
        thread.join(self._grace)

    def __enter__(self) -> Background:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _start(self, coroutine: Coroutine[Any, Any, T], ended: Callable[[], None]) -> _Job[T]:
        with self._lock:
            if self._closed or threading.current_thread() is self._thread:
                coroutine.close()
                raise RuntimeError(
                    "the background loop is closed"
                    if self._closed
                    else "the background loop cannot wait for itself: use await"
                )
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_serve, args=(self._loop,), name=self._name, daemon=True
                )
                self._thread.start()
            return _Job(self._loop, coroutine, ended)


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    """Run the loop until it is stopped, then cancel what is left and close it."""
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
