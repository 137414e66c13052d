"""Phase 2: the error analysis of a run as a file, as a figure, and on the terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from pytest_tokenbudget.report.annotations import annotations_folder
from pytest_tokenbudget.report.error_analysis import (
    DEFAULT_SAMPLES,
    NO_SUGGESTION,
    BudgetErrors,
    ErrorReport,
    analyse_errors,
)
from pytest_tokenbudget.report.files import to_record, write_json
from pytest_tokenbudget.report.json_files import RunInfo, header
from pytest_tokenbudget.report.study import Study
from pytest_tokenbudget.report.style import MAX_WIDTH, columns, count, plural, visible, wrapped

__all__ = ["ErrorReport", "analyse_errors", "errors_lines", "write_errors"]

SCHEMA = "tokenbudget-errors/1"
FILE = "phase2_error_analysis.json"
_SHOWN_FAULTS = 5


def report_of(study: Study, run: RunInfo, directory: Path) -> ErrorReport:
    """The report of a run: the budgets and annotators of its options; made once a study."""
    folders = cast("Sequence[Path]", run.settings.get("annotations") or ())
    samples = cast("Sequence[tuple[int, int]]", run.settings.get("error_samples") or ())
    return errors_of(study, folders, samples, directory)


def errors_of(
    study: Study,
    folders: Sequence[Path],
    samples: Sequence[tuple[int, int]],
    directory: Path,
) -> ErrorReport:
    """What is known about a study's errors; computed once a study.

    Args:
        study: The study.
        folders: The annotators' directories; none means the task's below ``directory``.
        samples: How many errors are picked, by budget; none means the default.
        directory: The reports directory.
    """
    return study.once(
        "errors",
        lambda: analyse_errors(
            study,
            [Path(folder) for folder in folders]
            or [annotations_folder(directory, study.task.name)],
            dict(samples) or DEFAULT_SAMPLES,
            study.others,
        ),
    )


def write_errors(study: Study, run: RunInfo, directory: Path) -> list[Path]:
    """Write the error analysis below ``directory`` and draw its figures.

    The file holds all models; those of former runs stay in it.

    Args:
        study: The study.
        run: The run that made it.
        directory: The reports directory.
    """
    from pytest_tokenbudget.report.errors_figure import errors_figure
    from pytest_tokenbudget.report.recovery_figure import recovery_figure

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
        return dict(json.loads(path.read_text(encoding="utf-8"))["models"])
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
    sentences = [f"errors: {report.sentence()}"]
    sentences += [visible(fault) for fault in report.faults[:_SHOWN_FAULTS]]
    if len(report.faults) > _SHOWN_FAULTS:
        sentences.append(f"and {len(report.faults) - _SHOWN_FAULTS} more")
    sentences += [_budget_words(one) for one in report.budgets if one.errors]
    sentences += [visible(one.sentence()) for one in report.agreement if one.n]
    stale = sum(one.of_other_texts for one in report.budgets)
    if stale:
        are = "annotated row is" if stale == 1 else "annotated rows are"
        sentences.append(f"{stale} {are} about texts that were generated otherwise: left out")
    if report.left_out:
        left = ", ".join(map(count, report.left_out))
        sentences.append(f"left out, beyond what was generated: {left} tokens")
    return [line for sentence in sentences for line in wrapped(sentence, width)]


def _budget_words(one: BudgetErrors) -> str:
    found, word = (one.types, "") if one.types else (one.suggested, "suggested ")
    n = one.annotated if one.types else one.errors
    kinds = sorted(found.items(), key=lambda item: -item[1].count)
    said = ", ".join(
        f"{name.replace(NO_SUGGESTION, 'no suggestion')} {share.count}"
        for name, share in kinds
        if share.count
    )
    of = f"{n} annotated of {plural(one.errors, 'error')}" if one.types else plural(n, "error")
    return f"{count(one.budget)}: {of}, {word}{said}"
