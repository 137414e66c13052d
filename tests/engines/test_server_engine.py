"""Servers as an engine: what is sent, how answers are read, and what becomes of faults."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace

import pytest
from faulty_proxy import FaultyProxy, Mischief, always, first
from server_scripted import EOS, GREEDY, MESSAGES, NANO, QUICK, ScriptedServer, one

from pytest_tokenbudget.core.engine import Decoding, EngineError, Request
from pytest_tokenbudget.core.probes import Ask, Askable
from pytest_tokenbudget.core.store import TraceStore
from pytest_tokenbudget.core.trace import StopReason, Trace
from pytest_tokenbudget.engines.server.chat import restore_output, stop_reason_of
from pytest_tokenbudget.engines.server.dialects import DIALECTS
from pytest_tokenbudget.engines.server.dialects_base import chosen_model
from pytest_tokenbudget.engines.server.engine import ServerEngine
from pytest_tokenbudget.engines.server.output import End, NoIdsError, ServerOutput, read_usage
from pytest_tokenbudget.engines.server.server_facts import agreed, ask_servers, probe
from pytest_tokenbudget.engines.server.tokens import (
    UNKNOWN_ID,
    choose_tokens,
    count_tokens,
    insert_hidden,
)
from pytest_tokenbudget.settings.endpoints import Endpoint, Facts
from pytest_tokenbudget.texts.detokenizer import text_and_offsets
from pytest_tokenbudget.texts.thinking_blocks import ThinkingFormat

THINK = ThinkingFormat()
# "<think>\nThere are 3 apples." and the end, as the embedded model writes it.
IDS = (1022, 201, 425, 309, 223, 21, 261, 699, 609, 16, EOS)
VLLM = Facts("vllm", "0.32.0", "m", 2048, "somewhere", ids=True, tokenizes=True)


def heard_of(kind: str, lines: str) -> ServerOutput:
    """What a dialect hears in the recorded data lines of an ids stream."""
    heard = ServerOutput()
    for line in lines.strip().splitlines():
        DIALECTS[kind].read_ids(json.loads(line), heard)
    return heard


def chat_of(kind: str, lines: str) -> ServerOutput:
    heard = ServerOutput()
    for line in lines.strip().splitlines():
        DIALECTS[kind].read_chat(json.loads(line), heard)
    return heard


# Recorded streams, shortened to what is read


VLLM_EOS = """
{"choices":[{"index":0,"text":" apples","finish_reason":null,"token_ids":[699,609]}]}
{"choices":[{"index":0,"text":".","finish_reason":null,"stop_reason":null,"token_ids":[16]}]}
{"choices":[{"index":0,"text":"","finish_reason":"stop","stop_reason":null,"token_ids":[2]}]}
{"choices":[],"usage":{"prompt_tokens":2,"total_tokens":6,"completion_tokens":4}}
"""
VLLM_STOP = """
{"choices":[{"index":0,"text":"a","finish_reason":null,"stop_reason":null,"token_ids":[223]}]}
{"choices":[{"index":0,"text":"","finish_reason":"stop","stop_reason":"re 3","token_ids":[21]}]}
"""
LLAMA_EOS = """
{"index":0,"content":".","tokens":[30],"stop":false,"id_slot":-1,"tokens_predicted":62}
{"index":0,"content":"","tokens":[2],"stop":false,"tokens_predicted":63}
{"tokens":[],"stop_type":"eos","tokens_predicted":63,"tokens_evaluated":33,"stop":true}
"""
LLAMA_LIMIT = """
{"index":0,"content":"<think>","tokens":[1022],"stop":false,"tokens_predicted":1}
{"tokens":[],"stop_type":"limit","tokens_predicted":2017,"stop":true,"truncated":true}
"""
LLAMA_WORD = """
{"index":0,"content":"","tokens":[223],"stop":false,"tokens_predicted":3,"tokens_evaluated":35}
{"index":0,"content":"There a","tokens":[21],"stop":false,"tokens_predicted":4}
{"content":"","tokens":[],"stop":true,"stop_type":"word","stopping_word":"re 3"}
"""


def sglang(ids, count, **reason):
    """An event by SGLang's documentation and source."""
    meta = {"completion_tokens": count, "finish_reason": reason or None}
    return json.dumps({"text": "a", "output_ids": ids, "meta_info": meta}) + "\n"


