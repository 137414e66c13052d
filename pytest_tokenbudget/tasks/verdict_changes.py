"""Where in a text the verdict on its beginnings can change.

A curve over every token count needs a verdict on every beginning of a text. Most of them are known
without asking: a truncated text is judged by what it declares, and a declaration does not change
any more once it is read. What is named here is too much rather than too little.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from pytest_tokenbudget.tasks.answer_keywords import find_keywords
from pytest_tokenbudget.tasks.answer_text import ascii_view, may_strike
from pytest_tokenbudget.tasks.answers import parse_number
from pytest_tokenbudget.tasks.base import Task
from pytest_tokenbudget.tasks.declarations import reach
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
        return everywhere(problem.answer, text)
    found: Sequence[Stretch] = known(problem, text)
    return found


def everywhere(expected: str, text: str) -> Sequence[Stretch]:
    """All of a text, where nothing is known of the judge."""
    return (Stretch(1, len(text)),)


def in_number(expected: str, text: str) -> Sequence[Stretch]:
    """The stretches for `judges.judge_number`."""
    return merged(_declared_numbers(text))


def _declared_numbers(text: str) -> Iterator[Stretch]:
    """From each keyword to where nothing can change any more what it declares."""
    view = ascii_view(text)
    if may_strike(view):
        # A mark far before can strike a declaration as long as its line goes on.
        yield Stretch(1, len(text))
        return
    following = len(view)
    for keyword in reversed(find_keywords(view)):
        yield Stretch(keyword.start, min(reach(view, keyword, following), len(text)))
        following = keyword.start


def in_answer(expected: str, text: str) -> Sequence[Stretch]:
    """The stretches for `judges.judge_answer`."""
    return (in_text if parse_number(expected) is None else in_number)(expected, text)


def in_text(expected: str, text: str) -> Sequence[Stretch]:
    """The stretches for `judges.judge_text`: all that follows a first keyword."""
    view = ascii_view(text)
    keywords = find_keywords(view)
    if may_strike(view):
        return (Stretch(1, len(text)),)
    return (Stretch(keywords[0].start, len(text)),) if keywords else ()


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
