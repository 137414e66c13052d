"""The in-process vLLM engine: what is pure anywhere, the rest where vLLM is installed."""

import importlib.util
import itertools
import json
import multiprocessing
import os
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from engine_helpers import GREEDY, SPEC, make_engine
from watching import Notes

from pytest_tokenbudget.core.engine import Decoding, EngineError, Request
from pytest_tokenbudget.core.probes import Ask, Askable
from pytest_tokenbudget.core.trace import StopReason
from pytest_tokenbudget.engines.sampling import request_seed
from pytest_tokenbudget.engines.vllm.engine import VllmEngine, parameters, probe_parameters
from pytest_tokenbudget.engines.vllm.process import _output_to
from pytest_tokenbudget.models.resolution import ModelSpec
from pytest_tokenbudget.tasks.word_problems import held_out

EOS = frozenset({2, 0})
CAP = 512
needs_vllm = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None,
    reason="vLLM is not installed here; tox -e vllm runs these",
)


class TestParameters:
    REQUEST = Request("key", (5, 6, 7), 64)

    def test_a_greedy_request_has_neither_seed_nor_nucleus(self):
        assert parameters(self.REQUEST, Decoding(top_p=0.5, seed=3), EOS) == {
            "max_tokens": 64,
            "temperature": 0.0,
            "stop_token_ids": [0, 2],
            "detokenize": False,
            "skip_special_tokens": False,
        }

    def test_what_is_there_already_counts_towards_the_cap(self):
        request = Request("key", (5, 6, 7), 64, prefix_ids=(8, 9))
        assert parameters(request, GREEDY, EOS)["max_tokens"] == 62

    def test_text_is_made_for_stop_strings_only(self):
        wanted = parameters(self.REQUEST, Decoding(stop=("\n\n", "#")), EOS)
        assert (wanted["stop"], wanted["detokenize"]) == (["\n\n", "#"], True)

    def test_seeds_differ_by_seed_sample_prompt_and_what_is_there(self):
        requests = [
            self.REQUEST,
            Request("key", (5, 6, 7), 64, sample=1),
            Request("key", (5, 6, 8), 64),
            Request("key", (5, 6, 7), 64, prefix_ids=(8,)),
        ]
        seeds = [
            parameters(request, Decoding(0.7, 0.9, seed), EOS)["seed"]
            for request, seed in itertools.product(requests, (0, 1))
        ]
        assert len(set(seeds)) == len(seeds)
        assert seeds[0] == parameters(self.REQUEST, Decoding(1.0, 1.0, 0), EOS)["seed"]

    def test_seeds_fit_into_31_bits(self):
        seeds = [request_seed(0, (1, 2, 3), sample) for sample in range(1000)]
        assert min(seeds) >= 0
        assert 2**30 < max(seeds) < 2**31
        assert len(set(seeds)) == 1000

    def test_fields_of_an_ask_come_before_all_else(self):
        ask = Ask(
            16, prompt_ids=(5,), n=2, seed=4, stop=("x",), fields={"top_p": 0.5, "min_p": 0.1}
        )
        assert probe_parameters(ask, EOS) == {
            "n": 2,
            "max_tokens": 16,
            "temperature": 0.0,
            "top_p": 0.5,
            "min_p": 0.1,
            "seed": 4,
            "stop": ["x"],
            "stop_token_ids": [0, 2],
        }


def test_a_gguf_file_is_refused():
    spec = ModelSpec("small", "/models/small.gguf", kind="gguf")
    with pytest.raises(EngineError, match="small: vLLM itself loads no GGUF files; use --engine"):
        VllmEngine(spec)


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_where_vllm_is_missing_the_error_says_how_to_get_it():
    engine = VllmEngine(SPEC)
    request = Request("a", engine.encode("1 + 1 ="), 4)
    project = Path(__file__).parents[2] / "pyproject.toml"
    [wanted] = tomllib.loads(project.read_text("utf-8"))["project"]["optional-dependencies"]["vllm"]
    with pytest.raises(EngineError, match=f"pip install '{wanted}'"):
        list(engine.generate([request], GREEDY))
    engine.close()


