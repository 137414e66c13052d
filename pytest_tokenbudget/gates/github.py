"""GitHub Actions: annotations on gates that failed, and their part of the job summary."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import quote

from pytest_tokenbudget.report.github import SIGNS, GithubJob, command, escape

if TYPE_CHECKING:
    from pytest_tokenbudget.gates.table import Gate
    from pytest_tokenbudget.gates.unjudged import GateResults
    from pytest_tokenbudget.gates.verdicts import GateJudgement


def annotation_lines(job: GithubJob, results: GateResults) -> Iterator[str]:
    """A workflow command for every verdict that fails, and a warning for what is only allowed.

    A gate of the settings file is annotated where it stands there, one of an option at its test.
    """
    by_label = {gate.label: gate for gate in results.gates}
    for each in results.judgements:
        gate = by_label[each.gate]
        where = _location(job, gate, each.test)
        if not each.kept:
            title = "tokenbudget: not measured" if each.ruling == "unknown" else "tokenbudget"
            message = f"{each.model}: {each.sentence}"
            yield command("error", where, f"{title}: {each.gate}", message)
        elif each.ruling == "inconclusive":
            yield command("warning", where, f"tokenbudget: {each.gate}", each.sentence)
    for missed in results.missing:
        if missed.selection:
            continue
        where = _location(job, missed.gate)
        kind = "error" if missed.fails else "warning"
        yield command(kind, where, "tokenbudget: not judged", missed.sentence())


def _location(job: GithubJob, gate: Gate, test: str = "") -> dict[str, str | int]:
    """File and line of a gate, or of the test that judged it, where they are the repository's."""
    name = test.partition("::")[0] if gate.option else gate.file
    path = (job.workspace / name).resolve()
    if not name or not path.is_file() or not path.is_relative_to(job.workspace.resolve()):
        return {}
    found = path.relative_to(job.workspace.resolve()).as_posix()
    return {"file": found, **({"line": gate.line} if gate.line and not gate.option else {})}


def write_summary(job: GithubJob | None, results: GateResults, remark: str = "") -> None:
    """Add the verdicts to the job's summary, where there is one."""
    if job is None or job.summary is None:
        return
    # Other steps of the job write there too.
    with job.summary.open("a", encoding="utf-8") as stream:
        stream.write(summary(job, results, remark))


def summary(job: GithubJob, results: GateResults, remark: str = "") -> str:
    """The verdicts as Markdown: a table, what fails in words, and links."""
    from pytest_tokenbudget.gates.unjudged import headline

    judgements, missing = results.judgements, results.missing
    by_label = {gate.label: gate for gate in results.gates}
    lines = [f"## Token budgets: {headline(judgements, missing)}", ""]
    lines += [f"**{escape(remark)}**", ""] if remark else []
    if judgements:
        lines += [
            "| | gate | model | where | measured | allowed | n | 80 % power for |",
            "|---|---|---|---|---|---|---|---|",
        ]
        lines += [_row(job, each, by_label[each.gate]) for each in judgements]
        lines.append("")
    fails = [f"{each.model}: {each.sentence}" for each in judgements if not each.kept]
    fails += [missed.sentence() for missed in missing]
    lines += [f"- {escape(sentence)}" for sentence in fails]
    lines += [""] if fails else []
    if job.run:
        lines += [f"Files of this run, if they were uploaded: [artifacts]({job.run}#artifacts)", ""]
    return "\n".join(lines) + "\n"


def _row(job: GithubJob, judgement: GateJudgement, gate: Gate) -> str:
    from pytest_tokenbudget.stats.decision_rules import MetricUnit

    at = "" if judgement.budget is None else f" at {judgement.budget:,}"
    where = ", ".join(
        part for part in (f"{judgement.eval}{at}", judgement.mode, judgement.category) if part
    )
    measured, power = "-", "-"
    if judgement.unit and judgement.value is not None and judgement.low is not None:
        unit = MetricUnit(judgement.unit)
        high = "-" if judgement.high is None else unit.number(judgement.high)
        measured = (
            f"{unit.number(judgement.value)}{unit.suffix} [{unit.number(judgement.low)}, {high}]"
        )
        if judgement.detectable is not None:
            power = MetricUnit(judgement.change_unit).distance(judgement.detectable)
    label = escape(judgement.gate)
    link = _link(job, gate, judgement)
    cells = (
        SIGNS[judgement.ruling],
        f"[{label}]({link})" if link else label,
        escape(judgement.model),
        escape(where),
        measured,
        escape(judgement.shown),
        "-" if judgement.n is None else f"{judgement.n:,}",
        power,
    )
    return f"| {' | '.join(cells)} |"


def _link(job: GithubJob, gate: Gate, judgement: GateJudgement) -> str:
    """The gate, or the test that judged it, at the commit."""
    location = _location(job, gate, judgement.test)
    if not job.commit or not location:
        return ""
    line = f"#L{location['line']}" if "line" in location else ""
    return f"{job.commit}/{quote(str(location['file']))}{line}"
