"""GSM8K, the test split: grade-school word problems with reference solutions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

from pytest_tokenbudget.models import hub
from pytest_tokenbudget.tasks.base import TaskError
from pytest_tokenbudget.tasks.jsonl import JsonlLine, read_rows, to_problems
from pytest_tokenbudget.tasks.numbers import parse_number
from pytest_tokenbudget.tasks.ruled import NUMBER, GivenTask

HUB_ID = "openai/gsm8k"
# A commit, as for models, so that a run can be repeated.
REVISION = "740312add88f781978c0658806c59bc2815b9866"
CONFIG = "main"
SPLIT = "test"


class Gsm8kTask(GivenTask):
    """GSM8K, from a file or from the hub.

    The category of a problem is the number of lines of its reference solution (``"3-step"``),
    unless a file names another.

    Args:
        path: A JSON Lines file as GSM8K publishes it; None loads the data set from the hub.

    Raises:
        TaskError: If the data cannot be had, or a problem has no number after ``####``.
    """

    def __init__(self, path: Path | None = None) -> None:
        source = str(path) if path else HUB_ID
        rows = [_prepared(source, row) for row in (read_rows(path) if path else _hub_rows())]
        super().__init__("gsm8k", NUMBER, to_problems(source, "gsm8k", rows))


def _prepared(source: str, row: JsonlLine) -> JsonlLine:
    if "####" not in row.solution:
        raise TaskError(f'{source}, line {row.line}: "answer" has no #### before the number')
    if parse_number(row.answer) is None:
        raise TaskError(f"{source}, line {row.line}: {row.answer!r} after #### is not a number")
    steps = sum(bool(line.strip()) for line in row.solution.rpartition("####")[0].split("\n"))
    return replace(row, category=row.category or f"{steps}-step")


def _hub_rows() -> list[JsonlLine]:
    try:
        import datasets

        with hub.access():
            loaded = datasets.load_dataset(HUB_ID, CONFIG, split=SPLIT, revision=REVISION)
    # The library lets errors of many others through, from httpx to pyarrow.
    except Exception as error:
        lines = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"
        if unreachable := hub.unreachable():
            reason = f"it is not in the local cache and the hub cannot be reached, {unreachable}"
        raise TaskError(
            f"the data set {HUB_ID} (revision {REVISION}) cannot be loaded ({reason}). "
            "Without a network, download the test split once and name the file: "
            "--task gsm8k=PATH.jsonl"
        ) from error
    rows = cast("Iterable[Mapping[str, str]]", loaded)
    return [
        JsonlLine(
            number, row["question"], row["answer"].rpartition("####")[2].strip(), row["answer"]
        )
        for number, row in enumerate(rows, 1)
    ]
