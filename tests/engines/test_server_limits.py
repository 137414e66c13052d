"""How much and how long an answer may be; and what is read for it when it is more."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
import zlib
from dataclasses import replace

import pytest
from faulty_proxy import FaultyProxy, Mischief, always, first
from loopback import Listener, chunk, message
from memory_watch import STATM, MemoryWatch
from server_scripted import NANO, ScriptedServer, one
from slow_cases import slow
from test_server_engine import OPENAI, REQUEST, VLLM, run
from test_server_http import BODY, collect, fault_of, on
from tiny_server import TinyServer, answered

from pytest_tokenbudget.core.engine import EngineError
from pytest_tokenbudget.core.probes import NoAnswerError, Reply
from pytest_tokenbudget.core.trace import StopReason
from pytest_tokenbudget.engines.server.address import Key
from pytest_tokenbudget.engines.server.faults import FaultKind, error_text, kind_of, without_queries
from pytest_tokenbudget.engines.server.reading import allowance
from pytest_tokenbudget.engines.server.server_facts import SilentServersError, probe
from pytest_tokenbudget.settings.endpoints import Endpoint
from pytest_tokenbudget.studies.conformance.analysis import LimitFinding
from pytest_tokenbudget.studies.conformance.limits import LIMIT_PROBES
from pytest_tokenbudget.studies.conformance.probe_context import ProbeContext, not_possible
from pytest_tokenbudget.studies.conformance.thinking import probe_method

__all__ = ["run"]

MIB = 2**20
STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
)


# --- how much


def bomb(text: bytes, mib=200):
    """Text, repeated until it is ``mib`` large, compressed."""
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    block = text * (MIB // len(text))
    # After a full flush nothing refers to what came before, so a compressed block can be repeated.
    # The checksum at the end is that of one block: no reader gets so far.
    head = packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH)
    repeated = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    return head + repeated * mib + packer.flush()


EMPTY = b'data: {"choices": []' + b" " * 200 + b"}\n\n"
BOMBS = {
    "one event": (b"data: " + b"0" * 1018, "text/event-stream", "200 OK"),
    "one line": (b"0" * 1024, "text/event-stream", "200 OK"),
    "events": (EMPTY, "text/event-stream", "200 OK"),
    "comments": (b": hello" + b" " * 200 + b"\n\n", "text/event-stream", "200 OK"),
    "json": (b"[0, " * 256, "application/json", "200 OK"),
    "error": (b" " * 1024, "application/json", "500 Internal Server Error"),
    "refusal": (b'{"error": "', "text/plain", "400 Bad Request"),
}


@pytest.mark.skipif(not STATM.exists(), reason="memory is measured by /proc")
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_not_inflated(name):
    """Of 200 MiB no more is held than an answer may have, by any of 20 requests."""
    text, kind, status = BOMBS[name]
    packed = bomb(text)
    assert len(packed) < MIB
    raw = answered(packed, kind, status, Content_Encoding="gzip")
    with TinyServer(raw={"/v1/completions": raw, "/v1/models": raw}) as server:

        async def use(client):
            streams = [collect(client) for _ in range(10)]
            whole = [client.post("completions", BODY) for _ in range(9)]
            asked = [*streams, *whole, client.get("models")]
            return await asyncio.gather(*asked, return_exceptions=True)

        with MemoryWatch() as memory:
            faults = on(server.url, use, timeout=20)
    wanted = {"error": FaultKind.SERVER, "refusal": FaultKind.REFUSED}.get(name, FaultKind.TOO_MUCH)
    kinds = {getattr(fault, "kind", fault) for fault in faults[:10]}
    assert kinds == {wanted}
    if wanted is FaultKind.TOO_MUCH:
        assert "sent more than the 2 MiB that an answer of completions to a request for" in str(
            faults[0]
        )
        assert "a request for 8 tokens may have after decompression" in str(faults[0])
        assert "sent more than the 8 MiB that an answer of models may have" in str(faults[-1])
    assert memory.grown < 150 * MIB


@pytest.mark.parametrize("coding", ["gzip", "deflate", "gzip, gzip, deflate", "identity"])
def test_large_compressed_answers_within_the_limit_pass(coding):
    pack = {"gzip": gzip.compress, "deflate": zlib.compress, "identity": bytes}
    body = b"".join([EMPTY] * 1000) + b"data: [DONE]\n\n"
    for each in coding.split(", "):
        body = pack[each](body)
    raw = answered(body, "text/event-stream", Content_Encoding=coding)
    with TinyServer(raw={"/v1/completions": raw}) as server:
        assert len(on(server.url, collect)) == 1000


def test_a_bomb_is_asked_for_again(run):
    packed = answered(bomb(BOMBS["one event"][0], 20), "text/event-stream", Content_Encoding="gzip")
    with TinyServer(raw={"/v1/chat/completions": packed}) as server:
        result = one(run(server, facts=OPENAI), REQUEST)
        assert len(server.asked) == 5
    assert result.stop_reason is StopReason.ERROR
    assert "sent more than the" in result.error


def test_what_an_answer_may_have_follows_from_what_was_asked():
    page = allowance(None, 0, 10)
    assert (page.tokens, page.size, page.seconds) == (0, 8 * MIB, 40)
    small = allowance({"max_tokens": 256}, 1000, 120)
    assert (small.tokens, small.size) == (256, 2 * MIB + 256 * 4096 + 64_000)
    assert (small.seconds, small.silence) == (120 * 8, 600)
    for name in ("max_completion_tokens", "n_predict", "max_new_tokens"):
        assert allowance({name: 256}, 1000, 120) == small
    assert allowance({"max_tokens": 16, "n": 4}, 0, 1).tokens == 64
    assert allowance({"n_predict": -1}, 0, 1).tokens == 32_768
    assert allowance({"temperature": 0, "max_tokens": None}, 0, 1).tokens == 32_768
    assert allowance({"prompt": "a"}, 0, 1).tokens == 0
    # Each event of SGLang has all ids and all text so far.
    asked = {"input_ids": [1], "sampling_params": {"max_new_tokens": 4096}, "stream": True}
    cumulative = sum(300 + 12 * n for n in range(4096))
    assert allowance(asked, 100, 1).size > 2 * cumulative


# --- how long


class Endless(Listener):
    """Sends a head and then the same for ever.

    Attributes:
        sent: How many pieces went out.
        posts: How many requests there were.
    """

    def __init__(self, piece: bytes, head: bytes = STREAM, pause: float = 0.02) -> None:
        super().__init__()
        self.piece, self.head, self.pause = piece, head, pause
        self.sent = self.posts = 0

    @property
    def url(self):
        return self.origin + "/v1"

    async def answer(self, reader, writer):
        await message(reader)
        self.posts += 1
        writer.write(self.head)
        while True:
            writer.write(self.piece)
            self.sent += 1
            await writer.drain()
            await asyncio.sleep(self.pause)


def event(**fields):
    delta = {"choices": [{"index": 0, "delta": fields, "finish_reason": None}]}
    return chunk(f"data: {json.dumps(delta)}\n\n".encode())


EMPTY_CHOICE = chunk(b'data: {"choices": [{"index": 0, "text": "", "token_ids": []}]}\n\n')
NOTHING = {
    "comments": chunk(b": OPENROUTER PROCESSING\n\n"),
    "pings": chunk(b"event: ping\ndata: {}\n\n"),
    "ping data": chunk(b'event: ping\ndata: {"type": "ping"}\n\n'),
    "empty events": chunk(b"data:\n\n"),
    "no choices": chunk(b'data: {"choices": []}\n\n'),
    "empty deltas": event(content=""),
    "roles": event(role="assistant", content=None),
    "empty choices": EMPTY_CHOICE,
    "blank lines": chunk(b"\n"),
    "usage": chunk(b'data: {"choices": [], "usage": {"completion_tokens": 0}}\n\n'),
}


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("comments", OPENAI),
        ("empty deltas", OPENAI),
        *(slow(name, OPENAI) for name in NOTHING if name not in {"comments", "empty deltas"}),
        slow("comments", VLLM),
        slow("empty choices", VLLM),
    ],
)
def test_a_server_that_sends_everything_but_output_is_given_up(run, name, facts):
    with Endless(NOTHING[name]) as server:
        engine = run(server, facts=facts)
        engine.timeout = 0.06
        begun = time.monotonic()
        result = one(engine, replace(REQUEST, cap=640))
        assert server.posts == 5
    assert time.monotonic() - begun < 8
    assert result.stop_reason is StopReason.ERROR
    assert "sent no output for 0.3 s" in result.error
    assert "only pings or empty events; --request-timeout allows more" in result.error


SLOW = {
    "a stream": (event(content="a"), STREAM),
    "a head": (b"X-Filler: a\r\n", b"HTTP/1.1 200 OK\r\n"),
    "one body": (chunk(b" "), STREAM.replace(b"text/event-stream", b"application/json")),
    "a gzip that never begins": (chunk(b"a"), STREAM.replace(
        b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n"
    ) + chunk(b"\x1f\x8b\x08\x08\0\0\0\0\0\0")),
}  # fmt: skip


@pytest.mark.parametrize("name", SLOW)
@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_that_never_ends_has_a_longest_time(name, stream):
    piece, head = SLOW[name]
    with Endless(piece, head) as server:

        async def use(client):
            return await (collect(client) if stream else client.post("completions", BODY))

        begun = time.monotonic()
        fault = fault_of(server.url, use, timeout=0.1)
    assert time.monotonic() - begun < 3
    assert fault.kind is FaultKind.TOO_LONG
    longest = (
        "did not finish completions within 0.41 s, the longest time for a request for 8 tokens"
    )
    assert longest in str(fault) or (stream and "sent no output for 0.5 s" in str(fault))
    assert "--request-timeout" in str(fault)


@pytest.mark.parametrize("stream", [True, False])
def test_an_error_whose_text_never_ends_is_that_error(stream):
    head = STREAM.replace(b"200 OK", b"500 Internal Server Error") + chunk(b"the engine broke ")
    with Endless(chunk(b"x"), head) as server:

        async def use(client):
            return await (collect(client) if stream else client.post("completions", BODY))

        fault = fault_of(server.url, use, timeout=0.2)
    assert (fault.kind, fault.status) == (FaultKind.SERVER, 500)
    assert "the engine broke" in str(fault)


def test_slow_servers_are_waited_for():
    """With output coming, nothing but the whole time of the request counts."""
    with TinyServer(delay=0.015) as server:

        async def use(client):
            return await collect(client, body=BODY | {"max_tokens": 60})

        begun = time.monotonic()
        assert len(on(server.url, use, timeout=0.4)) == 60
    assert time.monotonic() - begun > 0.8


@pytest.mark.parametrize("field", ["content", "reasoning_content"])
def test_a_server_that_ignores_the_limit_is_not_read_to_its_end(run, field):
    with Endless(event(**{field: "word " * 20}), pause=0) as server:
        result = one(run(server, facts=OPENAI), replace(REQUEST, cap=64))
        assert server.posts == 1
        # What the sockets between hold, and a little.
        assert server.sent < 20_000
    assert result.stop_reason is StopReason.ERROR
    assert "tokens where 64 were allowed: it did not keep the limit; the rest was not read" in (
        result.error
    )
    assert len(result.output_ids) == 64


def test_text_that_is_long_and_within_the_limit_is_no_fault(run):
    """Tokens of the embedded model's vocabulary have up to ten characters."""
    text = " altogether" * 9
    pieces = [{"choices": [{"delta": {"content": text}}]}, {"choices": [{"finish_reason": "stop"}]}]
    body = "".join(f"data: {json.dumps(piece)}\n\n" for piece in pieces)
    with TinyServer(raw={"/v1/chat/completions": answered(body, "text/event-stream")}) as server:
        engine = run(server, facts=OPENAI)
        count = len(engine.encode(text))
        result = one(engine, replace(REQUEST, cap=count + 1))
    assert (result.text, result.stop_reason) == (text, StopReason.EOS)


