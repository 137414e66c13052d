"""The loop in the background: what callers that are not asynchronous get from it."""

import asyncio
import os
import signal
import threading
import time
from concurrent.futures import CancelledError

import pytest

from pytest_tokenbudget.engines.background import Background


@pytest.fixture
def loop():
    with Background(grace=5) as background:
        yield background


class Watched:
    """Numbers that come every ``step`` seconds, and whether they were cleaned up."""

    def __init__(self, step=0.01, count=1000, fail_at=None):
        self.step, self.count, self.fail_at = step, count, fail_at
        self.made, self.closed = 0, False

    async def __call__(self):
        try:
            for number in range(self.count):
                if number == self.fail_at:
                    raise ValueError("broken in the middle")
                yield number
                self.made += 1
                await asyncio.sleep(self.step)
        finally:
            await asyncio.sleep(0.02)  # cleaning up may take time, and is waited for
            self.closed = True


async def hang(ended):
    try:
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.02)
        ended.append("ended")


def interrupt_soon():
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()


def test_results_and_errors(loop):
    async def give(value):
        await asyncio.sleep(0.01)
        if isinstance(value, Exception):
            raise value
        return value

    assert loop.run(give(7)) == 7
    for error in (KeyError("mine"), TimeoutError("its own")):
        with pytest.raises(type(error)) as caught:
            loop.run(give(error))
        assert caught.value is error


def test_items_come_as_they_are_made(loop):
    watched = Watched(step=0.05, count=4)
    start = time.monotonic()
    times = [time.monotonic() - start for _ in loop.stream(watched())]
    assert len(times) == 4
    assert times[0] < times[3] - 0.1
    assert watched.closed


def test_the_producer_goes_on_while_the_consumer_works(loop):
    watched = Watched(step=0.001, count=30)
    items = loop.stream(watched())
    assert next(items) == 0
    deadline = time.monotonic() + 5
    while watched.made < 30 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert watched.made == 30
    assert list(items) == list(range(1, 30))


def test_what_came_before_an_error_is_given(loop):
    items = loop.stream(Watched(fail_at=3)())
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="in the middle"):
        next(items)


def test_leaving_early_cancels_and_cleans_up(loop):
    watched = Watched()
    items = loop.stream(watched())
    assert next(items) == 0
    items.close()
    assert watched.closed
    made = watched.made
    time.sleep(0.05)
    assert watched.made == made


def test_a_stream_that_nobody_reads_does_not_start(loop):
    watched = Watched()
    loop.stream(watched())
    time.sleep(0.03)
    assert watched.made == 0


@pytest.mark.skipif(os.name == "nt", reason="signals are sent in another way there")
def test_ctrl_c_cancels_a_run(loop):
    ended = []
    interrupt_soon()
    with pytest.raises(KeyboardInterrupt):
        loop.run(hang(ended))
    assert ended == ["ended"]


@pytest.mark.skipif(os.name == "nt", reason="signals are sent in another way there")
def test_ctrl_c_cancels_a_stream(loop):
    watched, got = Watched(), []
    interrupt_soon()
    with pytest.raises(KeyboardInterrupt):
        got.extend(loop.stream(watched()))
    assert watched.closed
    assert watched.made > 0


def test_closing_ends_what_runs_and_the_thread():
    loop, ended = Background("to-be-closed"), []

    def wait():
        with pytest.raises(CancelledError):
            loop.run(hang(ended))
        ended.append("told")

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.1)
    loop.close()
    thread.join(5)
    assert not thread.is_alive()
    assert ended == ["ended", "told"]
    assert "to-be-closed" not in [thread.name for thread in threading.enumerate()]
    with pytest.raises(RuntimeError, match="closed"):
        loop.run(hang(ended))
    loop.close()


def test_a_producer_does_not_wait_for_itself(loop):
    async def inner():
        loop.run(hang([]))

    with pytest.raises(RuntimeError, match="use await"):
        loop.run(inner())


def test_several_threads_at_once(loop):
    async def double(number):
        await asyncio.sleep(0.05)
        return 2 * number

    got = {}
    threads = [
        threading.Thread(target=lambda n=n: got.update({n: loop.run(double(n))})) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert got == {n: 2 * n for n in range(8)}
