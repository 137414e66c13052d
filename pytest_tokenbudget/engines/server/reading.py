"""Bodies of answers, read within their limits."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, suppress
from typing import cast

import httpx2

from pytest_tokenbudget.engines.server.limits import Allowance

# After [DONE] the rest of the body is read, so that the connection can be used again.
_DRAIN = 0.5


class TooMuchError(Exception):
    """A body is longer than allowed."""


async def parts(response: httpx2.Response, size: int) -> AsyncGenerator[bytes, None]:
    """A body in parts.

    Raises:
        TooMuchError: If it has more bytes than ``size`` after decompression.
    """
    came = 0
    async with aclosing(response.aiter_bytes()) as body:
        async for part in body:
            came += len(part)
            if came > size:
                raise TooMuchError
            yield part


async def read(response: httpx2.Response, size: int) -> bytes:
    """A body as a whole.

    Raises:
        TooMuchError: If it has more bytes than ``size`` after decompression.
    """
    return b"".join([part async for part in parts(response, size)])


async def event_data(
    response: httpx2.Response, allowed: Allowance, end: float, output: Callable[[], int] | None
) -> AsyncGenerator[str, None]:
    """The data of each event of a stream, up to ``[DONE]``; pings are left out.

    Args:
        response: The answer.
        allowed: What it may take.
        end: When it has to be over, by the clock of the loop.
        output: How much output has come in the events so far; None: every event counts.

    Raises:
        TooMuchError: If it, or one event of it, is too long.
        TimeoutError: If it takes too long, or too long without any output.
        httpx2.SSEError: If it is no event stream.
    """
    now = asyncio.get_running_loop().time
    body = cast(httpx2.Response, _Body(response, allowed.size))
    events = aiter(httpx2.EventSource(body, max_event_size=allowed.event))
    last, amount = now(), 0
    while True:
        limit = min(end, last + allowed.silence)
        try:
            async with asyncio.timeout_at(limit):
                event = await anext(events, None)
        except httpx2.SSEError:
            if media_type(response) == "text/event-stream":
                raise TooMuchError from None
            raise
        data = "[DONE]" if event is None else event.data.strip()
        if data == "[DONE]":
            break
        if event and data and event.event != "ping":
            yield data
            so_far = output() if output else amount + 1
            if so_far != amount:
                last, amount = now(), so_far
        if now() > limit:
            raise TimeoutError
    with suppress(httpx2.HTTPError, OSError, TooMuchError):
        async with asyncio.timeout(_DRAIN):
            async for _ in events:
                pass


def media_type(response: httpx2.Response) -> str:
    """The type of a body as its header says."""
    return response.headers.get("content-type", "").partition(";")[0].strip().lower()


class _Body:
    """The body of a response as the library's event source reads it.

    It is UTF-8, as event streams always are, whatever its header says, and has a limit. A byte
    order mark at its start is skipped.
    """

    def __init__(self, response: httpx2.Response, size: int) -> None:
        self.headers = response.headers
        self.request = response.request
        self._response = response
        self._size = size

    async def aiter_text(self) -> AsyncIterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        async for part in parts(self._response, self._size):
            yield decoder.decode(part)
        yield decoder.decode(b"", True)