EOS_MATCHED = {"type": "stop", "matched": 2}
SGLANG_WHOLE = sglang([5], 1) + sglang([5, 6], 2) + sglang([5, 6, 2], 3, **EOS_MATCHED)
SGLANG_PARTS = sglang([5], 1) + sglang([5], 2) + sglang([2], 3, **EOS_MATCHED)
SGLANG_UNSAID = sglang([5, 6], 3, **EOS_MATCHED)
SGLANG_WORD = sglang([5, 6], 2, type="stop", matched="re 3")


@pytest.mark.parametrize(
    ("kind", "lines", "ids", "end", "word"),
    [
        ("vllm", VLLM_EOS, [699, 609, 16, 2], End.EOS, "stop"),
        ("vllm", VLLM_STOP, [223, 21], End.STOP, "stop"),
        ("llamacpp", LLAMA_EOS, [30, 2], End.EOS, "eos"),
        ("llamacpp", LLAMA_LIMIT, [1022], End.LENGTH, "limit"),
        ("llamacpp", LLAMA_WORD, [223, 21], End.STOP, "word"),
        ("sglang", SGLANG_WHOLE, [5, 6, 2], End.EOS, "stop"),
        ("sglang", SGLANG_PARTS, [5, 5, 2], End.EOS, "stop"),
        ("sglang", SGLANG_UNSAID, [5, 6, 2], End.EOS, "stop"),
        ("sglang", SGLANG_WORD, [5, 6], End.STOP, "stop"),
    ],
)
def test_ids_and_ends_of_recorded_streams(kind, lines, ids, end, word):
    heard = heard_of(kind, lines)
    assert (heard.ids, heard.end, heard.finish_reason) == (ids, end, word)


def test_counts_of_recorded_streams():
    counts = {"prompt_tokens": 33, "completion_tokens": 63}
    assert heard_of("llamacpp", LLAMA_EOS).usage == counts
    assert heard_of("vllm", VLLM_EOS).usage["completion_tokens"] == 4
    nested = {"completion_tokens": 11, "completion_tokens_details": {"reasoning_tokens": 10}}
    assert read_usage(nested) == {"completion_tokens": 11, "reasoning_tokens": 10}
    assert read_usage(None) == read_usage([]) == {}


@pytest.mark.parametrize(
    ("kind", "event"),
    [
        ("vllm", {"choices": [{"text": "a", "token_ids": None}]}),
        ("vllm", {"choices": [{"text": "a"}]}),
        ("llamacpp", {"content": "a", "tokens": [], "stop": False}),
        ("sglang", {"text": "a", "meta_info": {}}),
    ],
)
def test_text_without_ids_is_noticed(kind, event):
    with pytest.raises(NoIdsError):
        DIALECTS[kind].read_ids(event, ServerOutput())


# transformers serve: no [DONE], the end-of-sequence's text, reasoning without tags
SERVE_OPEN = """
{"choices":[{"delta":{"role":"assistant"},"index":0}]}
{"choices":[{"delta":{"reasoning_content":"\\n"},"index":0}]}
{"choices":[{"delta":{"reasoning_content":"There."},"index":0}]}
{"choices":[{"delta":{"reasoning_content":"<|im_end|>"},"index":0}]}
{"choices":[{"delta":{},"index":0,"finish_reason":"length"}],"usage":{"completion_tokens":11,"prompt_tokens":31,"total_tokens":42}}
"""
VLLM_REASONING = """
{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"prompt_token_ids":[1]}
{"choices":[{"index":0,"delta":{},"finish_reason":null,"token_ids":[1022]}]}
{"choices":[{"index":0,"delta":{"reasoning":"\\nThere"},"finish_reason":null,"token_ids":[201]}]}
{"choices":[{"index":0,"delta":{"content":"\\n\\n7"},"finish_reason":null,"token_ids":[25]}]}
{"choices":[{"index":0,"delta":{"content":""},"finish_reason":"stop","stop_reason":null,"token_ids":[2]}]}
"""


