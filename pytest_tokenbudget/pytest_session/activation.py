"""When a pytest session uses the plugin, and the step from installed to in use.

Every pytest session loads this module, so it imports nothing that pytest has not loaded already.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_tokenbudget import registry
from pytest_tokenbudget.collection.eval_fixtures import evals_named
from pytest_tokenbudget.common.names import CONFIGURED, HOOKS, RECORDED, SECTIONS, STARTED
from pytest_tokenbudget.common.package_files import suite
from pytest_tokenbudget.registry import SESSION
from pytest_tokenbudget.settings.locations import has_settings, upwards
from pytest_tokenbudget.settings.option_flags import session_options

if TYPE_CHECKING:
    from pytest_tokenbudget.session import Session


def activate(config: pytest.Config) -> Session:
    """The state of this session; the first call reads the settings and registers the hooks.

    Raises:
        pytest.UsageError: If an option or the settings file cannot be used.
    """
    if not config.pluginmanager.has_plugin(HOOKS):
        from pytest_tokenbudget.pytest_session import hooks

        hooks.register(config)
    return config.stash[SESSION]


def configured(config: pytest.Config) -> bool:
    """Whether an option was given, or there are settings of this plugin."""
    if CONFIGURED not in config.stash:
        config.stash[CONFIGURED] = _configured(config)
    return config.stash[CONFIGURED]


def _configured(config: pytest.Config) -> bool:
    options = session_options(config)
    if any(getattr(config.option, option.ini, None) is not None for option in options):
        return True
    if any(_in_ini(config, option.ini) for option in options):
        return True
    here, root = config.invocation_params.dir, config.rootpath
    return any(has_settings(directory) for directory in (*upwards(here, root), root))


def _in_ini(config: pytest.Config, name: str) -> bool:
    try:
        return bool(config.getini(name))
    except (TypeError, ValueError, pytest.UsageError):
        return True  # a value of a wrong type, which is reported when it is read


def in_use(config: pytest.Config) -> bool:
    """Whether this session looks like one that runs evals, before anything is collected.

    What changes a session as a whole (how many workers ``-n auto`` means) must not touch projects
    that only have the plugin installed.
    """
    if configured(config):
        from pytest_tokenbudget.pytest_session.start import start

        if start(config).settings.explicit:
            return True
    return evals_named(config)


def not_for_this_run(path: Path, config: pytest.Config) -> bool:
    """Whether a file is a page of the suite that this run has no use for.

    One that was named itself is collected all the same, and its tests say why they are skipped.
    """
    if path.parent != suite():
        return False
    pages = (one for one in registry.registered().evals if one.page == path.name)
    one = next(pages, None)
    if one is None or one.collected is None:
        return False
    session = config.stash.get(SESSION, None)
    return session is None or not registry.load(one.collected)(session)


class ControllerWatch:
    """Activates the plugin on the controller of pytest-xdist, where nothing is collected."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Activate the plugin at the first report of a test that used it."""
        if not (hasattr(report, RECORDED) or hasattr(report, SECTIONS)):
            return
        manager = self.config.pluginmanager
        manager.unregister(self)
        before = manager.get_plugins()
        activate(self.config)
        # What was registered during a call of a hook takes no part in that call.
        for plugin in manager.get_plugins() - before:
            if hasattr(plugin, "pytest_runtest_logreport"):
                plugin.pytest_runtest_logreport(report=report)


def watch(config: pytest.Config) -> None:
    """Activate the plugin now where its use is known, else as soon as a test uses it."""
    config.stash[STARTED] = time.time()
    if configured(config) or in_use(config):
        activate(config)
    elif config.getoption("dist", default="no") != "no" and not hasattr(config, "workerinput"):
        config.pluginmanager.register(ControllerWatch(config), "tokenbudget-controller")
