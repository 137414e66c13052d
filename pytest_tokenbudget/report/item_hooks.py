"""What happens around one test: its traces are generated, its records and reasons passed on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

from pytest_tokenbudget import registry
from pytest_tokenbudget.collection.eval_fixtures import replaced, uses
from pytest_tokenbudget.collection.selection import (
    kinds_of,
    mode_of,
    model_of,
    model_under_test,
    runs_no_test,
)
from pytest_tokenbudget.common.names import RECORDED, RECORDS, SECTIONS
from pytest_tokenbudget.common.package_files import suite
from pytest_tokenbudget.registry import SESSION
from pytest_tokenbudget.report import outcomes
from pytest_tokenbudget.report.interrupts import listen
from pytest_tokenbudget.settings import option_flags


def prepare(item: pytest.Item) -> None:
    """Generate what a test needs before the test begins, with progress on the terminal.

    Here nothing is captured, and the time is not the test's. What goes wrong is kept by the
    session and fails the test in its set-up.
    """
    spec = model_of(item)
    if spec is None or is_skipped(item) or replaced(item) or runs_no_test(item.config):
        return
    listen(item.config)
    reporter = item.config.pluginmanager.getplugin("tokenbudget-reporter")
    if reporter:
        # Whoever interrupts this wants to see what is there.
        reporter.fixtures_used.update(_sections(item))
    session = item.config.stash[SESSION]
    with reporter.watching() if reporter else ExitStack():
        if mode_of(item) is not None and session.recordings is None:
            # What a mode needs depends on how the model thinks; a failure is raised in the test.
            with suppress(Exception):
                session.looked_up(spec)
        for kind in kinds_of(item):
            # An exception in the hook that calls this would end the whole session.
            with suppress(Exception):
                make = registry.studies()[kind].make if kind in registry.studies() else None
                registry.load(make)(session, spec) if make else session.study(spec, kind)


@contextmanager
def progress_shown(config: pytest.Config) -> Iterator[None]:
    """Show progress also within a test, whose output is captured elsewhere."""
    listen(config)
    reporter = config.pluginmanager.getplugin("tokenbudget-reporter")
    capture = config.pluginmanager.getplugin("capturemanager")
    if reporter is None:  # a worker: the controller shows how far it is
        yield
        return
    with capture.global_and_fixture_disabled() if capture else ExitStack(), reporter.watching():
        yield


def is_skipped(item: pytest.Item) -> bool:
    """Whether marks skip the test, so that nothing has to be generated for it."""
    # pytest has no public way to ask; where its own name changes, traces come too early at worst.
    try:
        from _pytest.skipping import evaluate_skip_marks
    except ImportError:
        return False
    try:
        return evaluate_skip_marks(item) is not None
    except pytest.fail.Exception:
        return True  # a condition that cannot be evaluated fails the test before its set-up


def name_options(item: pytest.Item, call: pytest.CallInfo[Any]) -> None:
    """Let the reason why a test failed or was skipped name options by names that work."""
    if call.excinfo is None or not isinstance(
        call.excinfo.value, pytest.fail.Exception | pytest.skip.Exception
    ):
        return
    message = call.excinfo.value.msg
    if model_under_test(item) is not None and message:
        # Messages of the suite are single lines; users' own tests may write several.
        lines = [message] if item.path.parent == suite() else message.split("\n")
        named = (option_flags.working_names(item.config, line) for line in lines)
        call.excinfo.value.msg = "\n".join(named)


def attach(item: pytest.Item, report: pytest.TestReport) -> pytest.TestReport:
    """Let a test's records travel with its report, also from a worker to the controller."""
    if report.when == "call" and (records := item.stash.get(RECORDS, None)):
        setattr(report, RECORDED, records)
    if report.when == "setup" and model_of(item) is not None:
        setattr(report, SECTIONS, _sections(item))
    outcomes.mark(item, report)
    return report


def _sections(item: pytest.Item) -> list[str]:
    """The sections of the report that a test's fixtures stand for."""
    fixtures = dict.fromkeys(each.fixture for each in registry.sections() if each.fixture)
    return [name for name in fixtures if uses(item, name)]