def test_only_what_vllm_writes_while_it_starts_goes_into_its_log(tmp_path, capfd):
    """Somebody shows progress on the terminal meanwhile."""
    log = tmp_path / "log"
    shown = sys.stderr
    with _output_to(log):
        shown.write("generating 0/40\n")
        os.write(1, b"40 traces to generate\n")
        print("by vLLM here")
        process = multiprocessing.get_context("spawn").Process(target=print, args=("by another",))
        process.start()
        process.join()
    print("after it")
    assert capfd.readouterr() == ("40 traces to generate\nafter it\n", "generating 0/40\n")
    assert log.read_text() == "by vLLM here\nby another\n"


@pytest.fixture(scope="module")
def engine():
    engine = VllmEngine(SPEC, dtype="float32")
    yield engine
    engine.close()
    children = psutil.Process().children(recursive=True)
    assert [child.name() for child in children if child.name().startswith("VLLM")] == []


def prompts(engine, count, thinking=False):
    problems = itertools.islice(held_out(), count)
    return [engine.render(problem.messages, thinking) for problem in problems]


def requests(engine, count, cap=CAP, sample=0):
    return [
        Request(f"p{i}-{sample}", prompt.ids, cap, sample)
        for i, prompt in enumerate(prompts(engine, count))
    ]


def collect(engine, wanted, decoding=GREEDY):
    results = {done.request.key: done for done in engine.generate(wanted, decoding)}
    assert set(results) == {request.key for request in wanted}
    return results


def ids_of(results):
    return {key: done.output_ids for key, done in results.items()}


@needs_vllm
class TestGenerate:
    def test_greedy_ids_are_those_of_transformers(self, engine):
        wanted = requests(engine, 30)
        ours = ids_of(collect(engine, wanted))
        theirs = ids_of(collect(make_engine(dtype="float32", batch_size=30), wanted))
        differing = [key for key, ids in ours.items() if ids != theirs[key]]
        # In float32 it takes two tokens that are as good as equally likely.
        assert len(differing) <= 1

    def test_ends_are_kept_and_named_by_the_ids(self, engine):
        for done in collect(engine, requests(engine, 6)).values():
            assert done.stop_reason is StopReason.EOS
            assert done.output_ids[-1] in engine.eos_ids
            assert done.engine_reason == "stop"
            assert done.seconds > 0

    def test_caps_cut_and_an_end_exactly_at_the_cap_is_an_end(self, engine):
        (whole,) = collect(engine, requests(engine, 1)).values()
        length = len(whole.output_ids)
        for cap, reason in {1: "length", length - 1: "length", length: "eos"}.items():
            (done,) = collect(engine, requests(engine, 1, cap)).values()
            assert done.output_ids == whole.output_ids[:cap]
            assert done.stop_reason == reason

    def test_what_is_there_is_gone_on_from(self, engine):
        whole = collect(engine, requests(engine, 6))
        going_on = [
            Request(key, done.request.prompt_ids, CAP, prefix_ids=done.output_ids[:20])
            for key, done in whole.items()
        ]
        assert ids_of(collect(engine, going_on)) == ids_of(whole)

    def test_ids_are_told_as_they_come(self, engine):
        wanted = requests(engine, 2, 24)
        before = ids_of(collect(engine, wanted))
        wanted = [replace(request, prefix_ids=before[request.key][:4]) for request in wanted]
        engine.watch = notes = Notes()
        try:
            after = ids_of(collect(engine, wanted))
        finally:
            engine.watch = None
        assert after == before
        for key, told in notes.told.items():
            assert told[-1] == after[key]
            assert [len(ids) for ids in told] == sorted({len(ids) for ids in told})
            assert 4 < len(told[0]) < len(told[-1])

    def test_an_output_that_has_ended_is_not_gone_on_from(self, engine):
        (whole,) = collect(engine, requests(engine, 1)).values()
        again = Request("again", whole.request.prompt_ids, CAP, prefix_ids=whole.output_ids)
        (done,) = collect(engine, [again]).values()
        assert (done.output_ids, done.stop_reason) == (whole.output_ids, StopReason.EOS)

    def test_the_context_can_be_filled_to_its_last_token(self, engine):
        prompt = tuple(itertools.islice(itertools.cycle(range(300, 340)), engine.context - 3))
        (done,) = collect(engine, [Request("long", prompt, 3)]).values()
        assert len(done.output_ids) == 3 or done.stop_reason is StopReason.EOS
        with pytest.raises(ValueError, match="more than the context"):
            list(engine.generate([Request("long", prompt, 4)], GREEDY))

    def test_samples_differ_and_repeat(self, engine):
        wanted = [request for sample in (0, 1) for request in requests(engine, 8, 96, sample)]
        # The model is so sure of itself that less heat gives the same twice.
        hot = Decoding(temperature=2.0, seed=5)
        once = ids_of(collect(engine, wanted, hot))
        assert ids_of(collect(engine, wanted[::-1], hot)) == once
        assert sum(once[f"p{i}-0"] != once[f"p{i}-1"] for i in range(8)) >= 4
        assert ids_of(collect(engine, wanted, replace(hot, seed=6))) != once

    def test_stop_strings_end_where_they_do_elsewhere(self, engine):
        wanted = requests(engine, 6)
        decoding = Decoding(stop=(" = ", "####"))
        ours = collect(engine, wanted, decoding)
        theirs = collect(make_engine(dtype="float32"), wanted, decoding)
        assert ids_of(ours) == ids_of(theirs)
        assert {key: done.stop_reason for key, done in ours.items()} == {
            key: done.stop_reason for key, done in theirs.items()
        }
        assert StopReason.STOP in {done.stop_reason for done in ours.values()}

    def test_stopping_early_leaves_an_engine_that_works(self, engine):
        results = engine.generate(requests(engine, 12), GREEDY)
        next(results)
        results.close()
        assert len(collect(engine, requests(engine, 2))) == 2


