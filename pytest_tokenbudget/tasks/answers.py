r"""Finding the number that a text gives as its answer.

What is declared is read, or there is no answer; what could mean several things is not guessed.

* The last declaration counts, whatever its form (`declarations`); its branch is part of the
  result. One that holds a number that cannot be read hides all before it.
* A declared number is read with its unit, scale, equation and sign (`number_reading`).
* Where nothing is declared, the last number of a text that came to its end counts, as
  ``last_number``.
* In truncated text a declaration counts only when nothing that may still come could change it.
* A question that the model asks itself ends its answer.

All patterns are possessive or bounded, so the time is linear in the length of the text.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from pytest_tokenbudget.tasks.declarations import (
    BOX_TAIL,
    EXCLAMATION,
    Keyword,
    Region,
    find_keywords,
    find_questions,
    last_first,
    region_of,
)
from pytest_tokenbudget.tasks.number_reading import Reading, UnreadableError, read_head
from pytest_tokenbudget.tasks.number_sentences import (
    declares_in_words,
    is_denied,
    is_reasoning,
    numbers_in,
    read_sentence,
)
from pytest_tokenbudget.tasks.numbers import (
    CHANGED_AFTER,
    CHANGED_BEFORE,
    LONGEST_NUMBER,
    MINUS,
    SCALE,
    SIGN,
    VULGAR,
    is_denied_anywhere,
    with_suffix,
)
from pytest_tokenbudget.tasks.text_views import readable_view, without_markup

EXTRACTOR = "numbers/3"

Branch = Literal["hash", "boxed", "answer_is", "last_number"]

LAST_NUMBER_WINDOW = 2 * LONGEST_NUMBER
_AFTER_LAST_NUMBER = 40


@dataclass(frozen=True)
class Extraction:
    """A number that a text gives as its answer, where it stands, and which rule found it."""

    value: Fraction
    text: str
    branch: Branch
    start: int
    end: int


def extract_number(text: str, truncated: bool) -> Extraction | None:
    """Find the number that ``text`` gives as its answer: what the last declaration says.

    Args:
        text: What a model wrote outside of its thinking.
        truncated: Whether the text was cut before the model came to its end.
    """
    view = readable_view(text, truncated)
    keywords = find_keywords(view)
    end, guessing = answer_end(view, keywords)
    last_digit = _last_digit(view, end)
    for keyword, following in last_first(keywords, end):
        if keyword.form == "mention":
            continue
        try:
            reading = _read(view, keyword, following, last_digit, truncated)
        except UnreadableError:
            return None
        if reading is not None:
            return _extraction(text, reading, keyword.branch)
    if truncated or not guessing or _ends_in_words(view, keywords, end):
        return None
    if is_denied_anywhere(view, end):
        return None
    last = _last_number(view, last_digit, end)
    return _extraction(text, last, "last_number") if last else None


def _ends_in_words(view: str, keywords: Sequence[Keyword], end: int) -> bool:
    """Whether the last line follows ``####``: it declares something, though no number."""
    last = keywords[-1] if keywords else None
    if last is None or last.form != "hash" or last.end >= end:
        return False
    line = view[last.end : end].strip()
    return bool(line) and "\n" not in line and not _DIGIT.search(line)


def declarations(text: str, truncated: bool) -> list[Extraction]:
    """Every readable declaration of ``text``, the last one first."""
    view = readable_view(text, truncated)
    last_digit = _last_digit(view, len(view))
    found = []
    for keyword, following in last_first(find_keywords(view), len(view)):
        try:
            reading = _read(view, keyword, following, last_digit, truncated)
        except UnreadableError:
            continue
        if reading is not None:
            found.append(_extraction(text, reading, keyword.branch))
    return found


def answer_end(view: str, keywords: Sequence[Keyword]) -> tuple[int, bool]:
    """Where the answer ends, because the model asks itself a question.

    Returns:
        The place, and whether a number before it may count that was not declared.
    """
    first_digit = _DIGIT.search(view)
    answered = [first_digit.end()] if first_digit else []
    answered += [keyword.start + 1 for keyword in keywords[:1] if keyword.form in _SURE_FORMS]
    for question in find_questions(view):
        if any(end <= question.start for end in answered):
            return question.start, question.turn
    return len(view), True


_SURE_FORMS = ("hash", "box", "tag")
_DIGIT = re.compile(rf"[0-9{VULGAR}]")


