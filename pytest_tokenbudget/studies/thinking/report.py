"""The thinking eval: its result files, and its table and sentences on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_tokenbudget.common.outside_text import printable
from pytest_tokenbudget.common.text_layout import (
    MAX_WIDTH,
    columns,
    count,
    listed,
    no_token,
    percent,
    plural,
    rule,
    shorten,
    wrapped,
)
from pytest_tokenbudget.report.files import safe_name, to_plain, to_record, write_json
from pytest_tokenbudget.report.json_files import RunInfo, answer_record, header
from pytest_tokenbudget.report.limits import limit_answer, limits_record
from pytest_tokenbudget.report.truncation_signs import signs_lines
from pytest_tokenbudget.studies.thinking.analysis import (
    ThinkingPoint,
    ThinkingReport,
    analyse_thinking,
)
from pytest_tokenbudget.studies.thinking.cost import (
    thinking_cost_record,
    thinking_cost_sentences,
)
from pytest_tokenbudget.studies.thinking.study import Enforcement, ThinkingAnswer, ThinkingStudy

if TYPE_CHECKING:
    from pytest_tokenbudget.stats.limits import Recommendation
    from pytest_tokenbudget.stats.truncation import LimitVerdict

SCHEMA = "tokenbudget-thinking/2"
_WIDTHS = (8, 6, 21, 8, 8, 7, 8, 7)


def write_thinking(study: ThinkingStudy, run: RunInfo, directory: Path) -> list[Path]:
    """Write a thinking study below ``directory``, each file whole or not at all.

    Args:
        study: The study; problems whose traces are not all there are left out and counted.
        run: The run that made it.
        directory: The reports directory; files go to its ``results`` and ``figures``.

    Returns:
        The files: every answer under every enforcement, one file a budget, the combined one, and
        the figures.
    """
    from pytest_tokenbudget.studies.thinking.figure import thinking_figures

    results, stem = directory / "results", safe_name(study.alias)
    report = analyse_thinking(study) if study.complete else None
    written = []
    for budget in study.budgets if report else ():
        record = {
            "model": study.alias,
            "task": study.task.name,
            "budget": budget,
            "modes": list(study.modes_of(budget)),
            "points": [point_record(p) for p in report.at(budget)] if report else [],
            "answers": [
                {"enforcement": how, "closer": closer, **_answer_record(answer, budget)}
                for how, closer, answers in _ways(study, budget)
                for answer in answers
            ],
        }
        written.append(write_json(results / f"thinking_{stem}_budget{budget}.json", record))
    written.append(write_json(results / f"thinking_{stem}.json", combined_record(study, run)))
    return written + (thinking_figures(study, directory) if report else [])


def _ways(
    study: ThinkingStudy, budget: int
) -> Iterator[tuple[Enforcement, str | None, Sequence[ThinkingAnswer]]]:
    if budget:
        yield Enforcement.HARD, None, study.hard(budget)
    for closer in study.closers:
        yield Enforcement.FORCED, closer, study.ended(budget, closer)
    if budget and study.off is not None and budget <= study.off.reach:
        yield Enforcement.OFF, None, study.switched_off(budget)


def _answer_record(answer: ThinkingAnswer, budget: int) -> dict[str, object]:
    return {
        **answer_record(answer.judged),
        "budget": budget,
        "tokens_used": answer.tokens,
        "thinking_tokens": answer.thinking,
        "answer_tokens": answer.answer,
        "forced": answer.forced,
        "reopened": answer.reopened,
        "spilled": answer.spilled,
    }


def point_record(point: ThinkingPoint) -> dict[str, object]:
    """A point as JSON: what any point of a curve has, and what thinking adds."""
    plain = to_plain(point)
    assert isinstance(plain, dict)
    curve = plain.pop("curve")
    assert isinstance(curve, dict)
    curve["at_most_tokens"] = curve.pop("budget")
    return {**plain, **curve}


def combined_record(study: ThinkingStudy, run: RunInfo) -> dict[str, object]:
    """The whole study: its curves, what they add up to, and what is needed to repeat it."""
    forcing = study.forcing
    record: dict[str, object] = {
        **header(study.natural, run, SCHEMA),
        "mode": "thinking",
        "problems": len(study.complete),
        "missing": study.missing,
        "complete": run.complete and not study.missing,
        "budgets": list(study.budgets),
        "left_out_budgets": list(study.left_out),
        "answer_tokens": forcing.answer_tokens,
        "natural_cap": study.natural.reach,
        "closers": [{"name": c.name, "text": c.text} for c in forcing.closers],
        "waits": forcing.waits,
        "modes": to_plain(forcing.modes),
        "thinking_can_be_switched_off": study.switchable,
        "generated_this_run": run.generated_tokens,
        "points": [],
        "token_stats": {},
        "cost": None,
    }
    if not study.complete:
        return record
    report = analyse_thinking(study)
    record["points"] = [point_record(point) for point in report.points]
    record["token_stats"] = {_label(point): dict(point.token_stats) for point in report.points}
    record |= {
        "early_or_late": _said(report.settling),
        "usefulness": _said(report.usefulness),
        "closer_comparisons": [_said(each) for each in report.closers],
        "forced_against_hard": [_said(each) for each in report.enforcements],
        "recommended_limits": {
            "all_tokens": limits_record(report.limits),
            "thinking_tokens": limits_record(report.thinking_limits),
            "thinking_off": None if report.off_limits is None else limits_record(report.off_limits),
        },
        "cost": thinking_cost_record(study, run) if study.natural.scored else None,
        "signs_of_truncation": to_plain(report.signs),
        "switched_off": None if report.off is None else _said(report.off),
    }
    return record


def _label(point: ThinkingPoint) -> str:
    parts = [point.enforcement.value, point.closer, point.budget]
    return " ".join(str(part) for part in parts if part is not None)


def _said(finding: object) -> dict[str, object]:
    return {**to_record(finding), "sentence": finding.sentence()}  # type: ignore[attr-defined]


def thinking_lines(study: ThinkingStudy, run: RunInfo, width: int = MAX_WIDTH) -> list[str]:
    """What a thinking study found, as lines of at most 80 columns.

    Args:
        study: The study.
        run: The run that made it.
        width: Columns of the terminal. Sentences are wrapped to it; the table needs 79.
    """
    width = columns(width)
    lines = [_rule(study, width)]
    sentences: list[str] = []
    if study.complete:
        report = analyse_thinking(study)
        lines += wrapped(_answer(study, report), width)
        lines += _table(study, report)
        sentences += [*_sentences(study, report), *thinking_cost_sentences(study, run)]
    else:
        sentences.append("no problem has all its traces yet: nothing to show")
    sentences += _omissions(study, run)
    for sentence in sentences:
        lines += wrapped(sentence, width)
    return lines + (signs_lines(report.signs, width) if study.complete else [])


def _answer(study: ThinkingStudy, report: ThinkingReport) -> str:
    """The recommended limit of all tokens, and how thinking switched off does."""
    said = limit_answer(study.natural, report.limits.overall, " (thinking included)")
    off = next((p for p in report.of(Enforcement.OFF) if p.budget is None), None)
    if off is None:
        return said
    tokens = f"{off.curve.mean_tokens.value:,.0f} tokens on average"
    return f"{said}; thinking off: {percent(off.accuracy.value)} % accuracy with {tokens}"


def _rule(study: ThinkingStudy, width: int) -> str:
    task = shorten(printable(study.task.name), 24)
    return rule(study.alias, f" thinks about {task}, n = {len(study.complete):,}", width)


def _table(study: ThinkingStudy, report: ThinkingReport) -> list[str]:
    heads = (
        "ended",
        "budget",
        "accuracy [95 %]",
        "ended",
        "cut in",
        "cut in",
        "thinking",
        "tokens",
    )
    below = ("by", "", "", "by force", "thinking", "answer", "tokens", "a right")
    shown = [
        *report.of(Enforcement.HARD),
        *report.of(Enforcement.FORCED, study.closers[0]),
        *report.of(Enforcement.NATURAL),
        *report.of(Enforcement.WAIT),
        *[p for p in report.of(Enforcement.OFF) if p.budget is None],
    ]
    rows = [heads, below, *(_row(study, point) for point in shown)]
    return [
        " ".join(
            cell.ljust(w) if place in (0, 2) else cell.rjust(w)
            for place, (cell, w) in enumerate(zip(row, _WIDTHS, strict=True))
        ).rstrip()
        for row in rows
    ]


def _row(study: ThinkingStudy, point: ThinkingPoint) -> tuple[str, ...]:
    accuracy, price = point.accuracy, point.tokens_per_correct
    names = {
        Enforcement.HARD: "the cut",
        Enforcement.FORCED: "closer",
        Enforcement.NATURAL: "itself",
        Enforcement.OFF: "(off)",
        Enforcement.WAIT: f"wait x {point.closer}",
    }
    low, high = percent(accuracy.low), percent(accuracy.high)
    return (
        names[point.enforcement],
        "-" if point.budget is None else count(point.budget),
        f"{percent(accuracy.value, 5)} % [{low}, {high}]",
        forced_share(point),
        f"{percent(point.in_thinking.value)} %",
        f"{percent(point.in_answer.value)} %",
        f"{point.thinking_tokens.mean.value:,.1f}",
        "-" if price is None else f"{price.value:,.0f}",
    )


def forced_share(point: ThinkingPoint) -> str:
    """The share of answers whose thinking was ended by force; ``-`` where nothing ends it."""
    if point.enforcement is not Enforcement.FORCED or not point.curve.problems:
        return "-"
    return f"{percent(point.forced / point.curve.problems)} %"


def _sentences(study: ThinkingStudy, report: ThinkingReport) -> list[str]:
    said = [report.usefulness.sentence(), report.settling.sentence()]
    said += [each.sentence() for each in report.enforcements if each.budget is None]
    # Budget 0 has a sentence of its own: no thinking is another kind of answer.
    said += [each.sentence() for each in report.closers if not each.budget]
    room = plural(study.forcing.answer_tokens, "token")
    said.append(f"closer: {study.closers[0]}; answers after it have at most {room}")
    strange = [p for p in report.of(Enforcement.FORCED) if p.reopened or p.spilled]
    if strange:
        worst = max(strange, key=lambda p: p.reopened + p.spilled)
        said.append(
            f"thinking went on after the forced close in up to {worst.reopened + worst.spilled:,} "
            f"of {worst.forced:,} forced answers ({worst.name}, budget {count(worst.budget or 0)})"
        )
    said.append(f"limit for all tokens, {report.limits.overall.finding()}")
    said.append(f"limit for thinking, {report.thinking_limits.overall.finding()}")
    said += _rules(report.limits.overall)
    if report.off is not None:
        said.append(report.off.sentence())
    elif not study.switchable:
        said.append("thinking cannot be switched off: the template has no switch")
    if modes := study.forcing.modes:
        shown = [f"{m.mode} {'-' if m.tokens is None else count(m.tokens)}" for m in modes]
        said.append(f"modes as they are tried here: {', '.join(shown)}; why is in the results")
    return said


def _rules(recommendation: Recommendation) -> list[str]:
    judged: dict[LimitVerdict, list[str]] = {}
    for check in recommendation.rules:
        if check.applies:
            judged.setdefault(check.verdict, []).append(count(check.rule.limit))
    if not judged:
        return []
    parts = [_judged(limits, verdict) for verdict, limits in judged.items()]
    goal = f"{100 * recommendation.target:g} %"
    return [f"rules of thumb, as limits that truncate at most {goal}: {'; '.join(parts)}"]


def _judged(limits: list[str], verdict: LimitVerdict) -> str:
    """Limits with what is said of them: "1,200 and 1,500 hold", "1,800 is refuted"."""
    one, named = len(limits) == 1, listed(limits)
    if verdict == "holds":
        return f"{named} {'holds' if one else 'hold'}"
    return f"{named} {'is' if one else 'are'} {verdict}"


def _omissions(study: ThinkingStudy, run: RunInfo) -> list[str]:
    said = []
    if not run.generated_tokens and study.complete:
        said.append(f"this run generated {no_token(study.missing)}")
    elif study.complete:
        said.append(f"this run generated {plural(run.generated_tokens, 'token')}")
    if study.missing:
        of = f"{study.missing:,} of {plural(len(study.problems), 'problem')}"
        lacks = "lacks traces and is" if study.missing == 1 else "lack traces and are"
        said.append(f"{of} {lacks} left out: run the same command again to go on")
    elif not run.complete:
        said.append("the run was interrupted")
    if study.left_out:
        said.append(
            f"left out, no room in the model's context: {', '.join(map(count, study.left_out))} "
            "tokens of thinking"
        )
    errors = sum(a.correct != a.correct for a in study.unlimited()) if study.complete else 0
    if errors:
        said.append(f"{plural(errors, 'trace')} ended in an error and count in no rate")
    return said
