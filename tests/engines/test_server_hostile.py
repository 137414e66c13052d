"""Answers that no server should give: they spoil themselves at most, never the run."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing, suppress
from dataclasses import replace

import pytest
from loopback import message, respond
from server_scripted import GREEDY, NANO, ScriptedServer, one
from slow_cases import slow
from test_server_engine import IDS, OPENAI, PROMPT, REQUEST, VLLM, run
from tiny_server import TinyServer, answered

from pytest_tokenbudget.core.engine import Decoding, EngineError
from pytest_tokenbudget.core.trace import StopReason
from pytest_tokenbudget.engines.server.dialects import DIALECTS
from pytest_tokenbudget.engines.server.faults import error_in, error_text, refused_parameter
from pytest_tokenbudget.engines.server.output import MalformedError, NoIdsError, ServerOutput
from pytest_tokenbudget.engines.server.payload import MOST_NESTED, Joiner, parsed, whole
from pytest_tokenbudget.engines.server.request_parameters import RequestParameters
from pytest_tokenbudget.engines.server.server_facts import probe
from pytest_tokenbudget.settings.endpoints import Endpoint

__all__ = ["run"]

HIGH, LOW = "\ud83d", "\ude00"
FACE = "\U0001f600"
LOST = "\ufffd"
KINDS = tuple(DIALECTS)


def sse(*events, charset=""):
    """A stream of events, JSON escaped as servers do it, with [DONE]."""
    lines = [each if isinstance(each, str) else json.dumps(each) for each in events]
    body = "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"])
    return answered(body, f"text/event-stream{charset}")


def delta(word=None, **fields):
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": word}]}


def ids_event(ids, word=None, text="x"):
    return {"choices": [{"index": 0, "text": text, "token_ids": ids, "finish_reason": word}]}


def asked_once(run, raw, *, kind="openai", api="chat", decoding=GREEDY, **options):
    """The result of one request to a server that always answers with ``raw``, and what it got."""
    paths = {"/v1/chat/completions": raw, "/v1/completions": raw}
    facts = replace(VLLM, kind=kind, ids=DIALECTS[kind].takes_ids)
    with TinyServer(raw=paths) as server:
        result = one(run(server, facts=facts, api=api, **options), REQUEST, decoding)
        return result, [each.body for each in server.asked]


def clean(result):
    """Whether nothing of a result breaks what it is written to."""
    texts = (result.text or "", result.error, result.engine_reason, *result.usage)
    return all(text.encode() is not None for text in texts)


# --- halves of surrogate pairs


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["content", "reasoning_content", "reasoning", "thinking"])
@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ((f"a{HIGH}", f"{LOW}b"), f"a{FACE}b"),
        ((f"a{HIGH}", LOW, f"{HIGH}{LOW}b"), f"a{FACE}{FACE}b"),
        ((f"a{HIGH}", "b"), f"a{LOST}b"),
        ((f"a{HIGH}", ""), f"a{LOST}"),
        (("a", f"{LOW}b"), f"a{LOST}b"),
        ((f"a{HIGH}", f"{HIGH}{LOW}b{LOW}"), f"a{LOST}{FACE}b{LOST}"),
        ((f"{LOW}{HIGH}b",), f"{LOST}{LOST}b"),
        ((HIGH,), LOST),
    ],
)
def test_halves_of_characters_in_a_stream_join_or_are_replaced(run, kind, name, pieces, text):
    result, _ = asked_once(
        run, sse(*(delta(**{name: p}) for p in pieces), delta("stop")), kind=kind
    )
    assert result.text == (text if name == "content" else f"<think>{text}")
    assert result.stop_reason is StopReason.EOS
    assert clean(result)
    assert result.offsets[-1] == len(result.text)


def test_halves_in_one_body_in_parts_and_beside_the_text(run):
    parts = [{"type": "text", "text": f"a{HIGH}"}, {"type": "text", "text": f"{LOW}b"}]
    body = {"choices": [{"message": {"content": parts}, "finish_reason": "stop"}]}
    body["usage"] = {"completion_tokens": 3, f"x{HIGH}": 2}
    result, _ = asked_once(run, answered(json.dumps(body)))
    assert (result.text, result.stop_reason) == (f"a{FACE}b", StopReason.EOS)
    assert result.usage == {"completion_tokens": 3, f"x{LOST}": 2}
    assert clean(result)


@pytest.mark.parametrize(
    "raw",
    [
        sse(delta(content="x"), delta(f"st{HIGH}op")),
        sse(delta(content="x"), delta("content_filter", refusal=f"no{LOW}")),
        sse(delta(tool_calls=[{"function": {"name": f"f{HIGH}"}}]), delta("tool_calls")),
        answered(json.dumps({"error": {"message": f"bad {HIGH} thing"}}), status="400 Bad"),
        sse({"error": {"message": f"bad {HIGH} thing", "code": 400}}),
        answered(f"<p>{HIGH}</p>".encode("utf-8", "surrogatepass"), status="400 Bad"),
        answered(json.dumps(f"a {HIGH}")),
    ],
)
def test_halves_in_words_and_errors_reach_nothing(run, raw):
    result, _ = asked_once(run, raw)
    assert result.stop_reason is StopReason.ERROR
    assert clean(result)
    assert LOST in result.error + result.engine_reason or "\\ufffd" in result.error


def test_halves_in_what_a_server_says_of_itself(run):
    names = {"id": f"m{HIGH}", "owned_by": "vllm", "root": f"r{LOW}", "max_model_len": 64}
    raw = {
        "/v1/models": answered(json.dumps({"data": [names]})),
        "/version": answered(json.dumps({"version": f"1{HIGH}"})),
    }
    with TinyServer(raw=raw) as server:
        facts = probe(Endpoint((server.url,)))
    assert (facts.served, facts.root, facts.version) == (f"m{LOST}", f"r{LOST}", f"1{LOST}")
    json.dumps(facts.to_json(), ensure_ascii=False).encode()


class Watcher:
    def __init__(self):
        self.texts = []

    def follows(self, request):
        return True

    def wrote(self, request, ids, texts=None):
        self.texts.append("".join(texts or ()))

    def wrote_text(self, request, text):
        self.texts.append(text)


@pytest.mark.parametrize("kind", ["vllm", "llamacpp", "sglang"])
def test_halves_in_the_text_beside_ids_are_not_shown(kind):
    events = {
        "vllm": lambda text: ids_event([5], text=text),
        "llamacpp": lambda text: {"content": text, "tokens": [5], "stop": False},
        "sglang": lambda text: {"text": text, "output_ids": [5], "meta_info": {}},
    }
    heard, added = ServerOutput(), []
    for text in (f"a{HIGH}", f"{LOW}b", f"c{HIGH}", "d"):
        DIALECTS[kind].read_ids(events[kind](text), heard)
        added.append(heard.new_text)
    assert "".join(added) == f"a{FACE}bc{LOST}d"


def test_a_watched_answer_shows_no_halves(run):
    pieces = (f"a{HIGH}", f"{LOW}b{HIGH}", "c")
    raw = sse(*(delta(content=piece) for piece in pieces), delta("stop"))
    with TinyServer(raw={"/v1/chat/completions": raw}) as server:
        engine = run(server, facts=OPENAI)
        engine.watch = watcher = Watcher()
        one(engine, REQUEST)
    assert watcher.texts[-1] == f"a{FACE}b{LOST}c"
    assert all(text.encode() is not None for text in watcher.texts)


def test_texts_are_made_whole():
    assert whole("plain ä") == "plain ä"
    assert whole(f"{HIGH}{LOW}") == FACE
    assert whole(f"{LOW}{HIGH}{HIGH}{LOW}{HIGH}") == f"{LOST}{LOST}{FACE}{LOST}"
    joiner = Joiner()
    assert [joiner.add(p) for p in ("a", HIGH, HIGH, LOW, "", HIGH)] == [
        "a",
        "",
        LOST,
        FACE,
        "",
        "",
    ]
    assert (joiner.end(), joiner.end()) == (LOST, "")


# --- numbers, nesting, types

DIGITS = "4" * 5000
HOSTILE = {
    "id -7": ids_event([-7]),
    "id 10^12": ids_event([10**12]),
    "id 10^400": ids_event([10**400]),
    "id text": ids_event(["7"]),
    "id true": ids_event([True]),
    "id float": ids_event([7.5]),
    "id null": ids_event([None]),
    "no ids": {"choices": [{"index": 0, "text": "x", "finish_reason": None}]},
    "error code": f'{{"error": {{"code": {DIGITS}, "message": "m"}}}}',
    "error code text": {"error": {"code": DIGITS, "message": "m"}},
    "error odd": {"error": {"code": [1], "message": {"a": [None]}}},
    "deep": "[" * 100_000,
    "deep object": '{"a":' * 50_000,
    "deep error": '{"error":' + "[" * 900 + "]" * 900 + "}",
    "deep closed": '{"choices":' + "[" * 300 + "]" * 300 + "}",
    "no json": "{",
    "a list": "[]",
    "bytes": "\x00\x01",
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("where", [slow(0), 5])
def test_one_hostile_answer_of_sixty_is_asked_for_again(run, name, where):
    """Whether it is the first of the run or a later one."""
    hostile = HOSTILE[name]

    class Hostile(ScriptedServer):
        def _completion(self, asked):
            events = list(super()._completion(asked))
            if len(self.bodies) - 1 == where:
                events.insert(3, hostile)
            return iter(events)

        async def _stream(self, writer, events):
            await _stream_raw(writer, events)

    wanted = [replace(REQUEST, key=str(n)) for n in range(60)]
    with Hostile(ids=IDS, prompt=len(PROMPT)) as server:
        results = list(run(server, in_flight=4).generate(wanted, GREEDY))
        assert len(server.bodies) == 61
    assert {result.key for result in (each.request for each in results)} == set(map(str, range(60)))
    assert {result.output_ids for result in results} == {IDS}
    assert {result.error for result in results} == {""}


async def _stream_raw(writer, events):
    writer.write(sse(*events))
    await writer.drain()


@pytest.mark.parametrize("name", HOSTILE)
def test_always_hostile_answers_are_errors_of_their_requests(run, name):
    raw = sse(HOSTILE[name], ids_event([2], "stop"))
    if name == "no ids":
        with pytest.raises(EngineError, match="without token ids"):
            asked_once(run, raw, kind="vllm", api="auto")
        return
    result, bodies = asked_once(run, raw, kind="vllm", api="auto")
    assert result.stop_reason is StopReason.ERROR
    assert len(result.error) < 600
    assert len(bodies) == 5


VALUES = (None, True, -1, 10**30, 1.5, "x", "", [], [1], {}, {"a": 1}, [[]], [{}], [None])


def places(event, path=()):
    """Every place in an event, as paths."""
    items = event.items() if isinstance(event, dict) else enumerate(event)
    for name, value in items:
        yield (*path, name)
        if isinstance(value, dict | list):
            yield from places(value, (*path, name))


EVENTS = {
    "chat": {
        "choices": [
            {
                "index": 0,
                "delta": {
                    "content": [{"type": "text", "text": "a"}],
                    "reasoning_details": [{"text": "b"}],
                    "refusal": None,
                    "tool_calls": [{"function": {"name": "f"}}],
                },
                "finish_reason": "stop",
                "stop_reason": None,
            }
        ],
        "usage": {"completion_tokens": 3, "completion_tokens_details": {"reasoning_tokens": 1}},
    },
    "vllm": ids_event([5], "stop") | {"usage": {"completion_tokens": 3}},
    "llamacpp": {
        "content": "a", "tokens": [5], "stop": True, "stop_type": "eos", "tokens_predicted": 1,
        "tokens_evaluated": 3,
    },
    "sglang": {
        "text": "a", "output_ids": [5],
        "meta_info": {"completion_tokens": 1, "finish_reason": {"type": "stop", "matched": 2}},
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", EVENTS)
def test_a_wrong_type_at_any_place_of_an_event_is_read_or_malformed(kind):
    dialect = DIALECTS.get(kind, DIALECTS["openai"])
    read = dialect.read_chat if kind == "chat" else dialect.read_ids
    tried = 0
    for path in places(EVENTS[kind]):
        for value in VALUES:
            event = json.loads(json.dumps(EVENTS[kind]))
            inner = event
            for name in path[:-1]:
                inner = inner[name]
            inner[path[-1]] = value
            heard = ServerOutput()
            with suppress(MalformedError, NoIdsError):
                read(event, heard)
                read(event, heard)
            assert isinstance(heard.content, str)
            assert all(type(count) is int and count >= 0 for count in heard.usage.values())
            tried += 1
    assert tried > 80


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tokenize", {"tokens": "abc"}),
        ("/tokenize", {"tokens": [1.5]}),
        ("/tokenize", {"count": 3}),
        ("/tokenize", {"tokens": [-1]}),
        ("/detokenize", {"prompt": 5}),
        ("/detokenize", {}),
    ],
)
def test_a_tokenizer_of_a_server_that_answers_nonsense_is_named(run, path, body):
    spec = replace(NANO, kind="server", source="http://h/v1")
    good = {"/tokenize": {"tokens": [5]}, "/detokenize": {"prompt": "x"}}
    raw = {name: answered(json.dumps(found)) for name, found in (good | {path: body}).items()}
    with TinyServer(raw=raw) as server:
        engine = run(server, spec=spec)
        with pytest.raises(EngineError, match=rf"answered {path} without"):
            engine.decode_prompt([5]) if path == "/detokenize" else engine.encode("abc")


@pytest.mark.parametrize("length", [0, -5, 10**12, 1.5, "2048", True, None])
def test_a_context_that_cannot_be_true_is_none(length):
    models = {"data": [{"id": "m", "owned_by": "vllm", "max_model_len": length}]}
    with TinyServer(raw={"/v1/models": answered(json.dumps(models))}) as server:
        assert probe(Endpoint((server.url,))).context is None


def test_json_of_servers():
    assert parsed('\ufeff{"a": NaN, "b": -Infinity, "c": 1e999}') == {
        "a": None, "b": None, "c": float("inf")
    }  # fmt: skip
    assert parsed(f"[{DIGITS}]") == [float("inf")]
    assert parsed(f"[-{10**17}]") == [-(10**17)]
    assert parsed("[" * MOST_NESTED + "]" * MOST_NESTED) is not None
    assert parsed("[" * (MOST_NESTED + 2) + "]" * (MOST_NESTED + 2)) is None
    wide = "[" + ",".join(["[]"] * 500) + "]"
    assert len(parsed(wide)) == 500
    assert parsed(f'{{"a{HIGH}": "{HIGH}b{LOW}"}}') == {f"a{LOST}": f"{LOST}b{LOST}"}
    assert error_in({"error": {"code": "²" * 3}}) == (
        None,
        '{"error": {"code": "\\u00b2\\u00b2\\u00b2"}}',
    )


# --- byte order marks, character sets


@pytest.mark.parametrize("kind", KINDS)
def test_a_byte_order_mark_before_the_first_event_is_skipped(run, kind):
    raw = sse(delta(content="#### 3"), delta("stop"))
    _, _, body = raw.partition(b"\r\n\r\n")
    marked = answered(b"\xef\xbb\xbf" + body, "text/event-stream")
    assert asked_once(run, marked, kind=kind)[0].text == "#### 3"
    whole_body = {"choices": [{"message": {"content": "#### 3"}, "finish_reason": "stop"}]}
    marked = answered(b"\xef\xbb\xbf" + json.dumps(whole_body).encode())
    assert asked_once(run, marked, kind=kind)[0].text == "#### 3"
    models = {"data": [{"id": "m"}]}
    raw = {"/v1/models": answered(b"\xef\xbb\xbf" + json.dumps(models).encode())}
    with TinyServer(raw=raw) as server:
        assert probe(Endpoint((server.url,))).served == "m"


@pytest.mark.parametrize(
    "charset", ["latin-1", "utf-16", "utf-7", "rot13", "zlib", "nonsense", "hex"]
)
def test_an_event_stream_is_utf8_whatever_its_header_says(run, charset):
    event = json.dumps(delta(content="é 3"), ensure_ascii=False)
    result, _ = asked_once(run, sse(event, delta("stop"), charset=f"; charset={charset}"))
    assert (result.text, result.stop_reason) == ("é 3", StopReason.EOS)


# --- what cannot succeed


class Picky(ScriptedServer):
    """Refuses requests that have one of some parameters."""

    def __init__(self, refusals, status="400 Bad Request", **options):
        super().__init__(deltas=[{"content": "#### 3"}], kind="someone", **options)
        self.refusals, self.status = refusals, status
        self.refused = []

    async def answer(self, reader, writer):
        head, body = await message(reader)
        path = head[0].decode().split(" ")[1]
        sent = json.loads(body) if body else {}
        for name, refusal in self.refusals.items():
            if name in sent:
                self.refused.append(sent)
                await respond(writer, self.status, json.dumps(refusal), "application/json", {})
                return
        self.bodies.append(sent)
        if path == "/v1/models":
            await respond(writer, "404 No", "{}", "application/json", {})
        elif sent.get("stream"):
            await self._stream(writer, self._chat())
        else:
            await respond(writer, "200 OK", '{"choices": []}', "application/json", {})


def openai_error(text, param, code="unsupported_parameter"):
    return {
        "error": {"message": text, "type": "invalid_request_error", "param": param, "code": code}
    }


LIMIT_REFUSED = (
    openai_error(
        "Unsupported parameter: 'max_tokens' is not supported with this model. "
        "Use 'max_completion_tokens' instead.",
        "max_tokens",
    ),
    {"detail": "max_tokens is deprecated, please use max_completion_tokens"},
    {"message": "unknown field `max_tokens`, expected one of `messages`, `max_completion_tokens`"},
)


@pytest.mark.parametrize("refusal", LIMIT_REFUSED)
@pytest.mark.parametrize("kind", KINDS)
def test_a_limit_by_another_name_is_sent_so_and_remembered(run, refusal, kind):
    wanted = [replace(REQUEST, key=str(n)) for n in range(5)]
    with Picky({"max_tokens": refusal}) as server:
        engine = run(server, facts=replace(OPENAI, kind=kind), in_flight=1)
        results = list(engine.generate(wanted, GREEDY))
        assert len(server.refused) == 1
        assert [body["max_completion_tokens"] for body in server.bodies] == [64] * 5
    assert {result.text for result in results} == {"#### 3"}


def test_requests_on_their_way_together_learn_together(run):
    wanted = [replace(REQUEST, key=str(n)) for n in range(12)]
    refusals = {
        "max_tokens": LIMIT_REFUSED[0],
        "stream_options": {"error": "no stream_options here"},
    }
    with Picky(refusals) as server:
        results = list(run(server, facts=OPENAI, in_flight=4).generate(wanted, GREEDY))
        assert len(server.refused) <= 8
        assert len(server.bodies) == 12
    assert {result.error for result in results} == {""}


def test_a_server_that_lists_nothing_is_recognised_by_the_other_name():
    with Picky({"max_tokens": LIMIT_REFUSED[0]}) as server:
        assert probe(Endpoint((server.url,), "m")).served == "m"


@pytest.mark.parametrize(
    ("status", "refusal"),
    [
        ("422 No", {"detail": [{"loc": ["body", "stream_options"], "msg": "Extra inputs"}]}),
        ("400 No", {"error": "Unrecognized request argument supplied: stream_options"}),
        ("400 No", openai_error("Unknown parameter: 'stream_options.include_usage'.", None)),
    ],
)
def test_unknown_stream_options_are_left_out_and_remembered(run, status, refusal):
    with Picky({"stream_options": refusal}, status) as server:
        engine = run(server, facts=OPENAI)
        assert one(engine, REQUEST).text == one(engine, REQUEST).text == "#### 3"
        assert len(server.refused) == 1
        assert not any("stream_options" in body for body in server.bodies)


SAMPLED = Decoding(temperature=0.7, top_p=0.9, seed=3)


@pytest.mark.parametrize(
    ("name", "decoding", "refusal", "option"),
    [
        (
            "temperature",
            GREEDY,
            openai_error(
                "Unsupported value: 'temperature' does not support 0 with this model. "
                "Only the default (1) value is supported.",
                "temperature",
                "unsupported_value",
            ),
            "--temperature sets it",
        ),
        ("top_p", SAMPLED, {"message": "`top_p` is not supported"}, "--top-p sets it"),
        (
            "seed",
            SAMPLED,
            {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]},
            "--temperature 0 none is sent",
        ),
    ],
)
def test_a_refused_parameter_that_decides_about_answers_is_named_at_once(
    run, name, decoding, refusal, option
):
    with Picky({name: refusal}) as server:
        result = one(run(server, facts=OPENAI), REQUEST, decoding)
        assert len(server.refused) == 1
    assert result.stop_reason is StopReason.ERROR
    assert f"refuses the parameter {name!r} as it was sent" in result.error
    assert option in result.error


def test_a_limit_that_is_refused_under_every_name_ends(run):
    refusal = {"error": "unsupported: use max_completion_tokens or max_output_tokens instead"}
    names = ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens")
    with Picky(dict.fromkeys(names, refusal)) as server:
        result = one(run(server, facts=OPENAI), REQUEST)
        assert len(server.refused) == len(names)
    assert result.stop_reason is StopReason.ERROR


def test_parameters_are_learned_from_refusals_of_them_only():
    body = {"max_tokens": 5, "stream_options": {}}
    parameters = RequestParameters()
    for text in ("max_tokens is too large: 5", "overloaded", "use max_completion_tokens_x instead"):
        assert not parameters.learn(body, body, text)
    assert parameters.applied(body) == body
    for text in (
        "Please use the max_completion_tokens parameter",
        "this model takes max_completion_tokens, got max_tokens",
        "max_tokens cannot be used with reasoning models, set max_completion_tokens",
        "Unrecognized request argument supplied: max_tokens",
        "max_tokens: Extra inputs are not permitted",
    ):
        learned = RequestParameters()
        assert learned.learn(body, body, text)
        assert learned.applied(body) == {"max_completion_tokens": 5, "stream_options": {}}
    assert refused_parameter('{"error": "the prompt is too long"}', {"prompt": [1]}) == ""
    assert refused_parameter('{"error": "unknown field"}', {"seed": 1}) == ""


WITHHELD = {
    "filter": (
        sse(delta(content="It is"), delta("content_filter")),
        "a content filter stopped it ('content_filter')",
    ),
    "safety": (
        sse(delta(content="It is"), delta("SAFETY")),
        "a content filter stopped it ('SAFETY')",
    ),
    "tool": (
        sse(delta(tool_calls=[{"function": {"name": "calc"}}]), delta("tool_calls")),
        "a call of the tool 'calc' in place of an answer",
    ),
    "function": (
        sse(delta(function_call={"name": "calc"}), delta("function_call")),
        "a call of the tool 'calc' in place of an answer",
    ),
    "refusal": (
        sse(delta(refusal="I can"), delta(refusal="not."), delta("stop")),
        "a refusal of the model in place of an answer: 'I cannot.'",
    ),
    "message": (
        answered(
            json.dumps({"choices": [{"message": {"refusal": "No."}, "finish_reason": "stop"}]})
        ),
        "a refusal of the model in place of an answer: 'No.'",
    ),
    "request": (
        answered(
            '{"error": {"message": "Your input was flagged by moderation", "code": 403}}',
            status="403 Forbidden",
        ),
        "a filter stopped the request (403): Your input was flagged",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WITHHELD)
@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_in_place_of_an_answer_is_named_and_not_asked_for_again(run, name, kind):
    raw, words = WITHHELD[name]
    result, bodies = asked_once(run, raw, kind=kind)
    assert result.stop_reason is StopReason.ERROR
    assert words in result.error
    assert len(bodies) == 1


def test_a_filter_may_stop_an_output_of_ids_too(run):
    result, bodies = asked_once(
        run, sse(ids_event([425]), ids_event([], "content_filter", "")), kind="vllm", api="auto"
    )
    assert (result.output_ids, result.stop_reason) == ((425,), StopReason.ERROR)
    assert "a content filter stopped it" in result.error
    assert len(bodies) == 1


def test_errors_of_validation_name_the_parameter():
    body = '{"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs"}, {"msg": "b"}]}'
    assert error_text(body) == "seed: Extra inputs; b"


@pytest.mark.slow
def test_a_run_whose_answers_hold_halves_ends_well(pytester):
    """Store, result files and terminal take them; a second run judges what is stored."""
    deltas = [
        {"content": f"It is{HIGH}"},
        {"content": f"{LOW} 3{LOW}"},
        {"content": f" #### 3{HIGH}"},
    ]
    with ScriptedServer(deltas=deltas, kind="someone") as server:
        command = ("--pyargs", "pytest_tokenbudget.evals", "-m", "phase1", "--num-samples=3")
        command += ("--budgets=32,64", f"--model={server.url}", "--tokenizer=nano-reasoner", "-v")
        first = pytester.runpytest_subprocess(*command)
        again = pytester.runpytest_subprocess(*command)
        assert len(server.bodies) == 3
    assert (first.ret, again.ret) == (0, 0)
    written = [file for file in pytester.path.rglob("*.json") if file.is_file()]
    assert written
    for file in written:
        assert not re.search(r"\\u[dD][89a-fA-F]", file.read_text(encoding="utf-8"))
    (store,) = pytester.path.rglob("*.sqlite")
    with closing(sqlite3.connect(store)) as rows:
        texts = [text for (text,) in rows.execute("SELECT text FROM traces")]
    assert texts == [f"It is{FACE} 3{LOST} #### 3{LOST}"] * 3
