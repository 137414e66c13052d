"""A proxy that fails on demand, between the suite and a server.

    with FaultyProxy(server_url, first(3, Mischief.RESET)) as proxy:
        run_the_suite("--model", proxy.url)
    assert proxy.counts == {"reset": 3, "passed": 40}

It counts POST requests only; what is asked by GET (health, models) always passes, unless ``paths``
says otherwise. Its plan can be changed while it runs (``proxy.plan = always(Mischief.RESET)``),
``proxy.die()`` makes it vanish with all connections, and ``proxy.return_()`` brings it back on the
same port.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable
from email.utils import formatdate
from enum import StrEnum
from time import time
from urllib.parse import urlsplit

from loopback import (
    Listener,
    chunk,
    events,
    fields,
    hang,
    lines,
    message,
    named,
    pieces,
    reset,
    respond,
)


class Mischief(StrEnum):
    """What can be done to a request."""

    TIMEOUT = "timeout"  # accepts and never answers
    RATE_LIMIT = "rate limit"  # 429 with Retry-After
    SERVER_ERROR = "server error"  # 500
    BAD_GATEWAY = "bad gateway"  # 502 with a page, as reverse proxies send it
    LOADING = "loading"  # 503 as llama.cpp says it while it loads
    RESET = "reset"  # RST instead of an answer
    MALFORMED = "malformed"  # the real answer up to ``keep`` events, then broken JSON
    STOPS = "stops"  # the same, then the connection closes
    ENDS = "ends"  # the same, then the answer ends as if it were whole
    STALLS = "stalls"  # the same, then nothing more, with the connection open
    NO_MODEL = "no model"  # 404
    CONTEXT = "context"  # 400
    WRONG_KEY = "wrong key"  # 401, with the key in the message


Plan = Callable[[int], Mischief | None]


def never() -> Plan:
    return lambda number: None


def always(*what: Mischief) -> Plan:
    """Every request; several kinds take turns."""
    return lambda number: what[number % len(what)]


def first(count: int, *what: Mischief) -> Plan:
    """The first ``count`` requests."""
    return lambda number: what[number % len(what)] if number < count else None


def every(step: int, *what: Mischief) -> Plan:
    """Every ``step``-th request, beginning with the ``step``-th."""

    def plan(number: int) -> Mischief | None:
        turn, rest = divmod(number + 1, step)
        return None if rest else what[(turn - 1) % len(what)]

    return plan


def at_random(share: float, seed: int, *what: Mischief) -> Plan:
    """A share of the requests, the same ones for the same seed."""

    def plan(number: int) -> Mischief | None:
        draw = random.Random(f"{seed} {number}")
        return draw.choice(what) if draw.random() < share else None

    return plan


def in_order(*what: Mischief | None) -> Plan:
    """One by one; what comes after passes."""
    return lambda number: what[number] if number < len(what) else None


class FaultyProxy(Listener):
    """The proxy, in a thread of its own; a context manager.

    Args:
        upstream: URL of the real server (plain http), with or without ``/v1``.
        plan: Which request, counted from 0, gets which mischief.
        keep: Events of a stream that come through before it is spoilt.
        retry_after: Seconds that 429 and 503 ask to wait; None: they do not say.
        as_date: ``Retry-After`` as a date.
        paths: Requests whose path contains one of these are counted, whatever the method.
    """

    def __init__(
        self,
        upstream: str,
        plan: Plan | None = None,
        *,
        keep: int = 3,
        retry_after: float | None = 0,
        as_date: bool = False,
        paths: tuple[str, ...] = (),
    ):
        super().__init__()
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname, parts.port or 80)
        self._path = parts.path.rstrip("/")
        self.plan = plan or never()
        self.keep = keep
        self.retry_after = retry_after
        self.as_date = as_date
        self._paths = paths
        self.counts: Counter[str] = Counter()
        self.log: list[tuple[str, str, Mischief | None]] = []
        self._number = 0

    @property
    def url(self) -> str:
        """Base URL for the suite: the proxy's address with the path of the upstream's URL."""
        return self.origin + self._path

    @property
    def done(self) -> int:
        """How many requests were failed."""
        return sum(count for what, count in self.counts.items() if what != "passed")

    async def answer(self, reader, writer):
        head, body = await message(reader)
        method, path, _ = head[0].decode().split(" ", 2)
        headers = fields(head)
        counted = any(part in path for part in self._paths) if self._paths else method == "POST"
        what = None
        if counted:
            what = self.plan(self._number)
            self._number += 1
            self.counts[str(what or "passed")] += 1
            self.log.append((method, path, what))
        if what is Mischief.TIMEOUT:
            await hang(reader)
        elif what is Mischief.RESET:
            reset(writer)
        elif what in ANSWERS:
            status, answer = ANSWERS[what]
            text = answer.replace("KEY", headers.get("authorization", "none"))
            kind = "text/html" if text.startswith("<") else "application/json"
            await respond(writer, status, text, kind, self._waits(what))
        else:
            await self._forward(head, body, what, reader, writer)

    def _waits(self, what: Mischief) -> dict[str, str]:
        if self.retry_after is None or what not in (Mischief.RATE_LIMIT, Mischief.LOADING):
            return {}
        if self.as_date:
            return {"Retry-After": formatdate(time() + self.retry_after, usegmt=True)}
        return {"Retry-After": f"{self.retry_after:g}"}

    async def _forward(self, head, body, what, client, writer):
        up_reader, up_writer = await asyncio.open_connection(*self._upstream)
        try:
            kept = [
                line for line in head if not named(line, "connection", "accept-encoding", "host")
            ]
            kept.append(f"Host: {self._upstream[0]}:{self._upstream[1]}".encode())
            kept += [b"Connection: close", b"Accept-Encoding: identity"]
            up_writer.write(b"\r\n".join(kept) + b"\r\n\r\n" + body)
            await up_writer.drain()
            relay = self._spoil if what else self._pass
            work = asyncio.ensure_future(relay(what, up_reader, client, writer))
            # A client that leaves is told to the server, as any proxy does.
            gone = asyncio.ensure_future(hang(client))
            try:
                await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (work, gone):
                    task.cancel()
                await asyncio.gather(work, gone, return_exceptions=True)
        finally:
            up_writer.close()

    async def _pass(self, what, upstream, client, writer):
        head = [line for line in await lines(upstream) if not named(line, "connection")]
        # One request a connection: a server may keep its own open, the client is told not to.
        writer.write(b"\r\n".join([*head, b"Connection: close"]) + b"\r\n\r\n")
        while piece := await upstream.read(65536):
            writer.write(piece)
            await writer.drain()

    async def _spoil(self, what, upstream, client, writer):
        head = await lines(upstream)
        headers = fields(head)
        streamed = headers.get("content-type", "").startswith("text/event-stream")
        kept = [
            line
            for line in head
            if not named(line, "transfer-encoding", "content-length", "connection")
        ]
        kept += [b"Transfer-Encoding: chunked", b"Connection: close"]
        writer.write(b"\r\n".join(kept) + b"\r\n\r\n")
        if streamed:
            count = 0
            async for event in events(upstream, headers):
                if count == self.keep:
                    break
                writer.write(chunk(event))
                await writer.drain()
                count += 1
            if what is Mischief.MALFORMED:
                writer.write(chunk(b'data: {"choices": [{"text": "ab\n\n'))
        else:
            whole = b"".join([piece async for piece in pieces(upstream, headers)])
            writer.write(chunk(whole[: max(1, len(whole) // 2)]))
        await writer.drain()
        if what in (Mischief.MALFORMED, Mischief.ENDS):
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        elif what is Mischief.STALLS:
            await asyncio.Event().wait()
        # STOPS: the connection closes without the chunk that ends the body.


def error(message: str, kind: str, code: int) -> str:
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


ANSWERS: dict[Mischief | None, tuple[str, str]] = {
    Mischief.RATE_LIMIT: (
        "429 Too Many Requests",
        error("Rate limit reached for requests", "requests", 429),
    ),
    Mischief.SERVER_ERROR: (
        "500 Internal Server Error",
        error("something in the engine broke", "internal_server_error", 500),
    ),
    Mischief.BAD_GATEWAY: (
        "502 Bad Gateway",
        "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad"
        " Gateway</h1></center>\r\n<hr><center>gate/1.0</center>\r\n</body>\r\n</html>",
    ),
    Mischief.LOADING: (
        "503 Service Unavailable",
        json.dumps(
            {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}
        ),
    ),
    Mischief.NO_MODEL: (
        "404 Not Found",
        error("The model `some-model` does not exist.", "NotFoundError", 404),
    ),
    Mischief.CONTEXT: (
        "400 Bad Request",
        error(
            "This model's maximum context length is 64 tokens. However, you requested 90 tokens"
            " (58 in the messages, 32 in the completion).",
            "BadRequestError",
            400,
        ),
    ),
    Mischief.WRONG_KEY: (
        "401 Unauthorized",
        error("Incorrect API key provided: KEY. You can find yours in your settings.", "auth", 401),
    ),
}
