"""How much memory a study of GSM8K's size with long answers needs, beside what is imported."""

from __future__ import annotations

import importlib
import multiprocessing
import resource
import sys
from pathlib import Path

from benchmarks import synthetic
from benchmarks.conftest import GSM8K_SIZE, Benchmark, Sizes
from benchmarks.test_store import fill
from pytest_tokenbudget.core.store import TraceStore


def peak_megabytes() -> float:
    """The most memory that this process has had."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def report(path: Path, count: int, budgets: tuple[int, ...]) -> dict[str, float]:
    """Load, judge and analyse a study in this process, and say what memory that took."""
    task, problems = synthetic.task_of(count)
    for module in ("scipy.optimize", "scipy.special", "scipy.stats"):
        importlib.import_module(module)  # as part of the start, not of the study
    before = peak_megabytes()
    store = TraceStore(path, "run", "reader")
    try:
        loaded = store.load(synthetic.names(problems), synthetic.prompts(problems))
    finally:
        store.close()
    after_load = peak_megabytes()
    study = synthetic.study(task, problems, loaded, budgets)
    assert study.curve.points
    assert study.saturation
    return {
        "imports_mb": before,
        "load_mb": after_load - before,
        "study_mb": peak_megabytes() - before,
    }


def test_memory(benchmark: Benchmark, sizes: Sizes, tmp_path: Path) -> None:
    """Peak memory of loading a study and judging it at all budgets, in a process of its own."""
    count, budgets = sizes.problems(GSM8K_SIZE), sizes.settings.budgets
    _, problems = synthetic.task_of(count)
    written = synthetic.traces(problems, max(budgets))
    store = TraceStore(tmp_path / "traces.sqlite", "run", "owner")
    fill(store, written)
    store.close()

    def measure() -> dict[str, float]:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.apply(report, (tmp_path / "traces.sqlite", count, budgets))

    found = benchmark.pedantic(measure, rounds=1)
    tokens = sum(len(one.result.output_ids) for one in written)
    benchmark.extra_info |= {"traces": count, "tokens": tokens, **found}
