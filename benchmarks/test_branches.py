"""What it saves that forced answers share their prefill, against prefilling each of them anew."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from typing import Any

import pytest

from benchmarks.conftest import Benchmark, Sizes
from pytest_tokenbudget.core.engine import Decoding, Request
from pytest_tokenbudget.engines.transformers.engine import TransformersEngine
from pytest_tokenbudget.models.resolution import ModelSpec, load_catalogue, resolve_model
from pytest_tokenbudget.tasks.registry import load_task

BUDGETS = (0, 32, 64, 96, 128, 192)
THINKING_CAP = 512
ROUNDS = 5
LEAST_SAVING = 2.0


class Measured:
    """An engine, and how many tokens it fed to its model, padding not counted."""

    def __init__(self, spec: ModelSpec, shares: bool) -> None:
        self.engine = TransformersEngine(spec, shares=shares)
        self.engine.rows(1, 1)  # loads the weights
        self.fed = 0
        model: Any = self.engine._model
        forward = model.forward

        @functools.wraps(forward)
        def counted(**given: Any) -> Any:
            width = given["input_ids"].shape[1]
            self.fed += int(given["attention_mask"][:, -width:].sum())
            return forward(**given)

        model.forward = counted

    def run(self, requests: Sequence[Request]) -> dict[str, tuple[int, ...]]:
        """Output ids by key."""
        self.fed = 0
        results = self.engine.generate(requests, Decoding())
        return {result.request.key: result.output_ids for result in results}

    def prefilled(self, results: dict[str, tuple[int, ...]]) -> int:
        """Tokens of the last run that were not fed one by one as they were generated."""
        return self.fed - sum(len(ids) - 1 for ids in results.values())


def forced_answers(
    engine: TransformersEngine, sizes: Sizes, budgets: Sequence[int], cap: int
) -> list[Request]:
    """Requests as the thinking eval makes them: thinking that goes on at a budget is closed."""
    thinking = engine.spec.thinking
    if thinking is None:
        pytest.skip(f"model {engine.spec.alias} does not think")
    problems = load_task(sizes.settings.task).problems(sizes.problems(20))
    prompts = [
        Request(problem.id, engine.render(problem.messages, True).ids, THINKING_CAP)
        for problem in problems
    ]
    requests = []
    for trace in engine.generate(prompts, Decoding()):
        for budget in budgets:
            head = trace.output_ids[:budget]
            if len(trace.output_ids) <= budget or thinking.close in engine.decode(head):
                continue
            requests += [
                Request(
                    f"{trace.request.key}/{budget}/{closer.name}",
                    trace.request.prompt_ids + head + engine.encode(closer.text),
                    cap,
                )
                for closer in thinking.closers[:2]
            ]
    return requests


@pytest.mark.parametrize("cap", [1, 64])
def test_forced_answers(benchmark: Benchmark, sizes: Sizes, cap: int) -> None:
    """Tokens prefilled and time; with a cap of 1 the time is that of the prefill alone."""
    spec = resolve_model(sizes.settings.models[0], load_catalogue())
    shared, anew = Measured(spec, shares=True), Measured(spec, shares=False)
    budgets = BUDGETS if sizes.judged else sizes.settings.budgets
    requests = forced_answers(anew.engine, sizes, budgets, cap)
    expected = anew.run(requests)
    tokens_anew = anew.prefilled(expected)
    assert tokens_anew == sum(len(request.prompt_ids) for request in requests)
    seconds_anew: list[float] = []

    def run_anew() -> None:
        # In turns with what is measured, so that both find the machine equally busy.
        started = time.perf_counter()
        anew.run(requests)
        seconds_anew.append(time.perf_counter() - started)

    results = benchmark.pedantic(
        shared.run,
        args=(requests,),
        setup=run_anew,
        rounds=ROUNDS if sizes.judged else 1,
        warmup_rounds=1,
    )
    tokens = shared.prefilled(results)
    seconds = benchmark.stats.stats.min
    benchmark.extra_info |= {
        "rows": len(requests),
        "tokens_prefilled": tokens,
        "tokens_prefilled_anew": tokens_anew,
        "tokens_ratio": tokens_anew / tokens,
        "seconds": seconds,
        "seconds_anew": min(seconds_anew),
        "seconds_ratio": min(seconds_anew) / seconds,
        "same_answers": sum(results[key] == ids for key, ids in expected.items()) / len(requests),
    }
    shared.engine.close()
    anew.engine.close()
    if sizes.judged:
        assert tokens_anew / tokens >= LEAST_SAVING
