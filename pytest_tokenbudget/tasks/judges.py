"""The ways in which texts are judged; each has a name with a version.

A judge takes the expected answer, the text and whether it was truncated.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from pytest_tokenbudget.tasks.answers import EXTRACTOR, extract_number, parse_number, plain
from pytest_tokenbudget.tasks.base import NO_ANSWER, AnswerVerdict
from pytest_tokenbudget.tasks.text_answers import judge_text, normalise, shown

__all__ = [
    "judge_answer",
    "judge_choice",
    "judge_contains",
    "judge_number",
    "judge_text",
    "normalise",
]

NUMBERS = EXTRACTOR
TEXTS = "text/2"
ANSWERS = f"{NUMBERS}+{TEXTS}"
CONTAINS = "contains/1"
JSON_CHOICE = "json-choice/1"

_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"|["{}]', re.DOTALL)
_MAY_GROW = re.compile(r"[.,:/']?\Z")


def judge_number(expected: str, text: str, truncated: bool) -> AnswerVerdict:
    """Right when the extracted number equals the expected one exactly.

    Raises:
        ValueError: If ``expected`` is no number.
    """
    value = parse_number(expected)
    if value is None:
        raise ValueError(f"the expected answer {expected!r} is not a number")
    found = extract_number(text, truncated)
    if found is None:
        return NO_ANSWER
    return AnswerVerdict(plain(found.value), found.branch, found.value == value)


def judge_answer(expected: str, text: str, truncated: bool) -> AnswerVerdict:
    """Judge by number where the expected answer is one, else by text."""
    if parse_number(expected) is not None:
        return judge_number(expected, text, truncated)
    return judge_text(expected, text, truncated)


def judge_contains(expected: str, text: str, truncated: bool) -> AnswerVerdict:
    """Right when ``text`` contains the expected words as whole words, in whatever case.

    In truncated text a match that touches the cut does not count: the word may still grow.
    """
    if not text.strip():
        return NO_ANSWER
    for match in _whole_words(expected).finditer(text):
        if not (truncated and _MAY_GROW.match(text, match.end())):
            return AnswerVerdict(expected, "contains", True)
    return AnswerVerdict(shown(text), "contains", False)


def _whole_words(expected: str) -> re.Pattern[str]:
    words = r"\s+".join(map(re.escape, expected.split()))
    # 234 is not in 1,234, nor in 234.5.
    return re.compile(
        rf"(?<!\w)(?<![0-9][.,:/']){words}(?!\w)(?![.,:/'][0-9])",
        re.IGNORECASE,
    )


def judge_choice(expected: str, text: str, truncated: bool) -> AnswerVerdict:
    """Right when the last JSON object with a ``choice`` makes a legal one.

    An object that has not ended is no answer, so whether the text was truncated does not matter.

    Args:
        expected: The legal choices, parted by ``|``.
        text: What the model wrote; text around the object is allowed.
        truncated: Not needed.
    """
    choice = None
    for found in json_objects(text):
        if isinstance(found.get("choice"), str):
            choice = str(found["choice"]).strip()
    if choice is None:
        return NO_ANSWER
    legal = {option.casefold(): option for option in expected.split("|")}
    return AnswerVerdict(
        legal.get(choice.casefold(), shown(choice)), "json", choice.casefold() in legal
    )


def json_objects(text: str) -> Iterator[dict[str, object]]:
    """Valid JSON objects in ``text`` that are part of no other, in order."""
    position = text.find("{")
    while position >= 0:
        end = _object_end(text, position)
        if end is None:
            return
        try:
            found = json.loads(text[position:end])
        except (ValueError, RecursionError):
            pass
        else:
            if isinstance(found, dict):
                yield found
        position = text.find("{", end)


def _object_end(text: str, start: int) -> int | None:
    depth = 0
    for token in _JSON_TOKEN.finditer(text, start):
        if token[0] == '"':
            return None
        depth += {"{": 1, "}": -1}.get(token[0], 0)
        if depth == 0:
            return token.end()
    return None
