r"""Reading the one number that a declaration gives.

A number is followed, over its unit, by what else stands with it:

* ``=`` begins another side, and the last side that is a number counts, provided that no other
  side is a different number ("60 minutes = 1 hour" gives two);
* an operation makes an expression, which counts only by what it equals;
* another number, reached over units, "or", "and", "to", a comma, a colon or ``±``, makes several,
  and none of them counts;
* other words ("in", "because", "after" ...), a parenthesis or the end leave the number as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fractions import Fraction
from typing import NamedTuple

from pytest_tokenbudget.tasks.numbers import (
    CHANGED_AFTER_UNIT,
    CURRENCIES,
    MINUS,
    NUMBER,
    SIGN,
    SPACE,
    UNREADABLE,
    VULGAR,
    Number,
    with_suffix,
)


class Reading(NamedTuple):
    """A number that was read, and from where to where it stands."""

    value: Fraction
    start: int
    end: int


class UnreadableError(Exception):
    """An answer is declared, but there is no single number that it must be."""


def alternatives(words: Iterable[str]) -> str:
    return "|".join(sorted(words, key=len, reverse=True))


GAP_WORDS = (
    "the final correct answer is are was be equal equals to about approximately around roughly "
    "exactly therefore thus then so simply just only indeed now actually clearly usd eur gbp that"
).split()
# What may stand between a keyword and its number.
_GAP = re.compile(
    rf"""(?:
        [\s*_`"'(\[{{}}~\u2248\u2243:={CURRENCIES}#\u201e\u300c\u300e\uff1a]
      | \\[$(\[{{,;:!\ ] | \\(?:approx|sim|quad)(?![A-Za-z])
      | (?:US|AU|CA)(?=\\?\$)
      | (?:{alternatives(GAP_WORDS)}|a[ ]total[ ]of|total[ ]of)(?![A-Za-z])
      | \(?[A-H][).:]\s | (?:approx|ca)\.
      | 大约|大約|一共|总共|共有|共|约|約|应该|是|为|為|等于|약|총|هو|هي|হল
    )*+""",
    re.VERBOSE | re.IGNORECASE,
)
# "x =", "f(2) =", "Total cost =".
_LABEL = re.compile(
    rf"(?:[^\W\d_][^=:\d\n]{{0,60}}?)(?:\([^()=\n]{{0,12}}\)|_\{{?\w{{1,3}}\}}?)?{SPACE}*+=(?![=>])"
)
SIGN_WORD = re.compile(SIGN, re.IGNORECASE)
_SIGN_APART = re.compile(rf"[{MINUS}]{SPACE}{{1,3}}(?=[{CURRENCIES}]?\.?[0-9])")

_AFTER = rf"[\s)\]}}_\"'{CURRENCIES}|]*+"
_EQUALS = re.compile(
    rf"{_AFTER}(?:[=\u2248\u2243\u2252\u2245\u2192\u21d2](?![=>])|->|=>"
    r"|\\(?:approx|simeq|implies|to|Rightarrow)(?![A-Za-z])|(?:equals|is\s+equal\s+to|makes|gives|yields)(?![A-Za-z]))[>]?"
)
_VERB_EQUALS = re.compile(rf"{_AFTER}(?:is|are)(?![A-Za-z])")
_OPERATOR = re.compile(
    rf"{_AFTER}(?P<sign>[-+*/\u00d7\u00f7\u00b7\u2219\u22c5\u2013]|[xX](?=[\s(0-9.{CURRENCIES}\\*])"
    r"|\\(?:times|cdot|div)(?![A-Za-z])"
    r"|(?:times|plus|minus|divided\s+by|multiplied\s+by|of)(?![A-Za-z]))"
)
_LEAD = re.compile(
    rf"(?:[\s(\[{{*_\"'~\u2248]|\\?[{CURRENCIES}]|(?:US|AU|CA)(?=\\?\$)"
    r"|(?:about|approximately|roughly|around|exactly|only)(?![A-Za-z]))*+"
)
SEVERAL = re.compile(
    r"\s*+(?:±|\+/-|\+-|\\(?:pm|mp)(?![A-Za-z])|∓|~(?=\s*[0-9])|[<>\u2264\u2265\u2260]"
    r"|\\(?:le|ge|leq|geq|lt|gt|neq?|in)(?![A-Za-z]))"
)
_WORD = re.compile(r"[^\W\d_]++(?:['-][^\W\d_]++)*+\.?")
_EXPONENT = re.compile(r"\^\{?-?[0-9]\}?|[\u00b2\u00b3]")
_SKIPPED = re.compile(rf"(?:[\s)\]}}_\"'*{CURRENCIES}|%]|\\(?![A-Za-z])|{{)*+")
_JOINING_WORD = re.compile(r"\s*+(?:or|and|to)(?![A-Za-z])", re.IGNORECASE)
_PLACES = re.compile(
    r"to\s+(?:the\s+)?(?:nearest\s+)?[0-9]+\s*(?:d\.?p|decimal|significant|s\.?f|places|digits)"
)
_BREAKERS = frozenset(
    """in on at after before for from with by because since as so if when where which that who
        while whereas but is are was were has have had he she they it we i you this these those
        there the therefore thus hence given left using via due assuming not without within until
        during under among into then i.e e.g rounded making
        en dans por para con pour avec nach aus bei für mit weil porque car wenn""".split()
)
_RATIO_WORDS = frozenset("in for from by per over into".split())
_MOST_WORDS = 6
_LEADS_TO_NUMBER = re.compile(
    rf"{SPACE}*+(?:[{CURRENCIES}]|\\[$])?{SPACE}?[{MINUS}]?\.?[0-9{VULGAR}]"
)
_SYMBOL_OPERAND = re.compile(r"\s*\(?\s*(?:[b-zB-HJ-Z](?![A-Za-z])|[√\u0370-\u03ff]|\\[A-Za-z])")
_POWER = re.compile(
    r"[0-9]++(?:\.[0-9]++)?(?:\^\{?[0-9]{1,3}\}?|\*\*[0-9]{1,3}|[\u00b2\u00b3\u2070-\u2079]++)"
)
_SUBJECT = re.compile(
    r"(?:\s+(?!which|that|because|since|as|so|where|when|after|if)[^\W\d_]+){0,4}?\s+(?:is|are|was|were|has|have|had|will|can)(?![A-Za-z])[^\n]*?[0-9]"
)
_STRAY_DIGIT = re.compile(r"(?<![A-Za-z^0-9])(?<!\^\{)[0-9]")


def read_head(text: str, maths: bool) -> Reading | None:
    """Read the number that a region begins with, whose markup is gone.

    None where it begins with something else, or with the subject of a sentence that comes to
    another number ("16 bars are shared by 8 children, so each gets 2").

    Raises:
        UnreadableError: If it begins with a number that cannot be read without guessing.
    """
    at = gap_end(text)
    if not _starts_number(text, at):
        return None
    reading = read_from(text, at, maths)
    return None if _SUBJECT.match(text, reading.end) else reading


def gap_end(text: str) -> int:
    """Where the gap before a number ends, with names of what it is ("x =")."""
    at = 0
    for _ in range(3):
        gap = _GAP.match(text, at)
        at = gap.end() if gap else at
        label = None if _starts_number(text, at) else _LABEL.match(text, at)
        if label is None:
            return at
        at = label.end()
    return at


def _starts_number(text: str, at: int) -> bool:
    return bool(
        NUMBER.match(text, at)
        or UNREADABLE.match(text, at)
        or _SIGN_APART.match(text, at)
        or ((sign := SIGN_WORD.match(text, at)) and _LEADS_TO_NUMBER.match(text, sign.end()))
    )


def read_from(text: str, at: int, maths: bool) -> Reading:
    """Read the number, expression or equation that begins at ``at``."""
    operand = _operand(text, at, maths)
    if operand is None:
        raise UnreadableError
    sides: list[Number | None] = []
    while operand is not None:
        side, end, operand = _side(text, operand, maths)
        sides.append(side)
    result = _result(sides)
    if maths and _STRAY_DIGIT.search(text, end):
        raise UnreadableError
    assert result.value is not None
    return Reading(result.value, result.start, result.end)


def _side(text: str, first: Number, maths: bool) -> tuple[Number | None, int, Number | None]:
    """One side of an equation.

    Returns:
        The number that it is, None for an expression; where it ends; and the number that begins
        the next side.
    """
    side: Number | None = first if first.value is not None else None
    end = first.end
    while True:
        following, equals = _following(text, end, maths, side is None)
        if following is None or equals:
            return side, end, following
        side, end = None, following.end


def _result(sides: list[Number | None]) -> Number:
    plain_sides = [side for side in sides if side is not None]
    if not plain_sides or (sides[-1] is None and len({s.value for s in plain_sides}) > 1):
        raise UnreadableError
    result = plain_sides[-1]
    assert result.value is not None
    if any(side.divided and side.value == result.value / 12 for side in plain_sides[:-1]):
        return result._replace(value=result.value / 12)  # "24/12 = 2 dozen" counts dozens
    if sides[-1] is not None and not all(
        side.divided or _agree(side, result) for side in plain_sides[:-1]
    ):
        raise UnreadableError
    return result


def _agree(one: Number, other: Number) -> bool:
    """Whether one number is the other, or the other rounded to the decimals it shows."""
    assert one.value is not None
    assert other.value is not None
    return (
        one.value == other.value
        or round(one.value, other.decimals) == other.value
        or round(other.value, one.decimals) == one.value
    )


def _operand(text: str, at: int, maths: bool) -> Number | None:
    """The number after signs, brackets and the like; a power has no value by itself.

    Raises:
        UnreadableError: If it has no value.
    """
    lead = _LEAD.match(text, at)
    at = begin = lead.end() if lead else at
    sign = SIGN_WORD.match(text, at) or _SIGN_APART.match(text, at)
    if sign:
        lead = _LEAD.match(text, sign.end())
        at = lead.end() if lead else sign.end()
    match = NUMBER.match(text, at)
    if match is None:
        power = _POWER.match(text, at)
        if power:
            return Number(None, at, power.end(), divided=False, decimals=0)
        if UNREADABLE.match(text, at):
            raise UnreadableError
        return None
    number = with_suffix(match, text, len(text), maths)
    if number.value is None:
        if power := _POWER.match(text, at):
            return number._replace(end=power.end())
        raise UnreadableError
    return number._replace(value=-number.value, start=begin) if sign else number


def _following(text: str, at: int, maths: bool, expression: bool) -> tuple[Number | None, bool]:
    """What follows an operand over its unit.

    Returns:
        The next operand, and whether an equals sign leads to it; None where nothing belongs to
        the operand any more.

    Raises:
        UnreadableError: If another number follows, or a symbol that takes part in an operation.
    """
    words = 0
    while True:
        equals = _EQUALS.match(text, at) or (expression and _VERB_EQUALS.match(text, at))
        if equals:
            operand = _operand(text, equals.end(), maths)
            if operand is None and re.search(r"[0-9]", text[equals.end() :]):
                raise UnreadableError
            return operand, True
        operator = _OPERATOR.match(text, at)
        if operator:
            operand = _operand(text, operator.end(), maths)
            if operand is not None:
                return operand, False
            if _operates_on_symbol(text, operator):
                raise UnreadableError
        if text[at : at + 1] == "(" and not words and text[at + 1 : at + 2].isdigit():
            return _operand(text, at, maths), False
        step = _over_word(text, at, words)
        if step is None:
            return None, False
        at, words = step


def _over_word(text: str, at: int, words: int) -> tuple[int, int] | None:
    """Go over a word of a unit; None where the unit has ended.

    Raises:
        UnreadableError: If another number stands there.
    """
    if SEVERAL.match(text, at) or CHANGED_AFTER_UNIT.match(text, at):
        raise UnreadableError
    skipped = _SKIPPED.match(text, at)
    at = skipped.end() if skipped else at
    if exponent := words and _EXPONENT.match(text, at):
        return exponent.end(), words
    if at >= len(text) or _PLACES.match(text, at):
        return None
    if _LEADS_TO_NUMBER.match(text, at):
        raise UnreadableError
    if text[at] in ",:\u3001\uff1a([&" and (
        (text[at] not in "([" and _LEADS_TO_NUMBER.match(text, at + 1))
        or (_JOINING_WORD.match(text, at + 1) and re.search(r"[0-9]", text[at : at + 30]))
    ):
        raise UnreadableError
    if text[at] == "/":
        return at + 1, words
    word = _WORD.match(text, at)
    if word is None or words == _MOST_WORDS:
        return None
    lower = word[0].rstrip(".").lower()
    if lower in _BREAKERS:
        if not words and lower in _RATIO_WORDS and _LEADS_TO_NUMBER.match(text, word.end()):
            raise UnreadableError
        return None
    return word.end(), words + 1


def _operates_on_symbol(text: str, operator: re.Match[str]) -> bool:
    """Whether an operation has a variable, a root or a named quantity for its operand."""
    sign = operator["sign"]
    if sign == "/" and text[operator.start() - 1 : operator.start()].isalpha():
        return False  # km/h
    if _SYMBOL_OPERAND.match(text, operator.end()):
        return True
    return (
        sign not in ("-", "\u2013", "*", "/", "of", "times")
        and re.match(r"\s*[^\W\d_]", text[operator.end() :]) is not None
    )
