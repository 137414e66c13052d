"""Words for error messages: what a value is, and which allowed name is the nearest."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping

from pytest_tokenbudget.common.outside_text import printable

_LONGEST_VALUE = 200


def nearest(name: str, allowed: Collection[str], count: int = 3) -> list[str]:
    """The allowed names that look most like ``name``, best first; case does not count."""
    by_lower: dict[str, str] = {}
    for known in allowed:
        by_lower.setdefault(known.lower(), known)
    asked = name.lower()
    found = difflib.get_close_matches(asked, list(by_lower), n=count, cutoff=0.5)
    # A name cut short is too far away for difflib.
    longer = [known for known in by_lower if len(asked) > 2 and known.startswith(asked)]
    return [by_lower[known] for known in dict.fromkeys([*longer, *found])][:count]


def kind_of(value: object) -> str:
    """What a TOML value is, in words."""
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, str):
        return f"the string {printable(repr(value), _LONGEST_VALUE)}"
    if isinstance(value, int | float):
        long = isinstance(value, int) and abs(value) >= 2**200
        return "a very long number" if long else f"the number {value}"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, Mapping):
        return "a table"
    return f"{value!r}"
