"""An OpenAI-compatible server in one screen: what it writes follows from what it is asked."""

import asyncio
import json
from collections import Counter
from dataclasses import dataclass

from loopback import Listener, chunk, fields, message, respond


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: dict


class TinyServer(Listener):
    """Answers completions with the words "w0 w1 ...", as many as max_tokens says.

    Args:
        delay: Seconds between two words.
        slots: How many requests get words at the same time; None: all.
        raw: Whole answers by path, bytes as they go over the wire; the connection closes after.
        host: Where it listens.

    Attributes:
        asked: What it was asked, in order.
        most_working: The most completions that it had at once, those that waited for a slot too.
    """

    def __init__(self, *, delay=0.0, slots=None, raw=None, host="127.0.0.1"):
        super().__init__(host)
        self.delay = delay
        self.raw = raw or {}
        self.asked: list[Asked] = []
        self.working = 0
        self.most_working = 0
        self._free = asyncio.Semaphore(slots or 1000)

    @property
    def url(self) -> str:
        return self.origin + "/v1"

    @property
    def prompts(self) -> Counter:
        """How often each prompt was asked."""
        return Counter(asked.body.get("prompt") for asked in self.asked if asked.method == "POST")

    async def answer(self, reader, writer):
        while True:  # connections are kept, as real servers keep them
            head, body = await message(reader)
            method, path, _ = head[0].decode().split(" ", 2)
            asked = Asked(method, path, fields(head), json.loads(body) if body else {})
            self.asked.append(asked)
            bare = path.partition("?")[0]
            if bare in self.raw:
                writer.write(self.raw[bare])
                await writer.drain()
                return
            if bare == "/v1/completions":
                self.working += 1
                self.most_working = max(self.most_working, self.working)
                try:
                    async with self._free:
                        await self._complete(writer, asked.body)
                finally:
                    self.working -= 1
            elif bare == "/health":
                await self._json(writer, {"status": "ok"})
            elif bare == "/v1/models":
                await self._json(writer, {"data": [{"id": "tiny"}]})
            else:
                await respond(
                    writer, "404 Not Found", '{"detail":"Not Found"}', "application/json", {}
                )
                return

    async def _json(self, writer, found):
        data = json.dumps(found).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(data)}"
        writer.write(head.encode() + b"\r\n\r\n" + data)
        await writer.drain()

    async def _complete(self, writer, body):
        words = [f"w{number} " for number in range(body.get("max_tokens", 4))]
        if not body.get("stream"):
            await asyncio.sleep(self.delay * len(words))
            await self._json(
                writer, {"choices": [{"text": "".join(words), "finish_reason": "stop"}]}
            )
            return
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for number, word in enumerate(words):
            if self.delay:
                await asyncio.sleep(self.delay)
            last = number == len(words) - 1
            choice = {"text": word, "finish_reason": "stop" if last else None}
            writer.write(chunk(f"data: {json.dumps({'choices': [choice]})}\n\n".encode()))
            await writer.drain()
        writer.write(chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        await writer.drain()


def answered(body: bytes | str, kind="application/json", status="200 OK", **headers) -> bytes:
    """A whole answer for ``raw``."""
    data = body.encode() if isinstance(body, str) else body
    head = {"Content-Type": kind, "Content-Length": str(len(data)), "Connection": "close"}
    head |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + data
