"""GitHub Actions: annotations on what failed, and the job's summary in Markdown.

Nothing is sent: annotations are lines of the log, and the summary is a file that the runner names.
"""

from __future__ import annotations

import html
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_tokenbudget.common.outside_text import printable, printable_lines

# Characters of a cell or a sentence in the summary, which may hold 1 MiB in all.
LONGEST = 2_000

SIGNS = {
    "passed": ":white_check_mark:",
    "failed": ":x:",
    "inconclusive": ":grey_question:",
    "unknown": ":no_entry:",
}


@dataclass(frozen=True)
class GithubJob:
    """The job that this run is a part of.

    Attributes:
        workspace: Where the repository is checked out.
        summary: The file that becomes the job's summary; None where there is none.
        commit: Address of the commit's files; empty where it is not known.
        run: Address of the workflow run; empty where it is not known.
    """

    workspace: Path
    summary: Path | None = None
    commit: str = ""
    run: str = ""


def current_job(environ: Mapping[str, str] | None = None) -> GithubJob | None:
    """The job, None outside of GitHub Actions."""
    known = os.environ if environ is None else environ
    if known.get("GITHUB_ACTIONS") != "true":
        return None
    server, repository = known.get("GITHUB_SERVER_URL", ""), known.get("GITHUB_REPOSITORY", "")
    base = f"{server}/{repository}" if server.startswith("https://") and repository else ""
    commit, run = known.get("GITHUB_SHA", ""), known.get("GITHUB_RUN_ID", "")
    return GithubJob(
        workspace=Path(known.get("GITHUB_WORKSPACE") or Path.cwd()),
        summary=Path(known["GITHUB_STEP_SUMMARY"]) if known.get("GITHUB_STEP_SUMMARY") else None,
        commit=f"{base}/blob/{commit}" if base and commit else "",
        run=f"{base}/actions/runs/{run}" if base and run else "",
    )


def command(kind: str, where: Mapping[str, str | int], title: str, message: str) -> str:
    """The line that annotates a file or, without one, the run.

    Args:
        kind: ``error``, ``warning`` or ``notice``.
        where: ``file`` and ``line``, or nothing.
        title: What it is about.
        message: What is said.
    """
    named = {**where, "title": title}
    shown = ",".join(f"{key}={_escaped(printable(value), ':,')}" for key, value in named.items())
    return f"::{kind} {shown}::{_escaped(printable_lines(message))}"


def _escaped(text: str, also: str = "") -> str:
    return "".join(f"%{ord(c):02X}" if c in "%\r\n" + also else c for c in text)


def escape(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    plain = html.escape(printable(" ".join(text.split()), LONGEST), quote=False)
    return re.sub(r"([\\`*_\[\]|~#$!]|^[-+](?= )|^\d+[.)](?= ))", r"\\\1", plain)
