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
from pytest_tokenbudget.gates.unjudged import GateResults, broken, headline
from pytest_tokenbudget.report.folder import report_folder
from pytest_tokenbudget.report.github import current_job
from pytest_tokenbudget.report.json_files import write_record

if TYPE_CHECKING:
    from pytest_tokenbudget.gates.targets import GateTarget
    from pytest_tokenbudget.gates.unjudged import Unjudged
    from pytest_tokenbudget.gates.verdicts import GateJudgement
    from pytest_tokenbudget.session import Session
    from pytest_tokenbudget.settings.option_flags import NamingTerminal

STOPPED = "the run was stopped: gates that are not named here were not looked at"
LEAST_WHERE = 20  # columns that say which gate it is
MARKS = {
    "passed": "kept",
    "failed": "FAILED",
    "inconclusive": "INCONCLUSIVE",
    "unknown": "NOT MEASURED",
}


def write_gates(results: GateResults, session: Session, targets: Sequence[GateTarget]) -> None:
    """Write ``results/gates.json``, and the job summary where one is asked for."""
    settings = session.settings
    record = gates_record(results)
    record |= {"task": settings.task, "models": list(settings.models)}
    if settings.recorded and targets:
        record["task"] = ", ".join(dict.fromkeys(target.task for target in targets))
        record["models"] = list(dict.fromkeys(target.model for target in targets))
    report_folder(session).note_run("gates", [write_record(settings.reports, "gates", record)])
    github.write_summary(current_job(), results, "" if results.complete else STOPPED)


def gates_record(results: GateResults) -> dict[str, Any]:
    """Every gate with all that was decided by it.

    Of a run that was stopped nobody knows whether all gates are kept.
    """
    judgements, missing, complete = results.judgements, results.missing, results.complete
    listed = []
    for gate in results.gates:
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


def _in_short(judgement: GateJudgement, interval: bool = True) -> str:
    """What was measured and what is allowed, without further evidence."""
    from pytest_tokenbudget.gates.table import METRICS
    from pytest_tokenbudget.stats.decision_rules import MetricUnit

    said = judgement.sentence.partition(";")[0].partition(" (")[0]
    if judgement.unit == "change":  # the saturation point, which rests on a difference
        return printable(f"{said.partition(' is at most ')[0]} {judgement.shown}")
    if judgement.unit not in ("share", "tokens") or judgement.value is None:
        return printable(said)
    unit = MetricUnit(judgement.unit)
    of = f" of {judgement.category}" if judgement.category else ""
    ends = [unit.number(end) for end in (judgement.low, judgement.high) if end is not None]
    between = f" [{', '.join(ends)}]" if interval and len(ends) == 2 else ""
    name = METRICS[judgement.metric].name
    return printable(
        f"{name}{of} {unit.number(judgement.value)}{unit.suffix}{between} {judgement.shown}"
    )


def show_gates(
    results: GateResults, session: Session, terminal: NamingTerminal, base: Path, *, written: bool
) -> None:
    """Show every verdict on the terminal, and annotate them where they are shown on GitHub.

    Args:
        results: What became of the gates.
        session: The state of this pytest process.
        terminal: Where to write.
        base: The directory that the user stands in.
        written: Whether the result file is there.
    """
    terminal.ensure_newline()
    if not results.complete:
        terminal.write_line(STOPPED, red=True)
    verbose = terminal.config.option.verbose > 0
    for line in gate_lines(results.judgements, results.missing, verbose=verbose):
        fails = line.startswith(("FAILED", "INCONCLUSIVE", "NOT"))
        terminal.write_line(line, **({"red": True} if fails else {}))
    reports = session.settings.reports
    shown = reports.relative_to(base) if reports.is_relative_to(base) else reports
    if written:
        terminal.write_line(f"written: {shown / 'results' / 'gates.json'}")
    job = current_job()
    if job is not None:
        for line in github.annotation_lines(job, results):
            terminal.write_command(line)
