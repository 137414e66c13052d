"""When a pytest session uses the plugin, and the step from installed to in use.

Every pytest session loads this module, so it imports nothing that pytest has not loaded already.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_tokenbudget.option_table import OPTIONS

if TYPE_CHECKING:
    from pytest_tokenbudget.session import Session

SESSION = pytest.StashKey["Session"]()
CONFIGURED = pytest.StashKey[bool]()
STARTED = pytest.StashKey[float]()
HOOKS = "tokenbudget-hooks"
# Attributes of a test's report that travel from a worker to the controller.
RECORDED, SECTIONS = "tokenbudget", "tokenbudget_sections"
# What a test recorded.
RECORDS = pytest.StashKey[list[dict[str, Any]]]()

BASELINE = "test_baseline.py"
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
    "tokenbudget": "an eval that uses fixtures of pytest-tokenbudget",
}
# Other projects mark tests as needing a GPU too.
EVAL_MARKERS = frozenset(MARKERS) - {"gpu"}


def activate(config: pytest.Config) -> Session:
    """The state of this session; the first call reads the settings and registers the hooks.

    Raises:
        pytest.UsageError: If an option or the settings file cannot be used.
    """
    if not config.pluginmanager.has_plugin(HOOKS):
        from pytest_tokenbudget import hooks

        hooks.register(config)
    return config.stash[SESSION]


def configured(config: pytest.Config) -> bool:
    """Whether an option was given, or there are settings of this plugin."""
    if CONFIGURED not in config.stash:
        config.stash[CONFIGURED] = _configured(config)
    return config.stash[CONFIGURED]


def _configured(config: pytest.Config) -> bool:
    if any(getattr(config.option, option.ini, None) is not None for option in OPTIONS):
        return True
    if any(_in_ini(config, option.ini) for option in OPTIONS):
        return True
    here, root = config.invocation_params.dir, config.rootpath
    return any(has_settings(directory) for directory in (*upwards(here, root), root))


def _in_ini(config: pytest.Config, name: str) -> bool:
    try:
        return bool(config.getini(name))
    except (TypeError, ValueError, pytest.UsageError):
        return True  # a value of a wrong type, which is reported when it is read


def upwards(start: Path, root: Path) -> Iterator[Path]:
    """The directories in which settings are looked for, from ``start`` up.

    The last one is the top of the repository, or pytest's rootdir if that is above it; outside of
    a repository it is the top of the file system.
    """
    for directory in (start, *start.parents):
        yield directory
        top = any((directory / name).exists() for name in (".git", ".hg"))
        if top and root not in directory.parents:
            return


def has_settings(directory: Path) -> bool:
    """Whether there may be settings of this plugin in a directory, found without parsing."""
    if (directory / "tokenbudget.toml").is_file():
        return True
    try:
        text = (directory / "pyproject.toml").read_bytes()
    except OSError:
        return False
    # Not where it is a requirement, pytest-tokenbudget, or in pytest's own table, tokenbudget_NAME.
    return re.search(rb"(?<![\w-])tokenbudget(?![\w-])", text) is not None


def in_use(config: pytest.Config) -> bool:
    """Whether this session looks like one that runs evals, before anything is collected.

    What changes a session as a whole (how many workers ``-n auto`` means) must not touch projects
    that only have the plugin installed.
    """
    if configured(config):
        from pytest_tokenbudget.start import start

        if start(config).settings.explicit:
            return True
    return evals_named(config)


def evals_named(config: pytest.Config) -> bool:
    """Whether the command selects shipped evals, by a marker or by their place."""
    expression = str(config.getoption("markexpr", default="") or "")
    if any(re.search(rf"\b{name}\b", expression) for name in EVAL_MARKERS):
        return True
    for argument in config.args:
        name = argument.split("::")[0]
        if name.startswith("pytest_tokenbudget.evals"):
            return True
        path = config.invocation_params.dir / name
        if path.exists() and path.resolve().is_relative_to(suite().resolve()):
            return True
    return False


def suite() -> Path:
    """The directory of the shipped evals: in a checkout beside the package, else in it."""
    from pytest_tokenbudget.package_files import package_folder

    return package_folder("evals")


def nothing_to_compare(path: Path, config: pytest.Config) -> bool:
    """Whether a file is the suite's page about baselines, and there is none to compare with.

    One that was named itself is collected all the same, and its tests say why they are skipped.
    """
    if path.name != BASELINE or path.parent != suite():
        return False
    session = config.stash.get(SESSION, None)
    return session is None or session.settings.compare is None


class ControllerWatch:
    """Activates the plugin on the controller of pytest-xdist, where nothing is collected.

    Args:
        config: pytest's configuration.
    """

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
