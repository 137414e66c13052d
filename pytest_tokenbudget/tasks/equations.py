r"""Equations in a text: where they stand, and whether they are right.

Every ``=`` (or ``≈``) that a value follows is one equation, so ``a + b = c = d`` holds two. Rules,
by their version in `RULES`:

* Signs: ``+ - * / x ^ **`` and those of Unicode, parentheses, ``\times``, ``\cdot``, ``\div``,
  ``\frac{}{}``, ``%``, and "20% of 50". ``$`` and thousands separators are part of a number, words
  after a number are its unit.
* ``<<48/2=24>>``, the calculator mark of GSM8K, is read on its own. Where it stands in the equation
  that it repeats, both are one.
* A side that is the other one, rounded to the decimals it shows, is right.
* ``5 * 3 = 15 + 2 = 17`` is a running total: each step is compared with the number that follows.
* An equation is neither right nor wrong where it cannot be recomputed: variables, other functions,
  words that stand for a number, numbers of unclear meaning (``1,5``, ``5:30``, ``0.1(6)``), nesting
  beyond `DEEPEST`. Nor where it does not come out and its units change (minutes and hours), it has
  no operation to recompute, or a number may be meant otherwise: a range (``Weeks 1-2 = 14 days``),
  ``1 000``, ``5 and 2/3``, ``0.66...``.
* A dash at the beginning of a line is a list's or a minus, whichever makes the equation right.

The time is linear in the length of the text: patterns are possessive or bounded, and each token is
read a bounded number of times.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from pytest_tokenbudget.tasks.equation_sides import LEADS_ON, Side, evaluate
from pytest_tokenbudget.tasks.equation_tokens import (
    BAD,
    CLOSE,
    END,
    EQUALS,
    LINE,
    NUMBER,
    OPEN,
    OPERATOR,
    PERCENT,
    POWER,
    WORD,
    Token,
    partners,
    tokenize,
)

RULES = "equations/2"

LONGEST_MARK = 200
_MARK = re.compile(rf"<<[^<>\n]{{0,{LONGEST_MARK}}}+>>")
_UNIT_WORDS = 4
# What may follow a number at a cut, and leave open how it goes on.
_MAY_GROW = " .,:%)}$+-*/\u00d7÷x(\\"
_ROUGHLY = frozenset("about approximately around exactly roughly only just".split())
# Words that end what came before: none of them is a unit.
_NO_UNIT = frozenset(
    """and or so then the a an is are was were be has have had he she they it we you i this that
    these those which who gives give equals equal makes make means but if because since plus minus
    times divided by therefore thus hence now when after before total""".split()
)

# After these "9 - 5" may be a range.
_RANGED = frozenset(
    f"{word}{plural}"
    for word in (
        "week day month year hour minute page chapter row step age grade level floor question "
        "problem line lesson unit round game set section part item number"
    ).split()
    for plural in ("", "s")
)


@dataclass(frozen=True)
class Equation:
    """One equation of a text.

    Attributes:
        start: Where its left side begins in the text.
        end: Where its right side ends, units aside.
        text: All of it, as written.
        left: Its left side, as written.
        value: The value of its right side.
        computed: The value of its left side; None where `right` is.
        right: Whether both agree; None where that cannot be recomputed.
        operations: Operations on its left side, and on its right side if no further ``=`` follows:
            over a text, each operation counts once.
    """

    start: int
    end: int
    text: str
    left: str
    value: Fraction
    computed: Fraction | None
    right: bool | None
    operations: int


def equations(text: str, truncated: bool = False) -> list[Equation]:
    """Find the equations of ``text`` and recompute them, in the order of their places.

    Of a text that was cut off, an equation that touches the cut is left out: its last number may
    not be whole.
    """
    marks = list(_MARK.finditer(text))
    found: list[Equation] = []
    inside = [
        inner for mark in marks for inner in _plain(text, text, mark.start() + 2, mark.end() - 2)
    ]
    blanked = _MARK.sub(lambda mark: " " * (mark.end() - mark.start()), text)
    outside = _plain(text, blanked, 0, len(text))
    repeated: set[int] = set()
    at = 0
    for equation in outside:
        while at < len(inside) and inside[at].end < equation.start:
            at += 1
        within = []
        scan = at
        while scan < len(inside) and inside[scan].end <= equation.end:
            within.append(inside[scan])
            scan += 1
        if equation.right is None and any(inner.right is not None for inner in within):
            continue  # the mark says it better
        repeated.update(
            id(inner) for inner in within if inner.right is None or inner.right == equation.right
        )
        found.append(equation)
    found += [inner for inner in inside if id(inner) not in repeated]
    found.sort(key=lambda equation: (equation.start, equation.end))
    if truncated:
        found = [e for e in found if text[e.end : e.end + 40].strip(_MAY_GROW)]
    return found


def wrong_equations(text: str, truncated: bool = False) -> list[Equation]:
    """The equations of ``text`` that do not hold, in the order of their places."""
    return [equation for equation in equations(text, truncated) if equation.right is False]


def _plain(text: str, readable: str, start: int, end: int) -> list[Equation]:
    tokens = tokenize(readable, start, end)
    pairs = partners(tokens)
    found = []
    sides: dict[int, tuple[int, int]] = {}
    for at, token in enumerate(tokens):
        if token.kind != EQUALS:
            continue
        right = _side_after(tokens, pairs, at)
        if right is None:
            continue
        sides[at] = right
        equation = _equation(text, tokens, pairs, at, right)
        if equation is not None:
            found.append(equation)
    return found


def _equation(
    text: str, tokens: list[Token], pairs: dict[int, int], at: int, right: tuple[int, int]
) -> Equation | None:
    first, last = right
    after = evaluate(tokens[first:last])
    units_end = _over_units(tokens, last)
    after.add_units(tokens[last:units_end])
    chained = units_end < len(tokens) and tokens[units_end].kind == EQUALS
    if after.value is None:
        return None
    before, start = _side_before(tokens, pairs, at)
    if start == at:
        return None
    end = tokens[last - 1].end
    value, computed, verdict = after.value, before.value, None
    if computed is not None and not before.unclear:
        computed, value, verdict = before.agrees(after)
        other = _without_dash(tokens, start, at) if verdict is False else None
        if other is not None and (again := other.agrees(after))[2]:
            computed, value, verdict = again
    left = text[tokens[start].start : tokens[at].start].strip()
    return Equation(
        start=tokens[start].start,
        end=end,
        text=text[tokens[start].start : end],
        left=left,
        value=value,
        computed=computed if verdict is not None else None,
        right=verdict,
        operations=before.operations + (0 if chained else after.operations),
    )


def _without_dash(tokens: list[Token], start: int, equals: int) -> Side | None:
    """The left side with the dash at its beginning read the other way: as a list's, or as minus."""
    dash = start if tokens[start].text == "-" else start - 1
    if dash < 0 or tokens[dash].text != "-" or tokens[dash].kind != OPERATOR:
        return None
    if dash and tokens[dash - 1].kind not in (LINE, END, CLOSE):
        return None
    side = evaluate(tokens[start + 1 if dash == start else dash : equals])
    return side if side.value is not None else None


