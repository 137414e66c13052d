"""How long it takes to cut, judge and analyse a study of GSM8K's size with long answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import synthetic
from benchmarks.conftest import GSM8K_SIZE, Benchmark, Sizes
from benchmarks.test_store import fill
from pytest_tokenbudget.core.store import TraceStore
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.tasks.base import Task
from pytest_tokenbudget.tasks.problem import Problem

MOST_SECONDS = 10.0
MOST_SECONDS_BY_TOKEN = 3.0


class Material:
    """Problems with their traces, as loaded from a store; gives a fresh study each time."""

    def __init__(self, task: Task, problems: tuple[Problem, ...], loaded: object) -> None:
        self.task, self.problems, self.loaded = task, problems, loaded

    def study(self, budgets: tuple[int, ...]) -> Study:
        return synthetic.study(self.task, self.problems, self.loaded, budgets)


@pytest.fixture(scope="module")
def material(sizes: Sizes, tmp_path_factory: pytest.TempPathFactory) -> Material:
    """Traces up to the largest budget, one a problem."""
    task, problems = synthetic.task_of(sizes.problems(GSM8K_SIZE))
    written = synthetic.traces(problems, max(sizes.settings.budgets))
    path: Path = tmp_path_factory.mktemp("store") / "traces.sqlite"
    store = TraceStore(path, "run", "owner")
    try:
        fill(store, written)
        loaded = store.load(synthetic.names(problems), synthetic.prompts(problems))
    finally:
        store.close()
    return Material(task, problems, loaded)


def test_cut_and_judge(benchmark: Benchmark, sizes: Sizes, material: Material) -> None:
    """Every trace cut at every budget, and every cut judged."""
    budgets = sizes.settings.budgets

    def work(study: Study) -> int:
        return sum(judged.correct for budget in budgets for judged in study.judged(budget))

    correct = benchmark.pedantic(
        work, setup=lambda: ((material.study(budgets),), {}), rounds=3, warmup_rounds=1
    )
    cuts = len(budgets) * len(material.problems)
    benchmark.extra_info |= {
        "cuts": cuts,
        "cuts_a_second": cuts / benchmark.stats.stats.median,
        "expected_seconds": MOST_SECONDS,
    }
    assert 0 < correct < cuts
    if sizes.judged:
        assert benchmark.stats.stats.median <= MOST_SECONDS


def test_curve_and_saturation(benchmark: Benchmark, sizes: Sizes, material: Material) -> None:
    """The statistics of a study whose cuts are judged: intervals, paired tests."""
    budgets = sizes.settings.budgets

    def judged() -> tuple[tuple[Study], dict[str, object]]:
        study = material.study(budgets)
        for budget in budgets:
            study.judged(budget)
        return (study,), {}

    def work(study: Study) -> str:
        return f"{study.curve.at(budgets[-1]).accuracy.value:.3f} {study.saturation.sentence()}"

    sentence = benchmark.pedantic(work, setup=judged, rounds=1, warmup_rounds=1)
    benchmark.extra_info["result"] = sentence


def test_accuracy_at_every_token(benchmark: Benchmark, sizes: Sizes, material: Material) -> None:
    """The line in the figure between the budgets: every token count of every trace."""
    budgets = sizes.settings.budgets
    tokens, accuracy = benchmark.pedantic(
        lambda study: study.accuracy_by_token(),
        setup=lambda: ((material.study(budgets),), {}),
        rounds=1,
    )
    benchmark.extra_info |= {
        "token_counts": len(material.problems) * len(tokens),
        "expected_seconds": MOST_SECONDS_BY_TOKEN,
    }
    study = material.study(budgets)
    for budget in budgets:
        assert accuracy[budget - 1] == pytest.approx(study.curve.at(budget).accuracy.value)
    if sizes.judged:
        assert benchmark.stats.stats.total <= MOST_SECONDS_BY_TOKEN
