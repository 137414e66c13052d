"""pytest hooks of every session in which the plugin is installed.

Every pytest session loads this module: it imports little, and what runs evals is imported when a
session uses it (``activation``, ``hooks``).
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from pytest_tokenbudget import registry
from pytest_tokenbudget.collection import eval_fixtures
from pytest_tokenbudget.pytest_session import activation
from pytest_tokenbudget.registry import SESSION
from pytest_tokenbudget.settings import option_flags


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    option_flags.add_options(parser, pluginmanager, registry.option_groups())


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(
    early_config: pytest.Config, parser: pytest.Parser, args: list[str]
) -> Generator[None]:
    yield from option_flags.load_conftests(early_config, parser, args)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, object, object]:
    if activation.configured(config):
        from pytest_tokenbudget.pytest_session.start import without_workers

        without_workers(config)
    return (yield)


def pytest_configure(config: pytest.Config) -> None:
    option_flags.parsed(config)
    for name, meaning in registry.markers().items():
        config.addinivalue_line("markers", f"{name}: {meaning}")
    activation.watch(config)


def pytest_unconfigure(config: pytest.Config) -> None:
    session = config.stash.get(SESSION, None)
    if session is not None:
        session.close()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return activation.not_for_this_run(collection_path, config) or None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> Generator[None]:
    # Before anyone parametrises, pytest must know the fixtures that an eval uses.
    eval_fixtures.adopt(metafunc.definition)
    yield
    if eval_fixtures.uses_any(metafunc.definition):
        activation.activate(metafunc.config)
        from pytest_tokenbudget.collection import selection

        selection.parametrize(metafunc)


def pytest_itemcollected(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        activation.activate(item.config)
    # Methods of unittest classes and doctests are never parametrised.
    if not hasattr(item, "callspec"):
        eval_fixtures.adopt(item)
        if eval_fixtures.uses_any(item):
            activation.activate(item.config)


def pytest_collection_finish(session: pytest.Session) -> None:
    eval_fixtures.offer(session)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> None:
    eval_fixtures.complete(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    call: pytest.CallInfo[Any],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    eval_fixtures.explain_missing(call, report)
    return report


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    # pytest-xdist asks before pytest_configure.
    if not activation.in_use(config):
        return None
    from pytest_tokenbudget.pytest_session.start import start

    return start(config).auto_num_workers()