def _side_after(tokens: list[Token], pairs: dict[int, int], equals: int) -> tuple[int, int] | None:
    """From where to where the right side reaches, units after its last number left aside."""
    at = equals + 1
    if at < len(tokens) and tokens[at].kind == LINE:
        at += 1
    while at < len(tokens) and tokens[at].kind == WORD and tokens[at].text.lower() in _ROUGHLY:
        at += 1
    end = _operand_after(tokens, pairs, at)
    if end is None:
        return None
    first = at
    while True:
        following = _over_units(tokens, end)
        if following < len(tokens) and _joins(tokens, following):
            following += 1
        elif not (following == end and _touching(tokens, end, OPEN)):
            return first, end
        more = _operand_after(tokens, pairs, following)
        if more is None:
            return first, end
        end = more


def _operand_after(tokens: list[Token], pairs: dict[int, int], at: int) -> int | None:
    """Where the operand that begins at ``at`` ends; None where none begins."""
    if at < len(tokens) and tokens[at].kind == OPERATOR and tokens[at].text in "+-":
        at += 1
    if at >= len(tokens):
        return None
    if tokens[at].kind == NUMBER:
        at += 1
    elif tokens[at].kind == OPEN and at in pairs:
        at = pairs[at] + 1
    else:
        return None
    while at < len(tokens) and tokens[at].kind in (PERCENT, POWER):
        at += 1
    return at


def _over_units(tokens: list[Token], at: int) -> int:
    """The place after the unit words that begin at ``at``."""
    words, end = 0, at
    while end < len(tokens) and words < _UNIT_WORDS:
        if _is_unit(tokens[end]):
            words, end = words + 1, end + 1
        elif tokens[end].text == "/" and end + 1 < len(tokens) and _is_unit(tokens[end + 1]):
            end += 1
        else:
            break
    return end


def _is_unit(token: Token) -> bool:
    return token.kind == WORD and token.text.lower() not in _NO_UNIT


def _joins(tokens: list[Token], at: int) -> bool:
    if tokens[at].kind == OPERATOR:
        return True
    # "20% of 50", "3/4 of 20"; but not "5 of 6".
    return (
        tokens[at].text.lower() == "of"
        and at + 1 < len(tokens)
        and tokens[at + 1].kind == NUMBER
        and at > 0
        and (
            tokens[at - 1].kind == PERCENT
            or (
                at > 2
                and tokens[at - 1].kind == tokens[at - 3].kind == NUMBER
                and tokens[at - 2].text == "/"
            )
        )
    )


