"""The conformance eval: its result file, its table and sentences on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pytest_tokenbudget.common.outside_text import printable
from pytest_tokenbudget.common.text_layout import (
    MAX_WIDTH,
    cells,
    columns,
    percent,
    plural,
    rule,
    shorten,
    wrapped,
)
from pytest_tokenbudget.report.files import safe_name, to_record, write_json
from pytest_tokenbudget.report.json_files import RunInfo, recorded_header
from pytest_tokenbudget.studies.conformance.analysis import ConformanceReport
from pytest_tokenbudget.studies.conformance.badge import badge_of, write_badge
from pytest_tokenbudget.studies.conformance.results import (
    Behaviour,
    BudgetResult,
    BudgetVerdict,
    LimitFinding,
    LimitResult,
    MethodResult,
)
from pytest_tokenbudget.studies.conformance.wording import budget_name, mean_thinking, star_sentence

SCHEMA = "tokenbudget-conformance/1"
# Columns of the table of ways: the verdict, each budget, and what a way's name needs at least.
_VERDICT, _BUDGET, _WAY = 12, 7, 16
# Ways and probes that are named where they were not tried; more are counted.
_NAMED = 4
# Remarks that are shown of a way; the result file has all.
_REMARKS = 2
# What needs no further words where nothing is broken.
_SAID_BY_TABLE = (Behaviour.REFUSED, Behaviour.CAPPED, Behaviour.WHOLE)


def file_stem(report: ConformanceReport) -> str:
    """What the files of a model's engine are named after."""
    return f"conformance_{safe_name(report.engine)}_{safe_name(report.alias)}"


def write_conformance(report: ConformanceReport, run: RunInfo, directory: Path) -> list[Path]:
    """Write what the conformance eval found below ``directory``, each file whole or not at all.

    Args:
        report: What was found.
        run: The run that found it.
        directory: The reports directory; files go to its ``results`` and ``figures``.

    Returns:
        The result file, the badge, and where a way was tried the table as a figure.
    """
    from pytest_tokenbudget.studies.conformance.figure import conformance_figure

    stem = file_stem(report)
    record = conformance_record(report, run)
    written = [write_json(directory / "results" / f"{stem}.json", record)]
    if report.ways:
        written += conformance_figure(report, directory / "figures" / stem)
    return [*written, *write_badge(report, directory / "figures" / f"{stem}_badge")]


def conformance_record(report: ConformanceReport, run: RunInfo) -> dict[str, object]:
    """Everything that was found with its evidence, and what is needed to repeat it."""
    return {
        **recorded_header(report.about, report.missing, run, SCHEMA),
        "summary": summary_record(report),
        "limits": [limit_record(each) for each in report.limits],
        "overflow": [to_record(each) for each in report.overflow],
        "ways": [way_record(each) for each in report.ways],
        "not_asked": [to_record(each) for each in report.not_asked],
    }


def summary_record(report: ConformanceReport) -> dict[str, object]:
    """The result in a few words, for whoever reads no further."""
    best = report.best
    return {
        "verdict": None if best is None else best.verdict,
        "way": None if best is None else best.way,
        "thinking": report.thinking_sentence(),
        "switches": report.switch_sentence(),
        "limits": report.limits_sentence(),
        "ways_by_verdict": {v.value: list(report.ways_that(v)) for v in BudgetVerdict},
        "limits_by_finding": {f.value: list(report.limits_that(f)) for f in LimitFinding},
        "badge": badge_of(report).endpoint(),
    }


def limit_record(limit: LimitResult) -> dict[str, object]:
    """A limit as JSON; its cases, if it has any, are a list of their own."""
    record = to_record(limit)
    del record["cases"]
    return record


def way_record(way: MethodResult) -> dict[str, object]:
    """A way as JSON, its budgets with the means of what was observed."""
    return to_record(way) | {"budgets": [budget_record(each) for each in way.budgets]}


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
    """What the conformance eval found, as lines of at most 80 columns.

    Args:
        report: What was found.
        run: The run that found it.
        width: Columns of the terminal. Sentences are wrapped to it; the tables need 80.
    """
    width = columns(width)
    engine = shorten(printable(report.engine), 24)
    lines = [rule(report.alias, f" by {engine}: are limits kept?", width)]
    for answer in _answers(report):
        lines += wrapped(printable(answer), width)
    lines += _limit_table(report.limits)
    for limit in report.limits:
        if limit.finding is not LimitFinding.KEPT and not limit.cases:
            lines += wrapped(f"{limit.probe} {limit.finding}: {printable(limit.sentence)}", width)
    lines += _overflow_table(report)
    for case in report.overflow:
        if case.broken or case.behaviour not in _SAID_BY_TABLE:
            lines += wrapped(f"{case.case}: {printable(case.sentence)}", width)
    lines += _way_table(report)
    if star := star_sentence(report):
        lines += wrapped(star, width)
    for sentence in _way_sentences(report):
        lines += wrapped(printable(sentence), width)
    if report.missing:
        shown = ", ".join(report.missing[:_NAMED])
        more = ", ..." if len(report.missing) > _NAMED else ""
        count = plural(len(report.missing), "probe")
        lines += wrapped(f"{count} not made in this run: {shown}{more}", width)
    return lines


