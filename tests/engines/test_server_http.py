"""One server: what it answers, and every way in which it can fail to."""

import asyncio
import gzip
import json
import pickle
import re
import socket
import time
import traceback
from contextlib import aclosing
from datetime import UTC, datetime

import pytest
from faulty_proxy import FaultyProxy, Mischief, always
from tiny_server import TinyServer, answered

from pytest_tokenbudget.core.engine import EngineError
from pytest_tokenbudget.engines.server.address import Address, Key
from pytest_tokenbudget.engines.server.faults import error_text, kind_of, retry_after
from pytest_tokenbudget.engines.server.http import Fault, FaultKind, Server

SECRET = "sk-tb-9f8e7d6c5b4a3/2+1="
BODY = {"prompt": "p", "max_tokens": 8, "stream": True}


@pytest.fixture(scope="module")
def tiny():
    with TinyServer() as server:
        yield server


def on(url, use, key=None, timeout=5.0):
    """What comes of ``use(server)``."""

    async def run():
        server = Server(url, key or Key(), timeout)
        try:
            return await use(server)
        finally:
            await server.close()

    return asyncio.run(run())


async def collect(server, got=None, path="completions", body=BODY):
    """All words of a stream; ``got`` keeps those before a fault."""
    got = [] if got is None else got
    async with aclosing(server.stream(path, body)) as events:
        async for event in events:
            got.append(event)
    return got


def words(events):
    return [event["choices"][0]["text"].strip() for event in events]


def fault_of(url, use, **more) -> Fault:
    with pytest.raises(Fault) as caught:
        on(url, use, **more)
    return caught.value


# What goes well


def test_json_and_events(tiny):
    async def use(server):
        models = await server.get("models")
        health = await server.get("/health")
        whole = await server.post("completions", BODY | {"stream": False})
        return models, health, whole, await collect(server)

    models, health, whole, events = on(tiny.url, use)
    assert models == {"data": [{"id": "tiny"}]}
    assert health == {"status": "ok"}
    assert whole["choices"][0]["text"].split() == words(events) == [f"w{i}" for i in range(8)]


@pytest.mark.parametrize(
    ("url", "base", "root"),
    [
        ("http://h:8000/v1", "http://h:8000/v1", "http://h:8000"),
        ("http://h:8000/v1/", "http://h:8000/v1", "http://h:8000"),
        ("http://h:8000", "http://h:8000/v1", "http://h:8000"),
        ("http://h:8000/", "http://h:8000/v1", "http://h:8000"),
        (" https://h/api/v1 ", "https://h/api/v1", "https://h/api"),
        ("https://h/api/paas/v4", "https://h/api/paas/v4", "https://h/api/paas"),
        ("https://h/openai", "https://h/openai", "https://h/openai"),
        ("http://[::1]:8000", "http://[::1]:8000/v1", "http://[::1]:8000"),
    ],
)
def test_addresses(url, base, root):
    address = Address.parse(url)
    assert (address.base, address.root, address.query) == (base, root, "")
    assert address.url_of("models") == base + "/models"
    assert address.url_of("/health") == root + "/health"


def test_a_query_follows_every_path_and_is_not_shown():
    address = Address.parse("https://h/v1?api-version=2025-01-01")
    assert address.url_of("models") == "https://h/v1/models?api-version=2025-01-01"
    assert Server("https://h/v1?api-version=2025-01-01").url == "https://h/v1"


@pytest.mark.parametrize(
    "url", ["h:8000/v1", "ftp://h/v1", "http://", "http://h:port/v1", "http://[::1/v1", ""]
)
def test_no_url(url):
    with pytest.raises(EngineError, match="no address of a server"):
        Address.parse(url)


@pytest.mark.parametrize(
    "url", ["http://me:hush-hush@h/v1", "http://h/v1?api_key=hush-hush", "http://h?token=hush-hush"]
)
def test_no_credentials_in_a_url(url):
    with pytest.raises(EngineError, match="TOKENBUDGET_API_KEY") as caught:
        Server(url)
    assert "hush" not in str(caught.value)


