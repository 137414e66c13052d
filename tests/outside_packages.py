"""Packages of others, installed for sessions of their own as pip would do it."""

from __future__ import annotations

import dataclasses
import importlib
import shutil
import tomllib
from pathlib import Path

from pytest_tokenbudget import registry
from pytest_tokenbudget.common.extensions import ENGINES, SCORERS, TASKS

DATA = Path(__file__).parent / "data"


def install(name: str, target: Path) -> Path:
    """Install a package of ``tests/data`` into a folder for ``PYTHONPATH``."""
    folder = DATA / name
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for package in folder.iterdir():
        if package.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(package, target / package.name, ignore=ignored)
    return register(project["name"], project["entry-points"], target)


def register(distribution: str, groups: dict[str, dict[str, str]], target: Path) -> Path:
    """Write the metadata of a distribution with entry points."""
    info = target / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    lines = []
    for group, points in groups.items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return target


def forget_packages() -> None:
    """Let this process look again for packages that extend the plugin."""
    importlib.invalidate_caches()
    for function in vars(registry).values():
        if hasattr(function, "cache_clear"):
            function.cache_clear()
    for group in (ENGINES, TASKS, SCORERS):
        declared = {field.name for field in dataclasses.fields(group)}
        for name in set(vars(group)) - declared:  # what was worked out
            del vars(group)[name]
