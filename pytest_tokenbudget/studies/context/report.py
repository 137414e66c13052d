"""The context eval: its result files, and its tables and sentences on the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_tokenbudget.common.outside_text import printable
from pytest_tokenbudget.common.text_layout import (
    MAX_WIDTH,
    Table,
    columns,
    percent,
    plural,
    points,
    rate,
    rule,
    share,
    shorten,
    wrapped,
)
from pytest_tokenbudget.report.files import to_plain, to_record
from pytest_tokenbudget.report.json_files import (
    RunInfo,
    answer_record,
    file_stem,
    header,
    write_record,
)
from pytest_tokenbudget.report.shared_sentences import (
    failed,
    generated_now,
    nothing_yet,
    unfinished,
)
from pytest_tokenbudget.studies.context.analysis import (
    WHOLE_LIMIT,
    ContextReport,
    WindowPoint,
    analyse_context,
)
from pytest_tokenbudget.studies.context.statistics import shown_limit
from pytest_tokenbudget.studies.context.study import ContextStudy

if TYPE_CHECKING:
    from pytest_tokenbudget.studies.context.conversations import Arm
    from pytest_tokenbudget.studies.context.statistics import Contrast

SCHEMA = "tokenbudget-context/1"
NAME_WIDTH = 20
CELL_WIDTH = 12
_NEEDED = {"task": "its system prompt"}
_WORDS = {"task": ("system prompt and question", "the system prompt is lost")}


def write_context(study: ContextStudy, run: RunInfo, directory: Path) -> list[Path]:
    """Write what was found, every answer, and the figures.

    Conversations that lack an answer are left out and counted.
    """
    from pytest_tokenbudget.studies.context.figure import context_figures

    stem = f"context_{file_stem(study.whole)}"
    written = [write_record(directory, stem, context_record(study, run))]
    if study.complete:
        written.append(write_record(directory, f"{stem}_answers", list(_answers(study))))
        written += context_figures(study, directory)
    return written


def context_record(study: ContextStudy, run: RunInfo) -> dict[str, object]:
    """The whole study: its points, what they add up to, and what is needed to repeat it."""
    record: dict[str, object] = {
        **header(study.whole, run, SCHEMA),
        "problems": len(study.complete),
        "missing": study.missing,
        "errors": len(study.errors),
        "complete": run.complete and not study.missing and not study.errors,
        **to_record(study.context_plan),
        "generated_this_run": run.generated_tokens,
        "points": [],
    }
    if not study.complete:
        return record
    report = analyse_context(study)
    return record | {
        "points": [to_plain(point) for point in report.points],
        "right_with_all_that_is_needed": to_plain(report.alone),
        "right_without_it": to_plain(report.guessed),
        "recommended": {
            name: {**to_record(advice), "sentence": advice.sentence()}
            for name, advice in report.advice.items()
        },
        "contrasts": to_plain(report.contrasts),
    }


def _answers(study: ContextStudy) -> Iterator[dict[str, object]]:
    for arm in study.arms:
        for cell in study.cells:
            for answer in study.answers(arm, cell):
                yield {
                    "arm": arm,
                    "strategy": cell.strategy or None,
                    "limit": cell.limit,
                    "turns": answer.case.turns,
                    "depth": answer.case.depth,
                    "window": answer.facts.to_json(),
                    "problem_id": answer.case.problem.id,
                    **(answer_record(answer.judged) if answer.judged else {"correct": False}),
                }


def context_lines(study: ContextStudy, run: RunInfo, width: int = MAX_WIDTH) -> list[str]:
    """What a context study found, as lines for a terminal of ``width`` columns."""
    width = columns(width)
    tail = f", conversations in a window, n = {len(study.complete):,}"
    lines = [rule(study.alias, tail, width)]
    if study.complete:
        report = analyse_context(study)
        if "all" in report.advice:
            lines += wrapped(f"all together: {report.advice['all'].sentence()}", width)
        for arm in report.arms:
            name = (
                f"{shorten(printable(study.arm_name(arm)), 30)}: " if len(report.arms) > 1 else ""
            )
            lines += wrapped(f"{name}{report.advice[arm].sentence()}", width)
            lines += _table(study, report, arm, width)
            for sentence in _arm_sentences(study, report, arm):
                lines += wrapped(sentence, width)
    else:
        lines += wrapped(nothing_yet(whole="conversation", part="answer"), width)
    for sentence in _omissions(study, run):
        lines += wrapped(sentence, width)
    return lines


def _table(study: ContextStudy, report: ContextReport, arm: Arm, width: int) -> list[str]:
    """Accuracy of every strategy at every limit, and how many windows hold what is needed.

    Of more limits than the width has room for the smallest are left out, which a line says.
    """
    whole = report.whole(arm)
    name = shorten(printable(study.arm_name(arm)), 30)
    kept = f" (% of windows with {_NEEDED.get(arm, 'all facts needed')})" if whole.kept else ""
    shown = max(1, (width - NAME_WIDTH) // CELL_WIDTH - 1)
    limits = [*report.limits[-1 - shown : -1], WHOLE_LIMIT]
    table = Table("", *map(shown_limit, limits))
    for strategy in report.strategies:
        table.add(strategy, *(_cell(report.at(arm, strategy, limit)) for limit in limits))
    lines = [f"{name}, n = {whole.curve.problems:,}: % right{kept} by limit", *table.lines(width)]
    if hidden := report.limits[: -len(limits)]:
        names = ", ".join(map(shown_limit, hidden))
        lines += wrapped(f"too many limits to show: {names} are in the results only", width)
    return lines


def _cell(point: WindowPoint) -> str:
    kept = "" if point.kept is None else f" ({100 * point.kept.value:.0f})"
    return f"{percent(point.accuracy.value)}{kept}"


def _arm_sentences(study: ContextStudy, report: ContextReport, arm: Arm) -> list[str]:
    alone, guessed = report.alone[arm], report.guessed[arm]
    there, lost = _WORDS.get(arm, ("all facts needed and the question", "a fact is lost"))
    said = []
    if alone is not None:
        said.append(f"right where the window holds {there}: {rate(alone)}")
    if guessed is not None:
        said.append(f"right where {lost} and the question is there: {rate(guessed)}")
    said += _cut_answers(study, report, arm)
    said += _cut_questions(report, arm)
    said += _no_windows(report, arm)
    if contrast := _best_contrast(report.contrasts[arm]):
        said.append(contrast)
    return said


def _cut_answers(study: ContextStudy, report: ContextReport, arm: Arm) -> list[str]:
    """How many answers had not ended: they are no evidence that something was forgotten."""
    measured = [
        report.at(arm, name, limit) for name in report.strategies for limit in report.limits
    ]
    worst = max(
        measured, key=lambda point: point.curve.truncation.n and point.curve.truncation.value
    )
    if not worst.curve.truncation.n or not worst.curve.truncation.value:
        return []
    whole = report.whole(arm).curve
    text = (
        f"answers cut at {study.whole.reach:,} tokens: {share(whole.truncation.value)} with "
        f"the whole conversation"
    )
    if whole.completed is not None:
        text += f", of the others {share(whole.completed.value)} are right"
    if worst.limit != WHOLE_LIMIT:
        text += (
            f"; at most {share(worst.curve.truncation.value)} ({worst.strategy} at "
            f"{shown_limit(worst.limit)})"
        )
    return [f"{text}; see --answer-tokens"]


def _cut_questions(report: ContextReport, arm: Arm) -> list[str]:
    """Which strategies cut the question itself."""
    found = []
    for strategy in report.strategies:
        rates = [
            (limit, point.question_whole.value)
            for limit in report.limits
            if (point := report.at(arm, strategy, limit)).question_whole is not None
        ]
        worst = min(rates, key=lambda pair: pair[1], default=(WHOLE_LIMIT, 1.0))
        if worst[1] < 1:
            found.append(
                f"{strategy} (in {100 * (1 - worst[1]):.0f} % of windows at "
                f"{shown_limit(worst[0])})"
            )
    return [f"the question itself is cut by {', '.join(found)}"] if found else []


def _no_windows(report: ContextReport, arm: Arm) -> list[str]:
    found: dict[tuple[str, int, str], list[str]] = {}
    for strategy in report.strategies:
        for limit in report.limits:
            point = report.at(arm, strategy, limit)
            if point.no_window:
                found.setdefault((limit, point.no_window, point.why), []).append(strategy)
    return [
        f"{', '.join(names)} at {shown_limit(limit)}: no window for "
        f"{plural(number, 'conversation')}, since {why}"
        for (limit, number, why), names in found.items()
    ]


def _best_contrast(contrasts: tuple[Contrast, ...]) -> str:
    """What the strategy that gains most over the reference gains at each limit."""
    shown = [each for each in contrasts if each.p_holm <= 0.05 and each.difference > 0]
    if not shown:
        return ""
    best = max(shown, key=lambda each: each.difference).strategy
    parts = [
        f"{points(each.difference)} points at {shown_limit(each.limit)}"
        for each in shown
        if each.strategy == best
    ]
    return f"{best} against {shown[0].reference}: {', '.join(parts)} (exact McNemar, Holm)"


def _omissions(study: ContextStudy, run: RunInfo) -> list[str]:
    context_plan = study.context_plan
    said = [
        f"conversations of {', '.join(map(str, context_plan.turns))} turns; prompts of at most "
        f"{context_plan.room:,} of {context_plan.context:,} tokens, answers of "
        f"{context_plan.answer_tokens:,}"
    ]
    if study.complete:
        said.append(generated_now(run.generated_tokens, study.missing))
    if context_plan.left_out:
        too_long = plural(len(context_plan.left_out), "conversation")
        said.append(f"{too_long} left out: longer than a prompt may be")
    said += unfinished(study.missing, len(study.cases), run.complete, "conversation", "answer")
    if study.errors:
        said.append(failed(len(study.errors), "answer", effect=""))
    return said
