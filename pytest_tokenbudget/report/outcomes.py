"""What pytest shows of tests: one cause is said once, and a skipped eval says why."""

from __future__ import annotations

from collections import Counter

import pytest

from pytest_tokenbudget.collection.selection import model_of, model_under_test
from pytest_tokenbudget.common.outside_text import printable
from pytest_tokenbudget.common.text_layout import plural, wrapped
from pytest_tokenbudget.settings.option_flags import NamingTerminal

CAUSE, EVAL = "tokenbudget_cause", "tokenbudget_eval"
# What stopped a test, where several tests can be stopped by the same.
STOPPED_BY = pytest.StashKey[str]()
SKIPPED = "Skipped: "


def mark(item: pytest.Item, report: pytest.TestReport) -> None:
    """Note on a test's report which eval it belongs to and, if it failed, which cause it shares."""
    spec = model_under_test(item)
    if spec is None:
        return
    setattr(report, EVAL, [item.path.stem.removeprefix("test_"), spec.alias])
    if not report.failed:
        return
    if report.when == "setup" and model_of(item) is not None:
        # The same words from the same line of a fixture.
        setattr(report, CAUSE, str(getattr(report.longrepr, "reprcrash", "") or ""))
    elif STOPPED_BY in item.stash:
        setattr(report, CAUSE, item.stash[STOPPED_BY])


def fold_causes(terminal: pytest.TerminalReporter) -> None:
    """Let the terminal show tests that failed for one reason once.

    All of them are counted and listed, and each has its reason in a JUnit file.
    """
    first: dict[str, pytest.TestReport] = {}
    others: Counter[str] = Counter()
    for report in (*terminal.stats.get("error", ()), *terminal.stats.get("failed", ())):
        cause = getattr(report, CAUSE, "")
        if not cause:
            continue
        if cause not in first:
            first[cause] = report
            continue
        others[cause] += 1
        # How pytest marks what --pdb has shown already; the list of failures names the test alone.
        report._pdbshown = True
        report.longrepr = f"for the same reason as {first[cause].nodeid}"
    for cause, number in others.items():
        more = f"{plural(number, 'more failure')} for the same reason"
        first[cause].sections.append((more, ""))


class SkippedEvals:
    """Evals of which no test ran, with their reasons."""

    def __init__(self) -> None:
        self._ran: set[tuple[str, str]] = set()
        self._reasons: dict[tuple[str, str], Counter[str]] = {}

    def add(self, report: pytest.TestReport) -> None:
        """Take note of a test."""
        found = getattr(report, EVAL, None)
        if found is None:
            return
        key = (found[0], found[1])
        if report.skipped and isinstance(report.longrepr, tuple):
            reason = str(report.longrepr[2]).removeprefix(SKIPPED)
            self._reasons.setdefault(key, Counter())[reason] += 1
        elif report.when == "call" or report.failed:
            self._ran.add(key)

    def show(self, terminal: NamingTerminal, width: int = 80) -> None:
        """Write a sentence for each reason, unless -rs or -ra shows the reasons of all tests."""
        if set(terminal.config.option.reportchars) & set("sSaA"):
            return
        for key, reasons in self._reasons.items():
            if key in self._ran:
                continue
            for reason, number in reasons.items():
                which = f"{key[0]} of {printable(key[1])} ({plural(number, 'test')})"
                for line in wrapped(f"skipped: {which}: {printable(reason)}", width):
                    terminal.write_line(line)
