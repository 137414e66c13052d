"""Phase 3, the cliff: from a study to its analysis, result files and lines on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_tokenbudget.common.text_layout import MAX_WIDTH, columns, count, listed, plural, wrapped
from pytest_tokenbudget.core.cliff import cliff_budgets, out_of_reach
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.report.files import to_plain, to_record, write_json
from pytest_tokenbudget.report.json_files import RunInfo, answer_record, file_stem, header
from pytest_tokenbudget.studies.cliff.analysis import analyse_cliff

if TYPE_CHECKING:
    from pytest_tokenbudget.core.cliff import Cliff
    from pytest_tokenbudget.stats.intervals import Estimate

SCHEMA = "tokenbudget-phase3-cliff/1"
SHOWN_WINDOWS = 3
_WIDTHS = (18, 28, 22)


def write_cliff(study: Study, run: RunInfo, directory: Path) -> list[Path]:
    """Write the cliff below ``directory``, each file whole or not at all.

    Args:
        study: The study; problems whose traces are not all there are left out and counted.
        run: The run that made it.
        directory: The reports directory; files go to its ``results`` and ``figures``.

    Returns:
        The files: every answer, one file a budget, the combined one, and the figures.
    """
    from pytest_tokenbudget.studies.cliff.answer_figure import answer_figure
    from pytest_tokenbudget.studies.cliff.figure import cliff_figure

    study = study.cliff_study
    results, stem = directory / "results", file_stem(study)
    budgets = cliff_budgets(study)
    written = [
        write_json(
            results / f"phase3_cliff_{stem}_budget{budget}.json",
            [answer_record(judged) for judged in study.judged(budget)],
        )
        for budget in budgets
    ]
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
    written.append(write_json(results / f"phase3_combined_{stem}.json", record))
    return written + cliff_figure(study, directory) + drawn


def steepest_lines(cliff: Cliff, width: int = MAX_WIDTH) -> list[str]:
    """The three steepest windows with what they gain a token, and which of them rise alike.

    Args:
        cliff: The cliff.
        width: Columns of the terminal; a table that it has no room for becomes sentences.
    """
    ranked = cliff.ranked
    steps = [step for alike in ranked for step in alike]
    shown = steps[:SHOWN_WINDOWS]
    if not shown:
        return []
    rows = [("steepest windows", "gain [95 %]", "points a token [95 %]")]
    rows += [
        (
            f"{count(step.low)} to {count(step.high)}",
            f"{_signed(step.gain, 1)} points",
            _signed(step.per_token, 2),
        )
        for step in shown
    ]
    lines = ["  ".join(c.ljust(w) for c, w in zip(r, _WIDTHS, strict=True)).rstrip() for r in rows]
    if max(map(len, lines)) > width:
        lines = wrapped(f"{rows[0][0]}:", width)
        for place, gain, slope in rows[1:]:
            lines += wrapped(f"{place}: {gain}, {slope} a token", width)
    for alike in ranked:
        if len(alike) > 1 and alike[0] in shown:
            names = [f"{count(step.low)} to {count(step.high)}" for step in alike]
            lines += wrapped(f"{listed(names)} alike", width)
    return lines


def _signed(estimate: Estimate, digits: int) -> str:
    value, low, high = (f"{100 * each + 0.0:+.{digits}f}" for each in estimate[:3])
    return f"{value} [{low}, {high}]"


def cliff_lines(study: Study, run: RunInfo, width: int = MAX_WIDTH) -> list[str]:
    """What is known about the cliff, as lines of at most 80 columns.

    Args:
        study: The study.
        run: The run that made it.
        width: Columns of the terminal; sentences are wrapped to it.
    """
    width = columns(width)
    study = study.cliff_study
    lines: list[str] = []
    if study.complete and cliff_budgets(study):
        result = analyse_cliff(study)
        told = [step for step in result.cliff.steps if step.significant]
        lines += wrapped(f"phase 3: {result.cliff.sentence()}", width)
        lines += steepest_lines(result.cliff, width)
        sentences = []
        if result.cliff.steps:
            sentences.append(
                f"accuracy differs between neighbours in {len(told)} of "
                f"{plural(len(result.cliff.steps), 'step')} from {count(result.budgets[0])} to "
                f"{count(result.budgets[-1])} (exact paired tests, Holm)"
            )
        if result.answers is not None:
            sentences.append(result.answers.sentence())
    elif study.complete:
        sentences = [out_of_reach(study)]
    else:
        sentences = ["no problem has all its traces yet: no cliff to look for"]
    for sentence in sentences:
        lines += wrapped(f"phase 3: {sentence}", width)
    return lines