def test_a_count_beyond_the_limit_is_not_believed(run):
    """llama.cpp tells with each event how many tokens there are; those that lack are asked for."""
    event_ = {"content": "a", "tokens": [425], "stop": False, "tokens_predicted": 10**15}
    raw = answered(f"data: {json.dumps(event_)}\n\n", "text/event-stream")
    with TinyServer(raw={"/completion": raw}) as server:
        result = one(run(server, facts=replace(VLLM, kind="llamacpp")), REQUEST)
    assert result.stop_reason is StopReason.ERROR
    assert "counts 1000000000000000 tokens where 64 were allowed" in result.error


# --- connections that were just closed


class Closing(Listener):
    """Keeps connections open, and closes each with its second request, without an answer."""

    def __init__(self, drops: int = 10**9) -> None:
        super().__init__()
        self.drops = drops
        self.served = self.dropped = 0

    @property
    def url(self):
        return self.origin + "/v1"

    async def answer(self, reader, writer):
        body = json.dumps({"data": [{"id": "m", "owned_by": "someone"}]}).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        for first_one in (True, False):
            await message(reader)
            if not first_one and self.dropped < self.drops:
                self.dropped += 1
                return
            self.served += 1
            writer.write(head.encode() + b"\r\n\r\n" + body)
            await writer.drain()


