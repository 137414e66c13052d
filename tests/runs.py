"""What the tests of whole runs share: sessions in this process and beside it, and their results."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from fake_engine import FakeEngine

from pytest_tokenbudget.engines.makers import make_transformers_engine
from pytest_tokenbudget.pytest_session.start import start as start_session

NANO = Path(__file__).resolve().parents[1] / "fixtures" / "models" / "nano-reasoner"
QUIET = (
    *("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:benchmark"),
    *("-p", "no:syrupy"),
)
SUITE = ("--pyargs", "pytest_tokenbudget.evals", "-m", "phase1", *QUIET)
WORKER_VARIABLES = (
    "PYTEST_XDIST_WORKER",
    "PYTEST_XDIST_WORKER_COUNT",
    "PYTEST_XDIST_TESTRUNUID",
    "PYTEST_ADDOPTS",
)


class Engines:
    """A plugin that gives a session other engines, and remembers what they were asked for.

    Args:
        make: Makes an engine of what ``Session.make_engine`` gets; None for an error.
    """

    def __init__(self, make=lambda *given: FakeEngine()):
        self.make = make
        self.made = []

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config):
        start_session(config).make_engine = self._make

    def _make(self, *given):
        assert self.make is not None, "no model is to be loaded here"
        self.made.append(self.make(*given))
        return self.made[-1]

    @property
    def seen(self):
        return [request for engine in self.made for request in engine.seen]


NO_ENGINE = Engines(None)


class RealEngines(Engines):
    """The real engine, watched."""

    def __init__(self):
        super().__init__(self.make_real)

    def make_real(self, *given):
        engine = make_transformers_engine(*given)
        engine.seen, generate = [], engine.generate

        def watched(requests, decoding):
            engine.seen += requests
            return generate(requests, decoding)

        engine.generate = watched
        return engine


def environment(**changes):
    clean = {k: v for k, v in os.environ.items() if k not in WORKER_VARIABLES}
    return {**clean, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", **changes}


def start(folder: Path, *arguments, **changes) -> subprocess.Popen:
    """A pytest session of its own, whose output goes to a file beside its results.

    The test that asks for workers is skipped where there is no pytest-xdist.
    """
    if "-n" in arguments:
        pytest.importorskip("xdist")
    output = (folder / f"output-{time.monotonic_ns()}.txt").open("w+")
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *map(str, arguments)],
        cwd=folder,
        env=environment(**changes),
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    process.output_file = output
    return process


def finish(process, timeout=240) -> tuple[int, str]:
    """Exit code and output."""
    try:
        code = process.wait(timeout)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        process.output_file.seek(0)
        text = process.output_file.read()
        process.output_file.close()
    return code, text


def wait_for(condition, process, seconds=240):
    """Wait until ``condition`` gives something true, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(finish(process, 0.1))
        time.sleep(0.01)
    return found


def rows(folder: Path, columns="key, owner, created, run, output_ids", table="traces"):
    """Rows of the trace store; none while it is being made."""
    path = folder / "reports" / "traces.sqlite"
    if not path.exists():
        return []
    try:
        with closing(sqlite3.connect(path, timeout=30)) as db:
            return db.execute(f"SELECT {columns} FROM {table} ORDER BY 1").fetchall()
    except sqlite3.OperationalError:
        return []


def combined(folder: Path, model="nano-reasoner"):
    return read(folder, f"phase1_combined_{model}.json")


def answers(folder: Path, budget: int, model="nano-reasoner"):
    return read(folder, f"phase1_main_{model}_budget{budget}.json")


def read(folder: Path, name: str):
    return json.loads((folder / "reports" / "results" / name).read_text(encoding="utf-8"))