def _extraction(text: str, reading: Reading, branch: Branch) -> Extraction:
    value, start, end = reading
    return Extraction(value, text[start:end], branch, start, end)


_JOINED_BOX = re.compile(
    r"\}[\s$)]*(?:,|and|or|,\s*and|,\s*or|\\(?:text|quad|mbox)[^\n]{0,20})[\s$(]*\\f?\Z"
)
# What begins with words after these may be a heading, or reasoning after "Answer:".
_MAY_LEAD_ON = ("hash", "colon")
# "1. First step" after a keyword begins a list or a heading.
_ORDINAL = re.compile(r"[0-9]{1,3}[*_]*+(?:[.)][*_]*+(?=\s|\Z)|:(?=\s*+(?:[^\W\d]|\*|\Z)))")
_NAMED_STEP = re.compile(
    r"(?:step|part|case|stage|phase|section|method|approach|day|note)\s*+[0-9]", re.IGNORECASE
)
_WORD_IN_LINE = re.compile(r"[^\w\n]*+\w")
_BULLET = re.compile(r"[-\u2013\u2022+][ \t]")


def _read(
    view: str, keyword: Keyword, following: int, last_digit: int, truncated: bool
) -> Reading | None:
    """Read what a keyword declares; None where it declares no number, or none that is settled yet.

    The next keyword begins at ``following``, and the last digit of the answer is at ``last_digit``,
    -1 where there is none.

    Raises:
        UnreadableError: If there is one that cannot be read without guessing.
    """
    region = region_of(view, keyword, following)
    if region is None or (truncated and not region.closed):
        return None
    listed = "\n" in view[keyword.end : region.start]
    if (keyword.form == "hash" or listed) and _is_heading(view, region, truncated):
        return None
    said = view[region.start : region.end]
    sign = _sign_of_box(view, keyword, region.end + 1, truncated)
    if not sign:
        return None
    text = without_markup(said)
    if is_denied(text):
        return None
    goes_on = truncated or last_digit >= region.end
    if goes_on and keyword.form == "colon" and is_reasoning(text):
        return None
    reading = read_head(text, keyword.form == "box")
    if reading is not None:
        if listed and _BULLET.match(text):
            raise UnreadableError
    elif goes_on and keyword.form in _MAY_LEAD_ON:
        return None
    elif _DIGIT.search(text) and ("=" in text or not declares_in_words(text)):
        loose = keyword.form != "is" or text.startswith("that ")
        reading = read_sentence(text, keyword.form == "box", loose)
    elif keyword.form == "box" or declares_in_words(text):
        raise UnreadableError
    else:
        return None
    found = Reading(sign * reading.value, region.start + reading.start, region.start + reading.end)
    if found.end == region.end and view[found.end : found.end + 1].isalnum():
        raise UnreadableError  # the region was too long, and its end lies within the number
    return found


_BOX_NEGATED = re.compile(
    rf"(?:\A|[\n=:\u2248($]|(?<![A-Za-z])(?:is|are|be)\s)\s*[{MINUS}][$({{\[]*\\f?\Z"
)
_BOX_CHANGED = re.compile(
    rf"(?:[{MINUS}+/\u00d7\u00f7\u00b7^<\u2264\u2265\u2260\u221a\u00b1]|(?<=[^=\-\n])>)[\s$({{\[]*\\f?\Z"
)
_BOX_SIGNED = re.compile(rf"(?<![^\W_])(?:{SIGN})[\s$(]*\\f?\Z", re.IGNORECASE)
_AFTER_BOX = re.compile(
    r"[ \t$)\]}*_]*+(?:[\^/\u00d7\u00f7\u00b2\u00b3\u2070-\u2079]|[-+*:<>]\s*[$(\\]*[0-9b]"
    r"|[0-9A-Za-z](?![A-Za-z])(?<=[0-9xyzn])"
    r"|\\(?:times|cdot|div|pm|mp|sqrt|pi|[dt]?frac)(?![A-Za-z])|(?:or|to)\s+[$\\]*[0-9])"
)