def test_a_get_on_a_connection_that_was_just_closed_is_sent_again_on_a_fresh_one():
    with Closing() as server:

        async def use(client):
            return [await client.get("models") for _ in range(20)]

        found = on(server.url, use)
        assert (server.served, server.dropped) == (20, 10)
    assert all(each["data"] for each in found)


def test_many_gets_at_once_on_connections_that_were_just_closed():
    with Closing() as server:

        async def use(client):
            for _ in range(2):
                await asyncio.gather(*(client.get("models") for _ in range(8)))

        on(server.url, use)
        assert server.served == 16


@pytest.mark.parametrize("what", [Mischief.RESET, Mischief.STOPS])
def test_a_get_that_is_lost_is_sent_once_more_and_a_post_is_not(what):
    with TinyServer() as server, FaultyProxy(server.url, always(what), paths=("/v1/",)) as proxy:
        fault_of(proxy.url, lambda client: client.get("models"))
        assert proxy.done == 2
        fault_of(proxy.url, lambda client: client.post("completions", BODY))
        assert proxy.done == 3


# --- servers that cannot be asked


class Serving(Listener):
    """What transformers serve does with a model of a local path: no list, and a closed connection.

    Args:
        fails: Which of the requests for a path are dropped, by path.
    """

    def __init__(self, fails=()) -> None:
        super().__init__()
        self.fails = dict(fails)
        self.asked = []

    @property
    def url(self):
        return self.origin + "/v1"

    async def answer(self, reader, writer):
        head, _ = await message(reader)
        path = head[0].decode().split(" ")[1]
        self.asked.append(path)
        if self.fails.get(path, 0) > 0:
            self.fails[path] -= 1
            return
        found = {
            "/openapi.json": {"paths": {"/load_model": {}}},
            "/v1/chat/completions": {"model": "/models/m@main", "choices": []},
        }.get(path)
        body = json.dumps(found or {"detail": "Internal Server Error"}).encode()
        state = "200 OK" if found else "500 Internal Server Error"
        writer.write(
            f"HTTP/1.1 {state}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        await writer.drain()


PATHS = ("/v1/models", "/openapi.json", "/v1/chat/completions")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("times", [1, slow(2), slow(3), slow(4)])
def test_a_server_that_loses_some_answers_is_recognised_all_the_same(path, times):
    """Never as one of another kind, which would be another model's name and other traces."""
    with Serving({path: times if path != PATHS[2] else min(times, 2)}) as server:
        facts = probe(Endpoint((server.url,), "/models/m"))
    assert (facts.kind, facts.fingerprint) == ("serve", "/models/m@main")


@pytest.mark.parametrize("path", [PATHS[1], *map(slow, PATHS[2:])])
@pytest.mark.parametrize("served", ["/models/m", slow(None)])
def test_a_server_that_loses_all_answers_cannot_be_used(path, served):
    with Serving({path: 10**6}) as server:
        with pytest.raises(SilentServersError, match="dropped the connection before it answered"):
            probe(Endpoint((server.url,), served))
        assert len(server.asked) < 20


@pytest.mark.slow
def test_the_tokenizer_of_a_server_that_loses_some_answers_is_asked_again(run):
    raw = {"/tokenize": answered('{"tokens": [5, 6]}')}
    spec = replace(NANO, kind="server", source="http://h/v1")
    faults = (Mischief.RESET, Mischief.STOPS)
    with TinyServer(raw=raw) as server:
        for mischief in (*faults, Mischief.SERVER_ERROR, Mischief.BAD_GATEWAY):
            with FaultyProxy(server.url, first(2, mischief)) as proxy:
                assert run(proxy, spec=spec).encode(mischief) == (5, 6)
        with FaultyProxy(server.url, always(Mischief.SERVER_ERROR)) as proxy:
            with pytest.raises(EngineError, match="failed at /tokenize"):
                run(proxy, spec=spec).encode("a")
            assert proxy.done == 3


@pytest.mark.parametrize("status", [500, 503, None])
def test_a_probe_without_an_answer_is_a_failure_and_a_refused_one_is_not(status):
    """What cannot be asked fails; only what the engine refuses is skipped."""
    lost = Reply({}, error="nothing answers", status=status)
    with pytest.raises(NoAnswerError, match=r"^seeds: no output came: nothing answers$"):
        not_possible("seeds", "no output came: nothing answers", lost)
    refused = Reply({}, error="no n here", status=400)
    assert not_possible("n", "n is refused", refused).finding is LimitFinding.NOT_POSSIBLE
    assert not_possible("n", "no counts", Reply({})).finding is LimitFinding.NOT_POSSIBLE


def test_probes_of_a_server_that_answers_nothing_raise(run, monkeypatch):
    monkeypatch.setattr("pytest_tokenbudget.engines.server.probe_requests.PAUSE", 0.01)
    with (
        ScriptedServer(ids=[5, 2], prompt=4) as server,
        FaultyProxy(server.url, always(Mischief.SERVER_ERROR)) as proxy,
    ):
        engine = run(proxy)
        bench = ProbeContext(engine, engine.spec, size=1)
        for probe in ("finish_reason", "seeds"):
            with pytest.raises(NoAnswerError, match="something in the engine broke"):
                LIMIT_PROBES[probe](bench)
        with pytest.raises(NoAnswerError, match="no prompt could be asked"):
            probe_method(bench, "thinking_token_budget")


# --- addresses


@pytest.mark.parametrize(
    ("where", "shown"),
    [
        ("https://other/v1/x?api_key=hush-hush", "https://other/v1/x"),
        ("https://me:hush-hush@other/v1", "https://other/v1"),
        ("https://hush-hush@other/v1#hush-hush", "https://other/v1"),
        ("//me:hush-hush@other/v1?sig=hush-hush", "//other/v1"),
        ("/v2/x?sig=hush-hush", "/v2/x"),
        ("?sig=hush-hush", "somewhere else"),
        ("//me:pw@other/v1;key=hush-hush?x", "//other/v1"),
        ("https://me:hu/hush-hush@other/v1", "https://other/v1"),
        ("https://other/login?next=https://me:hush-hush@third/", "https://other/login"),
    ],
)
@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
def test_a_redirect_shows_no_query_and_no_user(where, shown, status):
    raw = answered("", status=status, Location=where)
    with TinyServer(raw={"/v1/completions": raw, "/v1/models": raw}) as server:
        for use in (collect, lambda client: client.get("models")):
            fault = fault_of(server.url, use, key=Key("sk-another-key"))
            assert "hush" not in str(fault) + fault.body + fault.answer
            assert f"on to {shown}: give the URL" in str(fault)


def test_keys_in_addresses_that_a_server_writes_are_not_shown():
    texts = (
        "upstream https://api.host/v1/chat?key=hush-hush&x=1 timed out",
        "cannot reach http://user:hush-hush@10.0.0.1/v1",
        "see <https://host/a?token=hush-hush#hush-hush>.",
        "https://host/a;key=hush-hush",
        "h.example/v1?api_key=hush-hush",
        "upstream /v1/x?token=hush-hush failed",
        r"https:\/\/host\/v1?key=hush-hush",
        r"https:\/\/me:hush-hush@host\/v1",
        "http%3A%2F%2Fhost%3Fkey%3Dhush-hush",
        "http://me:pa/hush-hush@host/",
        "wss://a:b@hush-hush@host/x",
    )
    for text in texts:
        for body in (text, json.dumps({"error": {"message": text}}), f"<p>{text}</p>"):
            assert "hush" not in error_text(body)
        raw = answered(json.dumps({"error": {"message": text}}), status="502 Bad Gateway")
        with TinyServer(raw={"/v1/completions": raw}) as server:
            assert "hush" not in str(fault_of(server.url, collect))
    assert without_queries("why? a // b? c#d http://h/x") == "why? a // b? c#d http://h/x"


def test_a_long_text_is_searched_for_addresses_in_little_time():
    begun = time.monotonic()
    for part in (
        "/",
        "//" + "a" * 60,
        "//a@",
        "//a:",
        "?",
        "a?b",
        "<style>",
        "<",
        "<!--",
        "<p>",
        "models ",
    ):
        error_text(part * (400_000 // len(part)))
        kind_of(400, part * (400_000 // len(part)))
    assert time.monotonic() - begun < 5


def test_pages_say_their_text_without_code():
    head = "<html><head><title>502 Bad</title><style>a{b:c}</style></head>"
    page = f"{head}<SCRIPT>x</script>Sorry<br>you"
    assert error_text(page) == "502 Bad Sorry you"
    assert error_text("<p>Too busy</p><style>a{b:c}") == "Too busy"
    assert error_text("<style>" * 30_000) == ""
