"""A server of every dialect that spoils a share of its answers, each in another way."""

from __future__ import annotations

import asyncio
import json
import random
import zlib
from collections import Counter
from collections.abc import Iterable

from loopback import Listener, chunk, hang, message, reset, respond

MIB = 2**20
HEAD = (
    "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n"
)
STREAM = "text/event-stream"
# Faults of a request that came to nothing, by status and body.
STATES = {
    "rate limit": ("429 Too Many Requests", '{"error": {"message": "slow down", "code": 429}}'),
    "server error": ("500 Internal Server Error", '{"error": {"message": "it broke"}}'),
    "bad gateway": ("502 Bad Gateway", "<html><body><h1>502 Bad Gateway</h1></body></html>"),
    "unavailable": ("503 Service Unavailable", '{"error": "no worker is free"}'),
    "gateway timeout": ("504 Gateway Timeout", "upstream request timeout"),
    "overloaded": ("529 Overloaded", "{}"),
    "page": ("200 OK", "<html><body>Welcome</body></html>"),
    "empty body": ("200 OK", ""),
    "deep error": ("500 Internal Server Error", '{"error":' + "[" * 100_000),
}
# Events that no answer may hold.
EVENTS = {
    "broken json": '{"choices": [{"te',
    "error event": '{"error": {"message": "EngineCore died", "code": 500}}',
    "error of 5,000 digits": '{"error": {"code": "' + "4" * 5000 + '", "message": "m"}}',
    "number of 5,000 digits": '{"error": {"code": ' + "4" * 5000 + "}}",
    "deep event": "[" * 100_000,
    "closed deep event": '{"choices": ' + "[" * 500 + "]" * 500 + "}",
    "list": "[1, 2]",
}
# Token ids that no answer may hold.
IDS = {
    "id -7": [-7],
    "id 10^12": [10**12],
    "id 10^400": [10**400],
    "no ids": None,
    "odd ids": ["x"],
}
BREAKS = ("timeout", "reset", "closed", "no http", "reset later", "stops", "ends", "stalls")
BODIES = ("bomb", "cut gzip", "bomb of an error", "endless error", "huge event")
SILENCES = ("pings for ever", "empty events for ever")
# What is odd and spoils nothing.
HARMLESS = (
    *("byte order mark", "comments", "carriage returns", "no done", "another charset", "gzip"),
    *("byte by byte", "wrong types", "counts that cannot be true", "more after the end"),
)
CHAT_ONLY = (
    *("max_completion_tokens", "no stream_options", "halves"),
    *("text after the end", "another end", "all twice"),
)
IDS_ONLY = (*IDS, "lost event", "event twice", "early stop")
CHOICES_ONLY = ("another output",)


def kinds_for(dialect: str, api: str) -> list[str]:
    """Every kind of fault that a dialect can have."""
    kinds = [*STATES, *EVENTS, *BREAKS, *BODIES, *SILENCES, *HARMLESS, "odd end"]
    kinds += IDS_ONLY if api == "ids" else CHAT_ONLY
    if api == "chat" or dialect == "vllm":
        kinds += CHOICES_ONLY
    return kinds


