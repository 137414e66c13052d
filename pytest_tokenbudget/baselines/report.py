"""A run against a stored one: its result file, and its table and sentences on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_tokenbudget.baselines.figure import compare_figure
from pytest_tokenbudget.baselines.session import attached
from pytest_tokenbudget.common.outside_text import printable
from pytest_tokenbudget.common.text_layout import (
    MAX_WIDTH,
    Table,
    columns,
    count,
    p_value,
    percent,
    point_change,
    points,
    rule,
    shorten,
    wrapped,
)
from pytest_tokenbudget.report.files import to_record
from pytest_tokenbudget.report.github import SIGNS, GithubJob, command, escape
from pytest_tokenbudget.report.json_files import RunInfo, file_stem, header, write_record

if TYPE_CHECKING:
    from pytest_tokenbudget.baselines.checks import BaselineGates
    from pytest_tokenbudget.baselines.comparison import BaselineComparison, Changed
    from pytest_tokenbudget.baselines.run import Run
    from pytest_tokenbudget.core.study import Study

SCHEMA = "tokenbudget-compare/1"
SHOWN = 3


def compared_lines(study: Study, run: RunInfo, width: int = MAX_WIDTH) -> list[str]:
    """How a run differs from a stored one; nothing where it could not be compared."""
    gates = attached(study)
    if gates is None:
        return []
    width = columns(width)
    comparison = gates.comparison
    point = comparison.at(comparison.largest)
    answer = f"at {count(point.budget)} tokens, {point.accuracy.sentence('accuracy')}"
    lines = [_rule(comparison, width), *wrapped(answer, width), *_table(comparison).lines(width)]
    for sentence in _sentences(gates):
        lines += wrapped(sentence, width)
    return lines


def _rule(comparison: BaselineComparison, width: int) -> str:
    before, after = comparison.before, comparison.after
    other = "" if before.model == after.model else f" ({shorten(printable(before.model), 20)})"
    against = f" against {shorten(printable(comparison.label), 24)}{other}"
    return rule(after.model, f"{against}, n = {len(comparison.problems):,}", width)


def _table(comparison: BaselineComparison) -> Table:
    table = Table(
        "budget", "accuracy %", "change [95 %]", "lost", "won", "p", "truncated", "tokens", left=()
    )
    for point in comparison.points:
        accuracy = point.accuracy
        table.add(
            count(point.budget),
            f"{percent(accuracy.before)} -> {percent(accuracy.after)}",
            point_change(accuracy.difference),
            count(accuracy.fell),
            count(accuracy.rose),
            p_value(accuracy.p_mcnemar),
            points(point.truncation.difference.value),
            f"{points(point.tokens.ratio.value)} %",
        )
    return table


def _sentences(gates: BaselineGates) -> list[str]:
    comparison = gates.comparison
    point = comparison.at(comparison.largest)
    said = [
        "truncated: change in points; tokens: change of the mean; p: exact McNemar",
        point.completed.sentence("accuracy of what both completed"),
        point.truncation.sentence("truncated"),
        point.tokens.sentence(),
    ]
    lost, won = comparison.lost(point.budget), comparison.won(point.budget)
    place = comparison.places(point.budget)
    for name, changed in (("lost", lost), ("won", won)):
        said += [f"{name}: {_changed(each, place)}" for each in changed[:SHOWN]]
        if len(changed) > SHOWN:
            said.append(f"and {len(changed) - SHOWN:,} more {name}")
    said += comparison.notes()
    said += [each.sentence() for budget in comparison.budgets for each in gates.judge(budget)]
    return said


def _changed(changed: Changed, places: tuple[int, int]) -> str:
    answer = changed.before
    was, now = (
        each.predicted[place] or each.outcomes[place].replace("_", " ")
        for each, place in zip(changed, places, strict=True)
    )
    question = shorten(printable(answer.question), 60)
    category = f" ({printable(answer.category)})" if answer.category else ""
    return (
        f"{printable(answer.problem_id)}{category}, expected "
        f"{_short(answer.expected)}: {_short(was)} -> {_short(now)}; {question}"
    )


def _short(text: str) -> str:
    return shorten(printable(text), 24)


def write_compared(study: Study, run: RunInfo, directory: Path) -> list[Path]:
    """Write results and figure of a comparison below ``directory``; returns the files."""
    gates = attached(study)
    if gates is None:
        return []
    record = compare_record(study, run, gates)
    written = write_record(directory, f"compare_{file_stem(study)}", record)
    return [written, *compare_figure(study, gates.comparison, directory)]


def compare_record(study: Study, run: RunInfo, gates: BaselineGates) -> dict[str, object]:
    """The whole comparison: every budget, every problem that was lost or won, what differs."""
    comparison = gates.comparison
    changed = {
        budget: {"lost": comparison.lost(budget), "won": comparison.won(budget)}
        for budget in comparison.budgets
    }
    return {
        **header(study, run, SCHEMA),
        "baseline": {"label": comparison.label, **_about(comparison.before)},
        "differs": list(comparison.differs),
        "only_before": list(comparison.only_before),
        "only_after": list(comparison.only_after),
        "notes": comparison.notes(),
        "points": [
            {
                **to_record(point),
                "sentence": point.accuracy.sentence("accuracy"),
                **{
                    name: [_short_record(each, comparison.places(point.budget)) for each in records]
                    for name, records in changed[point.budget].items()
                },
            }
            for point in comparison.points
        ],
        "texts": _texts(
            [each for by in changed.values() for records in by.values() for each in records]
        ),
        "checks": [each.record() for b in comparison.budgets for each in gates.judge(b)],
    }


def _about(run: Run) -> dict[str, object]:
    return {
        "model": run.model,
        "identity": dict(run.identity),
        "mode": run.mode,
        "decoding": dict(run.decoding),
        "samples": run.samples,
        "problems": len(run.problems),
        "started": run.started,
    }


def _short_record(changed: Changed, places: tuple[int, int]) -> dict[str, object]:
    record: dict[str, object] = {"problem_id": changed.before.problem_id}
    for name, answer, place in zip(("before", "after"), changed, places, strict=True):
        record[name] = {
            "sample": answer.sample,
            "outcome": answer.outcomes[place],
            "predicted": answer.predicted[place],
            "tokens_used": answer.tokens[place],
            "characters": len(answer.texts[place]),
        }
    return record


def _texts(changed: Sequence[Changed]) -> dict[str, object]:
    """What was asked and answered where something changed, each problem once."""
    records: dict[str, object] = {}
    for before, after in changed:
        records.setdefault(
            before.problem_id,
            {
                "category": before.category,
                "question": before.question,
                "ground_truth": before.expected,
                "before": before.texts[-1],
                "after": after.texts[-1],
            },
        )
    return records


Record = Mapping[str, Any]


def compared_annotations(records: Sequence[Record]) -> Iterator[str]:
    """A line for every change that is not tolerated, and a warning for what is undecided."""
    for each in records:
        for check in each["checks"]:
            title = f"tokenbudget: {check['check']} against {each['label']}"
            message = f"{each['model']}: {check['sentence']}"
            if check["failed"]:
                yield command("error", {}, title, message)
            elif check["ruling"] == "inconclusive":
                yield command("warning", {}, title, message)


def write_compared_summary(job: GithubJob | None, records: Sequence[Record]) -> None:
    """Add what changed to the job's summary, where there is one."""
    if job is not None and job.summary is not None and records:
        # Other steps of the job write there too.
        with job.summary.open("a", encoding="utf-8") as stream:
            stream.write(compared_summary(records))


def compared_summary(records: Sequence[Record]) -> str:
    """What changed as Markdown: a table of the budgets, and every verdict in words."""
    label = escape(str(records[0]["label"]))
    lines = [
        f"## Token budgets against {label}",
        "",
        "| model | budget | change |",
        "|---|---|---|",
    ]
    lines += [
        f"| {escape(each['model'])} | {each['budget']:,} | {escape(each['accuracy'])} |"
        for each in records
    ]
    verdicts = [
        f"- {SIGNS[_outcome(check)]} {escape(each['model'])}: {escape(check['sentence'])}"
        for each in records
        for check in each["checks"]
    ]
    return "\n".join([*lines, "", *verdicts, *([""] if verdicts else [])]) + "\n"


def _outcome(check: Record) -> str:
    if check["failed"]:
        return "failed"
    return "inconclusive" if check["ruling"] == "inconclusive" else "passed"
