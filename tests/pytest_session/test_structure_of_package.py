"""The floors and rooms of the package, as pyproject.toml declares them."""

from pathlib import Path

from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[2]


def test_nothing_imports_upwards_from_another_room_or_in_a_circle(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert lint_imports(config_filenames=("pyproject.toml",), no_cache=True, no_logo=True) == 0
