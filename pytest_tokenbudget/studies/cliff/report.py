"""Phase 3, the cliff: from a study to its analysis, result files and lines on the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_tokenbudget.common.style import MAX_WIDTH, columns, count, listed, plural, wrapped
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.core.trace import Outcome
from pytest_tokenbudget.report.files import to_plain, to_record, write_json
from pytest_tokenbudget.report.json_files import RunInfo, answer_record, file_stem, header
from pytest_tokenbudget.settings.options import DEFAULT_CLIFF_BUDGETS
from pytest_tokenbudget.stats.points import ByBudget
from pytest_tokenbudget.studies.stochastic.report import scores

if TYPE_CHECKING:
    from pytest_tokenbudget.stats.intervals import Estimate
    from pytest_tokenbudget.studies.cliff.answer_place import AnswerPlace
    from pytest_tokenbudget.studies.cliff.statistics import Cliff, Step

SCHEMA = "tokenbudget-phase3-cliff/1"
SHOWN_WINDOWS = 3
_WIDTHS = (18, 28, 22)


@dataclass(frozen=True)
class CliffPoint:
    """One budget of the cliff.

    Attributes:
        budget: The budget.
        accuracy: Accuracy there.
        step: From the budget before to this one; None at the smallest.
    """

    budget: int
    accuracy: Estimate
    step: Step | None


@dataclass(frozen=True)
class CliffStudy(ByBudget[CliffPoint]):
    """Where accuracy rises most steeply: between budgets, and token by token.

    Attributes:
        points: One for each budget, rising.
        cliff: What is known from these budgets.
        answers: Where in the output answers come, from every token; None where only answers at
            some budgets are known.
    """

    WHAT = "the cliff"

    points: tuple[CliffPoint, ...]
    cliff: Cliff
    answers: AnswerPlace | None


def cliff_budgets(study: Study) -> tuple[int, ...]:
    """Budgets between which the cliff is looked for: of those asked for, what traces reach to.

    Where recorded runs know too few of these for a cliff, all that were recorded take their place.
    """
    study = study.cliff_study
    asked = study.cliff_budgets or DEFAULT_CLIFF_BUDGETS
    known = study.usable(asked)
    return study.budgets if study.source is not None and len(known) < 3 else known


def analyse_cliff(study: Study) -> CliffStudy:
    """Where accuracy rises most steeply; computed once a study.

    Raises:
        ValueError: If no problem has all its traces, or no budget of the cliff is within reach.
    """
    study = study.cliff_study
    return study.once(_analyse, study, cliff_budgets(study))


def _analyse(study: Study, budgets: tuple[int, ...]) -> CliffStudy:
    import numpy as np

    from pytest_tokenbudget.stats.intervals import clustered_rate
    from pytest_tokenbudget.studies.cliff.answer_place import find_answers
    from pytest_tokenbudget.studies.cliff.statistics import find_cliff

    if not study.complete:
        raise ValueError(
            f"no problem of {study.task.name} has all its traces of {study.alias} to "
            f"{study.reach} tokens: there is nothing to analyse"
        )
    if not budgets:
        raise ValueError(f"{study.alias}: {_out_of_reach(study)}")
    shape = (len(study.complete), study.samples)
    judged = [study.judged(budget) for budget in budgets]
    correct = np.stack([scores(column).reshape(shape) for column in judged], axis=2)
    cliff = find_cliff(budgets, correct)
    width = round((budgets[-1] - budgets[0]) / max(1, len(budgets) - 1)) or budgets[0]
    points = tuple(
        CliffPoint(
            budget,
            clustered_rate(correct[:, :, index]),
            cliff.at(budget) if len(budgets) > 1 else None,
        )
        for index, budget in enumerate(budgets)
    )
    answers = None
    if study.by_token_available:
        right = study.correct_by_token()[1]
        fine = [j.outcome is not Outcome.ERROR for j in study.judged(study.largest)]
        answers = find_answers(
            right.reshape(*shape, -1), width, np.array(fine, dtype=bool).reshape(shape)
        )
    return CliffStudy(points, cliff, answers)


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


def _out_of_reach(study: Study) -> str:
    return f"traces reach to {plural(study.reach, 'token')}, below the smallest budget of the cliff"


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
        sentences = [_out_of_reach(study)]
    else:
        sentences = ["no problem has all its traces yet: no cliff to look for"]
    for sentence in sentences:
        lines += wrapped(f"phase 3: {sentence}", width)
    return lines
