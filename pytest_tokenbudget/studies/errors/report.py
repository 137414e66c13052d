"""Phase 2: the error analysis of a run as a file, as a figure, and on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast

from pytest_tokenbudget.common.outside_files import read_json
from pytest_tokenbudget.common.outside_text import printable
from pytest_tokenbudget.common.text_layout import (
    MAX_WIDTH,
    Table,
    columns,
    count,
    plural,
    share,
    wrapped,
)
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.report.files import to_record
from pytest_tokenbudget.report.json_files import RunInfo, header, write_record
from pytest_tokenbudget.report.shared_sentences import left_out_budgets, nothing_yet
from pytest_tokenbudget.studies.errors.analysis import (
    NO_SUGGESTION,
    BudgetErrors,
    ErrorReport,
    Evolution,
    errors_of,
)
from pytest_tokenbudget.studies.errors.statistics import NOT_ANNOTATED, SOLVED
from pytest_tokenbudget.studies.errors.taxonomy import RECOVERABLE

SCHEMA = "tokenbudget-errors/1"
FILE = "phase2_error_analysis"
_SHOWN_FAULTS = 5
_RECOVERY = ("recoverable", "persistent", "unknown")
_RECOVERY_WORDS = (
    "recoverable: right at a larger budget; persistent: right at none, or ended by itself; "
    "unknown: cut at the largest budget"
)


def report_of(study: Study, run: RunInfo, directory: Path) -> ErrorReport:
    """The report of a run: the budgets and annotators of its options."""
    folders = cast("Sequence[Path]", run.settings.get("annotations") or ())
    samples = cast("Sequence[tuple[int, int]]", run.settings.get("error_samples") or ())
    return errors_of(study, folders, samples, directory)


def write_errors(study: Study, run: RunInfo, directory: Path) -> list[Path]:
    """Write the error analysis and draw its figures.

    The file holds all models; those of former runs stay in it.
    """
    from pytest_tokenbudget.studies.errors.figure import errors_figure, recovery_figure

    if not study.complete:
        return []
    report = report_of(study, run, directory)
    models: dict[str, object] = {}
    with suppress(OSError, ValueError, KeyError, TypeError):
        models = dict(read_json(directory / "results" / f"{FILE}.json")["models"])
    models[report.model] = {
        **header(study, run, SCHEMA),
        "progress": report.sentence(),
        **to_record(report),
        "model": report.model,
    }
    record = {"schema": SCHEMA, "models": dict(sorted(models.items()))}
    return [
        write_record(directory, FILE, record),
        *errors_figure(study, report, directory),
        *recovery_figure(study, report, directory),
    ]


def errors_lines(study: Study, run: RunInfo, width: int = MAX_WIDTH) -> list[str]:
    """What is known about the errors."""
    width = columns(width)
    if not study.complete:
        return wrapped(nothing_yet("no errors to look at"), width)
    report = report_of(study, run, Path(str(run.settings.get("reports") or "reports")))
    lines = [*wrapped(f"phase 2: {_answer(report)}", width), *_table(report).lines(width)]
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
        sentences.append(left_out_budgets(report.left_out, "beyond what was generated"))
    return lines + [line for sentence in sentences for line in wrapped(sentence, width)]


def _answer(report: ErrorReport) -> str:
    """What more tokens can do about the errors, in one line."""
    if not report.budgets:
        return "no budget of the error analysis was generated"
    first, last = report.budgets[0], report.budgets[-1]
    left = f"{plural(last.errors, 'error')} of {plural(last.answers, 'answer')}"
    errors = f"{left} at {count(last.budget)} tokens"
    if first is last or not first.errors:
        return errors
    yes, no, unknown = (first.measured[each] for each in RECOVERABLE)
    more = f", {unknown:,} unknown" if unknown else ""
    return (
        f"{errors}; of {first.errors:,} at {count(first.budget)}, {yes:,} recoverable, "
        f"{no:,} persistent{more}"
    )


def _table(report: ErrorReport) -> Table:
    """Errors by budget, and whether more tokens make them right."""
    table = Table("budget", "errors", "of answers", *_RECOVERY, left=())
    for one in report.budgets:
        if one.answers:
            table.add(
                count(one.budget),
                count(one.errors),
                share(one.errors / one.answers),
                *(count(one.measured[value]) for value in RECOVERABLE),
            )
    return table


def evolution_lines(change: Evolution, width: int = MAX_WIDTH) -> list[str]:
    """What became of each type of error at the next budget, as a matrix.

    Annotated types are shown where there are any, else those that the rules suggest. Types that
    occur at neither budget are left out.
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
    table = Table("", *map(_kind, kinds))
    for row in rows:
        table.add(_kind(row), *(count(matrix[row][kind]) for kind in kinds))
    about = f"from {count(change.budget)} (rows) to {count(change.next)} (columns), {source}"
    return [*wrapped(about, width), *table.lines(width)]


def _annotated_recovery(errors: BudgetErrors) -> str:
    yes, no, unknown = (errors.recoverable[each] for each in RECOVERABLE)
    return (
        f"{count(errors.budget)}: annotated as recoverable {yes:,}, persistent {no:,}, "
        f"unknown {unknown:,}"
    )


def _kind(name: str) -> str:
    return "no suggestion" if name == NO_SUGGESTION else name


def _budget_words(errors: BudgetErrors) -> str:
    """How many errors of each kind there are at a budget."""
    if errors.types:
        about, types = (
            f"{errors.annotated} annotated of {plural(errors.errors, 'error')}, ",
            errors.types,
        )
    else:
        about, types = f"{plural(errors.errors, 'error')}, suggested ", errors.suggested
    kinds = sorted(types.items(), key=lambda item: -item[1].count)
    counts = ", ".join(f"{_kind(name)} {found.count}" for name, found in kinds if found.count)
    return f"{count(errors.budget)}: {about}{counts}"
