"""Cases of a test of which some run with the quick tests, and the others only with ``-m slow``."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest


def slow(*values: object) -> object:
    """A case that only ``-m slow`` runs."""
    return pytest.param(*values, marks=pytest.mark.slow)


def mostly_slow(values: Iterable[object], quick: Callable[[object], bool]) -> list[object]:
    """Cases of one value each, of which those that are not quick are slow."""
    return [value if quick(value) else slow(value) for value in values]
