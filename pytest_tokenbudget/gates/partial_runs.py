"""Which part of a project's tests a run selects, and which gates it cannot judge for that reason.

A whole run judges every gate. A run of selected tests judges those that the selected tests are
for; the other gates are reported as not judged, and fail nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

import pytest

from pytest_tokenbudget.common.package_files import suite
from pytest_tokenbudget.gates.table import Gate
from pytest_tokenbudget.gates.targets import GateTarget, judges
from pytest_tokenbudget.registry import SESSION
from pytest_tokenbudget.settings.option_flags import TAKEN, session_options

# Folders with other people's code.
_SKIPPED = ("node_modules", "site-packages", "__pycache__")


class Selection:
    """What a run selects of the tests that there are.

    Args:
        config: pytest's configuration; None for a whole run.
        files: Names of the collected test files, without ``.py``.
        deselected: Tests that could judge gates, and were collected but not selected.
    """

    def __init__(
        self,
        config: pytest.Config | None = None,
        files: Collection[str] = (),
        deselected: Sequence[GateTarget] = (),
    ) -> None:
        self.config = config
        self.files, self.deselected = frozenset(files), tuple(deselected)
        self.by = selected_by(config) if config is not None else ""
        self._uncollected: list[tuple[str, str]] | None = None

    def demands(self, gate: Gate) -> bool:
        """Whether the command line or a setting demands that this very run judges a gate."""
        if self.config is None:
            return True
        if self.config.stash[SESSION].settings.require_all_gates:
            return True
        return bool(gate.option) and on_command_line(self.config, gate.option)

    def excuse(self, gate: Gate, budget: int | None = None) -> str:
        """Why no selected test judges a gate, if that is due to the selection; else empty.

        Args:
            gate: The gate.
            budget: The budget at which it was not judged; None where any one will do.
        """
        if self.demands(gate):
            return ""
        if self.by:
            return self.by
        for target in self.deselected:
            if judges(gate, target) and (budget is None or target.budget in (None, budget)):
                return "its tests are deselected"
        for name, text in self._not_collected():
            if _could_judge(gate, name, text):
                return f"{name}.py is not collected"
        return ""

    def note(self, gate: Gate) -> str:
        """Why a gate fails although only some tests were selected; empty for a whole run."""
        if self.config is None or not self.by or not self.demands(gate):
            return ""
        asked = self.config.stash[SESSION].settings.require_all_gates
        by = "--require-all-gates" if asked else gate.option
        return f"; {self.by} selects some tests only, and {by} demands a verdict of this run"

    def eval_names(self, gates: Sequence[Gate]) -> set[str]:
        """What evals may be called in gates, besides the shipped ones: by all files of tests."""
        found = {name.removeprefix("test_") for name in self.files}
        found.update(name for target in self.deselected for name in target.evals)
        if any(not set(gate.evals) <= found for gate in gates):
            found.update(name.removeprefix("test_") for name, _ in self._not_collected())
        return found

    def _not_collected(self) -> list[tuple[str, str]]:
        """Names and texts of the test files that the arguments leave out."""
        if self._uncollected is None:
            config = self.config
            explicit = config is not None and config.args_source is config.ArgsSource.ARGS
            self._uncollected = (
                [
                    (path.stem, path.read_text(encoding="utf-8", errors="replace"))
                    for path in _test_files(config)
                    if path.stem not in self.files
                ]
                if config is not None and explicit
                else []
            )
        return self._uncollected


def selected_by(config: pytest.Config) -> str:
    """The options and arguments that select single tests, for people; empty for a whole run."""
    keyword = config.getoption("keyword", default="")
    parts = [f"-k {keyword!r}"] if keyword else []
    if any("::" in str(argument) for argument in config.args):
        parts.append("tests by name")
    cache = getattr(config, "cache", None)
    # Where nothing failed before, --lf runs everything.
    if config.getoption("lf", default=False) and cache and cache.get("cache/lastfailed", {}):
        parts.append("--lf")
    if config.getoption("stepwise", default=False):
        parts.append("--sw")
    return ", ".join(parts)


def on_command_line(config: pytest.Config, flag: str) -> bool:
    """Whether an option was given in this very command, not in a file or in ``addopts``."""
    option = next(option for option in session_options(config) if flag in option.flags)
    names = {option.long, *option.flags} - config.stash.get(TAKEN, {}).keys()
    return any(str(each).partition("=")[0] in names for each in config.invocation_params.args)


def _could_judge(gate: Gate, name: str, text: str) -> bool:
    """Whether the tests of a file that was not collected may judge a gate."""
    named = {name, name.removeprefix("test_")} & set(gate.evals)
    marked = any(re.search(rf"\bmark\.{re.escape(each)}\b", text) for each in gate.evals)
    return (bool(named) or marked or not gate.evals) and "gates" in text


def _test_files(config: pytest.Config) -> Iterator[Path]:
    """The files of tests in the project, and the shipped evals where some of them run."""
    roots = [config.rootpath]
    names = [str(argument).partition("::")[0] for argument in config.args]
    base = config.invocation_params.dir
    if any((base / name).resolve().is_relative_to(suite().resolve()) for name in names):
        roots.append(suite())
    patterns = config.getini("python_files")
    closed = (*config.getini("norecursedirs"), *_SKIPPED)
    for root in roots:
        for folder, folders, files in os.walk(root):
            folders[:] = [
                name
                for name in folders
                if not any(fnmatch(name, pattern) for pattern in closed)
                and not Path(folder, name, "pyvenv.cfg").exists()
            ]
            for name in files:
                if any(fnmatch(name, pattern) for pattern in patterns):
                    yield Path(folder, name)