def test_reasoning_that_comes_apart_is_put_back():
    heard = chat_of("vllm", VLLM_REASONING)
    assert (heard.reasoning, heard.content, heard.end) == ("\nThere", "\n\n7", End.EOS)
    assert restore_output(heard, THINK, "").text == "<think>\nThere</think>\n\n7"
    opened = restore_output(heard, THINK, "<|im_start|>assistant\n<think>\n")
    assert opened.text == "\nThere</think>\n\n7"


def test_end_of_sequence_in_the_text_is_an_end_even_if_called_length():
    heard = chat_of("serve", SERVE_OPEN)
    written = restore_output(heard, THINK, "", ["<|im_end|>", "<|endoftext|>"])
    assert written.text == "<think>\nThere."
    assert (heard.finish_reason, stop_reason_of(heard, written, 64)) == ("length", StopReason.EOS)


def test_reasoning_after_a_prompt_that_has_closed_it_is_the_answer():
    """As the parser of DeepSeek-R1's format in vLLM 0.32 gives it."""
    heard = ServerOutput(reasoning="There are 2 pens.", end=End.EOS)
    assert restore_output(heard, THINK, "<think>\n\n</think>\n\n").text == "There are 2 pens."


def test_prompt_that_comes_as_output_is_no_output():
    """As transformers serve 5.23 streams it after a prompt that has closed thinking."""
    heard = ServerOutput(content="\n\n sold", reasoning="\n\n", end=End.EOS)
    assert restore_output(heard, THINK, "<think>\n\n</think>\n\n").text == " sold"
    # Thinking of the model's own stays.
    heard.reasoning = "\nso"
    text = "<think>\nso</think>\n\n sold"
    assert restore_output(heard, THINK, "<think>\n\n</think>\n\n").text == text
    assert restore_output(heard, THINK, "").text == text


def test_both_names_of_reasoning_are_one_text():
    heard = ServerOutput()
    heard.add({"reasoning": "a", "reasoning_content": "a", "content": None})
    assert (heard.reasoning, heard.content) == ("a", "")


def test_hidden_reasoning_keeps_its_place():
    heard = ServerOutput(content="7", usage={"reasoning_tokens": 40}, end=End.EOS)
    written = restore_output(heard, THINK, "", hidden=40)
    assert (written.text, written.hidden_at) == ("<think></think>7", len("<think>"))
    cut = ServerOutput(usage={"reasoning_tokens": 40}, end=End.LENGTH)
    assert restore_output(cut, THINK, "", hidden=40).text == "<think>"


# Counting


@pytest.fixture(scope="module")
def tokens():
    return choose_tokens(NANO, VLLM)


def test_counted_text_has_the_tokenizers_ids_and_one_more_for_its_end(tokens):
    text = "<think>\nThere are 3 apples."
    counted = count_tokens(text, tokens, most=20, ended=True)
    assert counted.ids == (*IDS[:-1], UNKNOWN_ID)
    assert counted.offsets == text_and_offsets(tokens.decode_prompt, (*IDS[:-1],))[1] + (len(text),)


def test_counted_text_never_has_more_tokens_than_the_cap(tokens):
    text = "<think>\nThere are 3 apples."
    for cap in range(1, 12):
        for ended in (False, True):
            counted = count_tokens(text, tokens, most=cap, ended=ended)
            assert len(counted.ids) <= cap
            assert counted.offsets[-1] == len(text)
            assert list(counted.offsets) == sorted(counted.offsets)


