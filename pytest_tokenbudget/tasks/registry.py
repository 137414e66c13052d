"""From a task's name on the command line to the task."""

from __future__ import annotations

from pathlib import Path

from pytest_tokenbudget.common.extensions import TASKS, ExtensionError
from pytest_tokenbudget.common.messages import nearest
from pytest_tokenbudget.tasks.base import Task, TaskError
from pytest_tokenbudget.tasks.gsm8k import Gsm8kTask
from pytest_tokenbudget.tasks.jsonl import JsonlTask

_FILE_SUFFIXES = (".jsonl", ".ndjson")
_OFFERED = ("name", "extractor", "size", "problems", "judge_text")


def load_task(spec: str) -> Task:
    """Load the task that ``spec`` names.

    Args:
        spec: A name (``word-problems``, ``recall``, ``multi-hop``, ``games``, ``gsm8k``, or one
            that another package registers), ``gsm8k=PATH.jsonl``, or the path of a JSON Lines file.

    Raises:
        TaskError: If there is no such task, or its data cannot be had.
    """
    spec = spec.strip()
    if spec in TASKS.names:
        return _made(spec)
    name, equals, path = spec.partition("=")
    if equals and name == "gsm8k":
        if not path:
            raise TaskError("gsm8k= needs a file: gsm8k=PATH.jsonl")
        return Gsm8kTask(_file(path))
    if equals and name in TASKS.names:
        made = "is generated and takes" if name in TASKS.own else "takes"
        raise TaskError(f"{name} {made} no file; only gsm8k=PATH.jsonl does")
    if spec.lower().endswith(_FILE_SUFFIXES):
        return JsonlTask(_file(spec))
    if Path(spec).suffix and Path(spec).is_file():
        raise TaskError(f"{spec}: a task's file is JSON Lines and its name ends in .jsonl")
    raise TaskError(_unknown(spec, name))


def _made(name: str) -> Task:
    try:
        task: Task = TASKS.load(name)()
    except (ExtensionError, TaskError) as error:
        raise TaskError(str(error)) from None
    except Exception as error:
        if name in TASKS.own:
            raise
        raise TaskError(f"{name} cannot be made: {type(error).__name__}: {error}") from error
    if missing := [each for each in _OFFERED if not hasattr(task, each)]:
        raise TaskError(f"{name} makes no task: what it makes has no {missing[0]!r}")
    return task


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
    near = nearest(name, TASKS.names, count=2)
    hint = f"; did you mean {' or '.join(near)}?" if near else "."
    return (
        f"there is no task {spec!r}{hint} Allowed are {', '.join(TASKS.names)}, gsm8k=PATH.jsonl, "
        "and the path of a .jsonl file"
    )
