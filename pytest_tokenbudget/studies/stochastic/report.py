"""Phase 1b: several samples a problem, as result files and on the terminal."""

from __future__ import annotations

from pathlib import Path

from pytest_tokenbudget.common.text_layout import (
    MAX_WIDTH,
    Table,
    columns,
    count,
    percent,
    plural,
    rate,
    share,
    wrapped,
)
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.report.cost_words import cost_record, cost_sentences
from pytest_tokenbudget.report.figure_texts import decoding_words
from pytest_tokenbudget.report.files import to_plain, to_record
from pytest_tokenbudget.report.json_files import (
    RunInfo,
    file_stem,
    header,
    token_stats_of,
    write_answers,
    write_record,
)
from pytest_tokenbudget.report.limits import target_of
from pytest_tokenbudget.report.shared_sentences import failed, left_incomplete, nothing_yet
from pytest_tokenbudget.studies.stochastic.analysis import (
    SamplePoint,
    Stochastic,
    analyse_stochastic,
)

SCHEMA = "tokenbudget-phase1b/1"


def write_stochastic(study: Study, run: RunInfo, directory: Path) -> list[Path]:
    """Write every answer of every sample, one file a budget, and the combined file last."""
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
    return [
        *write_answers(study, directory, "phase1b_stochastic", study.budgets),
        write_record(directory, f"phase1b_combined_{file_stem(study)}", record),
    ]


def stochastic_lines(study: Study, run: RunInfo, width: int = MAX_WIDTH) -> list[str]:
    """What several samples say, with the largest budget first."""
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
        lines += _table(result).lines(width)
        if last.always and last.sometimes and last.never:
            sentences.append(
                f"at {count(last.budget)}, always solved {share(last.always.value)}, sometimes "
                f"{share(last.sometimes.value)}, never {share(last.never.value)} of the problems"
            )
        sentences += [each.sentence() for each in result.differences]
        sentences += cost_sentences(study, run, target_of(run)) if study.scored else []
    else:
        sentences.insert(0, f"phase 1b: {nothing_yet(part='sample')}")
    if study.missing:
        sentences.append(left_incomplete(study.missing, len(study.problems), part="sample"))
    if study.errors:
        are = "is" if len(study.errors) == 1 else "are"
        sentences.append(failed(len(study.errors), "sample", f" and {are} left out"))
    sentences += study.unknown_blocks if study.complete else []
    for sentence in sentences:
        lines += wrapped(sentence, width)
    return lines


def _answer(point: SamplePoint) -> str:
    """What repeated samples come to at the largest budget, in one line."""
    parts = [f"{share(point.mean_success.value)} of samples right"]
    if point.majority_vote is not None:
        parts.append(f"{share(point.majority_vote.value)} by majority vote")
    if point.samples > 1:
        parts.append(f"{share(point.pass_at[-1].rate.value)} at least once in {point.samples:,}")
    return f"at {count(point.budget)} tokens {', '.join(parts)}"


def _table(result: Stochastic) -> Table:
    samples = result.points[-1].samples
    table = Table(
        "budget", "success [95 %]", "sd across samples", f"pass@{samples}", "majority", left=()
    )
    for point in result.points:
        deviation, majority = point.deviation_across_samples, point.majority_vote
        table.add(
            count(point.budget),
            rate(point.mean_success, 5),
            "-" if deviation is None else f"{percent(deviation)} points",
            share(point.pass_at[-1].rate.value),
            share(None if majority is None else majority.value),
        )
    return table