def test_hidden_tokens_stand_between_the_tags(tokens):
    written = restore_output(ServerOutput(content="7"), THINK, "", hidden=3)
    counted = count_tokens(written.text, tokens, most=9, ended=True)
    counted = insert_hidden(counted, written.hidden_at, 3, 9)
    reason = StopReason.EOS
    trace = Trace(
        "p", 0, (), counted.ids, reason, 9, counted.text, counted.offsets, False, counted=True
    )
    cut = trace.cut(9, NANO.thinking)
    assert counted.ids[1:4] == (UNKNOWN_ID,) * 3
    assert cut.answer == "7"
    assert cut.thinking_tokens == 5
    # Cut in its hidden thinking it has no answer.
    assert trace.cut(3, NANO.thinking).in_thinking


# What servers say of themselves


def test_facts_survive_json():
    facts = replace(VLLM, ends=("<|im_end|>",), template="{{ x }}", context=None)
    data = json.loads(json.dumps(facts.to_json()))
    assert Facts.from_json(data) == facts
    assert Facts.from_json({**data, "from a later version": 1}) == facts


@pytest.mark.parametrize(
    ("listed", "wanted", "says"),
    [
        (["qwen", "llama"], None, "2 models; choose one with --served-model: 'qwen', 'llama'"),
        (["qwen", "llama"], "lama", "does not serve 'lama': it serves 'qwen', 'llama'; did you"),
        ([], None, "lists no model; name the one that is meant with --served-model"),
        ([f"m{i}" for i in range(30)], "x", "and 20 more"),
    ],
)
def test_model_that_is_not_there_or_not_chosen(listed, wanted, says):
    with pytest.raises(EngineError) as error:
        chosen_model([{"id": name} for name in listed], wanted, "http://h/v1")
    assert says in str(error.value)


def test_servers_must_agree():
    other = replace(VLLM, context=1024, version="0.33")
    assert agreed([("a", VLLM), ("b", other)]).context == 1024
    for change in ({"served": "x"}, {"fingerprint": "x"}, {"kind": "sglang"}):
        with pytest.raises(EngineError, match="must serve the same model"):
            agreed([("a", VLLM), ("b", replace(VLLM, **change))])


def test_probe_finds_the_model_and_passes_over_servers_that_are_down():
    with ScriptedServer(names=("m",)) as one, ScriptedServer() as two:
        facts = probe(Endpoint((one.url, two.url)))
        assert (facts.kind, facts.served, facts.context) == ("vllm", "m", 2048)
        assert facts.ids
        assert not facts.tokenizes
        two.die()
        assert probe(Endpoint((one.url, two.url))) == facts
        one.die()
        with pytest.raises(EngineError, match=r"nothing answers at .* \(is the server started"):
            probe(Endpoint((one.url, two.url)))


def test_what_servers_said_counts_only_while_none_says_otherwise(tmp_path):
    """A server that has another model by now would generate what is missing of the former one."""
    with (
        closing(TraceStore(tmp_path / "traces.sqlite", "run", "a")) as store,
        ScriptedServer(names=("m",)) as server,
    ):
        endpoint = Endpoint((server.url,), "m")
        facts = ask_servers(endpoint, store, 5)
        server.names = ("other",)
        with pytest.raises(EngineError, match="does not serve 'm'"):
            ask_servers(endpoint, store, 5)
        server.die()
        assert ask_servers(endpoint, store, 5) == facts


@pytest.mark.parametrize("not_now", [Mischief.RATE_LIMIT, Mischief.LOADING])
def test_a_server_that_is_busy_is_asked_again(not_now):
    with ScriptedServer() as server:
        plain = probe(Endpoint((server.url,)))
        plan = first(2, not_now)
        with FaultyProxy(server.url, plan, paths=("/v1/models",)) as proxy:
            assert probe(Endpoint((proxy.url,))) == plain
            assert proxy.counts[not_now] == 2


def test_probe_of_plain_openai():
    with ScriptedServer(kind="someone", names=("a", "b")) as server:
        facts = probe(Endpoint((server.url,), "b"))
    assert (facts.kind, facts.served, facts.ids) == ("openai", "b", False)


