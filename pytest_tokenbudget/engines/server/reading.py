"""Bodies of answers, read within limits that follow from what was asked for."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, suppress
from typing import Any, NamedTuple, cast

import httpx2

# Bytes after decompression. An event for one token has 100 to 400, with many logprobs some 1,000.
BYTES_A_TOKEN = 4096
BYTES_A_TOKEN_REPEATED = 16
BYTES_A_BYTE_SENT = 64
BYTES_OF_AN_ANSWER = 2 * 2**20
BYTES_OF_A_PAGE = 8 * 2**20
# What a request may write that sets no limit.
TOKENS_UNLIMITED = 32_768
# In multiples of the request timeout: the whole time of a request, and of one without any output.
PATIENCE = 4
TOKENS_A_TIMEOUT = 64
SILENCE = 5

# After [DONE] the rest of the body is read, so that the connection can be used again.
_DRAIN = 0.5

_LIMITS = (
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "max_new_tokens",
    "n_predict",
)


class Allowance(NamedTuple):
    """What one answer may take.

    Attributes:
        tokens: Output tokens that were asked for; 0 where the request generates nothing.
        size: Bytes of its body after decompression.
        event: Bytes of one event.
        seconds: From the request to the end of the answer.
        silence: Seconds without output, whatever else comes.
    """

    tokens: int
    size: int
    event: int
    seconds: float
    silence: float


def allowance(body: Mapping[str, Any] | None, sent: int, timeout: float) -> Allowance:
    """What the answer to a request may take: to a body of ``sent`` bytes, or None for a page."""
    tokens = 0 if body is None else _output_tokens(body)
    base = BYTES_OF_A_PAGE if body is None else BYTES_OF_AN_ANSWER
    event = base + BYTES_A_TOKEN * tokens + BYTES_A_BYTE_SENT * sent
    # Events of SGLang repeat what came before.
    repeated = BYTES_A_TOKEN_REPEATED * tokens**2 if body and "sampling_params" in body else 0
    seconds = timeout * (PATIENCE + tokens / TOKENS_A_TIMEOUT)
    return Allowance(tokens, event + repeated, event, seconds, SILENCE * timeout)


def _output_tokens(body: Mapping[str, Any]) -> int:
    named = (
        {**body, **nested} if isinstance(nested := body.get("sampling_params"), Mapping) else body
    )
    limits = [named[name] for name in _LIMITS if isinstance(named.get(name), int)]
    outputs = named.get("n")
    count = outputs if isinstance(outputs, int) and outputs > 1 else 1
    if limits:
        most = max(limits)
        return count * (most if most >= 0 else TOKENS_UNLIMITED)
    generates = "temperature" in body or "stream" in body
    return count * TOKENS_UNLIMITED if generates else 0


class TooMuchError(Exception):
    """A body is longer than allowed."""


async def parts(response: httpx2.Response, size: int) -> AsyncGenerator[bytes, None]:
    """A body in parts; a TooMuchError if it has more bytes than ``size`` after decompression."""
    total = 0
    async with aclosing(response.aiter_bytes()) as body:
        async for part in body:
            total += len(part)
            if total > size:
                raise TooMuchError
            yield part


async def read(response: httpx2.Response, size: int) -> bytes:
    """A body as a whole, within the same limit."""
    return b"".join([part async for part in parts(response, size)])


async def event_data(
    response: httpx2.Response, allowed: Allowance, end: float, output: Callable[[], int] | None
) -> AsyncGenerator[str, None]:
    """The data of each event of a stream, up to ``[DONE]``; pings are left out.

    It has to be over at ``end``, by the clock of the loop. ``output`` tells how much output has
    come in the events so far; without it every event counts.

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
