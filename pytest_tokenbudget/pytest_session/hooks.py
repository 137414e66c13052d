"""Hooks of a session that uses the plugin; each calls one function elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Generator
from typing import Any

import pytest

from pytest_tokenbudget import registry
from pytest_tokenbudget.collection import eval_fixtures, selection
from pytest_tokenbudget.common.names import HOOKS
from pytest_tokenbudget.common.outside_text import printable
from pytest_tokenbudget.common.text_layout import wrapped
from pytest_tokenbudget.dry_run import dry_run
from pytest_tokenbudget.gates import plugin as gates_plugin
from pytest_tokenbudget.pytest_session import preflight
from pytest_tokenbudget.pytest_session.start import start
from pytest_tokenbudget.registry import SESSION
from pytest_tokenbudget.report import interrupts, item_hooks, reporter
from pytest_tokenbudget.settings.option_flags import named_in_errors


def register(config: pytest.Config) -> None:
    """Start the session, and register these hooks and what reports its results.

    Raises:
        pytest.UsageError: If an option or the settings file cannot be used.
    """
    session = start(config)
    manager = config.pluginmanager
    with named_in_errors(config):
        preflight.check_tokenizer(config)
        gates_plugin.register(config, session)
    manager.register(interrupts.Interrupts(config, session), interrupts.NAME)
    if not hasattr(config, "workerinput"):
        shown = reporter.Reporter(config, session)
        manager.register(shown, "tokenbudget-reporter")
        if session.settings.save is not None or session.settings.compare is not None:
            from pytest_tokenbudget.baselines.plugin import BaselinePlugin

            kept = BaselinePlugin(config, session, shown)
            manager.register(kept, "tokenbudget-baselines")
    manager.register(sys.modules[__name__], HOOKS)


def pytest_report_header(config: pytest.Config) -> list[str]:
    remarks = reporter.settings_remarks(config.stash[SESSION].settings)
    return [line for remark in remarks for line in wrapped(printable(remark), 80)]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None]:
    # pytest's own hook groups tests by the parameters of their session fixtures.
    collected = list(items)
    selection.skip_without_gpu(items, registry.markers()["gpu"])
    yield
    selection.order_suite(items, collected, tuple(registry.markers()))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    with named_in_errors(session.config):
        preflight.check_named(session.config)


def pytest_collection_finish(session: pytest.Session) -> None:
    selection.note_needs(session.config.stash[SESSION], session.items)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    with named_in_errors(session.config):
        preflight.check_selected(session)
    return dry_run.report_dry_run(session)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> None:
    selection.skip_in_setup_only(fixturedef, request.config)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> None:
    item_hooks.prepare(item)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    eval_fixtures.refuse_replaced(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    yield
    preflight.fail_if_incomplete(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    item_hooks.name_options(item, call)
    report = yield
    return item_hooks.attach(item, report)