def test_wrong_key_is_named_and_not_shown(monkeypatch):
    monkeypatch.setenv("TOKENBUDGET_API_KEY", "sk-very-secret-indeed")
    with ScriptedServer(key="another-secret-key") as server, pytest.raises(EngineError) as error:
        probe(Endpoint((server.url,)))
    assert "refuses the key" in str(error.value)
    assert "very-secret" not in str(error.value)


def test_something_else_than_an_openai_server():
    with ScriptedServer(names=()) as server, pytest.raises(EngineError, match="OpenAI-compatible"):
        probe(Endpoint((server.url,)))


# The engine against scripted servers


@pytest.fixture
def run():
    """Makes engines for servers, and closes them."""
    made: list[ServerEngine] = []

    def make(*servers, facts=VLLM, spec=NANO, **options):
        urls = tuple(server.url for server in servers)
        api = options.pop("api", "auto")
        spec = replace(spec, endpoint=Endpoint(urls, "m", api))
        made.append(ServerEngine(spec, facts, timing=QUICK, timeout=5, **options))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


PROMPT = (1, 442, 201, 54)
REQUEST = Request("k", PROMPT, 64, messages=MESSAGES)


def test_exactly_the_ids_are_sent_and_come_back(run):
    with ScriptedServer(ids=IDS, prompt=4, usage={"completion_tokens": 11}) as server:
        result = one(run(server), REQUEST)
        (body,) = server.bodies
    assert result.output_ids == IDS
    assert (result.stop_reason, result.engine_reason) == (StopReason.EOS, "stop")
    assert result.usage == {"completion_tokens": 11}
    assert result.text is None
    assert not result.counted
    assert body["prompt"] == list(PROMPT)
    assert (body["temperature"], body["max_tokens"]) == (0, 64)
    # What a model's generation_config.json recommends must not get in.
    assert (body["top_k"], body["repetition_penalty"]) == (-1, 1.0)
    assert "seed" not in body


@pytest.mark.parametrize(
    ("cap", "word", "reason"),
    [(10, "length", StopReason.LENGTH), (11, "length", StopReason.EOS), (12, "stop", "eos")],
)
def test_stop_reason_is_decided_by_ids_and_cap(run, cap, word, reason):
    """The end exactly at the cap is the end, whatever the server calls it."""
    with ScriptedServer(ids=IDS, prompt=4, word=word) as server:
        result = one(run(server), replace(REQUEST, cap=cap))
    assert (result.stop_reason, result.engine_reason) == (reason, word)
    assert result.output_ids == IDS[:cap]


def test_server_that_goes_on_beyond_the_end_is_cut_there(run):
    with ScriptedServer(ids=(*IDS, 5, 6, 7), prompt=4, word="length") as server:
        result = one(run(server), REQUEST)
    assert (result.output_ids, result.stop_reason) == (IDS, StopReason.EOS)


def test_stop_string_is_found_in_the_text_of_the_ids(run):
    with ScriptedServer(ids=IDS, prompt=4, word="length") as server:
        result = one(run(server), REQUEST, Decoding(stop=("re 3",)))
        assert server.bodies[0]["stop"] == ["re 3"]
    assert (result.output_ids, result.stop_reason) == (IDS[:6], StopReason.STOP)


def test_output_that_exists_is_gone_on_from(run):
    with ScriptedServer(ids=IDS, prompt=4) as server:
        engine = run(server)
        result = one(engine, replace(REQUEST, prefix_ids=IDS[:4]))
        whole = one(engine, replace(REQUEST, prefix_ids=IDS))
    (body,) = server.bodies
    assert (result.output_ids, result.usage) == (IDS, {})
    assert body["prompt"] == [*PROMPT, *IDS[:4]]
    assert body["max_tokens"] == 60
    assert whole.output_ids == IDS