def _sign_of_box(view: str, keyword: Keyword, end: int, truncated: bool) -> int:
    """The sign before a box, as a factor; 0 where what follows is not settled yet.

    Raises:
        UnreadableError: If what stands around the box gives its number another value.
    """
    if keyword.form != "box":
        return 1
    start = keyword.start
    if _JOINED_BOX.search(view, max(0, start - 40), start):
        raise UnreadableError
    newline = view.find("\n", end, end + BOX_TAIL)
    tail = view[end : newline if newline >= 0 else end + BOX_TAIL]
    if truncated and newline < 0 and len(tail) < BOX_TAIL and not _SENTENCE_END.match(tail):
        return 0
    after = without_markup(tail)
    if SCALE.match(after) or CHANGED_AFTER.match(after) or _AFTER_BOX.match(after):
        raise UnreadableError
    before = view[max(0, start - 40) : start]
    bare = re.sub(r"[\s$({\[*_]*\\f?\Z", " ", without_markup(before))
    if _BOX_NEGATED.search(before):
        return -1
    if _BOX_CHANGED.search(before) or _BOX_SIGNED.search(before) or CHANGED_BEFORE.search(bare):
        raise UnreadableError
    return 1


_SENTENCE_END = re.compile(r"[$)*]*+[.?]\s")


def _is_heading(view: str, region: Region, truncated: bool) -> bool:
    """Whether the region is a numbered heading or item, or may still become one."""
    ordinal = _ORDINAL.match(view, region.start)
    if ordinal is None:
        return _NAMED_STEP.match(view, region.start) is not None
    rest = view[ordinal.end() : region.line_end]
    return bool(_WORD_IN_LINE.match(rest)) or (truncated and region.line_end >= len(view))


_OTHER_NUMBER_BEFORE = re.compile(
    r"""[0-9][)\]}]?(?:
        (?:\s+[^\W\d_]{1,12})?\s+(?:or|to|through)\s+ | \s+and\s+ | \s*(?:\u00b1|\+/-|\\pm|:|~)\s*
      | \s*(?:x|[A-Za-z])\s*[-+*/\u00d7]\s*
    )(?:\\?[$£€])?\Z
    | \(\s*[-+]?[0-9.]+\s*,\s*\Z""",
    re.VERBOSE,
)
_SIGN_BEFORE = re.compile(
    r"(?:负|負|零下|マイナス|마이너스|(?<![0-9] )(?:минус|eksi|âm|hasi|سالب|माइनस|মাইনাস|ติดลบ)\s)\Z"
    rf"|(?:negative|(?:(?<![A-Za-z])(?:is|are|was|be|of|at|to)|[=:,(]|\A)\s*minus)\s+[$£€]?\Z"
    rf"|(?:(?<![A-Za-z])(?:is|are|was|be)|[=:])\s*[{MINUS}]\s{{1,3}}\Z",
    re.IGNORECASE,
)


_EXCLAMATION = re.compile(EXCLAMATION)
_DOZEN = re.compile(rf"{EXCLAMATION}|\sdozens?(?![A-Za-z])")


def _last_number(view: str, last_digit: int, end: int) -> Reading | None:
    if last_digit < 0:
        return None
    window = max(0, last_digit - LAST_NUMBER_WINDOW)
    text = without_markup(view[window : min(last_digit + _AFTER_LAST_NUMBER, end)])
    last = next(iter(deque(numbers_in(text), maxlen=1)), None)
    if last is None or last["good"] is None or (window and last.start() == 0):
        return None
    before = text[max(0, last.start() - 40) : last.start()]
    if (before[-2:-1].isdigit() and before[-1] in MINUS) or _OTHER_NUMBER_BEFORE.search(before):
        return None
    if CHANGED_BEFORE.search(before):
        return None
    # "24/12 = 2 dozen" counts dozens.
    ending = (_DOZEN if before.rstrip("$ ").endswith("=") else _EXCLAMATION).search(
        text, last.end()
    )
    stop = ending.start() if ending else len(text)
    number = with_suffix(last, text, stop, maths=False)
    if number.value is None:
        return None
    value = -number.value if _SIGN_BEFORE.search(before) else number.value
    return Reading(value, window + number.start, window + number.end)


def _last_digit(view: str, end: int) -> int:
    digits = "0123456789" if view.isascii() else "0123456789" + _VULGAR_CHARACTERS
    return max(view.rfind(digit, 0, end) for digit in digits)


_VULGAR_CHARACTERS = "\u00bc\u00bd\u00be" + "".join(map(chr, range(0x2150, 0x215F)))
