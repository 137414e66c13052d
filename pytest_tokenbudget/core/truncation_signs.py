"""Signs of truncation in a text, and how well they tell what was really cut.

Whoever has no stop reason must go by the text. What was cut is known here, so each sign is counted
among the cut answers, where it is right, and among the complete ones, where it is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pytest_tokenbudget.core.trace import Cut


class Sign(StrEnum):
    """What a text that was cut may show."""

    UNCLOSED_TAG = "unclosed_tag"
    UNFINISHED_SENTENCE = "unfinished_sentence"
    CUT_OFF_JSON = "cut_off_json"
    CAP_REACHED = "cap_reached"


@dataclass(frozen=True)
class SignCount:
    """How often a sign was seen.

    ``truncated`` of ``of_truncated`` answers that were cut show it, and ``complete`` of
    ``of_complete`` that were not.
    """

    sign: Sign
    truncated: int
    of_truncated: int
    complete: int
    of_complete: int


def truncation_signs(cut: Cut) -> set[Sign]:
    """The signs that a cut shows where its text ends, be that in the thinking or in the answer."""
    text = cut.thinking if cut.in_thinking else cut.answer
    found = {
        Sign.UNCLOSED_TAG: cut.in_thinking,
        Sign.UNFINISHED_SENTENCE: unfinished_sentence(text),
        Sign.CUT_OFF_JSON: cut_off_json(text),
        # What can be seen from outside: an end that came with the last token looks the same.
        Sign.CAP_REACHED: cut.tokens_used >= cut.budget,
    }
    return {sign for sign, there in found.items() if there}


_ENDS = ".!?\u2026\u3002\uff01\uff1f\uff0e"
_CLOSING = "\"'\u201d\u2019\u00bb\u300d)]}*_`|>$"
_VALUE = r"[-+$\u20ac\u00a3]{0,2}\d[\d,.]*\s*%?"
# What ends a text without being a sentence: a declared answer, a number alone, a box, a row of
# signs, the end of a code block.
_WHOLE_LINE = re.compile(rf"(?:\**\s*####.*\S|{_VALUE}|.*\\boxed\{{.*\}}\$*|```|[-=*_]{{3,}})$")
_GIVES_VALUE = re.compile(rf"[=:][\s*]*{_VALUE}$")
_WORD = re.compile(r"[^\W\d_]{2,}")


def unfinished_sentence(text: str) -> bool:
    """Whether the last line neither ends as a sentence does nor is an answer by itself."""
    last = text.rstrip().rpartition("\n")[2].strip()
    if not last or _WHOLE_LINE.match(last) or _is_formula(last):
        return False
    # What a bracket or a quote closes, and a line of closing signs alone, is whole, too.
    return last[-1] not in _ENDS + _CLOSING


def _is_formula(line: str) -> bool:
    """Whether a line is "x = 7" or "Total: 12": hardly a word, and then a value."""
    return bool(_GIVES_VALUE.search(line)) and len(_WORD.findall(line)) < 3


# Not the braces of a formula, nor the brackets of an interval or a link.
_JSON_BEGINS = re.compile(
    r'(?<![\\\w^_}])\{\s*(?:"|\}|\Z)|\[\s*(?:[\[{"]|\Z)|^[ \t]*\[[ \t]*-?[0-9]', re.MULTILINE
)
_JSON_SIGN = re.compile(r'[\[\]{}"]')
_STRING_END = re.compile(r'(?:[^"\\]|\\.)*+"', re.DOTALL)
_PAIRS = {"{": "}", "[": "]"}


def cut_off_json(text: str) -> bool:
    """Whether the text ends inside a JSON object or array."""
    place = 0
    while begins := _JSON_BEGINS.search(text, place):
        end = _json_end(text, begins.start())
        if end is None:
            return True
        place = end
    return False


def _json_end(text: str, place: int) -> int | None:
    """Where what opens at ``place`` is closed, or shown to be no JSON; None where it stays open."""
    open_: list[str] = []
    while sign := _JSON_SIGN.search(text, place):
        place = sign.end()
        char = sign.group()
        if char == '"':
            string = _STRING_END.match(text, place)
            if string is None:
                return None
            place = string.end()
        elif char in _PAIRS:
            open_.append(_PAIRS[char])
        elif char != open_.pop():
            return place
        if not open_:
            return place
    return None


def count_signs(
    signs_by_answer: Iterable[set[Sign]], truncated: Sequence[bool]
) -> tuple[SignCount, ...]:
    """How often each sign was seen, among what was cut and among what was not."""
    rows = list(zip(signs_by_answer, truncated, strict=True))
    cut = sum(1 for _, was in rows if was)
    return tuple(
        SignCount(
            sign=sign,
            truncated=sum(1 for signs, was in rows if was and sign in signs),
            of_truncated=cut,
            complete=sum(1 for signs, was in rows if not was and sign in signs),
            of_complete=len(rows) - cut,
        )
        for sign in Sign
    )