def bomb() -> bytes:
    """200 MiB of an answer in 200 kB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    block = b"data: " + b"0" * (MIB - 6)
    return b"".join(packer.compress(block) for _ in range(200)) + packer.flush()


BOMB = bomb()


class SpoilingServer(Listener):
    """Answers as a dialect does, and spoils a share of its answers.

    Args:
        dialect: ``vllm``, ``llamacpp``, ``sglang``, ``serve`` or ``openai``.
        api: ``ids`` or ``chat``.
        outputs: For each prompt, its ids or its only message: ids and their texts.
        ends: The id that ends sequences.
        share: How many of the requests are spoilt.
        seed: Of the choice of faults.

    Attributes:
        faults: How often each fault was made.
        asked: How many requests there were.
        log: Each request and its fault; empty where it had none.
    """

    def __init__(
        self,
        dialect: str,
        api: str,
        outputs: dict[object, tuple[list[int], list[str]]],
        ends: int,
        *,
        share: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.dialect, self.api, self.outputs, self.ends = dialect, api, outputs, ends
        self._share, self._draw = share, random.Random(seed)
        self._deck: list[str] = []
        self.faults: Counter[str] = Counter()
        self.asked = 0
        self.log: list[tuple[dict, str]] = []

    @property
    def url(self) -> str:
        return self.origin + "/v1"

    async def answer(self, reader, writer):
        head, body = await message(reader)
        if head[0].startswith(b"GET "):
            await respond(writer, "200 OK", '{"data": []}', "application/json", {})
            return
        asked = json.loads(body)
        if asked.get("stream") is False:  # llama.cpp is asked for what its stream left out
            ids, _, _ = self._rest(asked)
            whole = json.dumps({"tokens": ids})
            await respond(writer, "200 OK", whole, "application/json", {})
            return
        self.asked += 1
        fault = self._next() if self._draw.random() < self._share else ""
        self.faults[fault] += bool(fault)
        self.log.append((asked, fault))
        await self._write(reader, writer, asked, fault)

    def _next(self) -> str:
        """The next fault: each comes once before any comes again."""
        if not self._deck:
            self._deck = kinds_for(self.dialect, self.api)
            self._draw.shuffle(self._deck)
        return self._deck.pop()

    # What is right

    def _rest(self, asked) -> tuple[list[int], list[str], int]:
        """Ids and texts that are still to come, and how many have come."""
        if self.api == "chat":
            ids, texts = self.outputs[asked["messages"][-1]["content"]]
            return ids, texts, 0
        prompt = asked.get("prompt", asked.get("input_ids"))
        for known, (ids, texts) in self.outputs.items():
            if tuple(prompt[: len(known)]) == known:
                came = len(prompt) - len(known)
                assert list(prompt[len(known) :]) == ids[:came]
                most = asked.get("n_predict") if asked.get("stream") is False else None
                rest = slice(came, None if most is None else came + most)
                return ids[rest], texts[rest], came
        raise AssertionError("an unknown prompt")

    def _events(self, asked, fault) -> list[object]:
        ids, texts, _ = self._rest(asked)
        end = "stop" if ids[-1:] == [self.ends] or self.api == "chat" else "length"
        if self.api == "chat":
            return self._chat(texts, end, len(ids))
        return getattr(self, f"_{self.dialect}")(ids, texts, end, len(asked.get("prompt", ())))

    def _chat(self, texts: Iterable[str], end: str, count: int) -> list[object]:
        found: list[object] = [_delta(role="assistant", content="")]
        found += [_delta(content=text) for text in texts]
        found.append({"choices": [{"index": 0, "delta": {}, "finish_reason": end}]})
        return [*found, {"choices": [], "usage": {"completion_tokens": count}}]

    def _vllm(self, ids, texts, end, prompt) -> list[object]:
        found: list[object] = [
            {"choices": [{"index": 0, "text": text, "token_ids": [i], "finish_reason": None}]}
            for i, text in zip(ids, texts, strict=True)
        ]
        found[-1]["choices"][0]["finish_reason"] = end
        return [*found, {"choices": [], "usage": {"completion_tokens": len(ids)}}]

    def _llamacpp(self, ids, texts, end, prompt) -> list[object]:
        found: list[object] = [
            {"content": text, "tokens": [i], "stop": False, "tokens_predicted": n}
            for n, (i, text) in enumerate(zip(ids, texts, strict=True), 1)
        ]
        word = "eos" if end == "stop" else "limit"
        counts = {"tokens_predicted": len(ids), "tokens_evaluated": prompt}
        return [*found, {"tokens": [], "content": "", "stop": True, "stop_type": word, **counts}]

    def _sglang(self, ids, texts, end, prompt) -> list[object]:
        found: list[object] = []
        for n in range(1, len(ids) + 1):
            over = {"type": end, "matched": self.ends} if n == len(ids) else None
            meta = {"completion_tokens": n, "finish_reason": over}
            found.append({"text": "".join(texts[:n]), "output_ids": ids[:n], "meta_info": meta})
        return found

    # What is wrong

    async def _write(self, reader, writer, asked, fault) -> None:
        events = self._events(asked, fault)
        middle = max(len(events) // 2, 1)
        if fault in STATES:
            status, text = STATES[fault]
            kind = "text/html" if text.startswith("<") else "application/json"
            await respond(writer, status, text, kind, {"Retry-After": "0.05"})
        elif fault in ("timeout", "reset", "closed", "no http"):
            await self._nothing(reader, writer, fault)
        elif fault in BODIES:
            await self._body(writer, fault)
        elif fault in SILENCES:
            piece = b": ping\n\n" if fault == "pings for ever" else b'data: {"choices": []}\n\n'
            writer.write(_head())
            while True:
                writer.write(chunk(piece))
                await writer.drain()
                await asyncio.sleep(0.02)
        elif fault in ("max_completion_tokens", "no stream_options"):
            name = "max_tokens" if fault == "max_completion_tokens" else "stream_options"
            if name not in asked:  # it has been told so already
                await self._stream(writer, events)
                return
            text = f"Unsupported parameter: '{name}'."
            text += " Use 'max_completion_tokens' instead." if name == "max_tokens" else ""
            error = json.dumps({"error": {"message": text, "param": name}})
            await respond(writer, "400 Bad Request", error, "application/json", {})
        elif fault in ("reset later", "stops", "ends", "stalls"):
            writer.write(_head())
            for event in events[:middle]:
                writer.write(chunk(_data(event)))
            await writer.drain()
            if fault == "reset later":
                await asyncio.sleep(0.01)
                reset(writer)
            elif fault == "stalls":
                await hang(reader)
            elif fault == "ends":
                writer.write(b"0\r\n\r\n")
                await writer.drain()
        else:
            await self._stream(writer, self._spoilt(events, middle, fault), fault)

    async def _nothing(self, reader, writer, fault) -> None:
        if fault == "timeout":
            await hang(reader)
        elif fault == "reset":
            reset(writer)
        elif fault == "no http":
            writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")
            await writer.drain()

    async def _body(self, writer, fault) -> None:
        if fault == "huge event":
            writer.write(_head() + chunk(b"data: " + b"0" * (8 * MIB)) + b"0\r\n\r\n")
        elif fault == "endless error":
            writer.write(_head().replace(b"200 OK", b"500 No"))
            while True:
                writer.write(chunk(b" "))
                await writer.drain()
                await asyncio.sleep(0.02)
        else:
            body = BOMB if "bomb" in fault else BOMB[:500]
            head = _head("Content-Encoding: gzip\r\n")
            if fault == "bomb of an error":
                head = head.replace(b"200 OK", b"500 No")
            writer.write(head + chunk(body) + b"0\r\n\r\n")
        await writer.drain()

    def _spoilt(self, events: list, middle: int, fault: str) -> list:
        """The events with a fault among them."""
        if fault in EVENTS:
            return [*events[:middle], EVENTS[fault], *events[middle:]]
        if fault in IDS:
            return [*events[:middle], self._with_ids(events[middle - 1], IDS[fault])]
        if fault == "lost event":
            return [*events[: middle - 1], *events[middle:]]
        if fault == "event twice":
            return [*events[:middle], *events[middle - 1 :]]
        if fault == "all twice":
            texts = [event for event in events[1:-2] for _ in range(2)]
            return [events[0], *texts, *events[-2:]]
        if fault == "text after the end":
            return [*events, events[1]]
        if fault == "another end":
            return [*events, self._end("length")]
        if fault == "another output":
            other = {"choices": [{"index": 1, "text": "x", "delta": {"content": "x"}}]}
            return [*events[:middle], other, *events[middle:]]
        if fault in ("odd end", "early stop"):
            return [*events[:middle], self._end("abort" if fault == "odd end" else "stop")]
        if fault == "wrong types":
            odd = [
                {"choices": 5},
                {"choices": None},
                {"choices": [7], "usage": [1]},
                {"usage": "x"},
            ]
            return [*odd, *events] if self._has_choices else events
        if fault == "counts that cannot be true":
            counts = {
                "completion_tokens": -5,
                "prompt_tokens": float("nan"),
                "total_tokens": 10**15,
            }
            odd = [{"choices": [], "usage": counts}] if self._has_choices else []
            return [*odd, *events]
        if fault == "halves":
            return [part for event in events for part in _halved(event)]
        return events

    @property
    def _has_choices(self) -> bool:
        return self.api == "chat" or self.dialect == "vllm"

    def _with_ids(self, event: dict, ids: list | None) -> dict:
        event = json.loads(json.dumps(event))
        if self.dialect == "vllm":
            event["choices"][0] |= {"token_ids": ids, "text": "x", "finish_reason": None}
        elif self.dialect == "llamacpp":
            event |= {"tokens": ids or [], "content": "x"}
        else:
            known = event["output_ids"]
            event |= {"output_ids": None if ids is None else [*known, *ids], "text": "x"}
            event["meta_info"]["completion_tokens"] += 1
        return event

    def _end(self, word: str) -> dict:
        if self._has_choices:
            choice = {"index": 0, "text": "", "token_ids": [], "delta": {}, "finish_reason": word}
            return {"choices": [choice]}
        if self.dialect == "llamacpp":
            word = "eos" if word == "stop" else word
            return {"content": "", "tokens": [], "stop": True, "stop_type": word}
        return {"text": "", "meta_info": {"finish_reason": {"type": word}}}

    async def _stream(self, writer, events: list, fault: str = "") -> None:
        charset = "; charset=latin-1" if fault == "another charset" else ""
        body = b"".join(map(_data, events))
        if fault == "comments":
            body = b": hello\n\n" + body.replace(
                b"\n\n", b"\n\n: ping\n\nevent: ping\ndata: {}\n\n"
            )
        done = b"" if fault == "no done" or self.dialect == "llamacpp" else b"data: [DONE]\n\n"
        body += done
        if fault == "more after the end" and done:
            body += _data(events[0]) * 3
        if fault == "carriage returns":
            body = body.replace(b"\n", b"\r\n")
        if fault == "byte order mark":
            body = b"\xef\xbb\xbf" + body
        more = ""
        if fault == "gzip":
            packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
            body, more = packer.compress(body) + packer.flush(), "Content-Encoding: gzip\r\n"
        writer.write(_head(more, STREAM + charset))
        size = 1 if fault == "byte by byte" else 4096
        for place in range(0, len(body), size):
            writer.write(chunk(body[place : place + size]))
        writer.write(b"0\r\n\r\n")
        await writer.drain()


def _head(more: str = "", kind: str = STREAM) -> bytes:
    return (HEAD.format(kind=kind) + more + "\r\n").encode()


def _data(event: object) -> bytes:
    text = event if isinstance(event, str) else json.dumps(event, ensure_ascii=_escapes(event))
    return f"data: {text}\n\n".encode()


def _escapes(event: object) -> bool:
    """Texts are sent as UTF-8, but for halves of pairs, which have no such form."""
    return any("\ud800" <= sign <= "\udfff" for sign in json.dumps(event, ensure_ascii=False))


def _delta(**fields: str) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": None}]}


def _halved(event: dict) -> list[dict]:
    """An event as two where its text has a character of two halves."""
    text = "".join(choice.get("delta", {}).get("content", "") for choice in event["choices"])
    for place, sign in enumerate(text):
        if sign > "\uffff":
            high, low = sign.encode("utf-16-be")[:2], sign.encode("utf-16-be")[2:]
            halves = [half.decode("utf-16-be", "surrogatepass") for half in (high, low)]
            first, second = text[:place] + halves[0], halves[1] + text[place + 1 :]
            return [_delta(content=first), _delta(content=second)]
    return [event]
