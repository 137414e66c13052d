"""Sentences about an answer: the number they give, or that they give none."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pytest_tokenbudget.tasks.number_reading import (
    GAP_WORDS,
    SIGN_WORD,
    Reading,
    UnreadableError,
    alternatives,
    gap_end,
    read_from,
)
from pytest_tokenbudget.tasks.numbers import ANY_NUMBER, CURRENCIES

_NUMBER_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety "
    "hundred thousand million billion dozen half"
).split()
_NO_NUMBER = (
    "undefined unknown impossible infinite infinity none nothing indeterminate unclear"
).split()
# A number in words, or that there is none.
_IN_WORDS = (
    rf"(?:{alternatives([*_NUMBER_WORDS, *_NO_NUMBER])})(?![A-Za-z])"
    r"|n/a|not\s(?:enough|possible|given|known|determined|defined)|cannot\s|can't\s|\\infty"
    r"|[\u4e00\u4e8c\u4e09\u56db\u4e94\u516d\u4e03\u516b\u4e5d\u5341\u767e\u5343\u96f6\u4e24]"
)
_BEGINS_IN_WORDS = re.compile(rf"(?:{SIGN_WORD.pattern})?+(?:{_IN_WORDS})", re.IGNORECASE)
LEADING_WORDS = frozenset(
    [*GAP_WORDS, *_NUMBER_WORDS, *"at a total not negative minus cannot can n".split(), *_NO_NUMBER]
)
"""Words that begin what may be a number, in digits or in words, or that say that there is none."""

_NOT = re.compile(r"\s*+(?:not|n't)(?![A-Za-z])", re.IGNORECASE)

_VERBS = (
    "is are was were be been equals equal has have had makes make made gives gave gets got costs "
    "cost needs needed earns earned pays paid spends spent saves saved takes took leaves sold "
    "sells bought buys used received totals"
).split()
_BEFORE_NUMBER = rf"[*_{CURRENCIES}\\]*\Z"
_NAMED_BY_VERB = re.compile(
    rf"(?:(?<![A-Za-z])(?:{alternatives(_VERBS)})|=)\s+"
    rf"(?:(?:now|only|about|approximately|exactly|a total of|equal to|still|also)\s+)*"
    rf"{_BEFORE_NUMBER}",
    re.IGNORECASE,
)
_AFTER_PREPOSITION = re.compile(
    r"(?<![A-Za-z])(?:in|on|at|after|before|for|from|with|by|of|per|every|each|within|than|to"
    rf"|between|over|during|the)\s+(?:the\s+)?{_BEFORE_NUMBER}",
    re.IGNORECASE,
)
_TOTAL_OF = re.compile(rf"(?:total|sum|number|amount) of\s+{_BEFORE_NUMBER}", re.IGNORECASE)
_JOINED = re.compile(rf"(?:(?<![A-Za-z])(?:or|and|to)|[,&])\s+{_BEFORE_NUMBER}", re.IGNORECASE)
_LONGEST_LEAD = 40


def declares_in_words(text: str) -> bool:
    """Whether a region begins with a number in words, or says that there is none."""
    return _BEGINS_IN_WORDS.match(text, gap_end(text)) is not None


def is_denied(text: str) -> bool:
    """Whether a region says what the answer is not.

    Raises:
        UnreadableError: If it denies a number and gives no other ("not 5", but not "not 5 but 6").
    """
    if not _NOT.match(text, gap_end(text)):
        return False
    if re.search(r"[0-9]", text) and not re.search(r"\bbut\b", text):
        raise UnreadableError
    return True


def read_sentence(text: str, maths: bool, loose: bool) -> Reading:
    """Read the one number of a sentence that a verb names, or that stands alone in it.

    Args:
        text: The sentence, without markup, with at least one digit in it.
        maths: Whether it is a formula.
        loose: Whether the only number counts, and the only one that no preposition precedes, where
            no verb names one.

    Raises:
        UnreadableError: If there is no such number.
    """
    numbers = list(numbers_in(text))
    if any(match["good"] is None for match in numbers):
        raise UnreadableError
    chosen = [m for m in numbers if _stands_after(_NAMED_BY_VERB, text, m)]
    if not chosen and (loose or not re.search(r"[A-Za-z]", text)):
        chosen = numbers if len(numbers) == 1 else [m for m in numbers if _is_free(text, m)]
    if len(chosen) != 1 or (
        chosen[0] is not numbers[0] and _stands_after(_JOINED, text, chosen[0])
    ):
        raise UnreadableError
    at = chosen[0].start()
    sign = re.search(r"(?:negative|minus)\s+\Z", text[max(0, at - 12) : at])
    return read_from(text, at - len(sign[0]) if sign else at, maths)


def numbers_in(text: str) -> Iterator[re.Match[str]]:
    """Matches of `numbers.ANY_NUMBER`, but for the digits of names (H2O) and exponents (m^2)."""
    for match in ANY_NUMBER.finditer(text):
        before = text[match.start() - 1 : match.start()]
        named = before in ("_", "^") or (before.isascii() and before.isalpha())
        if not (named or text.endswith(("^{", "_{"), 0, match.start())):
            yield match


def _stands_after(pattern: re.Pattern[str], text: str, match: re.Match[str]) -> bool:
    start = match.start()
    return pattern.search(text[max(0, start - _LONGEST_LEAD) : start]) is not None


def _is_free(text: str, match: re.Match[str]) -> bool:
    return not _stands_after(_AFTER_PREPOSITION, text, match) or _stands_after(
        _TOTAL_OF, text, match
    )
