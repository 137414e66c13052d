"""Where settings are looked for, found without parsing.

Every pytest session loads this module, so it imports nothing that pytest has not loaded already.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path


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
