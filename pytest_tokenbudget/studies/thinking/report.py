"""The thinking eval: its result files, and its table and sentences on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_tokenbudget.common.outside_text import printable
from pytest_tokenbudget.common.text_layout import (
    MAX_WIDTH,
    Table,
    columns,
    count,
    decimal,
    listed,
    plural,
    rate,
    rule,
    share,
    shorten,
    wrapped,
)
from pytest_tokenbudget.report.files import safe_name, to_plain, to_record
from pytest_tokenbudget.report.json_files import RunInfo, answer_record, header, write_record
from pytest_tokenbudget.report.limits import limit_answer, limits_record
from pytest_tokenbudget.report.shared_sentences import (
    failed,
    generated_now,
    left_out_budgets,
    nothing_yet,
    unfinished,
)
from pytest_tokenbudget.report.truncation_signs import signs_lines
from pytest_tokenbudget.studies.thinking.analysis import (
    ThinkingPoint,
    ThinkingReport,
    analyse_thinking,
)
from pytest_tokenbudget.studies.thinking.cost import thinking_cost_record, thinking_cost_sentences
from pytest_tokenbudget.studies.thinking.study import Enforcement, ThinkingAnswer, ThinkingStudy

if TYPE_CHECKING:
    from pytest_tokenbudget.stats.limits import Recommendation
    from pytest_tokenbudget.stats.truncation import LimitVerdict

SCHEMA = "tokenbudget-thinking/2"
_WIDTHS = (8, 6, 21, 8, 8, 7, 8, 7)


def write_thinking(study: ThinkingStudy, run: RunInfo, directory: Path) -> list[Path]:
    """Write a thinking study below ``directory``: every answer a budget, the whole, figures.

    Problems whose traces are not all there are left out and counted.
    """
    from pytest_tokenbudget.studies.thinking.figure import thinking_figures

    stem = f"thinking_{safe_name(study.alias)}"
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
                for how, closer, answers in _enforcements(study, budget)
                for answer in answers
            ],
        }
        written.append(write_record(directory, f"{stem}_budget{budget}", record))
    written.append(write_record(directory, stem, combined_record(study, run)))
    return written + (thinking_figures(study, directory) if report else [])


def _enforcements(
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
    plain, curve = to_record(point), to_record(point.curve)
    del plain["curve"]
    curve["at_most_tokens"] = curve.pop("budget")
    return {**plain, **curve}


def combined_record(study: ThinkingStudy, run: RunInfo) -> dict[str, object]:
    """The whole study: its curves, what they add up to, and what is needed to repeat it."""
    forcing, token_stats = study.forcing, dict[str, object]()
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
        "token_stats": token_stats,
        "cost": None,
    }
    if not study.complete:
        return record
    report = analyse_thinking(study)
    record["points"] = [point_record(point) for point in report.points]
    for point in report.points:
        parts = (point.enforcement.value, point.closer, point.budget)
        label = " ".join(str(part) for part in parts if part is not None)
        token_stats[label] = dict(point.token_stats)
    record |= {
        "early_or_late": _finding_record(report.settling),
        "usefulness": _finding_record(report.usefulness),
        "closer_comparisons": [_finding_record(each) for each in report.closers],
        "forced_against_hard": [_finding_record(each) for each in report.enforcements],
        "recommended_limits": {
            "all_tokens": limits_record(report.limits),
            "thinking_tokens": limits_record(report.thinking_limits),
            "thinking_off": None if report.off_limits is None else limits_record(report.off_limits),
        },
        "cost": thinking_cost_record(study, run) if study.natural.scored else None,
        "signs_of_truncation": to_plain(report.signs),
        "switched_off": None if report.off is None else _finding_record(report.off),
    }
    return record


def _finding_record(finding: object) -> dict[str, object]:
    return {**to_record(finding), "sentence": finding.sentence()}  # type: ignore[attr-defined]


def thinking_lines(study: ThinkingStudy, run: RunInfo, width: int = MAX_WIDTH) -> list[str]:
    """What a thinking study found, as lines for a terminal of ``width`` columns."""
    width = columns(width)
    task = shorten(printable(study.task.name), 24)
    lines = [rule(study.alias, f" thinks about {task}, n = {len(study.complete):,}", width)]
    sentences: list[str] = []
    if study.complete:
        report = analyse_thinking(study)
        lines += wrapped(_answer(study, report), width)
        lines += _table(study, report).lines(width)
        sentences += [*_sentences(study, report), *thinking_cost_sentences(study, run)]
    else:
        sentences.append(nothing_yet())
    sentences += _omissions(study, run)
    for sentence in sentences:
        lines += wrapped(sentence, width)
    return lines + (signs_lines(report.signs, width) if study.complete else [])


def _answer(study: ThinkingStudy, report: ThinkingReport) -> str:
    """The recommended limit of all tokens, and how thinking switched off does."""
    said = limit_answer(study.natural, report.limits.overall, " (thinking included)")
    off = report.thinking_off
    if off is None:
        return said
    tokens = f"{count(off.curve.mean_tokens.value)} tokens on average"
    return f"{said}; thinking off: {share(off.accuracy.value)} accuracy with {tokens}"


def _table(study: ThinkingStudy, report: ThinkingReport) -> Table:
    table = Table(
        "ended", "budget", "accuracy [95 %]", "ended", "cut in", "cut in", "thinking", "tokens",
    )  # fmt: skip
    table.add("by", "", "", "by force", "thinking", "answer", "tokens", "a right")
    for point in (
        *report.points_of(Enforcement.HARD),
        *report.points_of(Enforcement.FORCED, study.closers[0]),
        report.natural,
        *report.points_of(Enforcement.WAIT),
        *([off] if (off := report.thinking_off) else []),
    ):
        names = {
            Enforcement.HARD: "the cut",
            Enforcement.FORCED: "closer",
            Enforcement.NATURAL: "itself",
            Enforcement.OFF: "(off)",
            Enforcement.WAIT: f"wait x {point.closer}",
        }
        table.add(
            names[point.enforcement],
            "-" if point.budget is None else count(point.budget),
            rate(point.accuracy),
            forced_share(point),
            share(point.in_thinking.value),
            share(point.in_answer.value),
            decimal(point.thinking_tokens.mean.value),
            "-" if point.tokens_per_correct is None else count(point.tokens_per_correct.value),
        )
    return table


def forced_share(point: ThinkingPoint) -> str:
    """The share of answers whose thinking was ended by force; ``-`` where nothing ends it."""
    if point.enforcement is not Enforcement.FORCED or not point.curve.problems:
        return "-"
    return share(point.forced / point.curve.problems)


def _sentences(study: ThinkingStudy, report: ThinkingReport) -> list[str]:
    said = [report.usefulness.sentence(), report.settling.sentence()]
    said += [each.sentence() for each in report.enforcements if each.budget is None]
    # Budget 0 has a sentence of its own: no thinking is another kind of answer.
    said += [each.sentence() for each in report.closers if not each.budget]
    room = plural(study.forcing.answer_tokens, "token")
    said.append(f"closer: {study.closers[0]}; answers after it have at most {room}")
    strange = [p for p in report.points_of(Enforcement.FORCED) if p.reopened or p.spilled]
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
    if study.complete:
        said.append(generated_now(run.generated_tokens, study.missing))
    said += unfinished(study.missing, len(study.problems), run.complete)
    if study.left_out:
        why, unit = "no room in the model's context", "tokens of thinking"
        said.append(left_out_budgets(study.left_out, why, unit))
    errors = sum(a.correct != a.correct for a in study.unlimited()) if study.complete else 0
    if errors:
        said.append(failed(errors))
    return said
