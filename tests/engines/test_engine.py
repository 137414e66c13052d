"""Generation with the embedded model: batches, caps, extension, memory."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from engine_helpers import (
    CAP,
    GREEDY,
    SAMPLED,
    SPEC,
    collect,
    ids_of,
    make_engine,
    on_forward,
    reference,
    requests,
)
from slow_cases import slow

from pytest_tokenbudget.core.engine import Decoding, EngineError
from pytest_tokenbudget.core.trace import StopReason
from pytest_tokenbudget.engines import memory
from pytest_tokenbudget.engines.transformers.batches import Batch
from pytest_tokenbudget.engines.transformers.engine import TransformersEngine


@pytest.fixture
def engine() -> Iterator[TransformersEngine]:
    engine = make_engine()
    yield engine
    engine.close()


@pytest.mark.parametrize("decoding", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize(("rows", "count"), [slow(1, 2), (8, 12), slow(32, 32)])
def test_ids_depend_on_neither_batch_nor_order(decoding, rows, count):
    wanted = reference(decoding)
    shuffled = random.Random(rows).sample(requests(32)[:count], count)
    made = collect(make_engine(batch_size=rows), shuffled, decoding)
    both = wanted.keys() & made.keys()
    assert len(both) == min(count, 12)
    assert all(made[key].output_ids == wanted[key].output_ids for key in both)


def test_outputs_have_many_lengths():
    """Otherwise the tests around this one would prove little."""
    assert len({len(done.output_ids) for done in reference(GREEDY).values()}) > 3


def test_samples_differ_and_seeds_differ():
    first = requests(2, 48)
    again = [replace(request, key=f"{request.key}/1", sample=1) for request in first]
    # The model is so sure of itself that milder sampling often gives the same text twice.
    one = ids_of(collect(make_engine(), [*first, *again], Decoding(temperature=4, seed=1)))
    two = ids_of(collect(make_engine(), first, Decoding(temperature=4, seed=2)))
    assert len(set(one.values())) == 4
    assert all(one[request.key] != two[request.key] for request in first)


@pytest.mark.parametrize("decoding", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("cap", [64, slow(128)])
def test_a_smaller_cap_gives_a_prefix(decoding, cap):
    whole = reference(decoding)
    short = collect(make_engine(), requests(12, cap), decoding)
    assert ids_of(short) == {key: done.output_ids[:cap] for key, done in whole.items()}
    for key, done in short.items():
        truncated = len(whole[key].output_ids) > cap
        assert (done.stop_reason is StopReason.LENGTH) == truncated


@pytest.mark.parametrize("decoding", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_extension_equals_one_go(decoding):
    whole = reference(decoding)
    parts = [
        replace(request, prefix_ids=whole[request.key].output_ids[: 10 + 7 * i])
        for i, request in enumerate(requests(12))
    ]
    assert ids_of(collect(make_engine(), parts, decoding)) == ids_of(whole)


def test_a_prefix_that_has_ended_is_returned_as_it_is(engine):
    whole = next(done for done in reference(GREEDY).values() if done.stop_reason is StopReason.EOS)
    ended = replace(whole.request, prefix_ids=whole.output_ids)
    full = replace(whole.request, key="full", prefix_ids=whole.output_ids[:5], cap=5)
    results = collect(engine, [ended, full])
    assert results[ended.key].stop_reason is StopReason.EOS
    assert results[ended.key].output_ids == whole.output_ids
    assert results["full"].stop_reason is StopReason.LENGTH
    assert engine._model is None


def test_end_of_sequence_exactly_at_the_cap_is_an_end(engine):
    whole = next(done for done in reference(GREEDY).values() if done.stop_reason is StopReason.EOS)
    length = len(whole.output_ids)
    assert whole.output_ids[-1] in engine.eos_ids
    exact = replace(whole.request, key="exact", cap=length)
    below = replace(whole.request, key="below", cap=length - 1)
    results = collect(engine, [exact, below])
    assert results["exact"].stop_reason is StopReason.EOS
    assert results["exact"].output_ids == whole.output_ids
    assert results["below"].stop_reason is StopReason.LENGTH
    assert results["below"].output_ids == whole.output_ids[:-1]


def test_ended_rows_leave_the_batch(engine):
    widths: list[int] = []
    on_forward(engine, lambda **given: widths.append(given["input_ids"].shape[0]))
    results = collect(engine, requests(8))
    lengths = sorted(len(done.output_ids) for done in results.values())
    assert widths[0] == 8
    assert widths == sorted(widths, reverse=True)
    # One forward pass a token, and no row is decoded after its end.
    assert len(widths) == lengths[-1]
    assert sum(widths) == sum(lengths)


def test_padding_leaves_with_the_row_that_needed_it(engine):
    short, long = sorted(requests(12, 60), key=lambda request: len(request.prompt_ids))[::11]
    long = replace(long, prompt_ids=long.prompt_ids[:1] * 60 + long.prompt_ids, cap=2)
    seen: list[tuple[int, ...]] = []
    on_forward(engine, lambda **given: seen.append(tuple(given["attention_mask"].shape)))
    results = collect(engine, [short, long])
    assert seen[:2] == [(2, len(long.prompt_ids)), (2, len(long.prompt_ids) + 1)]
    assert seen[2] == (1, len(short.prompt_ids) + 2)
    alone = collect(make_engine(), [short])
    assert results[short.key].output_ids == alone[short.key].output_ids


def test_results_come_as_rows_end(engine):
    stream = engine.generate(requests(8), GREEDY)
    first = next(stream)
    whole = reference(GREEDY)
    lengths = [len(whole[request.key].output_ids) for request in requests(8)]
    assert len(first.output_ids) == min(lengths)
    # The caller's own torch code must not find itself in inference mode.
    assert not torch.is_inference_mode_enabled()
    assert first.seconds > 0
    stream.close()


@pytest.mark.parametrize(
    ("decoding", "error"),
    [
        (GREEDY, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")),
        (SAMPLED, RuntimeError("[alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")),
    ],
    ids=["cuda-greedy", "cpu-sampled"],
)
def test_out_of_memory_loses_nothing(decoding, error):
    lines: list[str] = []
    engine = make_engine(batch_size=8, say=lines.append)
    tokens = 0

    def run_out(**given: Any) -> None:
        nonlocal tokens
        rows, width = given["attention_mask"].shape
        tokens += rows
        if rows > 4 and width > 130:
            raise error

    on_forward(engine, run_out)
    results = collect(engine, requests(12), decoding)
    whole = reference(decoding)
    assert ids_of(results) == ids_of(whole)
    assert all(results[key].stop_reason is whole[key].stop_reason for key in whole)
    assert lines
    assert all("out of memory" in line and "going on with" in line for line in lines)
    # Rows went on from where they were: each failure and each new prefill costs one pass only.
    made = sum(len(done.output_ids) for done in results.values())
    assert tokens <= made + 8 * len(lines)
    assert len(lines) == 1


def test_rows_that_ended_in_the_failing_step_are_kept(engine, monkeypatch):
    keep = Batch._keep
    failures = iter([True])

    def fail_once(self: Batch, kept: list[int]) -> None:
        if next(failures, False):
            raise torch.OutOfMemoryError("out of memory")
        keep(self, kept)

    monkeypatch.setattr(Batch, "_keep", fail_once)
    assert ids_of(collect(engine, requests(12))) == ids_of(reference(GREEDY))


def test_out_of_memory_with_one_row_says_what_to_do():
    engine = make_engine(batch_size=2)

    def run_out(**given: Any) -> None:
        if given["attention_mask"].shape[1] > 100:
            raise torch.OutOfMemoryError("CUDA out of memory")

    on_forward(engine, run_out)
    request = requests(1)[0]
    with pytest.raises(EngineError) as caught:
        collect(engine, [request])
    message = str(caught.value)
    for part in (
        SPEC.alias,
        f"prompt {len(request.prompt_ids)} tokens",
        f"cap {CAP}",
        "--budgets",
        "--quantization",
    ):
        assert part in message


def test_other_errors_are_not_taken_for_memory(engine):
    def fail(**given: Any) -> None:
        raise RuntimeError("shapes cannot be multiplied")

    on_forward(engine, fail)
    with pytest.raises(RuntimeError, match="shapes"):
        collect(engine, requests(2))


def test_stop_strings_end_a_row(engine):
    whole = reference(GREEDY)
    stop = engine.decode(whole["p0"].output_ids)[20:26]
    results = collect(engine, requests(4), Decoding(stop=(stop,)))
    done = results["p0"]
    assert done.stop_reason is StopReason.STOP
    assert stop in engine.decode(done.output_ids)
    assert stop not in engine.decode(done.output_ids[:-1])
    for key, result in results.items():
        ids = whole[key].output_ids
        assert result.output_ids == ids[: len(result.output_ids)]
        assert (result.stop_reason is StopReason.STOP) == (stop in engine.decode(ids))


def test_a_prompt_that_leaves_no_room_is_an_error_result(engine):
    fits = requests(1, 4)[0]
    wide = replace(fits, key="wide", prompt_ids=fits.prompt_ids[:1] * engine.context)
    empty = replace(fits, key="empty", prompt_ids=())
    results = collect(engine, [wide, fits, empty])
    assert results["wide"].stop_reason is StopReason.ERROR
    assert str(engine.context) in results["wide"].error
    assert SPEC.alias in results["wide"].error
    assert results["empty"].stop_reason is StopReason.ERROR
    assert len(results[fits.key].output_ids) == 4


def test_a_cap_beyond_the_context_is_the_callers_mistake(engine):
    request = replace(requests(1)[0], cap=engine.context)
    with pytest.raises(ValueError, match="more than the context"):
        collect(engine, [request])


def test_the_last_place_of_the_context_can_be_used():
    spec = replace(SPEC, context=70)
    request = replace(requests(2)[1], prompt_ids=requests(2)[1].prompt_ids[-64:], cap=6)
    assert len(request.prompt_ids) == 64
    done = collect(make_engine(spec=spec), [request])[request.key]
    assert len(done.output_ids) == 6
    assert done.stop_reason is StopReason.LENGTH


def test_close_frees_the_model_and_the_next_use_loads_it_again(engine):
    first = ids_of(collect(engine, requests(2, 8)))
    engine.close()
    assert engine._model is None
    assert ids_of(collect(engine, requests(2, 8))) == first


def test_the_cache_needs_what_is_said(engine):
    engine._load()
    cache: list[Any] = []
    on_forward(engine, lambda **given: cache.append(given["past_key_values"]))
    request = requests(1, 10)[0]
    collect(engine, [request])
    tokens = len(request.prompt_ids) + 9
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache[0].layers)
    assert held == tokens * memory.cache_bytes_a_token(engine.config, torch.float32)


def test_fewer_rows_fit_where_memory_is_short(monkeypatch):
    config = make_engine().config
    need = memory.row_bytes(config, torch.float32, 100, 600)

    def rows(free: float) -> int:
        monkeypatch.setattr(memory, "free_bytes", lambda device: int(free))
        return memory.rows_that_fit(config, torch.float32, "cpu", 100, 600)

    assert rows(0) == rows(need) == 1
    assert rows(21 * need) == 10
    assert rows(1e15) == memory.MOST_ROWS_CPU


def test_auto_batch_size_follows_memory(monkeypatch):
    monkeypatch.setattr(memory, "rows_that_fit", lambda *given: 3)
    engine = make_engine(batch_size="auto")
    widths: list[int] = []
    on_forward(engine, lambda **given: widths.append(given["input_ids"].shape[0]))
    collect(engine, requests(6, 2))
    assert set(widths) == {3}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_cuda_generates_what_the_cpu_does():
    engine = make_engine(device="cuda", dtype="float32", batch_size="auto")
    for decoding in (GREEDY, SAMPLED):
        results = collect(engine, requests(12), decoding)
        whole = reference(decoding)
        same = sum(results[key].output_ids == whole[key].output_ids for key in whole)
        # Other kernels round otherwise: a rare tie may fall the other way.
        assert same >= 10
    before = torch.cuda.memory_allocated()
    engine.close()
    assert torch.cuda.memory_allocated() < before
