"""What gates decided: a file for machines, and lines for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_tokenbudget.common.outside_text import printable
from pytest_tokenbudget.common.text_layout import cells, columns, rule, shorten, wrapped
from pytest_tokenbudget.gates import github
from pytest_tokenbudget.gates.unjudged import broken, headline
from pytest_tokenbudget.report.files import write_json
from pytest_tokenbudget.report.folder import report_folder
from pytest_tokenbudget.report.github import current_job

if TYPE_CHECKING:
    from pytest_tokenbudget.gates.plugin import GatesPlugin
    from pytest_tokenbudget.gates.table import Gate
    from pytest_tokenbudget.gates.unjudged import Unjudged
    from pytest_tokenbudget.gates.verdicts import GateJudgement
    from pytest_tokenbudget.settings.option_flags import NamingTerminal

FILE = "gates.json"
STOPPED = "the run was stopped: gates that are not named here were not looked at"
LEAST_WHERE = 20  # columns that say which gate it is
MARKS = {
    "passed": "kept",
    "failed": "FAILED",
    "inconclusive": "INCONCLUSIVE",
    "unknown": "NOT MEASURED",
}


def write_gates(keeper: GatesPlugin) -> list[Path]:
    """Write ``results/gates.json``, and the job summary where one is asked for."""
    settings = keeper.session.settings
    path = settings.reports / "results" / FILE
    record = gates_record(keeper.gates, keeper.judgements, keeper.missing, keeper.complete)
    record |= {"task": settings.task, "models": list(settings.models)}
    if settings.recorded and (places := keeper.places.values()):
        record["task"] = ", ".join(dict.fromkeys(place.task for place in places))
        record["models"] = list(dict.fromkeys(place.model for place in places))
    written = [write_json(path, record)]
    report_folder(keeper.session).note_run("gates", written)
    stopped = "" if keeper.complete else STOPPED
    github.write_summary(current_job(), keeper.gates, keeper.judgements, keeper.missing, stopped)
    return written


def gates_record(
    gates: Sequence[Gate],
    judgements: Sequence[GateJudgement],
    missing: Sequence[Unjudged],
    complete: bool = True,
) -> dict[str, Any]:
    """Every gate with all that was decided by it.

    Of a run that was stopped nobody knows whether all gates are kept.
    """
    listed = []
    for gate in gates:
        mine = [j for j in judgements if j.gate == gate.label]
        lacking = [each for each in missing if each.gate.label == gate.label]
        listed.append(
            {
                **asdict(gate),
                "file": Path(gate.file).name,  # where it lies is nobody's business
                "kept": all(j.kept for j in mine) and not any(each.fails for each in lacking)
                if mine or any(not each.selection for each in lacking)
                else None,
                "judgements": [asdict(j) for j in mine],
                "not_judged": [
                    {
                        "model": each.model or None,
                        "reason": each.reason,
                        "fails": each.fails,
                        "selection": each.selection or None,
                    }
                    for each in lacking
                ],
            }
        )
    return {
        "kept": False if broken(judgements, missing) else True if complete else None,
        "complete": complete,
        "rulings": dict(Counter(j.ruling for j in judgements)),
        "gates": listed,
    }


def gate_lines(
    judgements: Sequence[GateJudgement],
    missing: Sequence[Unjudged],
    width: int = 80,
    verbose: bool = False,
) -> list[str]:
    """Every verdict with its evidence; those of gates that are kept on one line, unless verbose."""
    width = columns(width)
    lines = [rule(headline(judgements, missing), "", width)]
    for each in judgements:
        at = "" if each.budget is None else f" at {each.budget:,}"
        mode = f" {each.mode}" if each.mode else ""
        allowed = each.ruling == "inconclusive" and each.kept
        word = "inconclusive, which is allowed" if allowed else MARKS[each.ruling]
        where = f"{word}: {printable(each.model)}, {each.eval}{at}{mode}: "
        if each.ruling == "passed" and not verbose:
            result = _in_short(each)
            if cells(where + result) > width:
                result = _in_short(each, interval=False)
            where = shorten(where, max(LEAST_WHERE, width - cells(result)))
            lines.append(shorten(where + result, width))
        else:
            lines += wrapped(f"{where}{printable(each.sentence)}", width)
    left_out: dict[str, list[str]] = {}
    alike: dict[tuple[bool, str], list[Unjudged]] = {}
    for missed in missing:
        if missed.selection:
            left_out.setdefault(missed.selection, []).append(printable(missed.name))
        else:
            alike.setdefault((missed.fails, missed.reason), []).append(missed)
    for (fails, reason), several in alike.items():
        word = "NOT JUDGED" if fails else "not judged, not required"
        said = several[0].sentence()
        if len(several) > 1:
            said = f"{', '.join(each.name for each in several)}: {reason}"
        lines += wrapped(f"{word}: {printable(said)}", width)
    for selection, names in left_out.items():
        which = ", ".join(dict.fromkeys(names))
        lines += wrapped(f"not judged in this selection ({printable(selection)}): {which}", width)
    return lines


def _in_short(each: GateJudgement, interval: bool = True) -> str:
    """What was measured and what is allowed, without further evidence."""
    from pytest_tokenbudget.gates.table import METRICS
    from pytest_tokenbudget.stats.decision_rules import MetricUnit

    said = each.sentence.partition(";")[0].partition(" (")[0]
    if each.unit == "change":  # the saturation point, which rests on a difference
        return printable(f"{said.partition(' is at most ')[0]} {each.shown}")
    if each.unit not in ("share", "tokens") or each.value is None:
        return printable(said)
    unit = MetricUnit(each.unit)
    of = f" of {each.category}" if each.category else ""
    ends = [unit.number(end) for end in (each.low, each.high) if end is not None]
    between = f" [{', '.join(ends)}]" if interval and len(ends) == 2 else ""
    name = METRICS[each.metric].name
    return printable(f"{name}{of} {unit.number(each.value)}{unit.after}{between} {each.shown}")


def show_gates(keeper: GatesPlugin, terminal: NamingTerminal) -> None:
    """Show every verdict on the terminal, and annotate them where they are shown on GitHub."""
    terminal.ensure_newline()
    if not keeper.complete:
        terminal.write_line(STOPPED, red=True)
    verbose = keeper.config.option.verbose > 0
    for line in gate_lines(keeper.judgements, keeper.missing, verbose=verbose):
        fails = line.startswith(("FAILED", "INCONCLUSIVE", "NOT"))
        terminal.write_line(line, **({"red": True} if fails else {}))
    reports = keeper.session.settings.reports
    base = keeper.config.invocation_params.dir
    shown = reports.relative_to(base) if reports.is_relative_to(base) else reports
    if not keeper.problems:
        terminal.write_line(f"written: {shown / 'results' / FILE}")
    place = current_job()
    if place is not None:
        for line in github.annotation_lines(place, keeper.gates, keeper.judgements, keeper.missing):
            terminal.write_command(line)
