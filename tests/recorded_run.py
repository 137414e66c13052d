"""One recorded run of the embedded model, for all tests that only read what a run left.

``python tests/recorded_run.py`` records it again.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

FOLDER = Path(__file__).parent / "data" / "recorded_run"
STORE = FOLDER / "traces.sqlite"
# What the tests of the conformance eval recorded.
CONFORMANCE = FOLDER / "conformance.json"
# How the run was made. Every eval but conformance keeps what it generates in the store.
OPTIONS = (
    *("--num-samples=24", "--samples=3", "--device=cpu", "--dtype=float32"),
    *("--context-turns=4,8", "--context-limits=50%"),
    "--truncation=newest,first,system-newest,importance",
)


def options(**changes: str) -> list[str]:
    """The options of the recorded run, some of them changed: what they ask for is there."""
    given = dict(option.removeprefix("--").split("=", 1) for option in OPTIONS)
    given |= {name.replace("_", "-"): value for name, value in changes.items()}
    return [f"--{name}={value}" for name, value in given.items()]


def copy_store(folder: Path) -> Path:
    """The recorded traces where a run in ``folder`` looks for them."""
    (folder / "reports").mkdir(exist_ok=True)
    return Path(shutil.copy(STORE, folder / "reports" / "traces.sqlite"))


def record() -> None:
    """Make the recorded run again: minutes with the embedded model, on a CPU.

    It is written to a folder of its own and then takes the place of the one that is there.
    """
    suite = [sys.executable, "-m", "pytest", "--pyargs", "pytest_tokenbudget.evals", *OPTIONS]
    with tempfile.TemporaryDirectory() as folder:
        reports = Path(folder) / "reports"
        subprocess.run([*suite, "-m", "not conformance"], cwd=folder, check=True)
        keep_traces(reports / "traces.sqlite")
        shutil.copy(reports / "traces.sqlite", STORE)
        subprocess.run([*suite, "-m", "conformance"], cwd=folder, check=True)
        metrics = json.loads((reports / "results" / "metrics.json").read_text(encoding="utf-8"))
    # The model's files are named by their place in a checkout.
    text = json.dumps(metrics).replace(f"{Path(__file__).parents[1]}/", "")
    CONFORMANCE.write_text(text + "\n", encoding="utf-8")


def keep_traces(path: Path) -> None:
    """Leave nothing in a store that belongs to the machine or the moment of its run."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        for table in ("plans", "runs", "files", "processes"):
            database.execute(f"DELETE FROM {table}")
        database.execute("DELETE FROM checksums WHERE kind = 'files'")
        database.execute("PRAGMA journal_mode = DELETE")
        database.execute("VACUUM")


def output_ids(path: Path) -> dict[str, bytes]:
    """What was generated, by the key of the trace."""
    with closing(sqlite3.connect(path)) as database:
        return dict(database.execute("SELECT key, output_ids FROM traces"))


if __name__ == "__main__":
    record()
