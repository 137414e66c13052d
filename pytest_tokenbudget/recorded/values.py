"""Values of a recorded file, read strictly: a bad one ends with its place and what is allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from pytest_tokenbudget.recorded.records import RecordingError
from pytest_tokenbudget.tasks.jsonl import kind_of

_NEEDED = "\0needed"
# No model writes more in one output; every token that is claimed takes memory.
MOST_TOKENS = 1_000_000


def expected(answer: str) -> str:
    """The expected answer: of a worked solution what stands after its last ``####``."""
    return answer.rpartition("####")[2].strip() or answer.strip()


class Fields:
    """One JSON object with where it stands.

    Args:
        where: File and line or record; for messages.
        found: The object.

    Raises:
        RecordingError: If it is no object.
    """

    def __init__(self, where: str, found: object) -> None:
        if not isinstance(found, dict):
            raise RecordingError(f"{where}: {kind_of(found)}; an object is needed")
        self.where = where
        self.found: Mapping[str, object] = found

    def bad(self, key: str, found: str, allowed: str) -> RecordingError:
        """The error for a value that is not allowed."""
        return RecordingError(f"{self.where}: {key!r} is {found}; allowed is {allowed}")

    def missing(self, key: str) -> RecordingError:
        """The error for a key that is not there."""
        there = ", ".join(repr(name) for name in list(self.found)[:8]) or "no key"
        more = ", ..." if len(self.found) > 8 else ""
        return RecordingError(f"{self.where}: {key!r} is missing; there is {there}{more}")

    def get(self, key: str) -> object:
        """The value, None where it is null or not there."""
        return self.found.get(key)

    def text(self, key: str, otherwise: str | None = _NEEDED, *, empty: bool = False) -> str:
        """A string; an empty one counts as missing unless ``empty``."""
        value = self.get(key)
        if value is None:
            if otherwise == _NEEDED:
                raise self.missing(key)
            return otherwise or ""
        if not isinstance(value, str):
            raise self.bad(key, kind_of(value), "a string")
        if not (empty or value.strip()) and otherwise == _NEEDED:
            raise self.bad(key, "empty", "a string that is not")
        return value

    def scalar(self, key: str) -> str:
        """A string that is not empty, or a number, as a string."""
        value = self.get(key)
        if value is None:
            raise self.missing(key)
        shown = number_text(value)
        if shown is None and isinstance(value, str):
            shown = value.strip()
        if not shown:
            found = "empty" if shown == "" else kind_of(value)
            raise self.bad(key, found, "a string that is not empty, or a number")
        return shown

    def name(self, key: str) -> str:
        """An id: a string or a whole number."""
        value = self.get(key)
        if isinstance(value, Decimal):
            raise self.bad(key, str(value), "a string or a whole number")
        return self.scalar(key)

    def count(self, key: str, at_least: int = 0) -> int | None:
        """A whole number; None where it is null or not there."""
        value = self.get(key)
        if value is None:
            return None
        if isinstance(value, Decimal) and value == value.to_integral_value():
            value = int(value)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or value < at_least:  # type: ignore[operator]
            found = str(value) if isinstance(value, int | Decimal) else kind_of(value)
            raise self.bad(key, found.lower(), f"a whole number from {at_least}")
        return int(value)  # type: ignore[call-overload,no-any-return]

    def tokens(self, key: str, at_least: int = 0) -> int | None:
        """A number of output tokens; None where it is null or not there."""
        value = self.count(key, at_least)
        if value is not None and value > MOST_TOKENS:
            raise self.bad(key, f"{value:,}", f"a number of tokens up to {MOST_TOKENS:,}")
        return value

    def flag(self, key: str) -> bool | None:
        """True or false; None where it is null or not there."""
        value = self.get(key)
        if value is None or isinstance(value, bool):
            return value
        if value in (0, 1) and isinstance(value, int | Decimal):
            return bool(value)
        raise self.bad(
            key, kind_of(value) if not _is_number(value) else str(value), "true or false"
        )

    def inner(self, key: str) -> Fields | None:
        """An object; None where it is null or not there."""
        value = self.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.bad(key, kind_of(value), "an object")
        return Fields(self.where, value)

    def items(self, key: str) -> Sequence[object]:
        """A list; empty where it is null or not there."""
        value = self.get(key)
        if value is None:
            return ()
        if not isinstance(value, list):
            raise self.bad(key, kind_of(value), "a list")
        return value


def number_text(value: object) -> str | None:
    """A JSON number written out, but not 1e999 as a million digits; None for anything else."""
    if not _is_number(value):
        return None
    plain = isinstance(value, Decimal) and abs(value.adjusted()) < 50
    return format(value, "f") if plain else str(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | Decimal) and not isinstance(value, bool)
