"""The storage directory: numbered files, one a saved run, none of which is ever written over."""

from __future__ import annotations

import datetime
import os
import platform
import re
import secrets
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pytest_tokenbudget.baselines.reading import Baseline, read_baseline
from pytest_tokenbudget.baselines.run import SCHEMA, BaselineError
from pytest_tokenbudget.common.messages import nearest
from pytest_tokenbudget.report.files import json_text, to_plain
from pytest_tokenbudget.settings.option_values import LATEST

SHOWN = 8
_FILE = re.compile(r"(?P<number>\d{4,})_(?P<name>[A-Za-z][\w.-]*)\.json\Z", re.ASCII)


class Saved(NamedTuple):
    """A file of the storage directory."""

    number: int
    name: str
    path: Path


def saved_runs(directory: Path) -> list[Saved]:
    """What a storage directory holds, in the order in which it was saved."""
    found = []
    for path in directory.iterdir() if directory.is_dir() else ():
        if match := _FILE.fullmatch(path.name):
            found.append(Saved(int(match["number"]), match["name"], path))
    return sorted(found)


def find_baseline(asked: str | Path, directory: Path) -> Baseline:
    """The stored runs that somebody names.

    Args:
        asked: A path; or ``latest``, a number, a name (its newest file counts), or both as in
            ``0003_main``.
        directory: The storage directory.

    Raises:
        BaselineError: If there are none, or they cannot be read.
    """
    if isinstance(asked, Path):
        return read_baseline(asked)
    saved = saved_runs(directory)
    if asked == LATEST:
        fitting = saved
    elif asked.isdecimal():
        fitting = [each for each in saved if each.number == int(asked)]
    else:
        fitting = [each for each in saved if asked in (each.name, each.path.stem)]
    if not fitting:
        raise BaselineError(_nothing(asked, directory, saved))
    newest = fitting[-1]
    return read_baseline(newest.path, newest.path.stem)


def _nothing(asked: str, directory: Path, saved: Sequence[Saved]) -> str:
    if not saved:
        return f"nothing is saved in {directory}; save a run there with --tokenbudget-save NAME"
    names = list(dict.fromkeys(each.name for each in saved))
    close = nearest(asked, [*names, LATEST], count=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    shown = ", ".join(each.path.stem for each in saved[-SHOWN:])
    are = f"{'are' if len(saved) > 1 else 'is'} {'..., ' if len(saved) > SHOWN else ''}{shown}"
    return (
        f"there is no {asked!r} in {directory}; there {are}{hint or '; a path has a slash in it'}"
    )


def save_baseline(
    directory: Path, name: str, runs: Sequence[Mapping[str, object]], repository: Path
) -> Path:
    """Save runs under the next number.

    Args:
        directory: The storage directory; made where it is missing.
        name: What the runs are called.
        runs: Their records.
        repository: Where to look for the commit.

    Raises:
        OSError: If it cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    record = {
        "schema": SCHEMA,
        "name": name,
        "saved": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": machine_facts(),
        "commit": commit_facts(repository),
        "runs": runs,
    }
    data = _text(record).encode("utf-8")
    temporary = directory / f".{secrets.token_hex(8)}.tmp"
    try:
        with temporary.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        while True:
            last = max((each.number for each in saved_runs(directory)), default=0)
            path = directory / f"{last + 1:04}_{name}.json"
            # Another run may have been faster.
            with suppress(FileExistsError):
                _put(temporary, path)
                return path
    finally:
        temporary.unlink(missing_ok=True)


def _put(temporary: Path, path: Path) -> None:
    """Give a file its name, unless one has it already."""
    try:
        os.link(temporary, path)  # unlike a rename, this fails where there is a file
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        with path.open("xb") as stream:
            stream.write(temporary.read_bytes())


def _text(record: Mapping[str, object]) -> str:
    """JSON with an answer a line, so that versions of it can be compared."""
    plain = to_plain(record)
    assert isinstance(plain, dict)
    runs = plain.pop("runs")
    parts = []
    for run in runs:
        lines = ",\n".join(json_text(answer) for answer in run.pop("answers"))
        parts.append(f'{json_text(run, indent=1)[:-2]},\n "answers": [\n{lines}\n ]\n}}')
    whole = ",\n".join(parts)
    return f'{json_text(plain, indent=1)[:-2]},\n "runs": [\n{whole}\n ]\n}}\n'


_PATIENCE = 10


def machine_facts() -> dict[str, object]:
    """What the machine is, but not which one: files like these are shared."""
    facts: dict[str, object] = {
        "system": platform.system(),
        "release": platform.release(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
    }
    # Not imported for this: with pytest-xdist the process that saves has no need of it.
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        count = torch.cuda.device_count()
        facts["gpus"] = [torch.cuda.get_device_name(place) for place in range(count)]
    return facts


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n"):
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()


def commit_facts(directory: Path) -> dict[str, object] | None:
    """The commit that is checked out around a directory; None where there is none.

    ``dirty`` says whether files that git knows have been changed since.
    """
    identity = _git(directory, "rev-parse", "HEAD")
    if not identity:
        return None
    changed = _git(directory, "status", "--porcelain", "--untracked-files=no")
    return {
        "id": identity,
        "branch": _git(directory, "rev-parse", "--abbrev-ref", "HEAD") or None,
        "time": _git(directory, "show", "-s", "--format=%cI", "HEAD") or None,
        "dirty": None if changed is None else bool(changed),
    }


def _git(directory: Path, *arguments: str) -> str | None:
    """What git says; None where it is not there or fails."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=directory,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