def _touching(tokens: list[Token], at: int, kind: str) -> bool:
    """Whether the token at ``at`` is of ``kind`` and follows the one before without a blank."""
    return (
        0 < at < len(tokens)
        and tokens[at].kind == kind
        and tokens[at - 1].end == tokens[at].start
        and tokens[at - 1].kind in (NUMBER, CLOSE)
    )


def _side_before(tokens: list[Token], pairs: dict[int, int], equals: int) -> tuple[Side, int]:
    """The left side of the equation at ``equals``, and the index of its first token."""
    end = equals
    for _ in range(2):
        if end > 0 and tokens[end - 1].kind == LINE:
            end -= 1
    start, unclear, doubtful = _start_before(tokens, pairs, end)
    if start == end:
        # No number: the words before the sign, a variable or a name.
        words = 0
        while start > 0 and words < _UNIT_WORDS and tokens[start - 1].kind in (WORD, BAD):
            start, words = start - 1, words + 1
        return Side(unclear=True), start if words else equals
    side = evaluate(tokens[start:end])
    side.unclear |= unclear
    side.doubtful |= doubtful
    side.chained = start > 0 and tokens[start - 1].kind == EQUALS
    return side, start


def _start_before(tokens: list[Token], pairs: dict[int, int], end: int) -> tuple[int, bool, bool]:
    """Where the side that ends before ``end`` begins; whether it is unclear, or doubtful."""
    start = _operand_before(tokens, pairs, end)
    if start is None:
        return end, True, False
    while start > 0:
        before = tokens[start - 1]
        if _touching(tokens, start, OPEN):
            more = _operand_before(tokens, pairs, start)
            if more is None:
                break
            start = more
        elif before.kind == OPERATOR or _joins(tokens, start - 1):
            more = _operand_before(tokens, pairs, start - 1)
            if more is not None:
                start = more
                continue
            return _without_operand(tokens, pairs, start)
        else:
            break
    if start == 0:
        return start, False, False
    before = tokens[start - 1]
    doubtful = (
        (before.kind == WORD and before.text.lower() in LEADS_ON)
        or (tokens[start].kind == OPEN and before.kind == WORD)
        or before.kind in (NUMBER, CLOSE)
        or (
            before.kind == WORD
            and before.text.lower() in _RANGED
            and start + 1 < end
            and tokens[start + 1].text == "-"
        )
    )
    unclear = before.kind in (BAD, POWER, PERCENT) or _within_sum(tokens, start)
    return start, unclear, doubtful


def _within_sum(tokens: list[Token], start: int) -> bool:
    """Whether one or two words part the side from a sign: "25 boys + his 1 + 1 = 27"."""
    at = start - 1
    while at >= max(0, start - 2) and tokens[at].kind == WORD:
        at -= 1
    listed = at <= 0 or tokens[at - 1].kind == LINE
    return 0 <= at < start - 1 and tokens[at].kind == OPERATOR and not listed


def _without_operand(
    tokens: list[Token], pairs: dict[int, int], start: int
) -> tuple[int, bool, bool]:
    """What an operator before ``start`` means that has no operand on its left."""
    sign = start - 1
    attached = tokens[sign].end == tokens[start].start or tokens[start].money
    if tokens[sign].text in "+-" and attached:
        if sign == 0 or tokens[sign - 1].kind not in (WORD, OPERATOR, BAD):
            return sign, False, False
        if tokens[sign - 1].kind == OPERATOR:  # 3 * -2
            more = _operand_before(tokens, pairs, sign - 1)
            if more is None:
                return sign, True, False
            return _start_before(tokens, pairs, sign - 1)
        if tokens[sign - 1].kind == WORD and tokens[sign - 1].end < tokens[sign].start:
            return sign, False, True  # "so -1 + 3", or "x -1"
    if sign == 0 or tokens[sign - 1].kind in (LINE, OPEN, EQUALS):
        return start, tokens[sign].text == "/", False  # the sign of a list
    dash = tokens[sign].text == "-" and tokens[sign - 1].kind not in (BAD, OPERATOR)
    return start, not dash, dash


def _operand_before(tokens: list[Token], pairs: dict[int, int], end: int) -> int | None:
    """Where the operand that ends before ``end``, its unit included, begins; None if none does."""
    at, words = end - 1, 0
    while at >= 0 and words <= _UNIT_WORDS:
        token = tokens[at]
        if _is_unit(token):
            words += 1
        elif not (token.text == "/" and words):
            break
        at -= 1
    while at >= 0 and tokens[at].kind in (PERCENT, POWER):
        at -= 1
    if at < 0:
        return None
    if tokens[at].kind == NUMBER:
        return at
    if tokens[at].kind == CLOSE and at in pairs:
        return pairs[at]
    return None