@needs_vllm
class TestAsk:
    def test_it_can_be_asked(self, engine):
        assert isinstance(engine, Askable)
        assert engine.engine_name == "vllm"
        assert engine.count("1 + 1") == len(engine.encode("1 + 1"))

    def test_messages_and_ids_give_the_same(self, engine):
        (problem,) = itertools.islice(held_out(), 1)
        prompt = engine.render(problem.messages, True)
        replies = engine.ask(
            [
                Ask(64, messages=problem.messages, template={"enable_thinking": True}),
                Ask(64, prompt_ids=prompt.ids),
            ],
            at_once=2,
        )
        assert [reply.error for reply in replies] == ["", ""]
        (first,), (second,) = (reply.choices for reply in replies)
        assert first == second
        assert first.ids is not None
        assert first.text == engine.decode(first.ids)
        assert replies[0].prompt_tokens == len(prompt.ids)

    def test_a_thinking_budget_is_kept(self, engine):
        thinking = SPEC.thinking
        messages = [problem.messages for problem in itertools.islice(held_out(), 8)]
        switch = {thinking.switch: True}
        free = engine.ask([Ask(CAP, each, template=switch) for each in messages], 8)
        held = engine.ask(
            [
                Ask(CAP, each, template=switch, fields={"thinking_token_budget": 5})
                for each in messages
            ],
            8,
        )
        closing = engine.encode(thinking.close)

        def thought(reply):
            (choice,) = reply.choices
            ids = choice.ids
            ends = [i for i in range(len(ids)) if ids[i : i + len(closing)] == closing]
            return ends[0] if ends else len(ids)

        assert [reply.error for reply in held] == [""] * 8
        assert max(map(thought, held)) <= 8 < max(map(thought, free))

    def test_what_vllm_does_not_take_is_in_the_reply(self, engine):
        ids = engine.encode("1 + 1 =")
        unknown, wrong, long, good = engine.ask(
            [
                Ask(4, prompt_ids=ids, fields={"no_such_field": 1}),
                Ask(4, prompt_ids=ids, temperature=-1.0),
                Ask(4, prompt_ids=ids * (engine.context // len(ids) + 1)),
                Ask(4, prompt_ids=ids, n=2, temperature=1.0, seed=1),
            ]
        )
        assert "no_such_field" in unknown.error
        assert "temperature" in wrong.error
        assert str(engine.context) in long.error
        assert unknown.refused
        assert wrong.refused
        assert long.refused
        assert len(json.dumps(long.sent)) < 1000
        assert (good.error, len(good.choices)) == ("", 2)


@needs_vllm
def test_an_unknown_architecture_is_named(tmp_path):
    for name in os.listdir(SPEC.source):
        (tmp_path / name).symlink_to(os.path.join(SPEC.source, name))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").unlink()
    config["architectures"] = ["NeverHeardOfForCausalLM"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    strange = VllmEngine(ModelSpec("strange", str(tmp_path), kind="directory"), dtype="float32")
    request = Request("a", strange.encode("1 + 1 ="), 4)
    with pytest.raises(EngineError, match=r"model strange: this vLLM does not know its archit"):
        list(strange.generate([request], GREEDY))
    strange.close()
