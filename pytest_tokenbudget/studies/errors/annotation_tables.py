"""Tables for annotators, written for spreadsheet programs and read as these give them back.

Written is UTF-8 with a byte order mark, tabs, CRLF between rows, quotes where needed: what
spreadsheet programs take for text without being asked. Within a cell a line ends in LF.

A cell that a spreadsheet would change on opening gets one ``'`` in front: what begins like a
formula (``= + - @``, tab, CR; plain numbers such as ``-5`` stay), what would become a date or
another number (``1/2``, ``0012``, ``1e5``, twenty digits), and what begins with ``'`` itself. On
reading, a ``'`` in front of such a cell is taken off; so nothing is lost, and nothing else changes.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_tokenbudget.common.outside_files import FileError, read_bytes
from pytest_tokenbudget.common.outside_text import printable, printable_lines
from pytest_tokenbudget.studies.errors.taxonomy import ERROR_TYPES, RECOVERABLE

FILLED_COLUMNS = ("error_type", "error_location", "recoverable", "notes")
"""The columns that annotators fill in."""
COLUMNS = (
    *("problem_id", "budget", "question", "ground_truth", "generated", "predicted", "correct"),
    *("outcome", "tokens_used", "suggested_type", "suggested_reason", "error_type"),
    *("error_location", "recoverable", "measured_recoverable", "notes", "model", "sample", "trace"),
)
_NEEDED = ("problem_id", "error_type", "recoverable")
_OTHER_SUFFIXES = (".csv", ".txt")
_SEPARATORS = "\t;,|"
_LONGEST_FIELD = 2**31 - 1

_FORMULA = re.compile(r"[=+\-@\t\r']")
_PLAIN_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{0,9}[1-9])?")
_LIKE_A_NUMBER = re.compile(
    r"\s*[-+.,/:%$€£\d\s]*\d[-+.,/:%$€£\deE\s]*"
    r"|\d{0,4}[ -]?(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*[ -]?\d{0,4}"
    r"|true|false",
    re.IGNORECASE,
)


Key = tuple[str, str, int, str]
"""Model, problem, sample, trace."""


class AnnotationError(Exception):
    """Annotated files that cannot be used as they are; every problem with file and line.

    Attributes:
        problems: What is wrong, one sentence each.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(map(printable, problems))
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True)
class AnnotationRow:
    """One row of a table: the line of the file on which it begins, and its cells by column."""

    line: int
    cells: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells.get(column, "")


@dataclass(frozen=True)
class Sheet:
    """A table as it was read.

    Attributes:
        path: The file.
        columns: Its columns in their order.
        rows: Its rows, empty ones left aside.
        data: The bytes that were read.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[AnnotationRow, ...]
    data: bytes

    def where(self, row: AnnotationRow, column: str = "") -> str:
        """A place for people: file, line and column."""
        at = f"{self.path}:{row.line}"
        return f"{at}: column {self.columns.index(column) + 1} ({column})" if column else at


def sheet_bytes(columns: Sequence[str], rows: Iterable[Mapping[str, str]]) -> bytes:
    """A table as a file that spreadsheet programs open rightly."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, dialect="excel-tab")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([guard(clean(row.get(column, ""))) for column in columns])
    return buffer.getvalue().encode("utf-8-sig")


def clean(cell: str) -> str:
    """``cell`` as a spreadsheet can hold it: lines end in LF, control characters are escaped."""
    return printable_lines(cell.replace("\r\n", "\n").replace("\r", "\n"))


def guard(cell: str) -> str:
    """``cell`` with a ``'`` in front where a spreadsheet would take it for something else."""
    return f"'{cell}" if _endangered(cell) else cell


def unguard(cell: str) -> str:
    """The inverse of `guard`."""
    return cell[1:] if cell[:1] == "'" and _endangered(cell[1:]) else cell


def _endangered(cell: str) -> bool:
    if not cell or _PLAIN_NUMBER.fullmatch(cell):
        return False
    return bool(_FORMULA.match(cell)) or (len(cell) <= 64 and bool(_LIKE_A_NUMBER.fullmatch(cell)))


