"""Errors for annotators: picked, laid out in tables, and read again.

One table a budget holds all models; a row is one answer. What an annotator fills in stays: a table
that exists is read first, every filled cell and every column of the annotator's own is carried
over, and a row with anything filled in stays even where it would not be picked any more. A table
that cannot be read, or is open elsewhere, is not touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_tokenbudget.common.outside_files import read_json
from pytest_tokenbudget.core.scoring import JudgedCut
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.report.files import safe_name, write_bytes, write_json
from pytest_tokenbudget.studies.errors import taxonomy
from pytest_tokenbudget.studies.errors.annotation_tables import (
    COLUMNS,
    FILLED_COLUMNS,
    AnnotationError,
    AnnotationRow,
    Key,
    Sheet,
    find_table,
    key_of,
    read_sheet,
    sheet_bytes,
    table_path,
    whole,
)
from pytest_tokenbudget.studies.errors.taxonomy import Verdicts, errors_at, label, pick, row_of

SCHEMA = "tokenbudget-annotations/1"
FOLDER = "annotations"
MANIFEST = "manifest.json"
_TRIES = 3


@dataclass(frozen=True)
class Picked:
    """What was picked at one budget.

    Attributes:
        asked: Errors that were asked for.
        errors: Errors that there are.
        picked: Errors that are in the table.
        right: Right answers that there are.
        controls: Right answers that are in the table.
        kept: Further rows that stay because someone filled something in.
        annotated: Errors in the table whose type is filled in.
        file: The table.
    """

    asked: int
    errors: int
    picked: int
    right: int
    controls: int
    kept: int
    annotated: int
    file: Path


@dataclass(frozen=True)
class Prepared:
    """What preparation made of one study.

    Attributes:
        budgets: What was picked, by budget.
        left_out: Budgets that the study does not reach, with the reason.
        manifest: The manifest.
    """

    budgets: Mapping[int, Picked]
    left_out: Mapping[int, str]
    manifest: Path


def annotations_folder(reports: Path, task: str) -> Path:
    """The folder of a task's tables: ``annotations``, or one below it for any further task.

    What people filled in for one task is never moved, and never mixed with another task's.
    """
    folder = reports / FOLDER
    try:
        models = read_json(folder / MANIFEST)["models"]
        tasks = {model["task"] for model in models.values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return folder  # new, or damaged: preparation says what is wrong
    return folder if not tasks or task in tasks else folder / safe_name(task)


def prepare(
    study: Study,
    directory: Path,
    samples: Mapping[int, int],
    controls: int,
    *,
    seed: int = 0,
    others: Study | None = None,
) -> Prepared:
    """Pick errors and right answers of a study and lay them out for annotators.

    Args:
        study: The study.
        directory: Where the tables and the manifest are or will be.
        samples: How many errors are picked, by budget.
        controls: How many right answers at each budget.
        seed: What the choice depends on, beside problem and sample.
        others: A study of the same task with further samples, for what they say about recovery.

    Raises:
        AnnotationError: If a table that exists cannot be read or replaced. Nothing was written.
    """
    from filelock import FileLock

    directory.mkdir(parents=True, exist_ok=True)
    # Workers with other models write to the same tables.
    with FileLock(directory / ".prepare.lock"):
        return _prepare(Verdicts(study, others), directory, samples, controls, seed)


def _prepare(
    verdicts: Verdicts, directory: Path, samples: Mapping[int, int], controls: int, seed: int
) -> Prepared:
    study = verdicts.study
    left_out: dict[int, str] = {}
    chosen: dict[int, tuple[list[JudgedCut], list[JudgedCut]]] = {}
    for budget in sorted(samples):
        try:
            right = [judged for judged in study.judged(budget) if judged.correct]
            chosen[budget] = (
                pick(errors_at(study, budget), samples[budget], seed),
                pick(right, controls, seed),
            )
        except ValueError as error:
            left_out[budget] = str(error)
    manifest = _Manifest(directory / MANIFEST)
    # All are read before the first is written: what is broken stops all.
    existing = {budget: _existing(directory, budget) for budget in chosen}
    picked = {}
    for budget, (wrong, right) in chosen.items():
        rows = [row_of(judged, label(study), verdicts) for judged in (*wrong, *right)]
        path = table_path(directory, budget)
        kept, annotated = _merge(path, existing[budget], label(study), rows)
        everything = study.judged(budget)
        picked[budget] = Picked(
            asked=samples[budget],
            errors=len(errors_at(study, budget)),
            picked=len(wrong),
            right=sum(judged.correct for judged in everything),
            controls=len(right),
            kept=kept,
            annotated=annotated,
            file=path,
        )
    manifest.note(study, seed, controls, picked, left_out)
    return Prepared(picked, left_out, manifest.path)


def _existing(directory: Path, budget: int) -> Sheet | None:
    found = find_table(directory, budget)
    path = table_path(directory, budget)
    if found is None:
        return None
    if found != path:
        raise AnnotationError(
            [
                f"{found}: preparation goes on with {path.name}: rename it so (any separator is "
                "understood), or move it away; it was not changed"
            ]
        )
    sheet = read_sheet(path)
    problems = [
        f"{sheet.where(row, column)}: {row[column]!r} is no whole number"
        for row in sheet.rows
        for column in ("budget", "sample")
        if column in sheet.columns and whole(row[column]) is None
    ]
    seen: dict[Key, AnnotationRow] = {}
    for row in sheet.rows:
        filled = _filled(row.cells)
        former = seen.setdefault(key_of(row), row) if filled else row
        if filled and _filled(former.cells) != filled:
            problems.append(
                f"{sheet.where(row)}: {row['problem_id']} stands also on line {former.line}, "
                "filled in otherwise: keep one of them"
            )
    if problems:
        raise AnnotationError(problems)
    return sheet


def _filled(cells: Mapping[str, str]) -> dict[str, str]:
    """What an annotator wrote: the columns for it, and columns of their own."""
    return {
        name: cell
        for name, cell in cells.items()
        if cell.strip() and (name in FILLED_COLUMNS or name not in COLUMNS)
    }


def _merge(
    path: Path, sheet: Sheet | None, model: str, rows: list[dict[str, str]]
) -> tuple[int, int]:
    """Write a table with ``rows`` for ``model``, and all that was filled in.

    Returns:
        How many rows stay only because something was filled in, and how many errors are annotated.
    """
    for _ in range(_TRIES):
        old = sheet.rows if sheet else ()
        own: dict[Key, AnnotationRow] = {}
        for row in old:
            key = key_of(row, model)
            if key[0] == model and (key not in own or _filled(row.cells)):
                own[key] = row
        foreign = [dict(row.cells) for row in old if key_of(row, model)[0] != model]
        merged = []
        for new in rows:
            key = key_of(new)
            before = own.pop(key, None) or own.pop((*key[:3], ""), None)
            merged.append(_carried(new, before))
        kept = [
            {**row.cells, "model": model, "sample": str(key_of(row, model)[2])}
            for row in own.values()
            if _filled(row.cells)
        ]
        columns = list(COLUMNS)
        columns += [c for c in (sheet.columns if sheet else ()) if c and c not in columns]
        table = sorted([*foreign, *merged, *kept], key=lambda row: row.get("model", ""))
        if _replace(path, sheet, sheet_bytes(columns, table)):
            errors = [row for row in (*merged, *kept) if row.get("correct", "") != "yes"]
            annotated = sum(bool(row.get("error_type", "").strip()) for row in errors)
            return len(kept), annotated
        sheet = read_sheet(path) if path.exists() else None
    raise AnnotationError([f"{path}: is being written by something else; nothing was written"])


def _carried(row: Mapping[str, str], before: AnnotationRow | None) -> dict[str, str]:
    if before is None:
        return dict(row)
    # What was filled in has no value in a new row; also a cell that would be empty stays so.
    return {**before.cells, **{name: cell for name, cell in row.items() if cell}}


def _replace(path: Path, sheet: Sheet | None, data: bytes) -> bool:
    """Write a table unless it changed since it was read."""
    if sheet is not None and data == sheet.data:
        return True
    lock = path.with_name(f".~lock.{path.name}#")
    if lock.exists():
        raise AnnotationError(
            [
                f"{path}: is open in a spreadsheet program: close it there and run this again "
                f"(or delete {lock.name} beside it if no program has it open); it was not changed"
            ]
        )
    try:
        if (path.read_bytes() if path.exists() else None) != (sheet.data if sheet else None):
            return False
        write_bytes(path, data)
    except OSError as error:
        raise AnnotationError(
            [
                f"{path}: cannot be written: {error.strerror or error}: close it where it is "
                "open, and run this again; it was not changed"
            ]
        ) from error
    return True


class _Manifest:
    """What the tables hold and how it was chosen, by model."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.models: dict[str, object] = {}
        if not path.exists():
            return
        try:
            content = read_json(path)
            self.models = dict(content["models"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise AnnotationError(
                [f"{path}: cannot be read ({error}): delete it, and it is made anew"]
            ) from error

    def note(
        self,
        study: Study,
        seed: int,
        controls: int,
        picked: Mapping[int, Picked],
        left_out: Mapping[int, str],
    ) -> None:
        self.models[label(study)] = {
            "identity": dict(study.identity),
            "mode": study.mode,
            "task": study.task.name,
            "extractor": study.task.extractor,
            "decoding": study.decoding.identity(),
            "decoding_seed": study.decoding.seed,
            "problems": len(study.complete),
            "samples": study.samples,
            "seed": seed,
            "controls_asked": controls,
            "suggestions": taxonomy.RULES,
            "budgets": {
                str(budget): {
                    "asked": one.asked,
                    "errors": one.errors,
                    "errors_picked": one.picked,
                    "right": one.right,
                    "controls_picked": one.controls,
                    "kept_beyond": one.kept,
                    "file": one.file.name,
                }
                for budget, one in picked.items()
            },
            "left_out": {str(budget): reason for budget, reason in left_out.items()},
        }
        record = {"schema": SCHEMA, "models": dict(sorted(self.models.items()))}
        try:
            write_json(self.path, record)
        except OSError as error:
            raise AnnotationError(
                [f"{self.path}: cannot be written: {error.strerror or error}"]
            ) from error
