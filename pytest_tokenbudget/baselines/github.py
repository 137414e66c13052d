"""GitHub Actions: what a comparison with a stored run found, as annotations and in the summary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pytest_tokenbudget.report.github import SIGNS, GithubJob, command, escape

Record = Mapping[str, Any]


def compared_annotations(found: Sequence[Record]) -> Iterator[str]:
    """A line for every change that is not tolerated, and a warning for what is undecided."""
    for each in found:
        for check in each["checks"]:
            title = f"tokenbudget: {check['check']} against {each['label']}"
            message = f"{each['model']}: {check['sentence']}"
            if check["failed"]:
                yield command("error", {}, title, message)
            elif check["ruling"] == "inconclusive":
                yield command("warning", {}, title, message)


def write_compared_summary(job: GithubJob | None, found: Sequence[Record]) -> None:
    """Add what changed to the job's summary, where there is one."""
    if job is not None and job.summary is not None and found:
        # Other steps of the job write there too.
        with job.summary.open("a", encoding="utf-8") as stream:
            stream.write(compared_summary(found))


def compared_summary(found: Sequence[Record]) -> str:
    """What changed as Markdown: a table of the budgets, and every verdict in words."""
    label = escape(str(found[0]["label"]))
    lines = [
        f"## Token budgets against {label}",
        "",
        "| model | budget | change |",
        "|---|---|---|",
    ]
    lines += [
        f"| {escape(each['model'])} | {each['budget']:,} | {escape(each['accuracy'])} |"
        for each in found
    ]
    verdicts = [
        f"- {_sign(check)} {escape(each['model'])}: {escape(check['sentence'])}"
        for each in found
        for check in each["checks"]
    ]
    return "\n".join([*lines, "", *verdicts, *([""] if verdicts else [])]) + "\n"


def _sign(check: Record) -> str:
    undecided = check["ruling"] == "inconclusive" and not check["failed"]
    return SIGNS["inconclusive" if undecided else "failed" if check["failed"] else "passed"]
