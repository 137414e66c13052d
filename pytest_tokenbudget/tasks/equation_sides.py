"""The value of one side of an equation, and whether two sides agree."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from pytest_tokenbudget.tasks.equation_tokens import (
    BAD,
    CLOSE,
    DEEPEST,
    NUMBER,
    OPEN,
    OPERATOR,
    PERCENT,
    POWER,
    WORD,
    Token,
)
from pytest_tokenbudget.tasks.numbers import parse_number

MOST_BITS = 2048
# Letters that may be units: with others, a side is an expression with variables.
_UNIT_LETTERS = frozenset("mgshlL")
LARGEST_POWER = 20

_DIMENSIONS = {
    "time": "s sec second seconds min mins minute minutes h hr hrs hour hours day days week weeks "
    "month months year years decade decades century centuries",
    "money": "$ cent cents penny pennies nickel nickels dime dimes quarter quarters dollar dollars "
    "buck bucks",
    "length": "mm cm m km meter meters metre metres inch inches in foot feet ft yard yards yd mile "
    "miles kilometer kilometers centimeter centimeters millimeter millimeters",
    "weight": "mg g kg gram grams kilogram kilograms pound pounds lb lbs ounce ounces oz ton tons",
    "volume": "ml l liter liters litre litres milliliter milliliters gallon gallons quart quarts "
    "pint pints cup cups tablespoon tablespoons teaspoon teaspoons",
}
_DIMENSION = {unit: name for name, units in _DIMENSIONS.items() for unit in units.split()}
_SCALES = frozenset(
    "hundred thousand million billion trillion dozen dozens pair pairs k half halves third thirds "
    "fourth fourths quarter quarters fifth fifths tenth tenths hundredth hundredths score".split()
)

LEADS_ON = frozenset(
    """of than twice thrice half third quarter double triple plus minus times over by from less more
    root square squared cubed percent""".split()
)
"""After these words a number is part of something larger that signs do not show."""


class _UnknownError(Exception):
    """A value that cannot be computed."""


@dataclass
class Side:
    """One side of an equation.

    Attributes:
        value: Its value, percents as hundredths; None where it cannot be computed.
        as_points: Its value with percents as plain numbers (100% - 20% is 80); None where that
            reading makes no sense.
        first: The value of its first number.
        first_decimals: How many decimals that number shows.
        percent: Whether it is one number with a percent sign.
        operations: How many operations it has.
        letters: How many single letters follow its numbers.
        units: The words that follow its numbers, in lower case; ``$`` for money.
        variables: Single letters after numbers: variables, or units of the same look (3x, 5 m).
        mixes: Whether a sum has terms with and without such a letter (7x + 70).
        ranges: Whether it may be a range, as in "Weeks 1-2".
        chained: Whether it is also the right side of the equation before.
        unclear: Whether something stands there that is not read.
        doubtful: Whether words before it may be part of it.
    """

    value: Fraction | None = None
    as_points: Fraction | None = None
    first: Fraction | None = None
    first_decimals: int = 0
    percent: bool = False
    operations: int = 0
    units: set[str] = field(default_factory=set)
    variables: set[str] = field(default_factory=set)
    letters: int = 0
    mixes: bool = False
    ranges: bool = False
    chained: bool = False
    unclear: bool = False
    doubtful: bool = False

    def add_units(self, tokens: list[Token]) -> None:
        for token in tokens:
            if token.kind == WORD:
                if len(token.text) == 1:
                    self.variables.add(token.text)
                    self.letters += 1
                self.units.add(token.text.lower())

    @property
    def decimals(self) -> int | None:
        """How many decimals it shows, where it is one number."""
        return None if self.operations else self.first_decimals

    def agrees(self, right: Side) -> tuple[Fraction, Fraction, bool | None]:
        """Compare with the right side.

        Returns:
            The two values that were compared, and whether they agree; None where the difference
            has another reason than a miscalculation.
        """
        assert self.value is not None
        assert right.value is not None
        if self.variables != right.variables or (right.variables and right.operations):
            return self.value, right.value, None
        for mine in self._readings():
            for theirs, shown in right._shown():
                if _same(mine, theirs, shown) or _same(theirs, mine, self.decimals):
                    return mine, theirs, True
        running = right.first if right.operations else None
        if running is not None and _same(self.value, running, right.first_decimals):
            # A running total: the step before ends with the first number.
            return self.value, running, True
        return self.value, right.value, None if self._excused(right) else False

    def _readings(self) -> list[Fraction]:
        return [v for v in (self.value, self.as_points) if v is not None]

    def _shown(self) -> list[tuple[Fraction, int | None]]:
        """Readings of a right side, each with the decimals it shows."""
        assert self.value is not None
        if self.percent:
            return [(self.value, self.first_decimals + 2), (self.value * 100, self.first_decimals)]
        return [(value, self.decimals) for value in self._readings()]

    def _excused(self, right: Side) -> bool:
        """Whether a difference may come from something other than a miscalculation."""
        if self.doubtful or right.doubtful or self.unclear or right.unclear:
            return True
        if (self.variables | right.variables) - _UNIT_LETTERS or self.mixes or right.mixes:
            return True
        if right.ranges or (self.ranges and right.value is not None and right.value >= 0):
            return True
        # "9 = 3" in a chain is a claim; "Step 9 = 3", "6 nephews = 96/6" name something.
        if not self.operations and (not self.chained or self.units):
            return True
        if (self.units | right.units) & (_SCALES | LEADS_ON):
            return True
        kinds = [
            {_DIMENSION[u]: u for u in units if u in _DIMENSION}
            for units in (self.units, right.units)
        ]
        return any(
            _singular(kinds[0][kind]) != _singular(kinds[1][kind])
            for kind in kinds[0].keys() & kinds[1].keys()
        )


def evaluate(tokens: list[Token]) -> Side:
    reader = _Reader(tokens)
    side = reader.side
    side.unclear = any(token.kind == BAD for token in tokens)
    side.doubtful = any(token.unsure for token in tokens)
    side.ranges = _is_range(tokens)
    try:
        side.value = reader.whole(percent=Fraction(1, 100))
    except _UnknownError:
        side.value = None
        return side
    if reader.percents:
        side.percent = not side.operations
        # "* 100%" turns a share into percents, whatever its signs say.
        if not reader.products or [t.text for t in tokens[-3:-1]] == ["*", "100"]:
            side.as_points = reader.whole(percent=Fraction(1))
    return side


def _is_range(tokens: list[Token]) -> bool:
    """Whether two numbers with a dash between them rise: "1-2", without spaces."""
    numbers = [at for at, token in enumerate(tokens) if token.kind == NUMBER]
    if numbers != [0, 2] or tokens[1].text != "-":
        return False
    if not (tokens[0].end == tokens[1].start and tokens[1].end == tokens[2].start):
        return False
    first, second = (parse_number(tokens[at].text) for at in numbers)
    return first is not None and second is not None and first < second


class _Reader:
    """Precedence climbing over the tokens of one side."""

    def __init__(self, tokens: list[Token]) -> None:
        self.side = Side()
        self.tokens = tokens
        self.at = 0
        self.percents = self.products = 0
        self._percent = Fraction(1, 100)
        self._depth = 0

    def whole(self, percent: Fraction) -> Fraction:
        self.at = self.percents = self.products = self.side.operations = self._depth = 0
        self._percent = percent
        value = self._sum()
        if self.at < len(self.tokens):
            raise _UnknownError
        return value

    def _kind(self) -> str:
        return self.tokens[self.at].kind if self.at < len(self.tokens) else ""

    def _sum(self) -> Fraction:
        letters = self.side.letters
        value = self._product()
        with_letter = {self.side.letters > letters}
        while self._kind() == OPERATOR and self.tokens[self.at].text in "+-":
            sign = self.tokens[self.at].text
            self.at += 1
            self.side.operations += 1
            letters = self.side.letters
            term = self._product()
            with_letter.add(self.side.letters > letters)
            value = _bounded(value + term if sign == "+" else value - term)
        self.side.mixes |= len(with_letter) > 1
        return value

    def _product(self) -> Fraction:
        value = self._operand()
        while True:
            kind = self._kind()
            if kind == OPERATOR and self.tokens[self.at].text in "*/":
                sign = self.tokens[self.at].text
                self.at += 1
            elif kind == WORD:  # "of": all other words belong to the operand before
                sign = "*"
                self.at += 1
            elif kind == OPEN:
                sign = "*"
            else:
                return value
            self.side.operations += 1
            self.products += 1
            factor = self._fraction() if sign == "/" else None
            if factor is None:
                factor = self._operand()
            if sign == "/" and factor == 0:
                raise _UnknownError
            value = _bounded(value * factor if sign == "*" else value / factor)

    def _fraction(self) -> Fraction | None:
        """``1/2`` after a division with blanks: it divides by a half."""
        four = self.tokens[self.at - 1 : self.at + 3]
        if [t.kind for t in four[1:]] != [NUMBER, OPERATOR, NUMBER] or four[2].text != "/":
            return None
        if four[0].end == four[1].start or four[1].end != four[2].start:
            return None
        last = [token.kind for token in self.tokens[self.at + 3 : self.at + 4]]
        if four[2].end != four[3].start or (last and last[0] not in (OPERATOR, CLOSE, WORD)):
            return None
        above = self._number()
        self.at += 1
        self.side.operations += 1
        below = self._number()
        if below == 0:
            raise _UnknownError
        return above / below

    def _operand(self) -> Fraction:
        negative = False
        if self._kind() == OPERATOR and self.tokens[self.at].text in "+-":
            negative = self.tokens[self.at].text == "-"
            self.at += 1
        if self._kind() == NUMBER:
            value = self._number()
        elif self._kind() == OPEN:
            if self._depth == DEEPEST:
                raise _UnknownError
            self._depth += 1
            self.at += 1
            value = self._sum()
            if self._kind() != CLOSE:
                raise _UnknownError
            self.at += 1
            self._depth -= 1
        else:
            raise _UnknownError
        while self._kind() in (PERCENT, POWER):
            value = self._suffix(value)
        begin = self.at
        while self._is_per() or (self._kind() == WORD and not self._is_of()):
            self.at += 1
        self.side.add_units(self.tokens[begin : self.at])
        value = -value if negative else value
        if self.side.first is None:
            self.side.first = value
        return value

    def _is_per(self) -> bool:
        """Whether a ``/`` stands here before a word, as in miles/hour and $600/month."""
        return (
            self.at + 1 < len(self.tokens)
            and self.tokens[self.at].text == "/"
            and self.tokens[self.at + 1].kind == WORD
        )

    def _is_of(self) -> bool:
        """Whether "of" stands here before a number, as in 20% of 50."""
        following = self.tokens[self.at + 1 : self.at + 2]
        return (
            self.tokens[self.at].text.lower() == "of"
            and bool(following)
            and following[0].kind == NUMBER
        )

    def _number(self) -> Fraction:
        token = self.tokens[self.at]
        self.at += 1
        whole, _, part = token.text.partition(" ")
        if part:
            above, _, below = part.partition("/")
            if int(above) >= int(below):
                raise _UnknownError
        value = parse_number(token.text)
        if value is None:
            raise _UnknownError
        if token.money:
            self.side.units.add("$")
        if self.side.first is None:
            self.side.first_decimals = len(whole.partition(".")[2])
        return value

    def _suffix(self, value: Fraction) -> Fraction:
        token = self.tokens[self.at]
        self.at += 1
        if token.kind == PERCENT:
            self.percents += 1
            return value * self._percent
        power = int("".join(c for c in token.text if c.isdigit()))
        self.side.operations += 1
        self.products += 1
        if power > LARGEST_POWER:
            raise _UnknownError
        return _bounded(value**power)


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MOST_BITS:
        raise _UnknownError
    return value


def _same(exact: Fraction, shown: Fraction, decimals: int | None) -> bool:
    """Whether ``shown``, which has so many decimals, is ``exact`` or rounded from it."""
    if exact == shown:
        return True
    if decimals is None:
        return False
    scaled, target = abs(exact) * 10**decimals, abs(shown) * 10**decimals
    if exact * shown < 0 or target.denominator != 1:
        return False
    # Half to even, and half away from zero.
    return target in (round(scaled), (scaled + Fraction(1, 2)).__floor__())


def _singular(unit: str) -> str:
    return {"$": "dollar", "feet": "foot", "inches": "inch", "pennies": "penny"}.get(
        unit, unit.removesuffix("s") if len(unit) > 2 else unit
    )
