"""What servers send, made safe to work with: JSON, text in pieces, numbers."""

from __future__ import annotations

import json
import re
from contextlib import suppress

# Answers of servers have a depth of about ten.
MOST_NESTED = 100
# Longer integers are no counts and no ids; Python refuses to convert those above 4,300 digits.
MOST_DIGITS = 18
REPLACEMENT = "\ufffd"

_ESCAPED_HALF = re.compile(r"\\u[dD][89a-fA-F]")
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_HALF = re.compile("[\ud800-\udfff]")


class _NestedError(ValueError):
    """JSON that is nested too deep."""


def parsed(text: str, *, in_pieces: bool = False) -> object:
    """JSON with no half of a surrogate pair in it; None where it is no JSON, or nested too deep.

    NaN and infinities are read as null, integers with very many digits as floats; a byte order mark
    is skipped. With ``in_pieces``, texts go on in what comes next: halves at their borders are
    left, for a `Joiner`.
    """
    text = text.removeprefix("\ufeff")
    with suppress(ValueError, RecursionError):
        value = json.loads(text, parse_constant=lambda name: None, parse_int=_integer)
        brackets = text.count("[") + text.count("{")
        if brackets > MOST_NESTED or _ESCAPED_HALF.search(text) or _HALF.search(text):
            return _mended(value, in_pieces, 0)
        return value
    return None


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= MOST_DIGITS else float(digits)


def _mended(value: object, in_pieces: bool, depth: int) -> object:
    if depth > MOST_NESTED:
        raise _NestedError
    if isinstance(value, str):
        return _inside(value) if in_pieces else whole(value)
    if isinstance(value, list):
        return [_mended(item, in_pieces, depth + 1) for item in value]
    if isinstance(value, dict):
        return {whole(k): _mended(v, in_pieces, depth + 1) for k, v in value.items()}
    return value


def _inside(text: str) -> str:
    """The text made whole but for a half at its start or its end that may have its other half."""
    start = int("\udc00" <= text[:1] <= "\udfff")
    stop = len(text) - int(len(text) > start and "\ud800" <= text[-1] <= "\udbff")
    return text[:start] + whole(text[start:stop]) + text[stop:]


def whole(text: str) -> str:
    """The text with each surrogate pair as one character, and U+FFFD for each half of one."""
    if _HALF.search(text) is None:
        return text
    text = _PAIR.sub(lambda pair: pair[0].encode("utf-16", "surrogatepass").decode("utf-16"), text)
    return _HALF.sub(REPLACEMENT, text)


class Joiner:
    """Joins text that comes in pieces, whose borders may lie inside of a surrogate pair."""

    def __init__(self) -> None:
        self._half = ""

    def add(self, piece: str) -> str:
        """What this piece adds; half a pair at its end is kept for the next one."""
        text, self._half = self._half + piece, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return whole(text)

    def end(self) -> str:
        """What is left at the end: U+FFFD for half a pair."""
        half, self._half = self._half, ""
        return whole(half)