@pytest.mark.parametrize("mischief", [Mischief.STOPS, Mischief.ENDS, Mischief.MALFORMED])
def test_broken_stream_goes_on_from_what_came(run, mischief):
    with (
        ScriptedServer(ids=IDS, prompt=4) as server,
        FaultyProxy(server.url, first(2, mischief), keep=3) as proxy,
    ):
        result = one(run(proxy), REQUEST)
    assert (result.output_ids, result.stop_reason) == (IDS, StopReason.EOS)
    starts = [len(body["prompt"]) - 4 for body in server.bodies]
    assert starts == [0, 3, 6]
    assert result.usage == {}


def test_stream_that_always_breaks_before_a_token_is_an_error_with_what_came(run):
    with (
        ScriptedServer(ids=IDS, prompt=4) as server,
        FaultyProxy(server.url, always(Mischief.SERVER_ERROR)) as proxy,
    ):
        result = one(run(proxy), replace(REQUEST, prefix_ids=IDS[:2]))
    assert (result.stop_reason, result.output_ids) == (StopReason.ERROR, IDS[:2])
    assert "500" in result.error


def test_server_that_stops_early_and_calls_it_length_is_an_error(run):
    with ScriptedServer(ids=IDS[:5], prompt=4, word="length") as server:
        result = one(run(server), REQUEST)
    assert (result.stop_reason, result.output_ids) == (StopReason.ERROR, IDS[:5])
    assert "stopped after 5 of 64 tokens" in result.error


def test_overflow_fails_one_request_only(run):
    with (
        ScriptedServer(ids=IDS, prompt=4) as server,
        FaultyProxy(server.url, first(1, Mischief.CONTEXT)) as proxy,
    ):
        engine = run(proxy, in_flight=1)
        results = list(engine.generate([REQUEST, replace(REQUEST, key="l")], GREEDY))
    assert sorted(result.stop_reason for result in results) == ["eos", "error"]


@pytest.mark.parametrize("mischief", [Mischief.NO_MODEL, Mischief.WRONG_KEY])
def test_what_no_request_can_survive_ends_the_run_after_what_came(run, mischief, monkeypatch):
    monkeypatch.setenv("TOKENBUDGET_API_KEY", "sk-very-secret-indeed")
    with (
        ScriptedServer(ids=IDS, prompt=4) as server,
        FaultyProxy(server.url, lambda number: mischief if number else None) as proxy,
    ):
        engine = run(proxy, in_flight=1)
        came = []
        stream = engine.generate([replace(REQUEST, key=str(i)) for i in range(4)], GREEDY)
        with pytest.raises(EngineError) as error:
            came.extend(stream)
    assert [result.output_ids for result in came] == [IDS]
    assert "very-secret" not in str(error.value)


class DyingServer(ScriptedServer):
    """Vanishes after three events."""

    async def _stream(self, writer, events):
        self._stop_listening()
        await super()._stream(writer, (event for event, _ in zip(events, range(3), strict=False)))


def test_no_server_left_ends_the_run_and_keeps_what_came(run):
    came = []
    with DyingServer(ids=IDS, prompt=4) as server:
        stream = run(server, in_flight=1).generate([REQUEST, replace(REQUEST, key="l")], GREEDY)
        with pytest.raises(EngineError, match="no server is left"):
            came.extend(stream)
    (result,) = came
    assert (result.output_ids, result.stop_reason) == (IDS[:3], StopReason.ERROR)
    assert "no server is left" in result.error


def test_the_other_server_takes_over(run):
    with ScriptedServer(ids=IDS, prompt=4) as one_server, ScriptedServer(ids=IDS, prompt=4) as two:
        two.die()
        engine = run(one_server, two)
        results = list(engine.generate([replace(REQUEST, key=str(i)) for i in range(6)], GREEDY))
    assert {result.output_ids for result in results} == {IDS}
    assert len(one_server.bodies) == 6


