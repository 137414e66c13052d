"""How long it takes to judge anew what is in the store: a whole command that loads no model."""

from __future__ import annotations

import dataclasses
import json
import random
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from benchmarks import synthetic
from benchmarks.conftest import GSM8K_SIZE, Benchmark, Sizes
from pytest_tokenbudget.core.engine import Decoding, Engine, Generated, Request
from pytest_tokenbudget.core.trace import StopReason
from pytest_tokenbudget.engines.makers import make_transformers_engine
from pytest_tokenbudget.session import Session
from pytest_tokenbudget.settings.config_file import UserConfig

MOST_SECONDS = 15.0
BUDGETS = (
    16, 32, 48, 64, 96, 128, 192, 256, 320, 384, 448, 512, 640, 768, 896, 1024, 1280, 1536
)  # fmt: skip
ROOT = Path(__file__).parent.parent


class Written:
    """An engine with a real tokenizer that writes made-up solutions and loads no weights."""

    def __init__(self, engine: Any, answers: Sequence[str]) -> None:
        self.engine = engine
        self.answers = answers

    def __getattr__(self, name: str) -> object:
        return getattr(self.engine, name)

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> Iterator[Generated]:
        [end, *_] = sorted(self.engine.eos_ids)
        for request in requests:
            rng = random.Random(request.key)
            length = rng.randint(request.cap // 32 + 12, request.cap + request.cap // 10)
            text = "".join(synthetic.pieces(rng, length, rng.choice(self.answers)))
            ids = (*self.engine.encode(text), end)
            stop = StopReason.EOS if len(ids) <= request.cap else StopReason.LENGTH
            yield Generated(request, ids[: request.cap], stop, stop.value, 0.01)


@pytest.mark.parametrize("phases", ["phase1", "phase1 or phase2 or phase3"])
def test_suite_rejudged(benchmark: Benchmark, sizes: Sizes, tmp_path: Path, phases: str) -> None:
    """The suite, as a process of its own, over 1,319 stored traces at 18 budgets."""
    count = sizes.problems(GSM8K_SIZE)
    reports = tmp_path / "reports"
    settings = dataclasses.replace(
        sizes.settings,
        num_samples=count,
        budgets=BUDGETS if sizes.judged else sizes.settings.budgets,
        trace_store=reports / "traces.sqlite",
    )
    _, problems = synthetic.task_of(count)
    answers = [problem.answer for problem in problems]
    reports.mkdir()
    session = Session(
        settings,
        UserConfig(),
        "written",
        lambda *how: cast(Engine, Written(make_transformers_engine(*how), answers)),
    )
    try:
        traces = session.study(session.specs[0]).traces
    finally:
        session.close()
    command = [sys.executable, "-m", "pytest", "evals", "-m", phases, "-q"]
    command += ["--model", settings.models[0], "--task", settings.task, "--reports", str(reports)]
    command += ["--num-samples", str(count), "--budgets", ",".join(map(str, settings.budgets))]

    def rejudge() -> None:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.fail(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}", pytrace=False)

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    benchmark.pedantic(rejudge, rounds=1)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    benchmark.extra_info |= {
        "traces": len(traces),
        "tokens": sum(len(trace.output_ids) for trace in traces.values()),
        "budgets": len(settings.budgets),
        # On a machine that others keep busy, this says more than the wall time.
        "processor_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "expected_seconds": MOST_SECONDS,
    }
    [combined] = (reports / "results").glob("phase1_combined_*.json")
    tokens = json.loads(combined.read_text(encoding="utf-8"))["tokens"]
    # The cliff is looked for up to budgets of its own, which few and small ones do not reach.
    assert tokens["generated_this_run"] == 0 or not sizes.judged
    if sizes.judged and phases == "phase1":
        assert benchmark.stats.stats.total <= MOST_SECONDS
