"""The beginning of a session: configuration read and checked before anything is loaded."""

from __future__ import annotations

import os
import uuid

import pytest

from pytest_tokenbudget import registry
from pytest_tokenbudget.common import xdist
from pytest_tokenbudget.common.extensions import ENGINES, SCORERS, TASKS
from pytest_tokenbudget.registry import SESSION
from pytest_tokenbudget.session import Session
from pytest_tokenbudget.settings.config_file import ConfigError
from pytest_tokenbudget.settings.option_flags import given_to_others, named_in_errors
from pytest_tokenbudget.settings.read_settings import find_project, read_settings

# Where one of these was set, models are looked up before anything is collected.
CHECKED = frozenset(
    "model budgets recorded tokenizer engine base_url served_model server_api".split()
)


def start(config: pytest.Config) -> Session:
    """Read the configuration and make the session's state, once.

    Models and tasks are resolved at once where somebody named them, so that a wrong name ends the
    run before anything is loaded; otherwise nothing is looked at.

    Raises:
        pytest.UsageError: If an option or the configuration file cannot be used.
    """
    if SESSION in config.stash:
        return config.stash[SESSION]
    with named_in_errors(config):
        return _start(config)


def _start(config: pytest.Config) -> Session:
    try:
        project = find_project(config)
    except ConfigError as error:
        raise pytest.UsageError(str(error)) from None
    settings = read_settings(config, project)
    if settings.stream and (workers := config.getoption("numprocesses", default=None)):
        raise pytest.UsageError(
            f"--stream: cannot be used with -n {workers}, whose workers have no terminal to show "
            "traces on; leave out one of the two: -n 0, or the setting stream = off"
        )
    session = Session(settings, project.user, run_identifier(config))
    session.root = project.root
    session.notes = (
        *project.notes,
        *given_to_others(config),
        *registry.registered().faults,
        *(sentence for each in (ENGINES, TASKS, SCORERS) for sentence in each.faults),
    )
    if settings.explicit & CHECKED:
        session.check_budgets()
    if "task" in settings.explicit:
        _ = session.task  # loading it is the check
    for one in registry.declarations():
        if one.check is not None:
            registry.load(one.check)(session)
    config.stash[SESSION] = session
    return session


def run_identifier(config: pytest.Config) -> str:
    """One identifier for all processes of a pytest session; pytest-xdist hands it to workers."""
    given = os.environ.get("PYTEST_XDIST_TESTRUNUID") if xdist.worker_id() else None
    given = given or config.getoption("testrunuid", default=None)
    run = str(given or uuid.uuid4().hex)
    if hasattr(config.option, "testrunuid"):
        config.option.testrunuid = run
    return run


def without_workers(config: pytest.Config) -> None:
    """Start no workers of pytest-xdist for a dry run: one process says everything."""
    asked = getattr(config.option, "numprocesses", None) or getattr(config.option, "tx", None)
    if asked and start(config).settings.dry_run:
        config.option.numprocesses = 0