def test_samples_have_seeds_of_their_own_that_repeat(run):
    with ScriptedServer(ids=IDS, prompt=4) as server:
        engine = run(server, in_flight=1)
        sampled = Decoding(temperature=0.7, top_p=0.9, seed=5)
        wanted = [replace(REQUEST, key=str(i), sample=i) for i in range(3)]
        list(engine.generate([*wanted, replace(REQUEST, prefix_ids=IDS[:2])], sampled))
        list(engine.generate(wanted, sampled))
    seeds = [body["seed"] for body in server.bodies]
    assert len(set(seeds[:4])) == 4
    assert sorted(seeds[4:]) == sorted(
        body["seed"] for body in server.bodies[:4] if body["prompt"] == list(PROMPT)
    )
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_server_that_gives_no_ids_says_what_to_do(run):
    with (
        ScriptedServer(ids=IDS, prompt=4, gives_ids=False) as server,
        pytest.raises(EngineError, match=r"without token ids.*--server-api chat"),
    ):
        one(run(server), REQUEST)


def test_ids_cannot_be_demanded_of_a_server_that_knows_none(run):
    with ScriptedServer() as server, pytest.raises(EngineError, match="use --server-api chat"):
        run(server, facts=replace(VLLM, kind="serve", ids=False), api="ids")


def test_prompt_beyond_the_context_is_an_error_and_a_cap_beyond_it_a_mistake(run):
    with ScriptedServer(ids=IDS, prompt=4) as server:
        engine = run(server, facts=replace(VLLM, context=100))
        assert engine.context == 100
        result = one(engine, replace(REQUEST, prompt_ids=(5,) * 100))
        assert "no room for an answer" in result.error
        with pytest.raises(ValueError, match="more than the context"):
            list(engine.generate([replace(REQUEST, cap=97)], GREEDY))
    assert not server.bodies


OPENAI = replace(VLLM, kind="openai", ids=False)
DELTAS = [{"role": "assistant"}, {"reasoning_content": "\n3 + 4 = 7."}, {"content": "\n\n7"}]


def test_chat_is_counted_and_its_reasoning_put_back(run):
    usage = {"prompt_tokens": 4, "completion_tokens": 17}
    with ScriptedServer(deltas=DELTAS, usage=usage) as server:
        engine = run(server, facts=OPENAI)
        result = one(engine, replace(REQUEST, thinking=True))
        (body,) = server.bodies
    assert not engine.continues
    assert result.text == "<think>\n3 + 4 = 7.</think>\n\n7"
    assert result.counted
    assert result.usage == usage
    assert result.output_ids == (*engine.encode(result.text), UNKNOWN_ID)
    assert result.stop_reason is StopReason.EOS
    assert body["messages"] == [dict(each) for each in MESSAGES]
    assert body["chat_template_kwargs"] == {"enable_thinking": True}
    assert body["max_tokens"] == 64


def test_chat_that_was_cut_is_length_even_with_fewer_tokens_than_the_cap(run):
    """Text that is encoded again may have a token less than was generated."""
    with ScriptedServer(deltas=DELTAS[:2], word="length") as server:
        engine = run(server, facts=OPENAI)
        count = len(engine.encode("<think>\n3 + 4 = 7."))
        result = one(engine, replace(REQUEST, cap=count + 1))
    assert (result.stop_reason, result.engine_reason) == (StopReason.LENGTH, "length")
    assert len(result.output_ids) == count
    assert UNKNOWN_ID not in result.output_ids
    Trace(
        *(
            "p",
            0,
            PROMPT,
            result.output_ids,
            result.stop_reason,
            count + 1,
            result.text,
            result.offsets,
        ),
        counted=True,
    )


def test_broken_chat_begins_anew_and_is_never_an_answer(run):
    with (
        ScriptedServer(deltas=DELTAS) as server,
        FaultyProxy(server.url, first(1, Mischief.ENDS), keep=2) as proxy,
    ):
        result = one(run(proxy, facts=OPENAI), REQUEST)
        assert result.text == "<think>\n3 + 4 = 7.</think>\n\n7"
        proxy.plan = always(Mischief.MALFORMED)
        result = one(run(proxy, facts=OPENAI), REQUEST)
    assert result.stop_reason is StopReason.ERROR
    assert (result.text, result.counted) == ("<think>\n3 + 4 = 7.", True)


