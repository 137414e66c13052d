"""The allocation eval: its result files, and its tables and sentences on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_tokenbudget.common.outside_text import printable
from pytest_tokenbudget.common.text_layout import (
    MAX_WIDTH,
    columns,
    count,
    percent,
    plural,
    rule,
    shorten,
    wrapped,
)
from pytest_tokenbudget.report.files import safe_name, to_plain, to_record, write_json
from pytest_tokenbudget.report.json_files import RunInfo, header
from pytest_tokenbudget.studies.allocation.analysis import (
    OFF,
    AllocationReport,
    ModeResult,
    analyse_allocation,
)
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
    from pytest_tokenbudget.stats.intervals import Estimate
    from pytest_tokenbudget.studies.allocation.policies import PolicyResult, PolicyStudy
    from pytest_tokenbudget.studies.allocation.policy_results import PolicyPoint

SCHEMA = "tokenbudget-allocation/2"
_MODES = (12, 7, 5, 21, 7, 9, 7)
_POLICIES = (20, 20, 7, 6, 7)


def write_allocation(study: ThinkingStudy, run: RunInfo, directory: Path) -> list[Path]:
    """Write what the allocation eval found below ``directory``, each file whole or not at all.

    Args:
        study: The study; problems whose traces are not all there are left out and counted.
        run: The run that made it.
        directory: The reports directory; files go to its ``results`` and ``figures``.

    Returns:
        The files: everything, and where policies could be replayed the settings and the figure.
    """
    from pytest_tokenbudget.studies.allocation.figure import allocation_figure

    results, stem = directory / "results", safe_name(study.alias)
    written = [write_json(results / f"allocation_{stem}.json", allocation_record(study, run))]
    if not study.complete:
        return written
    report = analyse_allocation(study)
    if report.policies is not None:
        settings = settings_record(study, report)
        written.append(write_json(results / settings_file(study), settings))
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
        "modes": [mode_record(each) for each in report.modes],
        "disabled": {
            **to_record(report.disabled),
            "is_off": report.disabled.is_off,
            "sentence": report.disabled.sentence(),
        },
        "policies": policies_record(report),
    }
    return record


def mode_record(mode: ModeResult) -> dict[str, object]:
    """A mode as JSON; what was measured as any point of the thinking eval."""
    record = to_record(mode)
    record["measured"] = None if mode.measured is None else point_record(mode.measured)
    return record


def policies_record(report: AllocationReport) -> dict[str, object]:
    """The policies as JSON, or why they could not be replayed."""
    found = report.policies
    if found is None:
        return {"left_out": report.left_out}
    return {
        **to_record(found),
        "sentence": found.sentence(),
        "reference_because": report.reference_because,
        "recommended": report.recommended,
        "settings": to_plain(found.settings),
        "no_limit": report.no_limit,
        "features": list(FEATURES),
        "thinking_off": None
        if report.off is None
        else {**to_record(report.off), "sentence": report.off_sentence()},
    }


def allocation_lines(study: ThinkingStudy, run: RunInfo, width: int = MAX_WIDTH) -> list[str]:
    """What the allocation eval found, as lines of at most 80 columns.

    Args:
        study: The study.
        run: The run that made it.
        width: Columns of the terminal. Sentences are wrapped to it; the tables need 80.
    """
    width = columns(width)
    lines = [_rule(study, width)]
    if not study.complete:
        return [*lines, *wrapped("no problem has all its traces yet: nothing to show", width)]
    report = analyse_allocation(study)
    lines += wrapped(answer_sentence(report), width)
    lines += _mode_table(report)
    lines += wrapped(report.table_sentence, width)
    for sentence in _mode_sentences(report):
        lines += wrapped(sentence, width)
    found = report.policies
    if found is None:
        return [*lines, *wrapped(f"policies were not replayed: {report.left_out}", width)]
    lines += _policy_table(report, found)
    for sentence in _policy_sentences(study, report, found):
        lines += wrapped(sentence, width)
    return lines


def _rule(study: ThinkingStudy, width: int) -> str:
    task = shorten(printable(study.task.name), 24)
    return rule(study.alias, f": allocation on {task}, n = {len(study.complete):,}", width)


def _aligned(row: Sequence[str], widths: Sequence[int], left: Sequence[int] = (0,)) -> str:
    return "  ".join(
        cell.ljust(w) if place in left else cell.rjust(w)
        for place, (cell, w) in enumerate(zip(row, widths, strict=True))
    ).rstrip()


def _rate(rate: Estimate) -> str:
    return f"{percent(rate.value, 5)} % [{percent(rate.low)}, {percent(rate.high)}]"


def _mode_table(report: AllocationReport) -> list[str]:
    rows: list[tuple[str, ...]] = [
        ("mode", "table", "here", "accuracy [95 %]", "forced", "truncated", "tokens")
    ]
    for each in report.modes:
        given = each.table.tokens if each.table is not None else None
        table = "-" if given is None else count(given)
        here = "-" if each.tokens is None else count(each.tokens)
        if each.measured is None:
            rows.append((each.mode, table, here, "not tried", "", "", ""))
            continue
        curve = each.measured.curve
        rows.append(
            (
                each.mode,
                table,
                here,
                _rate(curve.accuracy),
                forced_share(each.measured),
                f"{percent(curve.truncation.value)} %",
                f"{curve.mean_tokens.value:,.1f}",
            )
        )
    return [_aligned(row, _MODES, (0, 3)) for row in rows]


def _mode_sentences(report: AllocationReport) -> Iterator[str]:
    untried = [each.mode for each in report.modes if each.measured is None and each.table]
    if untried:
        them = "it" if len(untried) == 1 else "them"
        yield f"not tried here: --modes={','.join(untried)} tries {them}"
    yield report.disabled.sentence()


def _policy_table(report: AllocationReport, found: PolicyStudy) -> list[str]:
    def row(name: str, point: PolicyPoint) -> tuple[str, ...]:
        tokens = f"{point.mean_tokens.value:,.1f}"
        worth, regret = f"{1e4 * point.e3:.1f}", f"{100 * point.regret:.1f}"
        return name, _rate(point.accuracy), tokens, worth, regret

    rows: list[tuple[str, ...]] = [("policy", "accuracy [95 %]", "tokens", "E3", "regret")]
    rows += [row(each.name, each.working) for each in found.policies]
    if report.off is not None:
        # The oracle is one of limits: thinking off could be better than that.
        rows.append((*row(OFF, report.off)[:-1], "-"))
    rows.append(row("oracle", found.oracle))
    return [_aligned(each, _POLICIES, (0, 1)) for each in rows]


def _policy_sentences(
    study: ThinkingStudy, report: AllocationReport, found: PolicyStudy
) -> Iterator[str]:
    yield found.sentence()
    if report.off is not None:
        yield report.off_sentence()
    saved = [_saved(each) for each in found.policies if each.held.held and each.held.saving.low > 0]
    claimed = ", ".join(f"{100 * claim.saving:.0f} %" for claim in found.claims)
    if saved:
        yield (
            f"fewer tokens than without a limit, accuracy kept within "
            f"{100 * found.margin:g} points: {', '.join(saved)}; published elsewhere: {claimed}"
        )
    else:
        yield (
            f"no policy is shown to keep the accuracy within {100 * found.margin:g} points with "
            f"fewer tokens; published elsewhere: {claimed} fewer"
        )
    behind = "" if report.evident else ", which no evidence stands behind"
    yield f"settings{behind}: results/{settings_file(study)}"
    if found.missing:
        yield f"{plural(found.missing, 'problem')} with an error left out of the policies"


def _saved(result: PolicyResult) -> str:
    saving = result.held.saving
    low, high = percent(saving.low), percent(saving.high)
    return f"{result.name} {percent(saving.value)} % [{low}, {high}]"


def answer_sentence(report: AllocationReport) -> str:
    """The thinking budget to set, what it gives, and why; or that none can be recommended."""
    found = report.policies
    if found is None:
        return f"no thinking budget can be recommended: {report.left_out}"
    name, settings = choice(report)
    limits = limits_of(settings)
    if name == OFF:
        assert report.off is not None
        return f"recommended: {OFF}: {_reached(report.off)}"
    if name == "one limit":
        [limit] = set(limits.values())
        # Learned anew without each problem, as a policy, it is another limit for some of them.
        at, reached = plural(limit, "thinking token"), _reached(found.limits[limit])
        if report.evident:
            return f"recommended limit {at}: {reached} ({report.reference_because})"
        return (
            f"no thinking budget can be recommended from {plural(found.problems, 'problem')}: "
            f"{at} give {reached} ({report.reference_because})"
        )
    shown = ", ".join(f"{printable(group)} {count(limit)}" for group, limit in limits.items())
    reached = _reached(found.policy(name).working)
    return f"recommended policy {name}{f' ({shown})' if shown else ''}: {reached}"


def _reached(point: PolicyPoint) -> str:
    return f"{percent(point.accuracy.value)} % accuracy with {point.mean_tokens.value:,.0f} tokens"
