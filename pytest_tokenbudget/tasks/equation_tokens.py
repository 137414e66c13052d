"""Tokens of equations: numbers, signs, words, and what ends an expression."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

NUMBER = "number"
PERCENT = "percent"
OPERATOR = "operator"
POWER = "power"
OPEN = "open"
CLOSE = "close"
EQUALS = "equals"
WORD = "word"
LINE = "line"
BAD = "bad"
"""Something that may be a number, a variable or a function, and is not read."""
END = "end"

LONGEST_NUMBER = 64
DEEPEST = 20

_GROUP = r"(?:,(?:\\!)?|\{,\}|\\,)"
# Marks of a repeating decimal: 0.1(6), a bar or a dot over digits, and their commands in LaTeX.
_REPEATED = r"(?<=[0-9.])\([0-9]{1,12}\)|[\u0304\u0305\u0307]|\\(?:overline|bar|dot)(?![A-Za-z])"
_TOKEN = re.compile(
    rf"""
      (?P<skip>(?:[ \t\r\f\v\u00a0\u202f\u2009&`_~\u200b]
        |\\(?:left|right|quad|qquad|text|textbf|textit|mathrm|mathbf|boxed|displaystyle)(?![A-Za-z])
        |\\[,;:!\ ]
        |(?<![0-9)])\*\*|\*\*(?![0-9(]))++)
    | (?P<line>\n|\\\\)
    | (?P<equals>(?<![<>=!:+*/~-])=(?![=>])|[≈≃]|\\approx(?![A-Za-z]))
    | (?P<money>(?:US|AU|CA)?\\?[$£€¥₹])
    | (?P<mixed>[0-9]{{1,6}}[ ](?:and[ ])?[0-9]{{1,2}}/[0-9]{{1,3}}(?![0-9/]|[.,:][0-9])
        |[0-9]{{1,6}}[ ]?\\[dtc]?frac(?:\{{[0-9]{{1,3}}\}}\{{[0-9]{{1,3}}\}}|[0-9]{{2}}(?![0-9])))
    | (?P<spaced>[1-9][0-9]{{0,2}}(?:[ \u00a0\u202f\u2009][0-9]{{3}}(?![0-9]))++
        (?:\.[0-9]++)?(?![.,:]?[0-9]|{_REPEATED}))
    | (?P<goes_on>[0-9]++\.[0-9]++(?:\.{{2,3}}|\u2026))
    | (?P<repeated>[0-9]++\.[0-9]*+(?:{_REPEATED}))
    | (?P<number>
        (?:(?:[1-9][0-9]{{0,2}}(?:{_GROUP}[0-9]{{3}})++|[0-9]++)(?:\.[0-9]++)?|\.[0-9]++)
        (?![0-9½⅓⅔¼¾⅕⅛²³]|[,:'\u2019.][0-9]|,[ ]000))
    | (?P<unread>\.?[0-9]++(?:(?:[.,:'\u2019]|,[ ](?=000))[0-9]++)*+[½⅓⅔¼¾⅕⅛²³]?|[½⅓⅔¼¾⅕⅛√²³∞π])
    | (?P<percent>\\?%|percent(?![A-Za-z]))
    | (?P<power>(?:\^|(?<=[0-9)])\*\*)(?:\{{[0-9]{{1,2}}\}}|[0-9]{{1,2}}(?![0-9])))
    | (?P<operator>[-+*/\u00d7÷·⋅∙\u2212\u2013]|\\(?:times|cdot|div)(?![A-Za-z])
        |(?<![A-Za-z])[xX](?=[ ]?(?:\\?[$£€¥₹])?[ ]?[(0-9.]))
    | (?P<frac>\\[dt]?frac(?=\{{))
    | (?P<open>[(\[])
    | (?P<close>[)\]])
    | (?P<brace>[{{}}])
    | (?P<word>[^\W\d_]++(?:['\u2019-][^\W\d_]++)*+[0-9]*+(?:\^\{{?[0-9]\}}?|[²³])?)
    | (?P<bad>\\[A-Za-z]++|\^)
    | (?P<end>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_SIGNS = {
    "\u00d7": "*", "·": "*", "⋅": "*", "∙": "*", "x": "*", "X": "*", "\\times": "*", "\\cdot": "*",
    "÷": "/", "\\div": "/", "\u2212": "-", "\u2013": "-",
}  # fmt: skip


class Token(NamedTuple):
    """A piece of text that means something in an equation.

    Attributes:
        kind: One of this module's kinds.
        text: As written; an operator as one of ``+ - * /``.
        start: Where it begins in the text.
        end: Where it ends.
        unsure: Whether a number may be meant otherwise: a space in place of a thousands separator,
            "5 and 2/3", a decimal that goes on ("0.66...").
        money: Whether it is a number with a currency sign before it.
        attached: Whether it follows the token before without a blank.
    """

    kind: str
    text: str
    start: int
    end: int
    money: bool = False
    attached: bool = False
    unsure: bool = False


def tokenize(text: str, start: int, end: int) -> list[Token]:
    r"""The tokens of a stretch of text.

    ``\frac{a}{b}`` comes out as ``((a)/(b))``; other braces are left aside.
    """
    tokens: list[Token] = []
    braces: list[str] = []
    money_at: int | None = None
    previous_end = -1
    for match in _TOKEN.finditer(text, start, end):
        kind, at, stop = str(match.lastgroup), match.start(), match.end()
        if kind == "skip":
            continue
        if kind == "money":
            money_at = at
            continue
        # "000" is the rest of "350, 000".
        rest = match[0][0] == "0" and match[0][1:2].isdigit()
        if kind in _NUMBERS and len(match[0]) <= LONGEST_NUMBER and not rest:
            attached = previous_end == at
            written, unsure = _NUMBERS[kind](match[0])
            money = money_at is not None
            tokens.append(Token(NUMBER, written, at, stop, money, attached, unsure))
        elif kind in ("unread", "repeated", *_NUMBERS):
            tokens.append(Token(BAD, match[0], at, stop))
        elif kind == "operator":
            tokens.append(Token(OPERATOR, _SIGNS.get(match[0], match[0]), at, stop))
        elif kind == "frac":
            braces.append("over?")
            tokens.append(Token(OPEN, match[0], at, stop))
        elif kind == "brace":
            _brace(tokens, braces, text, match)
        else:
            tokens.append(Token(kind, match[0], at, stop, attached=previous_end == at))
        previous_end = stop
        if kind != "operator":
            money_at = None
    return tokens


def _mixed(written: str) -> tuple[str, bool]:
    whole, *parts = re.findall(r"[0-9]+", written)
    if len(parts) == 1:  # \\frac12
        parts = list(parts[0])
    return f"{whole} {parts[0]}/{parts[1]}", "and" in written


_NUMBERS: dict[str, Callable[[str], tuple[str, bool]]] = {
    "mixed": _mixed,
    "spaced": lambda written: ("".join(written.split()), " " in written),
    "goes_on": lambda written: (written.rstrip(".\u2026"), True),
    "number": lambda written: (written, False),
}


def _brace(tokens: list[Token], braces: list[str], text: str, match: re.Match[str]) -> None:
    at, stop = match.span()
    if match[0] == "{":
        if braces and braces[-1] in ("over?", "under?"):
            braces[-1] = braces[-1].removesuffix("?")
            tokens.append(Token(OPEN, "{", at, stop))
        else:
            braces.append("plain")
        return
    kind = braces.pop() if braces else "plain"
    if kind == "plain":
        return
    tokens.append(Token(CLOSE, "}", at, stop))
    if kind == "over" and text[stop : stop + 1] == "{":
        tokens.append(Token(OPERATOR, "/", stop, stop))
        braces.append("under?")
    elif kind == "under":
        tokens.append(Token(CLOSE, "}", stop, stop))


def partners(tokens: list[Token]) -> dict[int, int]:
    """For each parenthesis its partner; only within one expression, and not too deep."""
    pairs: dict[int, int] = {}
    opened: list[int] = []
    for at, token in enumerate(tokens):
        if token.kind == OPEN:
            opened.append(at)
        elif token.kind in (LINE, EQUALS, END):
            opened.clear()
        elif token.kind == CLOSE and opened:
            first = opened.pop()
            if len(opened) < DEEPEST:
                pairs[first], pairs[at] = at, first
    return pairs
