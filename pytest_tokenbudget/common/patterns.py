"""Names that are matched by patterns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase


def matches(patterns: Sequence[str], names: Iterable[str]) -> bool:
    """Whether one of the names is meant; no pattern means all."""
    return not patterns or any(fnmatchcase(name, p) for p in patterns for name in names)
