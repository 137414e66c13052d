"""The conformance eval: its reports, their result file, their lines on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_tokenbudget.common.outside_text import printable
from pytest_tokenbudget.common.text_layout import (
    MAX_WIDTH,
    Table,
    columns,
    count,
    plural,
    rate,
    rule,
    shorten,
    wrapped,
)
from pytest_tokenbudget.report.files import safe_name, to_record
from pytest_tokenbudget.report.json_files import RunInfo, recorded_header, write_record
from pytest_tokenbudget.studies.conformance.analysis import (
    KIND,
    Behaviour,
    BudgetResult,
    BudgetVerdict,
    ConformanceReport,
    LimitFinding,
    NotAsked,
    limit_from,
    method_from,
)
from pytest_tokenbudget.studies.conformance.badge import badge_of, write_badge
from pytest_tokenbudget.studies.conformance.budget_methods import BUDGET_METHODS
from pytest_tokenbudget.studies.conformance.limits import LIMIT_PROBES
from pytest_tokenbudget.studies.conformance.wording import (
    budget_name,
    limits_sentence,
    mean_thinking,
    star_sentence,
    switch_sentence,
    thinking_sentence,
)

SCHEMA = "tokenbudget-conformance/1"
# Budgets that have a column; of more, the largest are left out.
_BUDGETS = 7
# Methods and probes that are named where they were not tried; more are counted.
_NAMED = 4
# Remarks that are shown of a method; the result file has all.
_REMARKS = 2
# What needs no further words where nothing is broken.
_SAID_BY_TABLE = (Behaviour.REFUSED, Behaviour.CAPPED, Behaviour.WHOLE)


def all_reports(records: Iterable[Mapping[str, Any]]) -> list[ConformanceReport]:
    """The reports that tests' records make, of all probes that there are.

    Records of other evals are passed over.
    """
    return reports_of(records, tuple(LIMIT_PROBES), tuple(BUDGET_METHODS))


def reports_of(
    records: Iterable[Mapping[str, Any]], limits: Sequence[str], methods: Sequence[str]
) -> list[ConformanceReport]:
    """The reports, one a model and engine, with the probes of these names in this order."""
    by_engine: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for record in records:
        if isinstance(probe := record.get(KIND), Mapping) and "about" in probe:
            about = probe["about"]
            by_engine.setdefault((about["model"], about["engine"]), []).append(probe)
    return [_report(parts, limits, methods) for parts in by_engine.values()]


def _report(
    parts: Sequence[Mapping[str, Any]], limits: Sequence[str], methods: Sequence[str]
) -> ConformanceReport:
    # The last one of a name counts: a test that failed may have been run again.
    found = {p["limit"]["probe"]: limit_from(p["limit"]) for p in parts if "limit" in p}
    tried = {p["way"]["way"]: method_from(p["way"]) for p in parts if "way" in p}
    untried = {p["not_asked"]["way"]: NotAsked(**p["not_asked"]) for p in parts if "not_asked" in p}
    return ConformanceReport(
        alias=parts[0]["about"]["model"],
        engine=parts[0]["about"]["engine"],
        about=parts[0]["about"],
        limits=tuple(found[name] for name in limits if name in found),
        methods=tuple(tried[name] for name in methods if name in tried),
        not_asked=tuple(untried[name] for name in methods if name in untried),
        missing=(
            *(name for name in limits if name not in found),
            *(name for name in methods if name not in tried and name not in untried),
        ),
        judged=any("judged" in p for p in parts),
    )


def write_conformance(report: ConformanceReport, run: RunInfo, directory: Path) -> list[Path]:
    """Write the result file, the badge, and where a method was tried the table as a figure."""
    from pytest_tokenbudget.studies.conformance.figure import conformance_figure

    stem = f"conformance_{safe_name(report.engine)}_{safe_name(report.alias)}"
    written = [write_record(directory, stem, conformance_record(report, run))]
    if report.methods:
        written += conformance_figure(report, directory / "figures" / stem)
    return [*written, *write_badge(report, directory / "figures" / f"{stem}_badge")]


def conformance_record(report: ConformanceReport, run: RunInfo) -> dict[str, object]:
    """Everything that was found with its evidence, and what is needed to repeat it."""
    best = report.best
    limits = [to_record(each) for each in report.limits]
    for limit in limits:
        del limit["cases"]
    return {
        **recorded_header(report.about, report.missing, run, SCHEMA),
        "summary": {
            "verdict": None if best is None else best.verdict,
            "way": None if best is None else best.way,
            "thinking": thinking_sentence(report),
            "switches": switch_sentence(report),
            "limits": limits_sentence(report),
            "ways_by_verdict": {v.value: list(report.methods_with(v)) for v in BudgetVerdict},
            "limits_by_finding": {f.value: list(report.limits_with(f)) for f in LimitFinding},
            "badge": badge_of(report).endpoint(),
        },
        "limits": limits,
        "overflow": [to_record(each) for each in report.overflow],
        "ways": [
            to_record(method) | {"budgets": [budget_record(each) for each in method.budgets]}
            for method in report.methods
        ],
        "not_asked": [to_record(each) for each in report.not_asked],
    }


def budget_record(result: BudgetResult) -> dict[str, object]:
    """A budget as JSON, with means and counts over its observations."""
    seen = result.observations
    return to_record(result) | {
        "mean_thinking": result.mean_thinking if seen else None,
        "mean_answer": sum(each.answer for each in seen) / len(seen) if seen else None,
        "mean_spill": sum(each.spill for each in seen) / len(seen) if seen else None,
        "largest_thinking": max((each.thinking for each in seen), default=None),
        **{
            name: sum(getattr(each, name) for each in seen)
            for name in ("opened", "closed", "reopened", "spilled", "capped", "in_content")
        },
    }


def conformance_lines(report: ConformanceReport, run: RunInfo, width: int = MAX_WIDTH) -> list[str]:
    """What the conformance eval found, as lines for a terminal of ``width`` columns."""
    width = columns(width)
    engine = shorten(printable(report.engine), 24)
    lines = [rule(report.alias, f" by {engine}: are limits kept?", width)]

    def say(*sentences: str) -> None:
        for sentence in sentences:
            lines.extend(wrapped(printable(sentence), width))

    if report.limits:
        say(limits_sentence(report))
    if report.methods:
        say(thinking_sentence(report))
    lines += _limit_table(report).lines(width)
    for limit in report.limits:
        if limit.finding is not LimitFinding.KEPT and not limit.cases:
            say(f"{limit.probe} {limit.finding}: {limit.sentence}")
    lines += _overflow_table(report).lines(width)
    for case in report.overflow:
        if case.broken or case.behaviour not in _SAID_BY_TABLE:
            say(f"{case.case}: {case.sentence}")
    lines += _method_table(report).lines(width)
    say(star_sentence(report), *_method_sentences(report))
    if report.missing:
        shown = ", ".join(report.missing[:_NAMED])
        more = ", ..." if len(report.missing) > _NAMED else ""
        say(f"{plural(len(report.missing), 'probe')} not made in this run: {shown}{more}")
    return lines


def _limit_table(report: ConformanceReport) -> Table:
    table = Table("limit", "finding", "failed", "rate [95 %]", left=(0, 1, 3))
    for each in report.limits:
        failed = f"{each.failed:,} of {each.checked:,}" if each.checked else "-"
        table.add(each.probe, each.finding, failed, "" if each.rate is None else rate(each.rate))
    return table


def _overflow_table(report: ConformanceReport) -> Table:
    context = report.about.get("context")
    title = "beyond the context" + (f" of {context:,}" if isinstance(context, int) else "")
    table = Table(title, "prompt", "asked", "given", "what happens", left=(0, 4))
    for each in report.overflow:
        tokens = (each.prompt, each.max_tokens, each.output)
        counts = ("-" if number is None else count(number) for number in tokens)
        table.add(each.case, *counts, each.behaviour)
    return table


def _method_table(report: ConformanceReport) -> Table:
    budgets = report.budgets
    # The largest of many are left out, but never what stands without a budget.
    shown = budgets if len(budgets) <= _BUDGETS else (*budgets[: _BUDGETS - 1], budgets[-1])
    table = Table(
        "way to set it", *map(budget_name, shown), "verdict",
        left=(0, len(shown) + 1), span="mean thinking tokens at a thinking budget of",
    )  # fmt: skip
    for method in report.methods:
        results = {each.budget: each for each in method.budgets}
        means = (mean_thinking(results[each]) if each in results else "" for each in shown)
        table.add(printable(method.way), *means, method.verdict)
    return table


def _method_sentences(report: ConformanceReport) -> Iterator[str]:
    yield switch_sentence(report)
    best = report.best
    for method in report.methods:
        if method is best or method.verdict is BudgetVerdict.INVERTED:
            yield f"{method.way} is {method.sentence}"
            yield from (f"{method.way}: {remark}" for remark in method.remarks[:_REMARKS])
            if (more := len(method.remarks) - _REMARKS) > 0:
                yield f"{method.way}: {plural(more, 'further remark')} in the result file"
    if dropping := [each for each in report.methods if each.unknown_fields == "dropped"]:
        yield (
            "a field that does not exist is dropped without an error "
            f"({plural(len(dropping), 'way')}): a budget in the wrong place goes unnoticed"
        )
    by_reason: dict[str, list[str]] = {}
    for each in report.not_asked:
        by_reason.setdefault(each.reason, []).append(each.way)
    for reason, names in by_reason.items():
        which = ", ".join(names) if len(names) <= _NAMED else plural(len(names), "way")
        yield f"not tried: {which} ({reason})"
