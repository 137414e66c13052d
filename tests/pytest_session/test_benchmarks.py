"""The benchmarks run; what they measure is not judged here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from runs import environment

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_benchmarks_run_and_stay_out_of_plain_pytest(pytestconfig) -> None:
    assert pytestconfig.getini("testpaths") == ["tests"]
    # What starts whole processes takes long, and runs nothing that the others do not run.
    shown = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "benchmarks", "--benchmark-only", "-q"),
            *("-p", "no:cacheprovider", "-m", "not gpu", "-k", "not suite and not memory"),
            *("--num-samples=2", "--budgets=8,16"),
        ],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert " passed" in shown.stdout
    assert "skipped" not in shown.stdout
    assert "test_one_pass" in shown.stdout
