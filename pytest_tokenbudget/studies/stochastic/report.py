"""Phase 1b: several samples a problem, as result files and on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_tokenbudget.common.text_layout import (
    MAX_WIDTH,
    columns,
    count,
    percent,
    plural,
    wrapped,
)
from pytest_tokenbudget.core.scoring import scores
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.report.cost_words import cost_record, cost_sentences
from pytest_tokenbudget.report.drawing import decoding_words
from pytest_tokenbudget.report.files import to_plain, to_record, write_json
from pytest_tokenbudget.report.json_files import (
    RunInfo,
    answer_record,
    file_stem,
    header,
    token_stats_of,
)
from pytest_tokenbudget.report.limits import target_of

if TYPE_CHECKING:
    from pytest_tokenbudget.stats.intervals import Estimate
    from pytest_tokenbudget.studies.stochastic.analysis import SamplePoint, Stochastic

SCHEMA = "tokenbudget-phase1b/1"
_WIDTHS = (7, 22, 17, 8, 8)


def analyse_stochastic(study: Study) -> Stochastic:
    """What several samples a problem say at the study's budgets; computed once a study.

    Raises:
        ValueError: If no problem has all its traces.
    """
    return study.once(_analyse, study)


def _analyse(study: Study) -> Stochastic:
    import numpy as np

    from pytest_tokenbudget.studies.stochastic.analysis import analyse_samples

    shape = (len(study.complete), study.samples)
    cuts = [study.judged(budget) for budget in study.budgets]
    if not study.complete:
        raise ValueError(
            f"no problem of {study.task.name} has all its samples of {study.alias}: there is "
            "nothing to analyse"
        )
    answers = np.empty((len(study.budgets), shape[0] * shape[1]), dtype=object)
    for row, column in enumerate(cuts):
        answers[row] = [judged.predicted for judged in column]
    return analyse_samples(
        study.budgets,
        np.stack([scores(column).reshape(shape) for column in cuts], axis=2),
        np.moveaxis(answers.reshape(-1, *shape), 0, 2),
    )


def write_stochastic(study: Study, run: RunInfo, directory: Path) -> list[Path]:
    """Write what several samples say below ``directory``, each file whole or not at all.

    Args:
        study: The study; problems whose traces are not all there are left out and counted.
        run: The run that made it.
        directory: The reports directory; files go to its ``results``.

    Returns:
        The files: every answer of every sample, one file a budget, and the combined one last.
    """
    results, stem = directory / "results", file_stem(study)
    written = [
        write_json(
            results / f"phase1b_stochastic_{stem}_budget{budget}.json",
            [answer_record(judged) for judged in study.judged(budget)],
        )
        for budget in study.budgets
    ]
    record: dict[str, object] = {
        **header(study, run, SCHEMA),
        "budgets": list(study.budgets),
        "left_out_budgets": list(study.left_out),
        "confidence": None,
        "points": [],
        "differences": [],
        "token_stats": {},
        "cost": cost_record(study, run, target_of(run)) if study.scored else None,
    }
    if study.complete:
        result = analyse_stochastic(study)
        record["token_stats"] = {
            str(budget): token_stats_of(study.judged(budget)) for budget in study.budgets
        }
        record["confidence"] = result.confidence
        record["points"] = to_plain(result.points)
        record["differences"] = [
            {**to_record(each), "sentence": each.sentence()} for each in result.differences
        ]
    written.append(write_json(results / f"phase1b_combined_{stem}.json", record))
    return written


def stochastic_lines(study: Study, run: RunInfo, width: int = MAX_WIDTH) -> list[str]:
    """What several samples say, as lines of at most 80 columns.

    Args:
        study: The study.
        run: The run that made it.
        width: Columns of the terminal. Sentences are wrapped to it; the table needs 70.
    """
    width = columns(width)
    lines: list[str] = []
    sentences = [
        f"{plural(study.samples, 'sample')} of each of {plural(len(study.complete), 'problem')}, "
        f"{decoding_words(study)}"
    ]
    if study.complete:
        result = analyse_stochastic(study)
        last = result.points[-1]
        lines += wrapped(f"phase 1b: {_answer(last)}", width)
        heads = ("budget", "success [95 %]".ljust(22), "sd across samples")
        table = [(*heads, f"pass@{last.samples}", "majority"), *map(_row, result.points)]
        lines += ["  ".join(c.rjust(w) for c, w in zip(r, _WIDTHS, strict=True)) for r in table]
        if last.always and last.sometimes and last.never:
            sentences.append(
                f"at {count(last.budget)}, always solved {_rate(last.always)}, sometimes "
                f"{_rate(last.sometimes)}, never {_rate(last.never)} of the problems"
            )
        sentences += [each.sentence() for each in result.differences]
        sentences += cost_sentences(study, run, target_of(run)) if study.scored else []
    else:
        sentences.insert(0, "phase 1b: no problem has all its samples yet: nothing to show")
    if study.missing:
        sentences.append(
            f"{study.missing:,} of {plural(len(study.problems), 'problem')} lack samples and are "
            "left out: run the same command again to go on"
        )
    if study.errors:
        count_not = "is left out" if len(study.errors) == 1 else "are left out"
        sentences.append(f"{plural(len(study.errors), 'sample')} ended in an error and {count_not}")
    sentences += study.unknown_blocks if study.complete else []
    for sentence in sentences:
        lines += wrapped(sentence, width)
    return lines


def _answer(point: SamplePoint) -> str:
    """What repeated samples come to at the largest budget, in one line."""
    said = [f"{_rate(point.mean_success)} of samples right"]
    if point.majority_vote is not None:
        said.append(f"{_rate(point.majority_vote)} by majority vote")
    if point.samples > 1:
        said.append(f"{_rate(point.pass_at[-1].rate)} at least once in {point.samples:,}")
    return f"at {count(point.budget)} tokens {', '.join(said)}"


def _row(point: SamplePoint) -> tuple[str, ...]:
    mean, deviation = point.mean_success, point.deviation_across_samples
    return (
        count(point.budget),
        f"{percent(mean.value, 5)} % [{percent(mean.low, 5)}, {percent(mean.high, 5)}]",
        "-" if deviation is None else f"{100 * deviation:.1f} points",
        f"{percent(point.pass_at[-1].rate.value)} %",
        "-" if point.majority_vote is None else _rate(point.majority_vote),
    )


def _rate(estimate: Estimate) -> str:
    return f"{percent(estimate.value)} %"
