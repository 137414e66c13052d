"""What follows a number: a scale that multiplies it, a unit, or a symbol that takes its value."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from pytest_tokenbudget.tasks.number_words import CHANGED_AFTER, SCALE, SCALES
from pytest_tokenbudget.tasks.numbers import CURRENCIES, literal_value

SPACE = r"[ \t\u00a0\u202f\u2009]"


# Capital letters are scales, small ones only after money: 3 m may be metres.
_SCALE_LETTERS = {"K": 10**3, "M": 10**6, "B": 10**9}
_MONEY_LETTERS = {"k": 10**3, "m": 10**6, "b": 10**9, "T": 10**12}
# "mil" is a million in English and a thousand in Spanish; quarters are coins, and halves of games.
_AMBIGUOUS = frozenset(
    """mil bin gross score grand half halves quarter quarters thirds fourths
    fifths sixths sevenths eighths ninths tenths hundredths thousandths""".split()
)
_UNIT_LETTERS = frozenset("mgshlL")
_SHORT_UNITS = frozenset(
    """cm mm km kg mg lb lbs oz ft yd mi hr hrs min sec ms ml dl cl st nd rd th am pm kw gb mb tb
    kb mph kmh kph usd eur gbp rs pt qt px yr yrs""".split()
)
_VARIABLES = re.compile(r"(?:pi|sin|cos|tan|log|ln|exp|mod|sqrt|[xyz]+|[abc]+|[ijk]+|[nmk]+)\Z")

_LATIN = re.compile(r"[A-Za-z\u00c0-\u024f]++")
_FACTOR = rf"{SPACE}*+(?:\\?[{CURRENCIES}]{SPACE}?)?[0-9(.\\]"
_MULTIPLIED = re.compile(rf"[xX](?={_FACTOR})")
_AND_A_HALF = re.compile(r"[ ]and[ ](?:a|one)[ ](half|third|quarter|fourth)(?![A-Za-z])")
_PARTS = {"half": 2, "third": 3, "quarter": 4, "fourth": 4}
_WORD = re.compile(rf"{SPACE}++([^\W\d_]++)")
_PERCENT = re.compile(rf"{SPACE}*+(?:\\?%|(?:percent|per[ ]cent|pct)(?![A-Za-z]))")
_DEGREES = re.compile(rf"{SPACE}*+(?:\^\{{?(?:\\circ|°)\}}?|\\(?:circ|degree)(?![A-Za-z])|[°℃℉º])")
_POWER_OR_FACTORIAL = re.compile(r"[\u00b2\u00b3\u00b9\u2070-\u2079^!‰]")
_SYMBOL = re.compile(
    rf"{SPACE}*+(?:[√∛∜∞∑∏∫∂\u0370-\u03ff]|\\(?!times|cdot|div|pm|mp|approx|simeq|implies|to"
    rf"|Rightarrow|[$%])[A-Za-z]++)"
)
_VARIABLE = re.compile(rf"{SPACE}++([A-Za-z])(?![\w'&./])(?!{_FACTOR})")


class Number(NamedTuple):
    """A number with all that belongs to it.

    Attributes:
        value: Its value with sign and scale; None where it has none, or several.
        start: Where it begins: its currency aside, its sign included.
        end: Where it ends, its scale and percent sign included.
        divided: Whether it is written as a division.
        decimals: How many decimals it shows.
    """

    value: Fraction | None
    start: int
    end: int
    divided: bool
    decimals: int


def with_suffix(match: re.Match[str], text: str, end: int, maths: bool) -> Number:
    """The number of a match of `numbers.NUMBER` with what follows it.

    Args:
        match: The match.
        text: The text it was found in.
        end: What stands from here on is not looked at.
        maths: Whether the text is a formula, where single letters are variables.
    """
    value = literal_value(match)
    begin = match.start() if match["sign"] or match["inner_sign"] else match.start("digits")
    value, stop = (None, match.end()) if value is None else _scaled(value, match, text, end, maths)
    decimals = len((match["decimal"] or "").partition(".")[2])
    return Number(value, begin, stop, match["decimal"] is None, decimals)


def _scaled(
    value: Fraction, match: re.Match[str], text: str, end: int, maths: bool
) -> tuple[Fraction | None, int]:
    at = match.end()
    letters = _LATIN.match(text, at, end)
    if letters and not _MULTIPLIED.match(text, at, end):
        factor = _factor_of(letters[0], _is_money(match, text, end), maths)
        if factor is None or (factor != 1 and _POWER_OR_FACTORIAL.match(text, letters.end(), end)):
            return None, letters.end()
        value, at = value * factor, letters.end()
    elif part := _AND_A_HALF.match(text, at, end):
        added = Fraction(1, _PARTS[part[1]])
        return (value + added if value >= 0 else value - added), part.end()
    while at < end:
        word = _WORD.match(text, at, end)
        if scale := SCALE.match(text, at, end):
            value, at = value * SCALES[scale["scale"].lower().rstrip(".")], scale.end()
        elif word and word[1].lower() in _AMBIGUOUS:
            return None, word.end()
        else:
            break
    # "3 thousand five hundred" goes on.
    if at > match.end() and _NUMBER_WORD.match(text, at, end):
        return None, at
    if ending := _PERCENT.match(text, at, end) or _DEGREES.match(text, at, end):
        return value, ending.end()
    if not letters and _POWER_OR_FACTORIAL.match(text, at, end):
        return None, at
    if CHANGED_AFTER.match(text, at, end):
        return None, at
    variable = _VARIABLE.match(text, at, end)
    units = _UNIT_LETTERS if maths else _UNIT_LETTERS | {"a", "A", "I"}
    if _SYMBOL.match(text, at, end) or (variable and variable[1] not in units):
        return None, at
    return value, at


_NUMBER_WORD = re.compile(
    r"[\s,-]*+(?:and\s)?\s*+(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
    r"|(?:thir|four|fif|six|seven|eigh|nine)teen|(?:twen|thir|for|fif|six|seven|eigh|nine)ty"
    r"|hundred)(?![A-Za-z])",
    re.IGNORECASE,
)


def _is_money(match: re.Match[str], text: str, end: int) -> bool:
    """Whether a sign of currency stands before the number, and no formula ends after it."""
    before = text[max(0, match.start() - 2) : match.start("digits")].rstrip(" -+")
    return before[-1:] in tuple(CURRENCIES) and text.find("$", match.end(), end) < 0


def _factor_of(letters: str, money: bool, maths: bool) -> int | Fraction | None:
    """What letters right after a number mean: a scale, a unit (1), or a symbol (None)."""
    lower = letters.lower()
    if letters in _SCALE_LETTERS:
        return _SCALE_LETTERS[letters]
    if money and letters in _MONEY_LETTERS:
        return _MONEY_LETTERS[letters]
    if lower in SCALES:
        return SCALES[lower]
    if len(letters) == 1:
        if letters == "k" and not maths:
            return 1000
        return 1 if letters in _UNIT_LETTERS and not maths else None
    if lower in _SHORT_UNITS:
        return 1
    symbol = len(letters) == 2 or _VARIABLES.match(lower) or lower in _AMBIGUOUS
    return None if symbol else 1
