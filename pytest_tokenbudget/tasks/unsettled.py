"""Where in a text the verdict on its beginnings can change.

A curve over every token count needs a verdict on every beginning of a text. Most of them are known
without asking: a truncated text is judged by what it declares, and a declaration does not change
any more once it is read. What is named here is too much rather than too little.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from pytest_tokenbudget.tasks.answers import LONGEST_BOX, LONGEST_GAP, parse_number
from pytest_tokenbudget.tasks.base import Task
from pytest_tokenbudget.tasks.problem import Problem


class Stretch(NamedTuple):
    """Lengths of beginnings, from ``first`` to ``last``.

    Outside of all stretches of a text, the verdict on a truncated beginning of it is that on the
    beginning one character shorter; the empty one is not right.
    """

    first: int
    last: int


def unsettled(task: Task, problem: Problem, text: str) -> Sequence[Stretch]:
    """The stretches of an answer's text, in rising order; all of it where the task knows none."""
    known = getattr(task, "unsettled", None)
    if known is None:
        return (Stretch(1, len(text)),)
    found: Sequence[Stretch] = known(problem, text)
    return found


def in_number(expected: str, text: str) -> Sequence[Stretch]:
    """The stretches for `judges.judge_number`."""
    return merged(_declared_numbers(text))


# A keyword of a declaration, and of "answer is" as far as the words that make it one can go.
_KEYWORD = re.compile(
    r"(?P<hash>####+)|(?P<box>boxed\{)"
    r"|(?:nswer|NSWER)(?=(?P<words>[\s*_]*+(?i:[A-Z]{0,8}+\s*+[A-Z]{0,8}+)))"
)


def _declared_numbers(text: str) -> Iterator[Stretch]:
    """From each keyword to the end of the line that its number can stand in.

    A number is looked for within a bounded distance of its keyword, and neither it, nor what can
    change it, goes beyond its line.
    """
    for keyword in _KEYWORD.finditer(text):
        if keyword["hash"]:
            first, reach = keyword.start() + len("####"), keyword.end() + LONGEST_GAP
        elif keyword["box"]:
            first, reach = keyword.end(), keyword.end() + LONGEST_BOX
        else:
            # One more character: a colon in the place of the words.
            first, reach = keyword.end(), keyword.end("words") + 1 + LONGEST_GAP
        line_end = text.find("\n", reach)
        yield Stretch(first, len(text) if line_end < 0 else line_end + 1)


_DECLARES_TEXT = re.compile(r"####|boxed\{|answer", re.IGNORECASE)


def in_answer(expected: str, text: str) -> Sequence[Stretch]:
    """The stretches for `judges.judge_answer`: of text, all that follows a first keyword."""
    if parse_number(expected) is not None:
        return in_number(expected, text)
    return _from(_DECLARES_TEXT.search(text), text)


def in_words(expected: str, text: str) -> Sequence[Stretch]:
    """The stretches for `judges.judge_contains`: all that follows the words."""
    words = r"\s+".join(map(re.escape, expected.split()))
    return _from(re.search(words, text, re.IGNORECASE), text)


def in_choice(expected: str, text: str) -> Sequence[Stretch]:
    """The stretches for `judges.judge_choice`: wherever an object may end."""
    return [Stretch(m.end(), m.end()) for m in re.finditer("}", text)]


def _from(match: re.Match[str] | None, text: str) -> Sequence[Stretch]:
    return () if match is None else (Stretch(match.end(), len(text)),)


def merged(stretches: Iterable[Stretch]) -> Sequence[Stretch]:
    """The same lengths in rising order and without overlaps."""
    found: list[Stretch] = []
    for each in sorted(stretches):
        if found and each.first <= found[-1].last:
            found[-1] = Stretch(found[-1].first, max(found[-1].last, each.last))
        else:
            found.append(each)
    return found
