"""Where the files are that come with the package: the evals, the embedded model, small data."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

# Subpackages as they are installed, and their folders in a checkout.
FOLDERS = {"evals": "evals", "embedded": "fixtures"}


@cache
def package_folder(name: str) -> Path:
    """The folder of a subpackage of :data:`FOLDERS`.

    An installation, editable or not, knows the subpackage by its name. ``python -m pytest`` in a
    checkout imports the package from the working directory even if it is installed elsewhere;
    there the folder lies beside the package.
    """
    found = importlib.util.find_spec(f"pytest_tokenbudget.{name}")
    if found is not None and found.submodule_search_locations:
        return Path(next(iter(found.submodule_search_locations)))
    return Path(__file__).resolve().parents[2] / FOLDERS[name]


def suite() -> Path:
    """The directory of the shipped evals: in a checkout beside the package, else in it."""
    return package_folder("evals")
