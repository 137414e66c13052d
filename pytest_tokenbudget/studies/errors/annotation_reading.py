"""Reading annotated tables: which there are, what a row is about, what annotators said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_tokenbudget.studies.errors import taxonomy
from pytest_tokenbudget.studies.errors.annotation_file import (
    AnnotationError,
    AnnotationRow,
    Sheet,
    clean,
    read_sheet,
)

_OTHER_SUFFIXES = (".csv", ".txt")

Key = tuple[str, str, int, str]
"""Model, problem, sample, trace."""


def table_path(directory: Path, budget: int) -> Path:
    """The table of a budget."""
    return directory / f"annotate_errors_budget{budget}.tsv"


def find_table(directory: Path, budget: int) -> Path | None:
    """The table of a budget, which a spreadsheet may have given another suffix.

    Raises:
        AnnotationError: If there are several.
    """
    path = table_path(directory, budget)
    found = [p for p in (path, *map(path.with_suffix, _OTHER_SUFFIXES)) if p.exists()]
    if len(found) > 1:
        names = " and ".join(p.name for p in found)
        raise AnnotationError([f"{directory}: {names} are the same table: keep one of them"])
    return found[0] if found else None


def whole(cell: str) -> int | None:
    """A whole number as spreadsheets write it: ``128``, ``128.0``; None where it is none."""
    head, _, tail = cell.strip().partition(".")
    return int(head) if head.isascii() and head.isdigit() and not tail.strip("0") else None


def key_of(row: AnnotationRow | Mapping[str, str], default_model: str = "") -> Key:
    """What a row is about; tables without these columns are about sample 0 of the only model."""
    cells = row.cells if isinstance(row, AnnotationRow) else row
    return (
        cells.get("model", "").strip() or default_model,
        cells.get("problem_id", "").strip(),
        whole(cells.get("sample", "")) or 0,
        cells.get("trace", "").strip(),
    )


@dataclass(frozen=True)
class Annotation:
    """What one annotator said about one answer.

    Attributes:
        type: The error's type; None where it is not filled in.
        recoverable: ``yes``, ``no`` or ``unknown``; None where it is not filled in.
        trace: Mark of the text that it is about; empty where the table has none.
        place: File and line.
    """

    type: str | None
    recoverable: str | None
    trace: str
    place: str


@dataclass(frozen=True)
class Annotations:
    """What one annotator said.

    Attributes:
        directory: Where it was read.
        files: The tables.
        by_budget: Rows of one model by budget, problem and sample, also those with nothing filled
            in. There are several where the model has written another text since.
    """

    directory: Path
    files: tuple[Path, ...]
    by_budget: Mapping[int, Mapping[tuple[str, int], tuple[Annotation, ...]]]


def read_annotations(directory: Path, model: str, budgets: Sequence[int]) -> Annotations:
    """Read an annotator's tables.

    Args:
        directory: Where they are.
        model: The model, as in the tables.
        budgets: The budgets to look for; a table that is not there has no rows.

    Raises:
        AnnotationError: With every problem in all tables: values that are not allowed, rows that
            contradict each other, files that cannot be read.
    """
    problems: list[str] = []
    files, by_budget = [], {}
    for budget in budgets:
        try:
            path = find_table(directory, budget)
            if path is None:
                continue
            sheet = read_sheet(path)
        except AnnotationError as error:
            problems += error.problems
            continue
        files.append(path)
        by_budget[budget] = _read_rows(sheet, budget, model, problems)
    if problems:
        raise AnnotationError(problems)
    return Annotations(directory, tuple(files), by_budget)


def _read_rows(
    sheet: Sheet, budget: int, model: str, problems: list[str]
) -> dict[tuple[str, int], tuple[Annotation, ...]]:
    found: dict[tuple[str, int, str], tuple[AnnotationRow, Annotation]] = {}
    for row in sheet.rows:
        kind = _allowed(sheet, row, "error_type", taxonomy.ERROR_TYPES, problems)
        recoverable = _allowed(sheet, row, "recoverable", taxonomy.RECOVERABLE, problems)
        if "budget" in sheet.columns and whole(row["budget"]) != budget:
            problems.append(
                f"{sheet.where(row, 'budget')}: {row['budget']!r} is not the budget of this "
                f"table; allowed: {budget}"
            )
        if "sample" in sheet.columns and whole(row["sample"]) is None:
            problems.append(
                f"{sheet.where(row, 'sample')}: {row['sample']!r} is not allowed; allowed: whole "
                "numbers from 0"
            )
        if not row["problem_id"].strip():
            problems.append(f"{sheet.where(row, 'problem_id')}: is empty: whose row is it?")
        of_model, problem, sample, trace = key_of(row, model)
        if of_model != model:
            continue
        annotation = Annotation(kind, recoverable, trace, sheet.where(row))
        former = found.setdefault((problem, sample, trace), (row, annotation))
        said, says = (former[1].type, former[1].recoverable), (kind, recoverable)
        if said != says:
            problems.append(
                f"{sheet.where(row)}: {problem} stands also on line {former[0].line}, with "
                "another annotation: keep one of them"
            )
    rows: dict[tuple[str, int], tuple[Annotation, ...]] = {}
    for (problem, sample, _), (_, annotation) in found.items():
        rows[problem, sample] = (*rows.get((problem, sample), ()), annotation)
    return rows


def _allowed(
    sheet: Sheet, row: AnnotationRow, column: str, allowed: Sequence[str], problems: list[str]
) -> str | None:
    value = row[column].strip()
    if not value:
        return None
    if value.casefold() in allowed:
        return value.casefold()
    problems.append(
        f"{sheet.where(row, column)}: {clean(value)!r} is not allowed; allowed: "
        f"{', '.join(allowed)}"
    )
    return None
