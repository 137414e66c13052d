"""Prompts that begin alike are prefilled once, and nothing else changes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers
from engine_helpers import GREEDY, SAMPLED, Ids, collect, ids_of, make_engine, on_forward
from hypothesis import given
from hypothesis import strategies as st
from slow_cases import slow

from pytest_tokenbudget.core.engine import Decoding, Generated, Request
from pytest_tokenbudget.engines import memory
from pytest_tokenbudget.engines.rows import BatchRow
from pytest_tokenbudget.engines.transformers.batches import Batch
from pytest_tokenbudget.engines.transformers.engine import TransformersEngine
from pytest_tokenbudget.engines.transformers.shared_prefixes import (
    LEAST_SAVED,
    can_branch,
    family_order,
    share,
)
from pytest_tokenbudget.tasks.registry import load_task

BUDGETS = (0, 1, 8, 20, 32, 50, 70)
CLOSERS = (
    "\n</think>\n\n",
    "\n\n Considering the limited time by the user, I have to give the solution based on the "
    "thinking directly now.\n</think>\n\n",
)


@functools.cache
def forced(problems: int = 5, cap: int = 24) -> tuple[Request, ...]:
    """Forced answers of real thinking, at every budget and with closers of two lengths."""
    engine = make_engine()
    prompts = [
        Request(problem.id, engine.render(problem.messages, True).ids, max(BUDGETS))
        for problem in load_task("word-problems").problems(problems)
    ]
    thinking = ids_of(collect(engine, prompts))
    return tuple(
        Request(
            f"{prompt.key}/{budget}/{i}",
            prompt.prompt_ids + thinking[prompt.key][:budget] + engine.encode(closer),
            cap,
        )
        for prompt in prompts
        for budget in BUDGETS
        for i, closer in enumerate(CLOSERS)
    )


@functools.cache
def prefilled_anew(decoding: Decoding) -> tuple[dict[str, Generated], int]:
    """The forced answers of an engine that shares nothing, and the tokens of its passes."""
    engine = make_engine(batch_size=70, shares=False)
    tokens = fed(engine)
    return collect(engine, forced(), decoding), sum(tokens)


def anew(wanted: Sequence[Request]) -> Ids:
    """What an engine that shares nothing answers to some of the forced requests."""
    results, _ = prefilled_anew(GREEDY)
    return {request.key: results[request.key].output_ids for request in wanted}


def fed(engine: TransformersEngine) -> list[int]:
    """Tokens of every forward pass, padding not counted; filled while the engine works."""
    tokens: list[int] = []

    def note(**given: Any) -> None:
        width = given["input_ids"].shape[1]
        tokens.append(int(given["attention_mask"][:, -width:].sum()))

    on_forward(engine, note)
    return tokens


@pytest.mark.parametrize("size", [slow(70), 16, slow(7)])
@pytest.mark.parametrize("decoding", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_forced_answers_are_those_of_prompts_prefilled_anew(decoding, size):
    wanted = forced()
    shared = make_engine(batch_size=size)
    with_ = fed(shared)
    expected, without = prefilled_anew(decoding)
    assert ids_of(collect(shared, wanted, decoding)) == ids_of(expected)
    assert len(set(ids_of(expected).values())) > len(wanted) / 4
    decoded = sum(len(done.output_ids) - 1 for done in expected.values())
    assert without - decoded == sum(len(request.prompt_ids) for request in wanted)
    assert sum(with_) - decoded < (1 - LEAST_SAVED) * (without - decoded)


def test_a_forced_answer_is_the_one_it_would_be_alone():
    wanted = forced()[:14]
    alone = {}
    engine = make_engine(batch_size=1)
    for request in wanted:
        alone |= ids_of(collect(engine, [request]))
    assert ids_of(collect(make_engine(batch_size=14), wanted)) == alone


def test_a_problem_is_prefilled_once_and_each_answer_its_closer():
    wanted = forced(1, 1)
    engine = make_engine(batch_size=len(wanted))
    tokens = fed(engine)
    collect(engine, wanted)
    closer = len(engine.encode(CLOSERS[1]))
    longest = max(len(request.prompt_ids) for request in wanted)
    assert tokens == [longest - closer, closer * len(wanted)]


def test_samples_of_a_prompt_share_all_but_its_last_token():
    [first, *_] = forced(1)
    wanted = [replace(first, key=str(i), sample=i) for i in range(6)]
    decoding = replace(SAMPLED, temperature=4)
    engine = make_engine()
    tokens = fed(engine)
    results = ids_of(collect(engine, wanted, decoding))
    assert tokens[:2] == [len(first.prompt_ids) - 1, 6]
    assert len(set(results.values())) == 6
    assert results == ids_of(collect(make_engine(shares=False), wanted, decoding))


def test_stems_share_what_they_begin_with():
    """Few-shot examples before several problems, each with several forced answers."""
    examples = forced(5)[-1].prompt_ids * 2
    wanted = [
        replace(request, prompt_ids=examples + request.prompt_ids, cap=8) for request in forced(3)
    ]
    engine = make_engine(batch_size=len(wanted))
    tokens = fed(engine)
    results = ids_of(collect(engine, wanted))
    # The examples, then the problems, then the closers.
    assert len(tokens) == 3 + 7
    assert len(examples) <= tokens[0] < 1.25 * len(examples)
    assert results == ids_of(collect(make_engine(shares=False), wanted))


def test_a_prompt_shorter_than_the_closers_comes_along():
    short = Request("short", forced()[0].prompt_ids[:4], 12)
    wanted = [*forced(2, 12), short]
    engine = make_engine(batch_size=len(wanted))
    tokens = fed(engine)
    shared = ids_of(collect(engine, wanted))
    assert tokens[0] < sum(len(request.prompt_ids) for request in wanted) / 2
    assert shared == ids_of(collect(make_engine(shares=False), wanted))


def test_traces_are_extended_from_what_they_share():
    wanted = forced(2)
    whole = anew(wanted)
    parts = [
        replace(request, prefix_ids=whole[request.key][: i % 4]) for i, request in enumerate(wanted)
    ]
    engine = make_engine(batch_size=len(parts))
    tokens = fed(engine)
    assert ids_of(collect(engine, parts)) == whole
    assert tokens[0] < sum(len(request.prompt_ids) for request in parts) / 2


@pytest.mark.parametrize("failing", [1, 2, 6], ids=["stems", "tails", "decoding"])
def test_out_of_memory_loses_nothing(failing):
    lines: list[str] = []
    engine = make_engine(batch_size=28, say=lines.append)
    passes = 0

    def run_out(**given: Any) -> None:
        nonlocal passes
        passes += 1
        if passes == failing:
            raise torch.OutOfMemoryError("CUDA out of memory")

    on_forward(engine, run_out)
    wanted = forced(4)
    assert ids_of(collect(engine, wanted)) == anew(wanted)
    assert len(lines) == 1


def test_the_cache_holds_no_more_than_rows_prefilled_anew_would():
    engine = make_engine(batch_size=28)
    held: list[tuple[int, int]] = []

    def note(**given: Any) -> None:
        cache = given["past_key_values"]
        # Storages, not views: a view on the stems' keys would keep all of them.
        sizes = [
            keys.untyped_storage().nbytes()
            for layer in cache.layers
            if layer.is_initialized
            for keys in (layer.keys, layer.values)
        ]
        held.append((sum(sizes), given["attention_mask"].shape[1] - given["input_ids"].shape[1]))

    on_forward(engine, note)
    collect(engine, forced(2))
    a_token = memory.cache_bytes_a_token(engine.config, torch.float32)
    assert held[0] == (0, 0)
    assert held[1][1] > 0
    assert all(size <= 28 * width * a_token for size, width in held)


def test_prompts_with_little_in_common_go_the_ordinary_way():
    wanted = [
        Request(str(i), request.prompt_ids[i:], 2)
        for i, request in enumerate(forced()[:: 2 * len(BUDGETS)])
    ]
    engine = make_engine()
    tokens = fed(engine)
    collect(engine, wanted)
    assert tokens[0] == sum(len(request.prompt_ids) for request in wanted)


# --- finding what is shared ------------------------------------------------------------------


def tree(prompt: int, budgets: Sequence[int], closers: Sequence[int], at: int) -> list[Any]:
    """Rows of one problem: numbers that no other problem and no other closer has."""
    text = tuple(range(at, at + prompt + max(budgets)))
    return [
        text[: prompt + budget] + tuple(range(90_000 + 100 * i, 90_000 + 100 * i + closer))
        for budget in budgets
        for i, closer in enumerate(closers)
    ]


def test_the_longest_closer_is_the_tail():
    rows = tree(40, (0, 32, 64), (3, 20), 0) + tree(60, (0, 64), (3, 20), 1000)
    sharing = share(rows)
    assert sharing is not None
    assert sharing.tail == 20
    assert [len(stem) for stem in sharing.stems] == [124, 104]
    assert sharing.stem_of == (1, 1, 1, 1, 1, 1, 0, 0, 0, 0)
    assert sharing.heads == tuple(len(row) - 20 for row in rows)


def test_rows_of_a_problem_stay_together_and_the_longest_problem_is_first():
    rows = tree(40, (0, 32, 64), (3, 20), 0) + tree(60, (0, 64), (3, 20), 1000)
    order = family_order(rows)
    assert sorted(order) == list(range(10))
    assert [i > 5 for i in order] == [True] * 4 + [False] * 6
    assert [len(rows[i]) for i in order[4:]] == sorted(map(len, rows[:6]), reverse=True)
    assert family_order([(1,), (2, 3, 4), (5, 6)]) == [1, 2, 0]


def test_sharing_must_spare_a_quarter():
    def pair(alike: int) -> list[tuple[int, ...]]:
        return [tuple(range(100)), (*range(alike), *range(500, 600 - alike))]

    assert share(pair(49)) is None
    sharing = share(pair(50))
    assert sharing is not None
    assert (sharing.tail, len(sharing.stems)) == (50, 1)
    assert share([(1, 2, 3)]) is None


@given(
    st.lists(
        st.lists(st.integers(0, 2), min_size=1, max_size=12).map(tuple), min_size=1, max_size=8
    )
)
def test_every_head_is_the_beginning_of_its_stem(rows):
    sharing = share(rows)
    if sharing is None:
        return
    heads = [row[: max(0, len(row) - sharing.tail)] for row in rows]
    assert sharing.tail >= 1
    assert sharing.heads == tuple(map(len, heads))
    for head, stem in zip(heads, sharing.stem_of, strict=True):
        assert sharing.stems[stem][: len(head)] == head
    assert set(sharing.stems) <= set(heads)
    assert max(map(len, sharing.stems)) == len(sharing.stems[0]) == max(map(len, heads)) > 0
    tokens = sum(map(len, sharing.stems)) + sum(min(sharing.tail, len(row)) for row in rows)
    assert tokens <= (1 - LEAST_SAVED) * sum(map(len, rows))


# --- other architectures ---------------------------------------------------------------------

SMALL = {"vocab_size": 200, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA_LIKE = SMALL | {"intermediate_size": 64, "num_key_value_heads": 2}
PLAIN = {
    "rotary, grouped heads": lambda: transformers.LlamaConfig(**LLAMA_LIKE),
    "learned positions": lambda: transformers.GPT2Config(
        vocab_size=200, n_embd=32, n_layer=2, n_head=4
    ),
    "alibi": lambda: transformers.FalconConfig(**SMALL, alibi=True),
}
OTHERS = {
    "sliding windows": lambda: transformers.MistralConfig(**LLAMA_LIKE, sliding_window=8),
    "some sliding windows": lambda: transformers.Gemma3TextConfig(
        **LLAMA_LIKE, head_dim=8, sliding_window=8, layer_types=["sliding_attention"] * 2
    ),
}


def first_logits(model: Any, shares: bool) -> tuple[torch.Tensor, list[int]]:
    """Logits after each row's last token, and the rows of each forward pass."""
    rows = tree(7, (0, 5, 30), (2, 6), 0) + tree(12, (3, 9), (2, 6), 60)
    rows = [tuple(id_ % 199 for id_ in row) for row in rows]
    passes: list[int] = []
    forward = model.forward

    @functools.wraps(forward)
    def noted(**given: Any) -> Any:
        passes.append(given["input_ids"].shape[0])
        return forward(**given)

    model.forward = noted
    try:
        made = [
            BatchRow(Request(str(i), row, 4), GREEDY, frozenset(), str)
            for i, row in enumerate(rows)
        ]
        batch = Batch(model, made, 0, shares)
        with torch.inference_mode():
            return batch._forward(batch._input, batch._mask), passes
    finally:
        model.forward = forward


def small_model(config: Any) -> Any:
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float64)
    for weight in model.parameters():
        # As they come, so small that a misplaced token would hardly be seen.
        torch.nn.init.normal_(weight, std=0.3)
    return model.eval()


@pytest.mark.parametrize("kind", PLAIN)
def test_logits_are_those_of_rows_prefilled_anew(kind):
    model = small_model(PLAIN[kind]())
    anew, one = first_logits(model, shares=False)
    shared, two = first_logits(model, shares=True)
    assert (one, two) == ([10], [2, 10])
    assert torch.allclose(anew, shared, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", OTHERS)
def test_caches_that_forget_are_filled_anew(kind):
    model = small_model(OTHERS[kind]())
    assert not can_branch(transformers.DynamicCache(config=model.config))
    anew, one = first_logits(model, shares=False)
    shared, two = first_logits(model, shares=True)
    assert one == two == [10]
    assert torch.equal(anew, shared)
