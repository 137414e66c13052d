"""Options of the error eval.

Every pytest session loads this module, so it imports nothing that pytest has not loaded already.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_tokenbudget.settings.option_fields import option, several
from pytest_tokenbudget.settings.option_values import items, number, paths

if TYPE_CHECKING:
    from pytest_tokenbudget.session import Session


def budget_counts(text: str) -> tuple[tuple[int, int], ...]:
    allowed = "allowed: BUDGET:COUNT, several with commas, for example 128:30,512:50"
    counts: dict[int, int] = {}
    for item in items(text) or [text]:
        match = re.fullmatch(r"(\d{1,9}):(\d{1,9})", item, re.ASCII)
        if not match or int(match[1]) < 1:
            raise ValueError(allowed)
        counts[int(match[1])] = int(match[2])
    return tuple(sorted(counts.items()))


@dataclass(frozen=True)
class ErrorOptions:
    """Which answers the error eval picks, and where annotations are."""

    error_samples: tuple[tuple[int, int], ...] = several(
        "--error-samples",
        budget_counts,
        "`BUDGET:COUNT` of the errors that phase 2 picks for annotation.",
        "See [errors](errors.md).",
        default="128:30,256:30,512:50,1024:50",
    )
    controls: int = option(
        "--controls",
        number(int, 0),
        "Right answers that phase 2 picks at each of these budgets.",
        default="10",
    )
    annotations: tuple[Path, ...] = several(
        "--annotations",
        paths,
        "Directory of annotated files; a second one is another annotator's.",
        "Without it, `annotations` in the reports directory.",
    )


def check_annotations(session: Session) -> None:
    """Check that the directories of ``--annotations`` are there.

    Raises:
        pytest.UsageError: If one is not.
    """
    settings = session.settings
    for directory in settings.of_eval(ErrorOptions).annotations:
        # Preparation makes the reports' own directory; any other holds what somebody wrote.
        own = directory.resolve().is_relative_to((settings.reports / "annotations").resolve())
        if not own and not directory.is_dir():
            raise pytest.UsageError(f"--annotations: there is no directory {directory}")
