"""How fast windows are made: one for each conversation, the renderings at hand."""

from __future__ import annotations

import time

import pytest

from benchmarks.conftest import Benchmark, Sizes
from pytest_tokenbudget.context.window import Chat, ContextWindow
from pytest_tokenbudget.context.window_strategies import STRATEGIES
from pytest_tokenbudget.context.window_summary import named_strategy
from pytest_tokenbudget.engines.text import ModelText
from pytest_tokenbudget.models.resolution import DEFAULT_MODEL, load_catalogue
from pytest_tokenbudget.tasks.problem import Problem
from pytest_tokenbudget.tasks.registry import load_task

CONVERSATIONS = 200
LEAST_A_SECOND = 1000


def summary(_: object) -> str:
    """Written at no cost, as one that is stored."""
    return "They talked about many things, and nobody was in a hurry."


@pytest.fixture(scope="module")
def text() -> ModelText:
    """The embedded model's template and tokenizer."""
    return ModelText(load_catalogue()[DEFAULT_MODEL])


# Of the processor's time: nothing here waits.
@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("rendered", ["remembered", "anew"])
@pytest.mark.parametrize("name", [*STRATEGIES, "summary"])
def test_windows(
    benchmark: Benchmark, sizes: Sizes, text: ModelText, name: str, rendered: str
) -> None:
    """Conversations of 6 to 50 messages, cut to three quarters of their length."""
    count = sizes.problems(CONVERSATIONS)
    problems = load_task("recall").problems(count)
    strategy = named_strategy(name, summary)

    def fresh() -> Chat:
        return Chat(text.render, text.decode_prompt, remembered=50 * count)

    whole = fresh()
    limits = [len(whole.render(problem.messages).ids) * 3 // 4 for problem in problems]

    def windows(chat: Chat, problems: tuple[Problem, ...]) -> int:
        return sum(
            ContextWindow.of_messages(
                problem.messages, chat, limit=limit, strategy=strategy
            ).dropped.tokens
            for problem, limit in zip(problems, limits, strict=True)
        )

    if rendered == "remembered":
        windows(whole, problems)
    dropped = benchmark.pedantic(
        windows,
        setup=lambda: ((whole if rendered == "remembered" else fresh(), problems), {}),
        rounds=5 if rendered == "remembered" else 1,
    )
    speed = count / benchmark.stats.stats.min
    benchmark.extra_info |= {"windows_a_second": speed}
    assert dropped > 0
    if rendered == "remembered":
        benchmark.extra_info["expected_a_second"] = LEAST_A_SECOND
        if sizes.judged:
            assert speed >= LEAST_A_SECOND
