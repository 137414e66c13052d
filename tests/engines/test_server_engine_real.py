"""Real servers as an engine: the embedded model's ids, whatever runs it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from engine_helpers import collect, ids_of, make_engine
from engine_helpers import requests as plain_requests
from faulty_proxy import FaultyProxy, Mischief, first
from server_scripted import EOS, MESSAGES, NANO, QUICK, one

from pytest_tokenbudget.core.engine import Decoding, Request
from pytest_tokenbudget.core.probes import Ask
from pytest_tokenbudget.core.trace import StopReason
from pytest_tokenbudget.engines.server.engine import ServerEngine
from pytest_tokenbudget.engines.server.server_facts import probe
from pytest_tokenbudget.engines.server.tokens import (
    UNKNOWN_ID,
    ServerText,
    choose_tokens,
    find_thinking,
)
from pytest_tokenbudget.settings.endpoints import Endpoint
from pytest_tokenbudget.texts.detokenizer import text_and_offsets

pytest_plugins = ["servers"]


def engine_at(real, **options):
    spec = options.pop("spec", NANO)
    api = options.pop("api", "auto")
    endpoint = Endpoint((real.url,), real.model, api)
    facts = probe(endpoint)
    return ServerEngine(replace(spec, endpoint=endpoint), facts, **options), facts


@pytest.fixture(scope="module")
def wanted():
    """What the embedded model writes for 8 problems in this process."""
    asked = plain_requests(8, 256)
    return asked, collect(make_engine(), asked)


@pytest.fixture(scope="module", params=["llamacpp", "vllm"])
def server_kind(request):
    """Those that know ids."""
    return request.param


@pytest.fixture
def ids_server(servers, server_kind):
    return servers.usual(server_kind)


def test_greedy_ids_are_those_of_transformers(ids_server, wanted):
    asked, expected = wanted
    engine, facts = engine_at(ids_server)
    try:
        made = collect(engine, asked)
        assert engine.engine_name == facts.kind == ids_server.kind
        assert ids_of(made) == ids_of(expected)
        assert all(made[key].stop_reason is expected[key].stop_reason for key in expected)
        assert all(
            done.usage["completion_tokens"] == len(done.output_ids) for done in made.values()
        )
        # One below, at, and one above the natural length.
        request = asked[0]
        length = len(expected[request.key].output_ids)
        for cap, reason in ((length - 1, "length"), (length, "eos"), (length + 1, "eos")):
            done = one(engine, replace(request, cap=cap))
            assert (done.stop_reason, len(done.output_ids)) == (reason, min(cap, length))
            assert done.output_ids == expected[request.key].output_ids[:cap]
    finally:
        engine.close()


def test_broken_streams_of_a_real_server_give_the_same_ids(ids_server, wanted):
    asked, expected = wanted
    endpoint = Endpoint((ids_server.url,), ids_server.model)
    facts = probe(endpoint)
    with FaultyProxy(ids_server.url, first(8, Mischief.STOPS), keep=5) as proxy:
        spec = replace(NANO, endpoint=Endpoint((proxy.url,), ids_server.model))
        engine = ServerEngine(spec, facts, timing=QUICK)
        try:
            assert ids_of(collect(engine, asked)) == ids_of(expected)
        finally:
            engine.close()
    assert proxy.counts["stops"] == 8


def test_ids_that_end_inside_a_character_are_all_there(llamacpp_server, wanted):
    """The stream of llama.cpp build 11434 leaves them out."""
    asked, _ = wanted
    engine, _ = engine_at(llamacpp_server, in_flight=2)
    wild = Decoding(temperature=5.0, seed=1)
    wanted_ids = [replace(asked[0], key=f"w{i}", sample=i, cap=200) for i in range(6)]
    try:
        made = collect(engine, wanted_ids, wild)
        local = make_engine()
        texts = [local.decode(done.output_ids) for done in made.values()]
        assert all(done.stop_reason is not StopReason.ERROR for done in made.values())
        for done in made.values():
            if done.usage:
                assert done.usage["completion_tokens"] == len(done.output_ids)
            assert len(done.output_ids) == 200 or done.output_ids[-1] in engine.eos_ids
        # Otherwise this proves nothing.
        assert any("\ufffd" in text for text in texts)
        assert any(not done.usage for done in made.values())
    finally:
        engine.close()


def test_seeds_repeat_on_a_real_server(ids_server, wanted):
    asked, _ = wanted
    engine, _ = engine_at(ids_server, in_flight=1)
    # vLLM refuses a temperature above 2.
    hot = Decoding(temperature=2.0, seed=3)
    samples = [replace(asked[0], key=f"s{i}", sample=i, cap=64) for i in range(4)]
    try:
        once, again = collect(engine, samples, hot), collect(engine, samples, hot)
    finally:
        engine.close()
    assert all(done.stop_reason is not StopReason.ERROR for done in once.values())
    # llama.cpp computes a cached prompt's last token in another batch, which may tip a draw.
    assert sum(once[key].output_ids == again[key].output_ids for key in once) >= 3
    assert len(set(ids_of(once).values())) > 1


def test_server_renders_and_tokenizes_as_the_model_does(ids_server):
    endpoint = Endpoint((ids_server.url,), ids_server.model)
    facts = probe(endpoint)
    own = choose_tokens(NANO, facts)
    asked = ServerText(replace(NANO, kind="server", endpoint=endpoint), facts)
    try:
        for thinking in (True, False):
            assert asked.render(MESSAGES, thinking) == own.render(MESSAGES, thinking)
        assert asked.eos_ids == own.eos_ids
        assert asked.context == own.context
        ids = own.encode("<think>\n3 + 4 = 7, été, 漢字.</think>")
        assert asked.encode("<think>\n3 + 4 = 7, été, 漢字.</think>") == ids
        assert text_and_offsets(asked.decode, ids) == text_and_offsets(own.decode, ids)
        assert asked.decode((*ids, EOS)) == own.decode(ids)
        if facts.template:
            assert find_thinking(facts, asked) == NANO.thinking
    finally:
        asked.close()


def test_asks_of_a_real_server(ids_server, wanted):
    asked, expected = wanted
    prompt = asked[0].prompt_ids
    ids = expected[asked[0].key].output_ids
    engine, _ = engine_at(ids_server)
    try:
        by_ids, capped, twice, chat, overflow = engine.ask(
            [
                Ask(256, prompt_ids=prompt),
                Ask(5, prompt_ids=prompt),
                Ask(3, prompt_ids=prompt, n=2, seed=1, temperature=1.0),
                Ask(9, messages=MESSAGES, template={"enable_thinking": False}),
                Ask(5, prompt_ids=prompt * 60),
            ],
            at_once=2,
        )
    finally:
        engine.close()
    assert by_ids.choices[0].ids == ids
    assert by_ids.choices[0].text == engine.decode(ids)
    assert by_ids.usage["completion_tokens"] == len(ids)
    assert by_ids.prompt_tokens == by_ids.usage["prompt_tokens"] == len(prompt)
    assert (capped.choices[0].ids, capped.choices[0].finish_reason) == (ids[:5], "length")
    assert [len(choice.ids) for choice in twice.choices] == [3, 3]
    assert len(chat.choices[0].ids) <= 9
    assert not chat.choices[0].opened
    assert (overflow.status, overflow.choices) == (400, ())


def test_chat_of_transformers_serve_is_counted(serve_server):
    engine, facts = engine_at(serve_server)
    try:
        assert (facts.kind, facts.ids, engine.continues) == ("serve", False, False)
        local = make_engine()
        for thinking in (False, True):
            prompt = local.render(MESSAGES, thinking).ids
            request = Request("k", prompt, 256, messages=MESSAGES, thinking=thinking)
            expected = one(local, request)
            result = one(engine, request)
            text = local.decode(expected.output_ids)
            assert result.text == text
            assert result.counted
            end = (UNKNOWN_ID,) if expected.stop_reason is StopReason.EOS else ()
            assert result.output_ids == (*engine.encode(text), *end)
            assert result.usage["prompt_tokens"] == len(prompt)
            assert result.usage["completion_tokens"] == len(expected.output_ids)
            assert result.stop_reason is expected.stop_reason
            assert result.engine_reason == ("stop" if end else "length")
            cut = one(engine, replace(request, cap=3))
            assert cut.stop_reason is StopReason.LENGTH
            assert text.startswith(cut.text)
        (reply,) = engine.ask([Ask(4, messages=MESSAGES, fields={"no_such_field": 1})])
        assert reply.status == 422
    finally:
        engine.close()