def test_word_for_the_end_that_is_none_is_an_error(run):
    with ScriptedServer(deltas=DELTAS, word="content_filter") as server:
        result = one(run(server, facts=OPENAI), REQUEST)
    assert result.stop_reason is StopReason.ERROR
    assert "content_filter" in result.error


def test_prompt_that_the_server_counts_otherwise_is_told_once(run):
    told = []
    with ScriptedServer(deltas=DELTAS, usage={"prompt_tokens": 9}) as server:
        engine = run(server, facts=OPENAI, say=told.append)
        list(engine.generate([replace(REQUEST, key=str(i)) for i in range(3)], GREEDY))
    (line,) = told
    assert "counts 9 tokens for a prompt that has 4" in line


def test_no_tokenizer_says_what_to_do(run):
    spec = replace(NANO, kind="server", source="http://h/v1")
    with ScriptedServer() as server:
        engine = run(server, facts=replace(OPENAI, tokenizes=False), spec=spec)
        assert engine.count("a") is None
        with pytest.raises(EngineError, match="name a tokenizer with --tokenizer"):
            engine.render(MESSAGES)


def test_asks_show_what_was_sent_and_how_it_was_refused(run):
    with ScriptedServer() as server:
        engine = run(server)
        assert isinstance(engine, Askable)
        ask = Ask(4, prompt_ids=tuple(range(3, 53)), fields={"max_tokens": 5, "no_such_field": 1})
        with FaultyProxy(server.url, always(Mischief.CONTEXT)) as proxy:
            (reply,) = run(proxy).ask([ask])
    assert reply.status == 400
    assert reply.error
    assert not reply.choices
    # Fields of the ask stand at the top level and win.
    assert (reply.sent["max_tokens"], reply.sent["no_such_field"]) == (5, 1)
    assert reply.sent["prompt"] == "[3, 4, 5, 6, 7, 8, 9, 10, ... 52] (50 ids)"
    assert reply.prompt_tokens == 50
    (refused,) = run(server, facts=OPENAI).ask([ask])
    assert "take no prompts as token ids" in refused.error


# Recorded bodies of asks


def test_reply_of_vllm():
    body = json.loads(
        '{"choices":[{"index":0,"message":{"role":"assistant","content":null,"reasoning":"\\nThere"},'
        '"finish_reason":"stop","stop_reason":null,"token_ids":[1022,201,425,2]}],'
        '"prompt_token_ids":[1,442],"usage":{"completion_tokens":4}}'
    )
    (heard,) = DIALECTS["vllm"].read_reply(body)
    assert (heard.ids, heard.prompt_ids) == ([1022, 201, 425, 2], (1, 442))
    assert (heard.content, heard.reasoning, heard.finish_reason) == ("", "\nThere", "stop")


def test_gap_in_a_stream_of_llamacpp_shows():
    lines = """
{"content":"a","tokens":[5],"stop":false,"tokens_predicted":1}
{"content":"\\u06d1","tokens":[242],"stop":false,"tokens_predicted":3}
"""
    heard = heard_of("llamacpp", lines)
    assert (heard.id_count, len(heard.ids)) == (3, 2)


def test_reply_of_llamacpp():
    tokens = [{"id": 425, "token": "There"}, {"id": 2, "token": ""}]
    choice = {"index": 0, "text": "There", "logprobs": {"content": tokens}, "finish_reason": "stop"}
    read = DIALECTS["llamacpp"].read_reply
    (heard,) = read({"choices": [choice], "usage": {"completion_tokens": 2}})
    assert (heard.ids, heard.content) == ([425, 2], "There")
    # With a stop string its list ends before the string begins: no ids are better than some.
    (heard,) = read({"choices": [choice], "usage": {"completion_tokens": 5}})
    assert heard.ids == []
