"""The allocation eval: its result files, and its tables and sentences on the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_tokenbudget.common.outside_text import printable
from pytest_tokenbudget.common.text_layout import (
    MAX_WIDTH,
    Table,
    columns,
    count,
    decimal,
    percent,
    plural,
    rate,
    rule,
    share,
    shorten,
    wrapped,
)
from pytest_tokenbudget.report.files import safe_name, to_plain, to_record
from pytest_tokenbudget.report.json_files import RunInfo, header, write_record
from pytest_tokenbudget.report.shared_sentences import nothing_yet
from pytest_tokenbudget.studies.allocation.analysis import OFF, AllocationReport, analyse_allocation
from pytest_tokenbudget.studies.allocation.settings import (
    choice,
    limits_of,
    settings_file,
    settings_record,
)
from pytest_tokenbudget.studies.allocation.stored_traces import FEATURES
from pytest_tokenbudget.studies.thinking.report import forced_share, point_record
from pytest_tokenbudget.studies.thinking.study import ThinkingStudy

if TYPE_CHECKING:
    from pytest_tokenbudget.studies.allocation.policies import PolicyStudy
    from pytest_tokenbudget.studies.allocation.policy_results import PolicyPoint

SCHEMA = "tokenbudget-allocation/2"
_MODES = (12, 7, 5, 21, 7, 9, 7)
_POLICIES = (20, 20, 7, 6, 7)


def write_allocation(study: ThinkingStudy, run: RunInfo, directory: Path) -> list[Path]:
    """Write everything, and where policies could be replayed the settings and the figure.

    Problems whose traces are not all there are left out and counted.
    """
    from pytest_tokenbudget.studies.allocation.figure import allocation_figure

    stem = f"allocation_{safe_name(study.alias)}"
    written = [write_record(directory, stem, allocation_record(study, run))]
    if not study.complete:
        return written
    report = analyse_allocation(study)
    if report.policies is not None:
        settings = settings_record(study, report)
        written.append(write_record(directory, settings_file(study), settings))
        written += allocation_figure(study, directory)
    return written


def allocation_record(study: ThinkingStudy, run: RunInfo) -> dict[str, object]:
    """Everything that was found, and what is needed to repeat it."""
    record: dict[str, object] = {
        **header(study.natural, run, SCHEMA),
        "mode": "thinking",
        "problems": len(study.complete),
        "missing": study.missing,
        "complete": run.complete and not study.missing,
        "budgets": list(study.budgets),
        "closer": study.closers[0],
        "answer_tokens": study.forcing.answer_tokens,
        "table": None,
        "modes": [],
        "disabled": None,
        "policies": None,
    }
    if not study.complete:
        return record
    report = analyse_allocation(study)
    record |= {
        "table": {
            "model": report.model,
            "context": report.context,
            "row": report.row,
            "why": report.why,
            "sentence": report.table_sentence,
        },
        "modes": [
            {**to_record(each), "measured": each.measured and point_record(each.measured)}
            for each in report.modes
        ],
        "disabled": {
            **to_record(report.disabled),
            "is_off": report.disabled.is_off,
            "sentence": report.disabled.sentence(),
        },
        "policies": policies_record(report),
    }
    return record


def policies_record(report: AllocationReport) -> dict[str, object]:
    """The policies as JSON, or why they could not be replayed."""
    policy_study = report.policies
    if policy_study is None:
        return {"left_out": report.left_out}
    return {
        **to_record(policy_study),
        "sentence": policy_study.sentence(),
        "reference_because": report.reference_because,
        "recommended": report.recommended,
        "settings": to_plain(policy_study.settings),
        "no_limit": report.no_limit,
        "features": list(FEATURES),
        "thinking_off": None
        if report.off is None
        else {**to_record(report.off), "sentence": report.off_sentence()},
    }


def allocation_lines(study: ThinkingStudy, run: RunInfo, width: int = MAX_WIDTH) -> list[str]:
    """What the allocation eval found, as lines for a terminal of ``width`` columns."""
    width = columns(width)
    task = shorten(printable(study.task.name), 24)
    lines = [rule(study.alias, f": allocation on {task}, n = {len(study.complete):,}", width)]
    if not study.complete:
        return [*lines, *wrapped(nothing_yet(), width)]
    report = analyse_allocation(study)
    lines += wrapped(answer_sentence(report), width)
    lines += _mode_table(report).lines(width)
    lines += wrapped(report.table_sentence, width)
    for sentence in _mode_sentences(report):
        lines += wrapped(sentence, width)
    policy_study = report.policies
    if policy_study is None:
        return [*lines, *wrapped(f"policies were not replayed: {report.left_out}", width)]
    lines += _policy_table(report, policy_study).lines(width)
    for sentence in _policy_sentences(study, report, policy_study):
        lines += wrapped(sentence, width)
    return lines


def _mode_table(report: AllocationReport) -> Table:
    table = Table("mode", "table", "here", "accuracy [95 %]", "forced", "truncated", "tokens")
    for each in report.modes:
        given = each.table.tokens if each.table is not None else None
        budgets = ("-" if tokens is None else count(tokens) for tokens in (given, each.tokens))
        if each.measured is None:
            table.add(each.mode, *budgets, "not tried")
            continue
        curve = each.measured.curve
        table.add(
            each.mode,
            *budgets,
            rate(curve.accuracy),
            forced_share(each.measured),
            share(curve.truncation.value),
            decimal(curve.mean_tokens.value),
        )
    return table


def _mode_sentences(report: AllocationReport) -> Iterator[str]:
    untried = [each.mode for each in report.modes if each.measured is None and each.table]
    if untried:
        them = "it" if len(untried) == 1 else "them"
        yield f"not tried here: --modes={','.join(untried)} tries {them}"
    yield report.disabled.sentence()


def _policy_table(report: AllocationReport, policy_study: PolicyStudy) -> Table:
    table = Table("policy", "accuracy [95 %]", "tokens", "E3", "regret")

    def add(name: str, point: PolicyPoint, regret: str | None = None) -> None:
        table.add(
            name,
            rate(point.accuracy),
            decimal(point.mean_tokens.value),
            f"{1e4 * point.e3:.1f}",
            percent(point.regret) if regret is None else regret,
        )

    for each in policy_study.policies:
        add(each.name, each.working)
    if report.off is not None:
        # The oracle is one of limits: thinking off could be better than that.
        add(OFF, report.off, regret="-")
    add("oracle", policy_study.oracle)
    return table


def _policy_sentences(
    study: ThinkingStudy, report: AllocationReport, policy_study: PolicyStudy
) -> Iterator[str]:
    yield policy_study.sentence()
    if report.off is not None:
        yield report.off_sentence()
    saved = [
        f"{each.name} {rate(each.held.saving)}"
        for each in policy_study.policies
        if each.held.held and each.held.saving.low > 0
    ]
    claimed = ", ".join(f"{100 * claim.saving:.0f} %" for claim in policy_study.claims)
    margin = f"{100 * policy_study.margin:g} points"
    if saved:
        yield (
            f"fewer tokens than without a limit, accuracy kept within {margin}: "
            f"{', '.join(saved)}; published elsewhere: {claimed}"
        )
    else:
        yield (
            f"no policy is shown to keep the accuracy within {margin} with fewer tokens; "
            f"published elsewhere: {claimed} fewer"
        )
    behind = "" if report.evident else ", which no evidence stands behind"
    yield f"settings{behind}: results/{settings_file(study)}.json"
    if policy_study.missing:
        yield f"{plural(policy_study.missing, 'problem')} with an error left out of the policies"


def answer_sentence(report: AllocationReport) -> str:
    """The thinking budget to set, what it gives, and why; or that none can be recommended."""
    policy_study = report.policies
    if policy_study is None:
        return f"no thinking budget can be recommended: {report.left_out}"
    name, settings = choice(report)
    limits = limits_of(settings)
    if name == OFF and report.off is not None:
        return f"recommended: {OFF}: {_reached(report.off)}"
    if name == "one limit":
        [limit] = set(limits.values())
        # Learned anew without each problem, as a policy, it is another limit for some of them.
        tokens, reached = plural(limit, "thinking token"), _reached(policy_study.limits[limit])
        if report.evident:
            return f"recommended limit {tokens}: {reached} ({report.reference_because})"
        return (
            "no thinking budget can be recommended from "
            f"{plural(policy_study.problems, 'problem')}: {tokens} give {reached} "
            f"({report.reference_because})"
        )
    shown = ", ".join(f"{printable(group)} {count(limit)}" for group, limit in limits.items())
    reached = _reached(policy_study.policy(name).working)
    return f"recommended policy {name}{f' ({shown})' if shown else ''}: {reached}"


def _reached(point: PolicyPoint) -> str:
    return f"{share(point.accuracy.value)} accuracy with {count(point.mean_tokens.value)} tokens"
