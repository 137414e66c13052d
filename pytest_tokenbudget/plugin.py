"""pytest hooks; each calls one function elsewhere."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from pytest_tokenbudget import (
    dry_run,
    fixtures,
    fixtures_engine,
    missing,
    options,
    selection,
)
from pytest_tokenbudget.gates import keeper
from pytest_tokenbudget.report import reporter
from pytest_tokenbudget.session import SESSION
from pytest_tokenbudget.start import start

MARKERS = {
    "phase1": "accuracy, truncation and tokens used against budget; the saturation point",
    "phase1b": "the same from several samples a problem",
    "phase2": "what kinds of errors there are",
    "phase3": "the cliff and the structure of solutions",
    "thinking": "what a thinking budget costs and buys",
    "allocation": "which thinking budget a model gets in a mode",
    "conformance": "whether an engine keeps the limits that it is given",
    "context": "what is lost when a conversation does not fit",
    "scenarios": "which limits scenarios of each kind need",
    "gpu": "needs a GPU",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    options.add_options(parser)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, object, object]:
    dry_run.without_workers(config)
    return (yield)


def pytest_configure(config: pytest.Config) -> None:
    for name, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")
    config.pluginmanager.register(fixtures, "tokenbudget-fixtures")
    config.pluginmanager.register(fixtures_engine, "tokenbudget-fixtures-engine")
    session = start(config)
    keeper.register(config, session)
    if not hasattr(config, "workerinput"):
        shown = reporter.Reporter(config, session)
        config.pluginmanager.register(shown, "tokenbudget-reporter")
        if session.settings.save is not None or session.settings.compare is not None:
            from pytest_tokenbudget.baselines.keeper import BaselineKeeper

            kept = BaselineKeeper(config, session, shown)
            config.pluginmanager.register(kept, "tokenbudget-baselines")


def pytest_unconfigure(config: pytest.Config) -> None:
    session = config.stash.get(SESSION, None)
    if session is not None:
        session.close()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return selection.nothing_to_compare(collection_path, config) or None


@pytest.hookimpl(trylast=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    try:
        selection.parametrize(metafunc)
    except pytest.UsageError as error:
        # What only a look at the data shows comes too late for a usage error: said without a trace.
        raise pytest.Collector.CollectError(str(error)) from None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None]:
    # pytest's own hook groups tests by the parameters of their session fixtures.
    collected = list(items)
    selection.skip_without_gpu(items, MARKERS["gpu"])
    yield
    selection.order_suite(items, collected, tuple(MARKERS))


def pytest_collection_finish(session: pytest.Session) -> None:
    selection.note_needs(session.config.stash[SESSION], session.items)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    return dry_run.say(session)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> None:
    reporter.prepare(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    yield
    missing.fail_if_incomplete(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    return reporter.attach(item, report)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    # pytest-xdist asks before pytest_configure.
    session = start(config)
    return session.auto_num_workers() if reporter.in_use(config) else None
