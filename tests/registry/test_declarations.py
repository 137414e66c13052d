"""What evals, engines, tasks and scorers declare is there, and declaring it costs nothing."""

import dataclasses
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from types import SimpleNamespace

import pytest

from pytest_tokenbudget import registry
from pytest_tokenbudget.collection.eval_fixtures import evals_named
from pytest_tokenbudget.common.extensions import ENGINES, SCORERS, TASKS, imported

HEAVY = {
    *("torch", "transformers", "tokenizers", "datasets", "vllm", "numpy", "scipy", "statsmodels"),
    *("pandas", "matplotlib", "httpx2", "jinja2"),
}


def targets(value: object) -> Iterator[str]:
    """Every ``"package.module:name"`` in a declaration."""
    if isinstance(value, str):
        if re.fullmatch(r"[\w.]+:\w+", value):
            yield value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for each in dataclasses.fields(value):
            yield from targets(getattr(value, each.name))
    elif isinstance(value, Mapping):
        yield from targets(tuple(value.values()))
    elif isinstance(value, tuple):
        for each in value:
            yield from targets(each)


@pytest.mark.parametrize("one", registry.declarations(), ids=lambda one: one.name or "shared")
def test_what_an_eval_declares_is_there(one):
    for target in targets(one):
        assert callable(registry.load(target)), target
    for module in filter(None, (one.fixtures, one.modes)):
        assert importlib.import_module(module)


def test_targets_of_declarations_are_seen():
    cliff = next(one for one in registry.registered().evals if one.name == "cliff")
    assert "pytest_tokenbudget.studies.cliff.report:write_cliff" in set(targets(cliff))
    assert len(list(targets(registry.declarations()))) > 40


@pytest.mark.parametrize("group", [ENGINES, TASKS, SCORERS], ids=lambda group: group.kind)
def test_own_engines_tasks_and_scorers_are_there(group):
    for name, target in group.own.items():
        assert group.fits(imported(target)) == "", name


def test_declarations_import_nothing_heavy():
    code = (
        "import sys\n"
        "from pytest_tokenbudget import registry\n"
        "from pytest_tokenbudget.common.extensions import ENGINES, SCORERS, TASKS\n"
        "assert registry.registered().evals\n"
        "assert all(len(each.names) > 1 for each in (ENGINES, SCORERS, TASKS))\n"
        "print(*sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert "pytest_tokenbudget.studies.cliff" in loaded
    assert not HEAVY & loaded


@pytest.mark.parametrize(
    ("argument", "named"),
    [
        ("lengths/test_lengths.py::test_length", True),
        ("lengths", True),
        ("tokenbudget_lengths", True),
        ("tokenbudget_lengths.test_lengths", True),
        ("tokenbudget_lengths_more", False),
        (".", False),
    ],
)
def test_a_page_of_another_package_is_known_by_module_and_path(
    tmp_path, monkeypatch, argument, named
):
    folder = tmp_path / "lengths"
    folder.mkdir()
    (folder / "test_lengths.py").touch()
    registry.eval_markers()  # what is kept for the session comes from all evals
    found = registry.Registered((), (), {"tokenbudget_lengths": folder})
    monkeypatch.setattr(registry, "registered", lambda: found)
    config = SimpleNamespace(
        getoption=lambda name, default: default,
        args=[argument],
        invocation_params=SimpleNamespace(dir=tmp_path),
    )
    assert evals_named(config) is named
