"""Servers of the tests: one listener on loopback in a thread, and HTTP as it goes over the wire."""

import asyncio
import socket
import struct
import threading
from collections.abc import AsyncIterator
from contextlib import suppress


class Listener:
    """A server on loopback in a thread of its own; a context manager.

    Attributes:
        now: Connections that are open.
        most_at_once: The most there were.
    """

    def __init__(self, host: str = "127.0.0.1"):
        self.now = 0
        self.most_at_once = 0
        self._host = host
        self._port = 0
        self._loop = asyncio.new_event_loop()
        self._listening: socket.socket | None = None
        self._open: dict[asyncio.Task, socket.socket] = {}
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def origin(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    def __enter__(self):
        self._thread.start()
        self.return_()
        return self

    def __exit__(self, *error):
        self.die()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def die(self) -> None:
        """Stop listening, and reset every open connection."""
        self._run(self._die())

    def return_(self) -> None:
        """Listen, again on the same port."""
        self._run(self._listen())

    async def answer(self, reader, writer) -> None:
        """Answer what comes on one connection."""
        raise NotImplementedError

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _listen(self):
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setblocking(False)
        listening.bind((self._host, self._port))
        listening.listen(256)
        self._port = listening.getsockname()[1]
        self._listening = listening
        self._loop.add_reader(listening, self._accept, listening)

    def _accept(self, listening):
        # asyncio's own server forgets the connections that it has accepted and not yet begun to
        # serve when it is closed: they stay open, and whoever opened them waits for ever.
        with suppress(BlockingIOError):
            while True:
                raw, _ = listening.accept()
                raw.setblocking(False)
                self._open[self._loop.create_task(self._serve(raw))] = raw

    def _stop_listening(self):
        if self._listening:
            self._loop.remove_reader(self._listening)
            self._listening.close()
            self._listening = None

    async def _die(self):
        self._stop_listening()
        dropped = dict(self._open)
        self._open.clear()
        for task in dropped:
            task.cancel()
        await asyncio.gather(*dropped, return_exceptions=True)
        for raw in dropped.values():
            raw.close()

    async def _serve(self, raw):
        self.now += 1
        self.most_at_once = max(self.most_at_once, self.now)
        writer = None
        try:
            reader, writer = await asyncio.open_connection(sock=raw)
            await self.answer(reader, writer)
        except asyncio.CancelledError:
            if writer:
                reset(writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.now -= 1
            self._open.pop(asyncio.current_task(), None)
            if writer:
                writer.close()


async def lines(reader) -> list[bytes]:
    """The head of a message."""
    head = await reader.readuntil(b"\r\n\r\n")
    return head[:-4].split(b"\r\n")


def fields(head: list[bytes]) -> dict[str, str]:
    pairs = (line.decode("latin-1").partition(":") for line in head[1:])
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def named(line: bytes, *names: str) -> bool:
    """Whether a header has one of these names."""
    return line.partition(b":")[0].strip().lower().decode("latin-1") in names


async def message(reader) -> tuple[list[bytes], bytes]:
    """A request: its head, and its body as it is framed."""
    head = await lines(reader)
    return head, await reader.readexactly(int(fields(head).get("content-length", 0)))


async def pieces(reader, headers) -> AsyncIterator[bytes]:
    """A body without its framing."""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            yield (await reader.readexactly(size + 2))[:-2]
    elif "content-length" in headers:
        yield await reader.readexactly(int(headers["content-length"]))
    else:
        while piece := await reader.read(65536):
            yield piece


async def events(reader, headers) -> AsyncIterator[bytes]:
    """The events of a stream, each with the empty line that ends it."""
    rest = b""
    async for piece in pieces(reader, headers):
        rest += piece.replace(b"\r\n", b"\n")
        while b"\n\n" in rest:
            event, _, rest = rest.partition(b"\n\n")
            yield event + b"\n\n"
    if rest:
        yield rest


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


async def respond(writer, status: str, text: str, kind: str, more: dict[str, str]) -> None:
    data = text.encode()
    head = {"Content-Type": kind, "Content-Length": str(len(data)), "Connection": "close", **more}
    answer = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    writer.write(f"HTTP/1.1 {status}\r\n{answer}\r\n".encode() + data)
    await writer.drain()


async def hang(reader) -> None:
    """Wait until the other side has gone."""
    with suppress(OSError):
        while await reader.read(65536):
            pass


def reset(writer) -> None:
    """Close with RST: the other side sees "connection reset by peer"."""
    raw = writer.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
