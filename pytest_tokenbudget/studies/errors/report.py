"""Phase 2: the error analysis of a run as a file, as a figure, and on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from pytest_tokenbudget.common.outside_files import read_json
from pytest_tokenbudget.common.outside_text import printable
from pytest_tokenbudget.common.text_layout import (
    MAX_WIDTH,
    columns,
    count,
    percent,
    plural,
    shorten,
    wrapped,
)
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.report.files import to_record, write_json
from pytest_tokenbudget.report.json_files import RunInfo, header
from pytest_tokenbudget.studies.errors.analysis import (
    DEFAULT_SAMPLES,
    NO_SUGGESTION,
    BudgetErrors,
    ErrorReport,
    Evolution,
    analyse_errors,
)
from pytest_tokenbudget.studies.errors.annotations import annotations_folder
from pytest_tokenbudget.studies.errors.statistics import NOT_ANNOTATED, SOLVED
from pytest_tokenbudget.studies.errors.taxonomy import RECOVERABLE

__all__ = ["ErrorReport", "analyse_errors", "errors_lines", "write_errors"]

SCHEMA = "tokenbudget-errors/1"
FILE = "phase2_error_analysis.json"
_SHOWN_FAULTS = 5
_RECOVERY = ("recoverable", "persistent", "unknown")
_RECOVERY_WORDS = (
    "recoverable: right at a larger budget; persistent: right at none, or ended by itself; "
    "unknown: cut at the largest budget"
)
_WIDTHS = (7, 7, 10, 11, 10, 8)
_CELL = 15
_NARROWEST = 8


def report_of(study: Study, run: RunInfo, directory: Path) -> ErrorReport:
    """The report of a run: the budgets and annotators of its options."""
    folders = cast("Sequence[Path]", run.settings.get("annotations") or ())
    samples = cast("Sequence[tuple[int, int]]", run.settings.get("error_samples") or ())
    return errors_of(study, folders, samples, directory)


def errors_of(
    study: Study,
    folders: Sequence[Path],
    samples: Sequence[tuple[int, int]],
    directory: Path,
) -> ErrorReport:
    """What is known about a study's errors; computed once for the arguments.

    Args:
        study: The study.
        folders: The annotators' directories; none means the task's below ``directory``.
        samples: How many errors are picked, by budget; none means the default.
        directory: The reports directory.
    """
    # Everything that could differ the next time is an argument, in a form that can be hashed.
    read = [Path(folder) for folder in folders] or [annotations_folder(directory, study.task.name)]
    budgets = dict(samples) or DEFAULT_SAMPLES
    return study.once(analyse_errors, study, tuple(read), tuple(budgets), study.others)


def write_errors(study: Study, run: RunInfo, directory: Path) -> list[Path]:
    """Write the error analysis below ``directory`` and draw its figures.

    The file holds all models; those of former runs stay in it.

    Args:
        study: The study.
        run: The run that made it.
        directory: The reports directory.
    """
    from pytest_tokenbudget.studies.errors.figure import errors_figure
    from pytest_tokenbudget.studies.errors.recovery_figure import recovery_figure

    if not study.complete:
        return []
    report = report_of(study, run, directory)
    path = directory / "results" / FILE
    models = _models(path)
    models[report.model] = {
        **header(study, run, SCHEMA),
        "progress": report.sentence(),
        **to_record(report),
        "model": report.model,
    }
    write_json(path, {"schema": SCHEMA, "models": dict(sorted(models.items()))})
    return [
        path,
        *errors_figure(study, report, directory),
        *recovery_figure(study, report, directory),
    ]


def _models(path: Path) -> dict[str, object]:
    try:
        return dict(read_json(path)["models"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def errors_lines(study: Study, run: RunInfo, width: int = MAX_WIDTH) -> list[str]:
    """What is known about the errors, as lines of at most 80 columns.

    Args:
        study: The study.
        run: The run that made it.
        width: Columns of the terminal; sentences are wrapped to it.
    """
    width = columns(width)
    if not study.complete:
        return wrapped("no problem has all its traces yet: no errors to look at", width)
    report = report_of(study, run, Path(str(run.settings.get("reports") or "reports")))
    lines = [*wrapped(f"phase 2: {_answer(report)}", width), *_table(report)]
    for change in report.evolution:
        lines += evolution_lines(change, width)
    sentences = [_RECOVERY_WORDS] if any(one.errors for one in report.budgets) else []
    sentences.append(f"annotation: {report.sentence()}")
    sentences += [
        _annotated_recovery(one) for one in report.budgets if any(one.recoverable.values())
    ]
    sentences += [printable(fault) for fault in report.faults[:_SHOWN_FAULTS]]
    if len(report.faults) > _SHOWN_FAULTS:
        sentences.append(f"and {len(report.faults) - _SHOWN_FAULTS} more")
    sentences += [_budget_words(one) for one in report.budgets if one.errors]
    sentences += [printable(one.sentence()) for one in report.agreement if one.n]
    stale = sum(one.of_other_texts for one in report.budgets)
    if stale:
        are = "annotated row is" if stale == 1 else "annotated rows are"
        sentences.append(f"{stale} {are} about texts that were generated otherwise: left out")
    if report.left_out:
        left = ", ".join(map(count, report.left_out))
        sentences.append(f"left out, beyond what was generated: {left} tokens")
    return lines + [line for sentence in sentences for line in wrapped(sentence, width)]


def _answer(report: ErrorReport) -> str:
    """What more tokens can do about the errors, in one line."""
    if not report.budgets:
        return "no budget of the error analysis was generated"
    first, last = report.budgets[0], report.budgets[-1]
    left = f"{plural(last.errors, 'error')} of {plural(last.answers, 'answer')}"
    at = f"{left} at {count(last.budget)} tokens"
    if first is last or not first.errors:
        return at
    yes, no, unknown = (first.measured[each] for each in RECOVERABLE)
    more = f", {unknown:,} unknown" if unknown else ""
    return (
        f"{at}; of {first.errors:,} at {count(first.budget)}, {yes:,} recoverable, "
        f"{no:,} persistent{more}"
    )


def _table(report: ErrorReport) -> list[str]:
    """Errors by budget, and whether more tokens make them right."""
    found = [one for one in report.budgets if one.answers]
    if not found:
        return []
    rows = [("budget", "errors", "of answers", *_RECOVERY), *map(_row, found)]
    return ["  ".join(c.rjust(w) for c, w in zip(row, _WIDTHS, strict=True)) for row in rows]


def _row(one: BudgetErrors) -> tuple[str, ...]:
    share = f"{percent(one.errors / one.answers)} %"
    measured = (count(one.measured[each]) for each in RECOVERABLE)
    return count(one.budget), count(one.errors), share, *measured


def evolution_lines(change: Evolution, width: int = MAX_WIDTH) -> list[str]:
    """What became of each type of error at the next budget, as a matrix.

    Annotated types are shown where there are any, else those that the rules suggest. Types that
    occur at neither budget are left out.

    Args:
        change: From one budget to the next.
        width: Columns of the terminal.
    """
    annotated = {kind for kind in change.annotated if kind not in (SOLVED, NOT_ANNOTATED)}
    known = any(sum(change.annotated[kind].values()) for kind in annotated)
    matrix, source = (
        (change.annotated, "annotated") if known else (change.suggested, "suggested by rules")
    )
    rows = [kind for kind in matrix if any(matrix[kind].values())]
    kinds = [kind for kind in matrix if any(matrix[row][kind] for row in rows)]
    if not {*rows, *kinds} - {SOLVED}:
        return []
    head = f"from {count(change.budget)} (rows) to {count(change.next)} (columns), {source}"
    room = min(_CELL, (width - _CELL) // len(kinds))
    if room < _NARROWEST:
        pairs = [
            f"{_kind(row)} to {_kind(kind)} {count(matrix[row][kind])}"
            for row in rows
            for kind in kinds
            if matrix[row][kind]
        ]
        about = f"from {count(change.budget)} to {count(change.next)}, {source}"
        return wrapped(f"{about}: {', '.join(pairs)}", width)
    shown = [_kind(kind) for kind in kinds]
    lines = [
        *wrapped(head, width),
        " " * _CELL + "".join(shorten(kind, room - 1).rjust(room) for kind in shown),
    ]
    for row in rows:
        cells = "".join(count(matrix[row][kind]).rjust(room) for kind in kinds)
        lines.append(f"{_kind(row):{_CELL}}{cells}")
    return lines


def _annotated_recovery(one: BudgetErrors) -> str:
    yes, no, unknown = (one.recoverable[each] for each in RECOVERABLE)
    return (
        f"{count(one.budget)}: annotated as recoverable {yes:,}, persistent {no:,}, "
        f"unknown {unknown:,}"
    )


def _kind(name: str) -> str:
    return "no suggestion" if name == NO_SUGGESTION else name


def _budget_words(one: BudgetErrors) -> str:
    found, word = (one.types, "") if one.types else (one.suggested, "suggested ")
    n = one.annotated if one.types else one.errors
    kinds = sorted(found.items(), key=lambda item: -item[1].count)
    said = ", ".join(f"{_kind(name)} {share.count}" for name, share in kinds if share.count)
    of = f"{n} annotated of {plural(one.errors, 'error')}" if one.types else plural(n, "error")
    return f"{count(one.budget)}: {of}, {word}{said}"
