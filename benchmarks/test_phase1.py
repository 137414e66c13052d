"""What one generation for all budgets saves, and what the suite costs beside its engine.

Both run the model of ``--model``, the embedded one by default.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from benchmarks.conftest import Benchmark, Sizes
from pytest_tokenbudget.core.engine import Decoding, Engine, Generated, Request
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.engines.makers import make_transformers_engine
from pytest_tokenbudget.session import Session
from pytest_tokenbudget.settings.config_file import UserConfig
from pytest_tokenbudget.settings.options import Settings

LEAST_SAVING = 3.0
MOST_OVERHEAD = 1.15
ROOT = Path(__file__).parent.parent


class Counting:
    """An engine that counts the tokens it decodes."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.tokens = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.engine, name)

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> Iterator[Generated]:
        for result in self.engine.generate(requests, decoding):
            self.tokens += len(result.output_ids) - len(result.request.prefix_ids)
            yield result

    def close(self) -> None:
        """Keep the model for the next measurement."""


class Phase1:
    """Phase 1 of one model, with one loaded engine for everything that is measured."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.engine: Counting | None = None

    def make_engine(self, *how: Any) -> Engine:
        if self.engine is None:
            self.engine = Counting(make_transformers_engine(*how))
        return cast(Engine, self.engine)

    def study(self, directory: Path) -> Study:
        """Everything from the options to judged cuts, into a fresh store."""
        settings = dataclasses.replace(self.settings, trace_store=directory / "traces.sqlite")
        session = Session(settings, UserConfig(), directory.name, self.make_engine)
        try:
            study = session.study(session.specs[0])
            assert study.curve.points
        finally:
            session.close()
        return study


def test_one_pass(benchmark: Benchmark, sizes: Sizes, tmp_path: Path) -> None:
    """Tokens and time of phase 1 against one generation a budget with the same engine."""
    settings = sizes.settings
    if settings.num_samples is None:
        settings = dataclasses.replace(settings, num_samples=100)
    # Nothing that happens once, such as loading the weights, is part of what is compared.
    warm = dataclasses.replace(settings, num_samples=1, budgets=(8,))
    phase1 = Phase1(warm)
    phase1.study(tmp_path / "warm")
    engine = phase1.engine
    assert engine is not None
    phase1.settings, engine.tokens = settings, 0

    study = benchmark.pedantic(phase1.study, args=(tmp_path / "one",), rounds=1)
    tokens, seconds = engine.tokens, benchmark.stats.stats.total
    engine.tokens = 0
    same, started = 0, time.perf_counter()
    for budget in study.budgets:
        requests = [
            Request(trace.problem_id, trace.prompt_ids, budget) for trace in study.traces.values()
        ]
        for result in engine.generate(requests, study.decoding):
            whole = study.traces[result.request.key, 0].output_ids
            same += result.output_ids == whole[:budget]
    separate = time.perf_counter() - started
    benchmark.extra_info |= {
        "problems": len(study.problems),
        "budgets": list(study.budgets),
        "tokens": tokens,
        "tokens_a_budget_each": engine.tokens,
        "tokens_ratio": engine.tokens / tokens,
        "seconds": seconds,
        "seconds_a_budget_each": separate,
        "seconds_ratio": separate / seconds,
        "cuts_equal_to_generations": same / (len(study.traces) * len(study.budgets)),
    }
    engine.engine.close()
    if sizes.judged:
        assert engine.tokens / tokens >= LEAST_SAVING


def test_suite_over_engine(benchmark: Benchmark, sizes: Sizes, tmp_path: Path) -> None:
    """Wall time of the whole command over that of the bare engine for the same traces.

    Both are processes of their own that import and load everything.
    """
    settings = sizes.settings
    model = settings.models[0]
    count = str(sizes.problems(400))
    reports = tmp_path / "reports"
    what = ["--model", model, "--task", settings.task, "--num-samples", count]
    suite = [sys.executable, "-m", "pytest", "evals", "-m", "phase1", "-q", *what]
    suite += ["--budgets", ",".join(map(str, settings.budgets)), "--reports", str(reports)]

    def run(command: list[str]) -> str:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.fail(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}", pytrace=False)
        return done.stdout

    benchmark.pedantic(run, args=(suite,), rounds=1)
    seconds = benchmark.stats.stats.total
    [combined] = (reports / "results").glob("phase1_combined_*.json")
    record = json.loads(combined.read_text(encoding="utf-8"))
    cap = str(max(record["budgets"]))
    bare = [sys.executable, "-m", "benchmarks.bare_engine", *what, "--cap", cap]
    started = time.perf_counter()
    alone = json.loads(run(bare).splitlines()[-1])
    bare_seconds = time.perf_counter() - started
    benchmark.extra_info |= {
        "traces": alone["traces"],
        "tokens": alone["tokens"],
        "seconds": seconds,
        "bare_engine_seconds": bare_seconds,
        "bare_engine_generating_seconds": alone["seconds"],
        "ratio": seconds / bare_seconds,
    }
    assert record["tokens"]["generated_this_run"] == alone["tokens"]
    if sizes.judged:
        assert seconds / bare_seconds <= MOST_OVERHEAD
