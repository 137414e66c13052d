"""Phase 3, the cliff: its result files and lines on the terminal."""

from __future__ import annotations

from pathlib import Path

from pytest_tokenbudget.common.text_layout import (
    MAX_WIDTH,
    Table,
    columns,
    count,
    listed,
    plural,
    point_change,
    wrapped,
)
from pytest_tokenbudget.core.cliff import BudgetStep, Cliff, cliff_budgets, out_of_reach
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.report.files import to_plain, to_record
from pytest_tokenbudget.report.json_files import (
    RunInfo,
    file_stem,
    header,
    write_answers,
    write_record,
)
from pytest_tokenbudget.report.shared_sentences import nothing_yet
from pytest_tokenbudget.studies.cliff.analysis import analyse_cliff

SCHEMA = "tokenbudget-phase3-cliff/1"
SHOWN_WINDOWS = 3


def write_cliff(study: Study, run: RunInfo, directory: Path) -> list[Path]:
    """Write every answer, one file a budget, the combined file, and the figures."""
    from pytest_tokenbudget.studies.cliff.figure import answer_figure, cliff_figure

    study = study.cliff_study
    budgets = cliff_budgets(study)
    record: dict[str, object] = {
        **header(study, run, SCHEMA),
        "budgets": list(budgets),
        "points": [],
        "cliff": None,
        "answers": None,
    }
    drawn: list[Path] = []
    if study.complete and budgets:
        result = analyse_cliff(study)
        record["points"] = [
            {"budget": point.budget, "accuracy": to_plain(point.accuracy)}
            for point in result.points
        ]
        record["cliff"] = {**to_record(result.cliff), "sentence": result.cliff.sentence()}
        if result.answers is not None:
            sentence = result.answers.sentence()
            record["answers"] = {**to_record(result.answers), "sentence": sentence}
            drawn = answer_figure(study, result.answers, directory)
    return [
        *write_answers(study, directory, "phase3_cliff", budgets),
        write_record(directory, f"phase3_combined_{file_stem(study)}", record),
        *cliff_figure(study, directory),
        *drawn,
    ]


def steepest_lines(cliff: Cliff, width: int = MAX_WIDTH) -> list[str]:
    """The three steepest windows with what they gain a token, and which of them rise alike."""
    shown = [step for alike in cliff.ranked for step in alike][:SHOWN_WINDOWS]
    table = Table("steepest windows", "gain [95 %]", "points a token [95 %]", left=(0, 1, 2))
    for step in shown:
        gain = f"{point_change(step.gain)} points"
        table.add(_window(step), gain, point_change(step.per_token, digits=2))
    lines = table.lines(width)
    for alike in cliff.ranked:
        if len(alike) > 1 and alike[0] in shown:
            lines += wrapped(f"{listed([_window(step) for step in alike])} alike", width)
    return lines


def _window(step: BudgetStep) -> str:
    return f"{count(step.low)} to {count(step.high)}"


def cliff_lines(study: Study, run: RunInfo, width: int = MAX_WIDTH) -> list[str]:
    """What is known about the cliff."""
    width = columns(width)
    study = study.cliff_study
    lines: list[str] = []
    if study.complete and cliff_budgets(study):
        result = analyse_cliff(study)
        significant = sum(step.significant for step in result.cliff.steps)
        lines += wrapped(f"phase 3: {result.cliff.sentence()}", width)
        lines += steepest_lines(result.cliff, width)
        sentences = []
        if result.cliff.steps:
            sentences.append(
                f"accuracy differs between neighbours in {significant} of "
                f"{plural(len(result.cliff.steps), 'step')} from {count(result.budgets[0])} to "
                f"{count(result.budgets[-1])} (exact paired tests, Holm)"
            )
        if result.answers is not None:
            sentences.append(result.answers.sentence())
    elif study.complete:
        sentences = [out_of_reach(study)]
    else:
        sentences = [nothing_yet("no cliff to look for")]
    for sentence in sentences:
        lines += wrapped(f"phase 3: {sentence}", width)
    return lines
