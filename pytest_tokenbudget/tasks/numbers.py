r"""One number as it is written, and its value.

Values are exact fractions: ``3.50``, ``7/2``, ``3 1/2`` and ``\frac{7}{2}`` are equal. ``,``
separates thousands and ``.`` decimals. ``250,00``, ``1.234,56``, ``10-20``, ``5:30``, ``2^10`` and
``2½`` can be read in more than one way or are no plain number: they have no value here.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from pytest_tokenbudget.tasks.answer_text import ascii_view

LONGEST_NUMBER = 64

MINUS = "-\u2013"  # hyphen, en dash; `ascii_view` writes the minus sign as a hyphen
CURRENCIES = "$£€¥₹₩₽₺฿"
VULGAR = "\u00bc-\u00be\u2150-\u215e\u2189"
_GROUP = r"(?:,(?:\\!)?|\{,\}|\\[, ]|[\u00a0\u202f\u2009])"
# What makes two runs of digits one thing that is not a plain number.
_JOINT = rf"(?:{_GROUP}|[.':/_~\u2013\u2014]|\^\{{?|\*\*|[eE][+-]?|[ ](?=[0-9]{{3}}(?![0-9])))"
_SIGN = rf"[{MINUS}+]"
_MONEY = rf"(?:US|AU|CA)?\\?[{CURRENCIES}]"

NUMBER = re.compile(
    rf"""
    (?P<sign>(?<![0-9A-Za-z_)\]}}%]){_SIGN})?
    (?:{_MONEY}[ ]?(?P<inner_sign>{_SIGN})?)?
    (?P<digits>
        (?:(?P<latex_whole>[0-9]++)[ ]?)?\\[dtc]?frac
        (?:\{{[ ]?(?P<over>-?[0-9]++)[ ]?\}}\{{[ ]?(?P<under>[0-9]++)[ ]?\}}
          |(?P<over1>[0-9])(?P<under1>[0-9]))
      | (?:(?P<whole>[0-9]++)[ ])?(?P<numerator>[0-9]++)[ ]?/[ ]?(?P<denominator>[0-9]++)
      | (?P<decimal>
            (?:[1-9][0-9]{{0,2}}(?:{_GROUP}[0-9]{{3}})++|[0-9]++)(?:\.[0-9]++)?
          | (?<![\w.])\.[0-9]++
        )
        (?:[eE](?P<exponent>[+-]?[0-9]{{1,2}}))?
    )
    (?![0-9{VULGAR}])(?!{_JOINT}[0-9])
    """,
    re.VERBOSE,
)
"""A number with its sign and currency, in an `ascii_view`."""

UNREADABLE = re.compile(
    rf"(?:{_SIGN}|{_MONEY})*+(?:[0-9]++(?:{_JOINT}[0-9]++)*+[{VULGAR}]?|[{VULGAR}])"
)
"""Digits that are no number with one meaning."""

ANY_NUMBER = re.compile(f"(?P<good>{NUMBER.pattern})|(?P<bad>{UNREADABLE.pattern})", re.VERBOSE)


def literal_value(number: re.Match[str]) -> Fraction | None:
    """The value of a match of `NUMBER`; None for what no answer is (n/0, 100 digits)."""
    if number.end() - number.start() > LONGEST_NUMBER:
        return None
    part = number.groupdict()
    if part["decimal"] is not None:
        digits = re.sub(r"[^0-9.]", "", part["decimal"])
        value = Fraction(digits) * Fraction(10) ** int(part["exponent"] or 0)
    else:
        under = int(part["under"] or part["under1"] or part["denominator"])
        if under == 0:
            return None
        value = Fraction(int(part["over"] or part["over1"] or part["numerator"]), under)
        value += int(part["latex_whole"] or part["whole"] or 0)
    negative = any(sign and sign in MINUS for sign in (part["sign"], part["inner_sign"]))
    return -value if negative else value


_ENDING = re.compile(r"(?:[ ]?\\?%)?(?:[ ](?P<scale>thousand|million|billion|trillion))?")
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, None: 1}


@lru_cache(maxsize=4096)
def parse_number(text: str) -> Fraction | None:
    """The number that ``text`` is, currency and percent sign aside; None where it is none."""
    view = ascii_view(text.strip().removesuffix("."))
    match = NUMBER.match(view)
    ending = _ENDING.fullmatch(view, match.end()) if match else None
    value = literal_value(match) if match else None
    if value is None or ending is None:
        return None
    return value * _SCALES[ending["scale"]]


def same_number(a: Fraction | str, b: Fraction | str) -> bool:
    """Whether two numbers, as values or as written, are exactly equal."""
    left = parse_number(a) if isinstance(a, str) else a
    right = parse_number(b) if isinstance(b, str) else b
    return left is not None and left == right


def plain(value: Fraction) -> str:
    """The shortest exact way to write ``value``: ``960``, ``3.5``, ``1/3``."""
    if value.denominator == 1:
        return str(value.numerator)
    rest, places = value.denominator, 0
    for prime in (2, 5):
        power = 0
        while rest % prime == 0:
            rest //= prime
            power += 1
        places = max(places, power)
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"
