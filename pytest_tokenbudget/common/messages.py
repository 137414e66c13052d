"""Words for error messages, and checks of arguments that Python code passes in."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from operator import index
from typing import Any

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


def did_you_mean(name: str, allowed: Collection[str], count: int = 1, before: str = ", ") -> str:
    """What may have been meant, to follow a wrong name in a message; empty if nothing is near."""
    close = [repr(known) for known in nearest(name, allowed, count)]
    return f"{before}did you mean {' or '.join(close)}?" if close else ""


def unknown_key(key: str, allowed: Collection[str], count: int = 1) -> str:
    """A key that is not allowed, and those that are, for a message."""
    hint = did_you_mean(key, allowed, count)
    return f"the unknown key {key!r}{hint}; allowed are {', '.join(allowed)}"


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


def whole_number(
    name: str,
    value: object,
    least: int | None = None,
    most: int | None = None,
    *,
    error: type[ValueError] = ValueError,
) -> int:
    """The value of an argument as an int from ``least`` to ``most``; None is no bound.

    Raises:
        ValueError: If it is not a whole number within the bounds; ``error`` is the type.
    """
    __tracebackhide__ = True
    found: Any = value
    try:
        number = None if isinstance(value, bool) else index(found)
    except TypeError:
        number = None
    within = number is not None and (least is None or number >= least)
    if number is None or not within or (most is not None and number > most):
        limits = "" if least is None else f" of at least {least:,}"
        if least is not None and most is not None:
            limits = f" from {least:,} to {most:,}"
        raise error(f"{name} must be a whole number{limits}, not {described(value)}")
    return number


def real_number(
    name: str,
    value: object,
    least: float,
    most: float,
    *,
    error: type[ValueError] = ValueError,
) -> float:
    """The value as a float from ``least`` to ``most``; ``error`` is raised if it is not."""
    __tracebackhide__ = True
    found: Any = value
    try:
        number = None if isinstance(value, bool | str | bytes) else float(found)
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or not least <= number <= most:
        raise error(f"{name} must be a number from {least:g} to {most:g}, not {described(value)}")
    return number


def text(name: str, value: object, *, error: type[ValueError] = ValueError) -> str:
    """The value as a str with a character that is not a space; ``error`` is raised if it is not."""
    __tracebackhide__ = True
    if not isinstance(value, str) or not value.strip():
        raise error(f"{name} must be a text that is not empty, not {described(value)}")
    return value


def mapping(name: str, value: object, *, error: type[ValueError] = ValueError) -> Mapping[str, Any]:
    """The value as a mapping; ``error`` is raised if it is none."""
    __tracebackhide__ = True
    if not isinstance(value, Mapping):
        raise error(f"{name} must be a mapping, such as a dict, not {described(value)}")
    return value


def described(value: object) -> str:
    """A value in words that fit into a sentence."""
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "a dict"
    if isinstance(value, int) and value.bit_length() > 256:
        return "a number of more than 70 digits"  # Python refuses to write very long ones
    if value is None or isinstance(value, str | int | float):
        shown = kind_of(value)
        return shown if len(shown) <= 80 else f"{shown[:77]}..."
    return f"an object of type {type(value).__name__}"
