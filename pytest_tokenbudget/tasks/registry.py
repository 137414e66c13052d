"""From a task's name on the command line to the task."""

from __future__ import annotations

from pathlib import Path

from pytest_tokenbudget.common.messages import nearest
from pytest_tokenbudget.tasks.base import Task, TaskError
from pytest_tokenbudget.tasks.generated import GENERATORS, GeneratedTask
from pytest_tokenbudget.tasks.gsm8k import Gsm8kTask
from pytest_tokenbudget.tasks.jsonl import JsonlTask

DEFAULT_TASK = "word-problems"
TASK_NAMES = (*GENERATORS, "gsm8k")
_FILE_SUFFIXES = (".jsonl", ".ndjson")


def load_task(spec: str, seed: int = 0) -> Task:
    """Load the task that ``spec`` names.

    Args:
        spec: A name (``word-problems``, ``recall``, ``multi-hop``, ``games``, ``gsm8k``),
            ``gsm8k=PATH.jsonl``, or the path of a JSON Lines file.
        seed: Which set of problems a generated task makes.

    Raises:
        TaskError: If there is no such task, or its data cannot be had.
    """
    spec = spec.strip()
    if spec in GENERATORS:
        return GeneratedTask(spec, seed)
    if spec == "gsm8k":
        return Gsm8kTask()
    name, equals, path = spec.partition("=")
    if equals and name == "gsm8k":
        if not path:
            raise TaskError("gsm8k= needs a file: gsm8k=PATH.jsonl")
        return Gsm8kTask(_file(path))
    if equals and name in GENERATORS:
        raise TaskError(f"{name} is generated and takes no file; only gsm8k=PATH.jsonl does")
    if spec.lower().endswith(_FILE_SUFFIXES):
        return JsonlTask(_file(spec))
    if Path(spec).suffix and Path(spec).is_file():
        raise TaskError(f"{spec}: a task's file is JSON Lines and its name ends in .jsonl")
    raise TaskError(_unknown(spec, name))


def _file(name: str) -> Path:
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        raise TaskError(f"{path} is a directory, a JSON Lines file is needed")
    beside = sorted(found.name for found in path.parent.glob("*") if found.is_file())
    near = nearest(path.name, beside, count=1)
    hint = f"; did you mean {path.parent / near[0]}?" if near else ""
    raise TaskError(f"there is no file {path}{hint}")


def _unknown(spec: str, name: str) -> str:
    near = nearest(name, TASK_NAMES, count=2)
    hint = f"; did you mean {' or '.join(near)}?" if near else "."
    return (
        f"there is no task {spec!r}{hint} Allowed are {', '.join(TASK_NAMES)}, gsm8k=PATH.jsonl, "
        "and the path of a .jsonl file"
    )
