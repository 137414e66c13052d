"""What the installed plugin costs a session that does not use it."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.conftest import Benchmark, Sizes

ROUNDS, SHORT = 15, 2
MOST_MILLISECONDS = 60
SESSION = """
import json, os, sys, time
import pytest

before = time.process_time()
with open(os.devnull, "w") as nowhere:
    sys.stdout, shown = nowhere, sys.stdout
    pytest.main(["--co", "-q", "-p", "no:cacheprovider", *sys.argv[1:]])
    sys.stdout = shown
seconds = time.process_time() - before
print(json.dumps({"seconds": seconds, "modules": len(sys.modules)}))
"""


def session(folder: Path, *arguments: str) -> dict[str, float]:
    """Processor seconds and modules of a session that only collects, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", SESSION, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_unused(benchmark: Benchmark, sizes: Sizes, tmp_path: Path) -> None:
    """Processor time and modules that ``pytest --co`` of an unrelated project takes more."""
    (tmp_path / "test_unrelated.py").write_text("def test_it(): ...\n")

    def measure() -> list[tuple[dict[str, float], dict[str, float]]]:
        session(tmp_path)  # compiles what is not compiled yet
        return [
            (session(tmp_path), session(tmp_path, "-p", "no:tokenbudget"))
            for _ in range(ROUNDS if sizes.judged else SHORT)
        ]

    pairs = benchmark.pedantic(measure, rounds=1)
    added = statistics.median(1000 * (on["seconds"] - off["seconds"]) for on, off in pairs)
    modules = max(on["modules"] - off["modules"] for on, off in pairs)
    benchmark.extra_info |= {"milliseconds": added, "modules": modules}
    if sizes.judged:
        assert added <= MOST_MILLISECONDS