def test_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as trial:
            trial.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6 on loopback")
    with TinyServer(host="::1") as server:
        assert len(on(server.url, collect)) == 8


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0"])
def test_loopback_is_known(host):
    assert Address.parse(f"http://{host}:8000/v1").loopback
    assert not Address.parse("http://192.0.2.1:8000/v1").loopback


def test_proxies_of_the_environment_are_not_for_loopback(tiny, monkeypatch):
    """A proxy that nobody listens at: used for other hosts, not for this one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert len(on(tiny.url, collect)) == 8
    fault = fault_of("http://192.0.2.1:9/v1", lambda server: server.get("models"), timeout=1)
    assert fault.kind is FaultKind.CONNECTION


# Event streams as servers write them


def streamed(*parts: str, kind="text/event-stream; charset=utf-8") -> bytes:
    return answered("".join(parts), kind)


def event(text: str) -> str:
    return f"data: {json.dumps({'t': text})}\n\n"


STREAMS = {
    "plain": streamed(event("a"), event("b"), "data: [DONE]\n\n"),
    "crlf": streamed(*(event(t).replace("\n", "\r\n") for t in "ab"), "data: [DONE]\r\n\r\n"),
    "without done": streamed(event("a"), event("b")),
    "comments": streamed(": hello\n\n", event("a"), ":\n\n:\n\n", event("b"), "data: [DONE]\n\n"),
    "no blank": streamed(event("a").replace(": ", ":", 1), event("b")),
    "pings": streamed("event: ping\ndata: {}\n\n", event("a"), "event: x\n" + event("b")),
    "after done": streamed(event("a"), event("b"), "data: [DONE]\n\n", event("c")),
    "two lines": streamed('data: {"t":\ndata: "a"}\n\n', event("b")),
    "unfinished last": streamed(event("a"), event("b"), 'data: {"t": "c"'),
}


@pytest.mark.parametrize("name", STREAMS)
def test_streams(name):
    with TinyServer(raw={"/v1/completions": STREAMS[name]}) as server:
        assert [e["t"] for e in on(server.url, collect)] == ["a", "b"]


def test_a_line_separator_in_a_text_splits_nothing():
    text = 'data: {"t": "a\u2028b\x85c"}\n\n'
    with TinyServer(raw={"/v1/completions": streamed(text)}) as server:
        assert on(server.url, collect) == [{"t": "a\u2028b\x85c"}]


def test_compressed():
    packed = gzip.compress("".join([event("ä"), "data: [DONE]\n\n"]).encode())
    raw = {
        "/v1/completions": answered(packed, "text/event-stream", Content_Encoding="gzip"),
        "/v1/models": answered(gzip.compress(b'{"data": []}'), Content_Encoding="gzip"),
        "/broken": answered(b"no gzip", Content_Encoding="gzip"),
    }
    with TinyServer(raw=raw) as server:
        assert on(server.url, collect) == [{"t": "ä"}]
        assert on(server.url, lambda s: s.get("models")) == {"data": []}
        fault = fault_of(server.url, lambda s: s.get("/broken"))
    assert fault.kind is FaultKind.MALFORMED


def test_one_object_instead_of_a_stream():
    with TinyServer(raw={"/v1/completions": answered('{"choices": []}')}) as server:
        assert on(server.url, collect) == [{"choices": []}]


def test_lone_surrogates_are_sent(tiny):
    on(tiny.url, lambda server: collect(server, body=BODY | {"prompt": "a\ud800b"}))
    assert tiny.asked[-1].body["prompt"] == "a\ud800b"


def test_connections_are_used_again(tiny):
    """A stream that was read to its end leaves its connection open for the next."""

    async def use(server):
        before = tiny.most_at_once, len(tiny.asked)
        tiny.most_at_once = tiny.now
        opened = []
        serve = tiny.answer

        async def counted(reader, writer):
            opened.append(1)
            await serve(reader, writer)

        tiny.answer = counted
        try:
            for _ in range(3):
                await collect(server)
        finally:
            del tiny.answer
        assert before
        return len(opened)

    assert on(tiny.url, use) == 1


def test_leaving_a_stream_early_closes_its_connection():
    with TinyServer(delay=0.005) as server:

        async def use(client):
            async with aclosing(client.stream("completions", BODY | {"max_tokens": 5000})) as s:
                async for _ in s:
                    break

        on(server.url, use)
        deadline = time.monotonic() + 3
        while server.now and time.monotonic() < deadline:
            time.sleep(0.01)
        assert server.now == 0


# Faults


EXPECTED = {
    Mischief.TIMEOUT: (FaultKind.TIMEOUT, None, "sent nothing for 0.4 s"),
    Mischief.RATE_LIMIT: (FaultKind.OVERLOADED, 429, "Rate limit reached"),
    Mischief.SERVER_ERROR: (FaultKind.SERVER, 500, "something in the engine broke"),
    Mischief.BAD_GATEWAY: (FaultKind.SERVER, 502, "502 Bad Gateway gate/1.0"),
    Mischief.LOADING: (FaultKind.OVERLOADED, 503, "still loading its model"),
    Mischief.RESET: (FaultKind.CONNECTION, None, "dropped the connection"),
    Mischief.MALFORMED: (FaultKind.MALFORMED, None, "no JSON object"),
    Mischief.STOPS: (FaultKind.CUT, None, "broke off its answer"),
    Mischief.STALLS: (FaultKind.TIMEOUT, None, "sent nothing for 0.4 s"),
    Mischief.NO_MODEL: (FaultKind.NO_MODEL, 404, "does not have the model"),
    Mischief.CONTEXT: (FaultKind.CONTEXT, 400, "do not fit its context"),
    Mischief.WRONG_KEY: (FaultKind.KEY, 401, "refuses the key"),
}
SPOILT = (Mischief.MALFORMED, Mischief.STOPS, Mischief.STALLS, Mischief.ENDS)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("what", EXPECTED)
def test_faults(tiny, what, stream):
    kind, status, message = EXPECTED[what]
    got = []
    with FaultyProxy(tiny.url, always(what), retry_after=7) as proxy:

        async def use(server):
            if stream:
                return await collect(server, got)
            return await server.post("completions", BODY | {"stream": False})

        fault = fault_of(proxy.url, use, key=Key(SECRET), timeout=0.4)
        assert proxy.counts == {what: 1}
        assert proxy.url in str(fault)
    assert (fault.kind, fault.status) == (kind, status)
    assert message in str(fault)
    assert fault.retry_after == (7 if what in (Mischief.RATE_LIMIT, Mischief.LOADING) else None)
    assert fault.loading is (what is Mischief.LOADING)
    final = (FaultKind.KEY, FaultKind.NO_MODEL, FaultKind.CONTEXT)
    assert fault.retryable is (kind not in final)
    assert fault.fatal is (kind in final[:2])
    # What came before is kept.
    assert words(got) == (["w0", "w1", "w2"] if stream and what in SPOILT else [])


def test_a_stream_that_ends_early_is_for_the_caller_to_notice(tiny):
    with FaultyProxy(tiny.url, always(Mischief.ENDS)) as proxy:
        assert words(on(proxy.url, collect)) == ["w0", "w1", "w2"]


def test_nothing_listens():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fault = fault_of(f"http://127.0.0.1:{port}/v1", lambda server: server.get("models"))
    assert fault.kind is FaultKind.CONNECTION
    assert f"nothing answers at http://127.0.0.1:{port}/v1" in str(fault)


def test_a_port_that_accepts_and_says_nothing():
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/v1"
        fault = fault_of(url, lambda server: server.get("models"), timeout=0.3)
        assert fault.kind is FaultKind.TIMEOUT
        assert "--request-timeout" in str(fault)
        assert on(url, lambda server: server.ready(0.3)).kind is FaultKind.TIMEOUT


ANSWERS = {
    "page": (answered("<html><body>Welcome</body></html>", "text/html"), FaultKind.MALFORMED),
    "nothing": (answered(""), FaultKind.MALFORMED),
    "list": (answered("[1]"), FaultKind.MALFORMED),
    "text": (answered("hi", "text/plain"), FaultKind.MALFORMED),
    "deep": (answered("[" * 100_000), FaultKind.MALFORMED),
    "no http": (b"SSH-2.0-OpenSSH_9.6\r\n", FaultKind.CONNECTION),
    "error in 200": (
        answered('{"error": {"code": 400, "message": "the context size is exceeded"}}'),
        FaultKind.CONTEXT,
    ),
    "error as text": (answered('{"error": "Unexpected endpoint"}'), FaultKind.SERVER),
    "moved": (
        answered("", status="308 Permanent Redirect", Location="http://other/v1"),
        FaultKind.REFUSED,
    ),
    "no path": (answered('{"detail":"Not Found"}', status="404 Not Found"), FaultKind.REFUSED),
    "unprocessable": (
        answered(
            '{"detail": [{"loc": ["body", "n"], "msg": "Input should be a number"}]}',
            status="422 Unprocessable Entity",
        ),
        FaultKind.REFUSED,
    ),
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", ANSWERS)
def test_odd_answers(name, stream):
    raw, kind = ANSWERS[name]
    with TinyServer(raw={"/v1/completions": raw}) as server:

        async def use(client):
            return await (collect(client) if stream else client.post("completions", BODY))

        fault = fault_of(server.url, use)
        assert fault.kind is kind
        assert server.url in str(fault)
        assert len(str(fault)) < 600
    words = {"moved": "http://other/v1", "no path": "has no completions", "page": "Welcome"}
    assert stream or words.get(name, "") in str(fault)


def test_an_error_inside_a_stream():
    with TinyServer() as server:
        for error, kind in [
            ({"error": {"message": "prompt is too long", "code": 400}}, FaultKind.CONTEXT),
            ({"object": "error", "message": "EngineCore died", "code": 500}, FaultKind.SERVER),
            ({"error": {"message": "slow down", "code": "429"}}, FaultKind.OVERLOADED),
            ({"error": {"message": "oh"}}, FaultKind.SERVER),
        ]:
            server.raw = {"/v1/completions": streamed(event("a"), f"data: {json.dumps(error)}\n\n")}
            got = []
            fault = fault_of(server.url, lambda s, got=got: collect(s, got))
            assert (fault.kind, got) == (kind, [{"t": "a"}])
        server.raw = {"/v1/completions": streamed('data: {"error": null, "t": "a"}\n\n')}
        assert on(server.url, collect) == [{"error": None, "t": "a"}]


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (400, "This model's maximum context length is 4096 tokens.", FaultKind.CONTEXT),
        (400, '{"error":{"type":"exceed_context_size_error","n_ctx":64}}', FaultKind.CONTEXT),
        (
            400,
            "The decoder prompt (length 90) is longer than the maximum model length of 64",
            FaultKind.CONTEXT,
        ),
        (
            400,
            "The input (90 tokens) is longer than the model's context length (64 tokens).",
            FaultKind.CONTEXT,
        ),
        (422, "`inputs` tokens + `max_new_tokens` must be <= 64", FaultKind.CONTEXT),
        (500, "the request exceeds the available context size", FaultKind.CONTEXT),
        (400, "Extra inputs are not permitted: budget, for model tiny", FaultKind.REFUSED),
        (400, "unknown field 'thinking_budget'", FaultKind.REFUSED),
        (400, "qwen/qwen9 is not a valid model ID", FaultKind.NO_MODEL),
        (404, 'model "qwen2.5:9b" not found, try pulling it first', FaultKind.NO_MODEL),
        (404, "Cannot POST /v1/models: not found", FaultKind.REFUSED),
        (404, '{"error":{"code":"model_not_found"}}', FaultKind.NO_MODEL),
        (405, "Method Not Allowed", FaultKind.REFUSED),
        (402, "Insufficient Balance", FaultKind.KEY),
        (403, "forbidden", FaultKind.KEY),
        (429, '{"error":{"code":"insufficient_quota"}}', FaultKind.KEY),
        (429, "slow down", FaultKind.OVERLOADED),
        (529, "Overloaded", FaultKind.OVERLOADED),
        (503, "", FaultKind.OVERLOADED),
        (504, "upstream request timeout", FaultKind.TIMEOUT),
        (500, "", FaultKind.SERVER),
        (418, "", FaultKind.REFUSED),
    ],
)
def test_kinds(status, text, kind):
    assert kind_of(status, text) is kind


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"error": {"message": "a\\n  b"}}', "a b"),
        ('{"error": "a", "error_type": "b"}', "a"),
        ('{"object": "error", "message": "a"}', "a"),
        ('{"detail": [{"msg": "a"}, {"msg": "b"}]}', "a; b"),
        ("<html><head><title>502</title><style>x{}</style></head><body>Bad</body></html>", "502"),
        ("plain &amp; simple", "plain &amp; simple"),
        ("", ""),
        ("x" * 1000, "x" * 299 + "…"),
    ],
)
def test_what_an_error_says(body, words):
    assert error_text(body) == words or (words == "502" and error_text(body).endswith("Bad"))


NOW = datetime(2026, 11, 22, 4, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "12"}, 12),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "99999999"}, 99999999),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "Sun, 22 Nov 2026 04:00:30 GMT"}, 30),
        ({"retry-after": "Sun, 22 Nov 2026 03:00:00 GMT"}, 0),
        # The server's clock is a day ahead: its own date says from where to count.
        (
            {
                "retry-after": "Mon, 23 Nov 2026 04:00:05 GMT",
                "date": "Mon, 23 Nov 2026 04:00:00 GMT",
            },
            5,
        ),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "Sun, 99 Nov 2026 99:00:00 GMT"}, None),
    ],
)
def test_retry_after(headers, seconds):
    assert retry_after(headers, NOW) == seconds


def test_retry_after_as_a_date(tiny):
    with FaultyProxy(tiny.url, always(Mischief.RATE_LIMIT), retry_after=60, as_date=True) as proxy:
        fault = fault_of(proxy.url, lambda server: server.post("completions", BODY))
    assert fault.retry_after == pytest.approx(60, abs=2)


# Ready or not


def test_ready(tiny):
    assert on(tiny.url, lambda server: server.ready()) is None
    busy = answered("{}", status="503 Service Unavailable")
    lazy = answered('{"error":{"code":503,"message":"Loading model"}}', status="503 No")
    missing = answered("", status="404 Not Found")
    broken = answered("", status="500 No")
    for health, models, kind in [
        (busy, None, FaultKind.OVERLOADED),
        (lazy, None, FaultKind.OVERLOADED),
        (missing, None, None),
        (missing, lazy, FaultKind.OVERLOADED),
        (missing, missing, None),
        (broken, missing, None),
        (broken, broken, FaultKind.SERVER),
        (answered("", "text/plain"), None, None),
        (answered("", status="401 No"), None, None),
        (answered("", status="429 No"), None, None),
    ]:
        raw = {"/health": health} | ({"/v1/models": models} if models else {})
        with TinyServer(raw=raw) as server:
            fault = on(server.url, lambda server: server.ready())
            assert (fault and fault.kind) is kind


# Keys


def test_the_key_comes_from_the_environment():
    def header(environ):
        return Key.from_environment(environ).header()

    ours, theirs = {"TOKENBUDGET_API_KEY": "a" * 9}, {"OPENAI_API_KEY": "b" * 9}
    assert header(ours | theirs) == {"Authorization": "Bearer " + "a" * 9}
    assert header({"TOKENBUDGET_API_KEY": " "} | theirs) == {"Authorization": "Bearer " + "b" * 9}
    assert header({}) == {}
    assert not Key.from_environment({})
    assert header({"OPENAI_API_KEY": " key-with-line-end\n"})["Authorization"].endswith("line-end")


@pytest.mark.parametrize("secret", ["sk-tb 1234567", "sk-tb\n1234567", "sk-tb-ключ1234"])
def test_a_key_that_cannot_be_sent(secret, monkeypatch):
    monkeypatch.setenv("TOKENBUDGET_API_KEY", secret)
    with pytest.raises(EngineError, match="TOKENBUDGET_API_KEY") as caught:
        Key.from_environment()
    assert not shown(caught.value, secret)


def test_a_key_is_never_shown():
    key = Key(SECRET)
    for text in (repr(key), str(key), f"{key}", f"{key!r}", repr([key]), repr({"key": key})):
        assert "***" in text
        assert SECRET[3:] not in text
    with pytest.raises(TypeError):
        pickle.dumps(key)
    with pytest.raises(TypeError):
        vars(key)
    for text in (
        f"Bearer {SECRET}!",
        json.dumps({"k": SECRET}),
        "sk-tb-9f8e****21=",
        "k=sk-tb-9f8e7d6c5b4a3%2F2%2B1%3D&x",
        "c2stdGItOWY4ZTdkNmM1YjRhMy8yKzE9",
    ):
        hidden = key.hide(text)
        assert "***" in hidden
        assert not re.search(r"9f8e|7d6c|5b4a|OWY4", hidden)
    assert Key("EMPTY").hide("EMPTY or EMPTYING") == "*** or EMPTYING"
    assert Key().hide("nothing to hide") == "nothing to hide"


def shown(error: BaseException, secret=SECRET) -> bool:
    """Whether a key is in anything that an exception shows, keeps or leads to."""
    seen, todo = [], [error]
    while todo:
        one = todo.pop()
        todo += [e for e in (one.__cause__, one.__context__) if e is not None]
        seen += [str(one), repr(one), repr(one.args), repr(vars(one))]
        told = traceback.TracebackException.from_exception(one, capture_locals=True)
        seen += [
            line
            for frame in told.stack
            if frame.filename != __file__
            for line in [*(frame.locals or {}).values(), frame.line or ""]
        ]
        seen += getattr(one, "__notes__", [])
    return any(piece in text for text in seen for piece in (secret, secret[6:14]))


@pytest.mark.parametrize("what", EXPECTED)
def test_no_fault_holds_the_key(tiny, what, caplog):
    caplog.set_level(0)
    with FaultyProxy(tiny.url, always(what)) as proxy:
        for use in (
            collect,
            lambda server: server.post("completions", BODY | {"stream": False}),
        ):
            fault = fault_of(proxy.url, use, key=Key(SECRET), timeout=0.3)
            assert fault.__cause__ is None
            assert fault.__context__ is None
            assert not shown(fault)
            if what is Mischief.WRONG_KEY:
                assert "Bearer ***" in str(fault)
    assert SECRET[6:14] not in caplog.text


def test_the_key_is_sent(tiny):
    on(tiny.url, collect, key=Key(SECRET))
    assert tiny.asked[-1].headers["authorization"] == f"Bearer {SECRET}"
    on(tiny.url, collect)
    assert "authorization" not in tiny.asked[-1].headers


def test_a_refusal_without_a_key_names_where_it_comes_from(tiny):
    with FaultyProxy(tiny.url, always(Mischief.WRONG_KEY)) as proxy:
        fault = fault_of(proxy.url, collect)
    assert "wants a key: set TOKENBUDGET_API_KEY" in str(fault)


def test_a_key_at_the_border_of_an_excerpt():
    body = "x" * 290 + " " + SECRET + " " + "y" * 50
    raw = {"/v1/completions": answered(body, "text/plain", status="400 No")}
    with TinyServer(raw=raw) as server:
        fault = fault_of(server.url, collect, key=Key(SECRET))
    assert "sk-" not in str(fault)
    assert "***" in fault.body