def read_sheet(path: Path) -> Sheet:
    """Read a table as spreadsheet programs export it.

    Tabs, semicolons, commas or bars; any quoting; UTF-8 with or without a mark, UTF-16; columns
    in any order, empty ones and empty rows anywhere.

    Raises:
        AnnotationError: If it cannot be read whole.
    """
    try:
        data = read_bytes(path)
    except FileError as error:
        raise AnnotationError([str(error)]) from None
    text = _decode(path, data)
    records = _records(path, text)
    if not records:
        raise AnnotationError([f"{path}: is empty; the first line names the columns"])
    line, header = records[0]
    columns = _columns(path, line, header)
    rows, problems = [], []
    for line, record in records[1:]:
        if not any(cell.strip() for cell in record):
            continue
        nameless = [
            at
            for at, cell in enumerate(record)
            if cell.strip() and (at >= len(columns) or not columns[at])
        ]
        if nameless:
            problems.append(
                f"{path}:{line}: column {nameless[0] + 1} has no name, but "
                f"{_shown(record[nameless[0]])} in it: name it in the first line, or empty it"
            )
            continue
        cells = dict(zip(columns, map(unguard, record), strict=False))
        rows.append(AnnotationRow(line, {name: cells[name] for name in cells if name}))
    if problems:
        raise AnnotationError(problems)
    return Sheet(path, columns, tuple(rows), data)


def _decode(path: Path, data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings = ["utf-16"]
    elif b"\0" in data[:64]:
        encodings = ["utf-16-le", "utf-16-be"]
    else:
        encodings = ["utf-8-sig"]
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError as error:
            at = error.start
            continue
        if encoding in ("utf-16", "utf-8-sig") or "problem_id" in text[:4096].lower():
            return text
    found = f" (byte {at + 1}, line {data.count(10, 0, at) + 1})" if encodings[0][4] == "8" else ""
    raise AnnotationError(
        [f"{path}: is neither UTF-8 nor UTF-16{found}: save it again with the encoding UTF-8"]
    )


def _records(path: Path, text: str) -> list[tuple[int, list[str]]]:
    """Records with the lines on which they begin."""
    skipped = 0
    first = text.partition("\n")[0].strip()
    separator = None
    if re.fullmatch(r'"?sep=.?"?', first):  # how Excel is told its separator
        separator = first.strip('"')[4:] or "\t"
        text, skipped = text.partition("\n")[2], 1
    if separator is None:
        head = text[:4096].partition("\n")[0]
        # Tabs win a draw: a question in the first line has commas, a header has none.
        separator = max(_SEPARATORS, key=head.count)
    limit = csv.field_size_limit(_LONGEST_FIELD)
    records, line = [], skipped + 1
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        try:
            for record in reader:
                records.append((line, record))
                line = skipped + reader.line_num + 1
        except csv.Error as error:
            raise AnnotationError(
                [f"{path}:{line}: the row that begins here cannot be read: {error}"]
            ) from error
    finally:
        csv.field_size_limit(limit)
    while records and not any(cell.strip() for cell in records[0][1]):
        records.pop(0)
    return records


def _columns(path: Path, line: int, header: Sequence[str]) -> tuple[str, ...]:
    names = [name.strip() for name in header]
    columns = tuple(name.lower() if name.lower() in COLUMNS else name for name in names)
    doubled = sorted({name for name in columns if name and columns.count(name) > 1})
    problems = [f"{path}:{line}: more than one column is named {name!r}" for name in doubled]
    lacking = [name for name in _NEEDED if name not in columns]
    if lacking:
        found = ", ".join(name for name in columns if name)
        problems.append(
            f"{path}:{line}: the first line names the columns, and {', '.join(lacking)} is not "
            f"among them; found: {_shown(found)}"
        )
    if problems:
        raise AnnotationError(problems)
    return columns


def _shown(cell: str) -> str:
    return repr(printable(cell.strip(), 60))


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
        location: File and line.
    """

    type: str | None
    recoverable: str | None
    trace: str
    location: str


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
        kind = _allowed(sheet, row, "error_type", ERROR_TYPES, problems)
        recoverable = _allowed(sheet, row, "recoverable", RECOVERABLE, problems)
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
