"""Sentences about an answer: the number they give, or that they give none."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pytest_tokenbudget.tasks.number_reading import (
    GAP_WORDS,
    SEVERAL,
    SIGN_WORD,
    Reading,
    UnreadableError,
    alternatives,
    gap_end,
    read_from,
)
from pytest_tokenbudget.tasks.numbers import ANY_NUMBER, CHANGED_BEFORE, CURRENCIES, MINUS, NUMBER

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

_ENDS_IN_SIGN = re.compile(rf"(?:{SIGN_WORD.pattern})\Z", re.IGNORECASE)
_NOT = re.compile(r"\s*+(?:not|n't)(?![A-Za-z])", re.IGNORECASE)

_VERBS = (
    "is are was were be been equals equal has have had makes make made gives gave gets got costs "
    "cost needs needed earns earned pays paid spends spent saves saved takes took leaves sold "
    "sells bought buys used received totals"
).split()
_BEFORE_NUMBER = rf"[*_{CURRENCIES}\\]*\Z"
_NAMED_BY_VERB = re.compile(
    rf"(?<![A-Za-z])(?:{alternatives(_VERBS)})\s+"
    rf"(?:(?:now|only|about|approximately|exactly|a total of|equal to|still|also)\s+)*"
    rf"{_BEFORE_NUMBER}",
    re.IGNORECASE,
)
_RESULT = re.compile(
    rf"[=\u2248](?:\s|\\approx|about|approximately)*{_BEFORE_NUMBER}", re.IGNORECASE
)
# Between the results of two equations: the second does not go on from the first.
_ANOTHER_CLAUSE = re.compile(r"[A-Za-z]{2,}\W+[A-Za-z]{2,}|(?:and|or|so)\W|,\s", re.IGNORECASE)
_AFTER_PREPOSITION = re.compile(
    r"(?<![A-Za-z])(?:in|on|at|after|before|for|from|with|by|of|per|every|each|within|than|to"
    rf"|between|over|during|the)\s+(?:the\s+)?{_BEFORE_NUMBER}",
    re.IGNORECASE,
)
_TOTAL_OF = re.compile(rf"(?:total|sum|number|amount) of\s+{_BEFORE_NUMBER}", re.IGNORECASE)
_JOINED = re.compile(rf"(?:(?<![A-Za-z])(?:or|and|to)|[,&])\s+{_BEFORE_NUMBER}", re.IGNORECASE)
_LONGEST_LEAD = 40
_LONG_WORD = re.compile(r"[^\W\d_]{2,}")
_MOST_UNIT_WORDS = 3
_CALCULATION = re.compile(r"[0-9)][^0-9\n]{0,20}[-+*/\u00d7\u00f7][^0-9\n]{0,20}[0-9]|=")


def is_reasoning(text: str) -> bool:
    """Whether a region is a sentence or calculation rather than a number with its unit."""
    return len(_LONG_WORD.findall(text)) > _MOST_UNIT_WORDS or bool(_CALCULATION.search(text))


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
    """Read the result of a sentence's equation, or the one number that a verb names.

    If ``loose``, the only number counts, and the only one that no preposition precedes, where no
    verb names one.

    Raises:
        UnreadableError: If there is no such number.
    """
    numbers = list(numbers_in(text))
    results = [m for m in numbers if _stands_after(_RESULT, text, m)]
    if results:
        at = results[0].end()
        for result in results[1:]:
            if _ANOTHER_CLAUSE.search(text, at, result.start()):
                raise UnreadableError
            at = result.end()
        return read_from(text, results[-1].start(), maths)
    if any(_is_unreadable(text, match) for match in numbers) or SEVERAL.search(text):
        raise UnreadableError
    chosen = [m for m in numbers if _stands_after(_NAMED_BY_VERB, text, m)]
    if not chosen and (loose or not re.search(r"[A-Za-z]", text)):
        chosen = numbers if len(numbers) == 1 else [m for m in numbers if _is_free(text, m)]
    if len(chosen) != 1 or (
        chosen[0] is not numbers[0] and _stands_after(_JOINED, text, chosen[0])
    ):
        raise UnreadableError
    at = chosen[0].start()
    if CHANGED_BEFORE.search(text[max(0, at - _LONGEST_LEAD) : at]):
        raise UnreadableError
    sign = _ENDS_IN_SIGN.search(text[max(0, at - 40) : at])
    return read_from(text, at - len(sign[0]) if sign else at, maths)


def numbers_in(text: str) -> Iterator[re.Match[str]]:
    """Matches of `numbers.ANY_NUMBER`, but for the digits of names (H2O) and exponents (m^2)."""
    for match in ANY_NUMBER.finditer(text):
        before = text[match.start() - 1 : match.start()]
        named = before in ("_", "^") or (before.isascii() and before.isalpha())
        if not (named or text.endswith(("^{", "_{"), 0, match.start())):
            yield match


def _is_unreadable(text: str, match: re.Match[str]) -> bool:
    if match["good"] is not None:
        return False
    # The sign of "2+1" is an operation.
    number = NUMBER.match(text, match.start() + 1) if match[0][0] in f"+{MINUS}" else None
    return number is None or number.end() != match.end()


def _stands_after(pattern: re.Pattern[str], text: str, match: re.Match[str]) -> bool:
    start = match.start()
    return pattern.search(text[max(0, start - _LONGEST_LEAD) : start]) is not None


def _is_free(text: str, match: re.Match[str]) -> bool:
    return not _stands_after(_AFTER_PREPOSITION, text, match) or _stands_after(
        _TOTAL_OF, text, match
    )