def _answers(report: ConformanceReport) -> Iterator[str]:
    """Whether limits are kept, and whether a thinking budget is."""
    if report.limits:
        yield report.limits_sentence()
    if report.ways:
        yield report.thinking_sentence()


def _limit_table(limits: Sequence[LimitResult]) -> list[str]:
    if not limits:
        return []
    name = max(cells(each.probe) for each in limits)
    lines = [f"{'limit'.ljust(name)}  finding          failed  rate [95 %]"]
    for each in limits:
        failed = f"{each.failed:,} of {each.checked:,}" if each.checked else "-"
        rate = ""
        if each.rate is not None:
            value, low, high = map(percent, each.rate)
            rate = f"  {value} % [{low}, {high}]"
        lines.append(f"{each.probe.ljust(name)}  {each.finding:12}  {failed:>9}{rate}")
    return lines


def _overflow_table(report: ConformanceReport) -> list[str]:
    cases = report.overflow
    if not cases:
        return []
    context = report.about.get("context")
    title = "beyond the context" + (f" of {context:,}" if isinstance(context, int) else "")
    name = max(cells(title), *(cells(each.case) for each in cases))
    lines = [f"{title.ljust(name)}   prompt    asked   given  what happens"]
    for each in cases:
        counts = (
            f"{'-' if count is None else f'{count:,}':>{room}}"
            for count, room in ((each.prompt, 9), (each.max_tokens, 9), (each.output, 8))
        )
        lines.append(f"{each.case.ljust(name)}{''.join(counts)}  {each.behaviour}")
    return lines


def _way_table(report: ConformanceReport) -> list[str]:
    if not report.ways:
        return []
    room = (MAX_WIDTH - _WAY - 2 - _VERDICT) // _BUDGET
    budgets = report.budgets
    # The largest of many are left out, but never what stands without a budget.
    shown = budgets if len(budgets) <= room else (*budgets[: room - 1], budgets[-1])
    name = MAX_WIDTH - len(shown) * _BUDGET - 2 - _VERDICT
    head = "".join(budget_name(each).rjust(_BUDGET) for each in shown)
    lines = ["mean thinking tokens at a thinking budget of".rjust(name + len(shown) * _BUDGET)]
    lines.append(f"{'way to set it'.ljust(name)}{head}  verdict")
    for way in report.ways:
        at = {each.budget: each for each in way.budgets}
        row = "".join(
            (mean_thinking(at[each]) if each in at else "").rjust(_BUDGET) for each in shown
        )
        title = shorten(printable(way.way), name)
        lines.append(f"{title}{' ' * (name - cells(title))}{row}  {way.verdict}")
    return lines


def _way_sentences(report: ConformanceReport) -> Iterator[str]:
    if switches := report.switch_sentence():
        yield switches
    best = report.best
    for way in report.ways:
        if way is best or way.verdict is BudgetVerdict.INVERTED:
            yield f"{way.way} is {way.sentence}"
            yield from (f"{way.way}: {remark}" for remark in way.remarks[:_REMARKS])
            if (more := len(way.remarks) - _REMARKS) > 0:
                yield f"{way.way}: {plural(more, 'further remark')} in the result file"
    if dropping := [way.way for way in report.ways if way.unknown_fields == "dropped"]:
        yield (
            "a field that does not exist is dropped without an error "
            f"({plural(len(dropping), 'way')}): a budget in the wrong place goes unnoticed"
        )
    reasons: Mapping[str, list[str]] = _by_reason(report)
    for reason, names in reasons.items():
        which = ", ".join(names) if len(names) <= _NAMED else plural(len(names), "way")
        yield f"not tried: {which} ({reason})"


def _by_reason(report: ConformanceReport) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for each in report.not_asked:
        found.setdefault(each.reason, []).append(each.way)
    return found
