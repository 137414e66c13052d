"""How answers are judged: the ways to judge a text, when a verdict turns, and tasks judged so.

A judge takes the expected answer, the text and whether it was truncated; its rule has a name with a
version. A curve over every token count needs a verdict on every beginning of a text. Most of them
are known without asking: a truncated text is judged by what it declares, and a declaration does not
change any more once it is read. Stretches name too much rather than too little.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from pytest_tokenbudget.tasks.answers import EXTRACTOR, extract_number
from pytest_tokenbudget.tasks.base import NO_ANSWER, AnswerVerdict, Task, TaskError, check_limit
from pytest_tokenbudget.tasks.declarations import find_keywords, settled_length
from pytest_tokenbudget.tasks.numbers import parse_number, plain
from pytest_tokenbudget.tasks.problem import Problem
from pytest_tokenbudget.tasks.text_answers import judge_text, shortened
from pytest_tokenbudget.tasks.text_views import ascii_view, may_strike

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
    # 234 is not in 1,234, nor in 234.5.
    whole = rf"(?<!\w)(?<![0-9][.,:/']){_words(expected)}(?!\w)(?![.,:/'][0-9])"
    for match in re.finditer(whole, text, re.IGNORECASE):
        if not (truncated and _MAY_GROW.match(text, match.end())):
            return AnswerVerdict(expected, "contains", True)
    return AnswerVerdict(shortened(text), "contains", False)


def _words(expected: str) -> str:
    return r"\s+".join(map(re.escape, expected.split()))


def judge_choice(expected: str, text: str, truncated: bool) -> AnswerVerdict:
    """Right when the last JSON object with a ``choice`` makes a legal one.

    The legal ones are parted by ``|`` in ``expected``. An object that has not ended is no answer,
    so whether the text was truncated does not matter.
    """
    choice = None
    for found in json_objects(text):
        if isinstance(found.get("choice"), str):
            choice = str(found["choice"]).strip()
    if choice is None:
        return NO_ANSWER
    legal = {option.casefold(): option for option in expected.split("|")}
    return AnswerVerdict(
        legal.get(choice.casefold(), shortened(choice)), "json", choice.casefold() in legal
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


class Stretch(NamedTuple):
    """Lengths of beginnings, from ``first`` to ``last``.

    Outside of all stretches of a text, the verdict on a truncated beginning of it is that on the
    beginning one character shorter; the empty one is not right.
    """

    first: int
    last: int


def verdict_stretches(task: Task, problem: Problem, text: str) -> Sequence[Stretch]:
    """The stretches of an answer's text, in rising order; all of it where the task knows none."""
    known = getattr(task, "verdict_changes", None)
    if known is None:
        return whole_text(problem.answer, text)
    found: Sequence[Stretch] = known(problem, text)
    return found


def whole_text(expected: str, text: str) -> Sequence[Stretch]:
    return (Stretch(1, len(text)),)


def number_stretches(expected: str, text: str) -> Sequence[Stretch]:
    return merge_stretches(_declared_numbers(text))


def _declared_numbers(text: str) -> Iterator[Stretch]:
    """From each keyword to where nothing can change any more what it declares."""
    view = ascii_view(text)
    if may_strike(view):
        # A mark far before can strike a declaration as long as its line goes on.
        yield Stretch(1, len(text))
        return
    following = len(view)
    for keyword in reversed(find_keywords(view)):
        yield Stretch(keyword.start, min(settled_length(view, keyword, following), len(text)))
        following = keyword.start


def answer_stretches(expected: str, text: str) -> Sequence[Stretch]:
    return (text_stretches if parse_number(expected) is None else number_stretches)(expected, text)


def text_stretches(expected: str, text: str) -> Sequence[Stretch]:
    """The stretches for `judge_text`: all that follows a first keyword."""
    view = ascii_view(text)
    keywords = find_keywords(view)
    if may_strike(view):
        return (Stretch(1, len(text)),)
    return (Stretch(keywords[0].start, len(text)),) if keywords else ()


def word_stretches(expected: str, text: str) -> Sequence[Stretch]:
    """The stretches for `judge_contains`: all that follows the words."""
    match = re.search(_words(expected), text, re.IGNORECASE)
    return () if match is None else (Stretch(match.end(), len(text)),)


def choice_stretches(expected: str, text: str) -> Sequence[Stretch]:
    """The stretches for `judge_choice`: wherever an object may end."""
    return [Stretch(m.end(), m.end()) for m in re.finditer("}", text)]


def merge_stretches(stretches: Iterable[Stretch]) -> Sequence[Stretch]:
    """The same lengths in rising order and without overlaps."""
    found: list[Stretch] = []
    for each in sorted(stretches):
        if found and each.first <= found[-1].last:
            found[-1] = Stretch(found[-1].first, max(found[-1].last, each.last))
        else:
            found.append(each)
    return found


class JudgingRule(NamedTuple):
    """A way to judge.

    Attributes:
        extractor: Its name and version.
        judge: Takes the expected answer, the text and whether it was truncated.
        verdict_changes: Takes the expected answer and a text, and says where the verdict on the
            beginnings of the text can change: after every character, if nothing else is known.
    """

    extractor: str
    judge: Callable[[str, str, bool], AnswerVerdict]
    verdict_changes: Callable[[str, str], Sequence[Stretch]] = whole_text


NUMBER = JudgingRule(EXTRACTOR, judge_number, number_stretches)
TEXT = JudgingRule("text/2", judge_text, text_stretches)
ANSWER = JudgingRule(f"{EXTRACTOR}+text/2", judge_answer, answer_stretches)
CONTAINS = JudgingRule("contains/1", judge_contains, word_stretches)
CHOICE = JudgingRule("json-choice/1", judge_choice, choice_stretches)


class RuledTask:
    """A task whose answers are judged by a rule."""

    def __init__(self, name: str, rule: JudgingRule) -> None:
        self.name = name
        self.rule = rule

    @property
    def extractor(self) -> str:
        return self.rule.extractor

    def rule_of(self, problem: Problem) -> JudgingRule:
        return self.rule

    def judge_text(self, problem: Problem, text: str, truncated: bool) -> AnswerVerdict:
        return self.rule_of(problem).judge(problem.answer, text, truncated)

    def verdict_changes(self, problem: Problem, text: str) -> Sequence[Stretch]:
        """Where in an answer's text the verdict on its beginnings can change."""
        return self.rule_of(problem).verdict_changes(problem.answer, text)


class GivenTask(RuledTask):
    """A task of so many problems and no more."""

    def __init__(self, name: str, rule: JudgingRule, problems: tuple[Problem, ...]) -> None:
        super().__init__(name, rule)
        self._problems = problems

    @property
    def size(self) -> int:
        return len(self._problems)

    def problems(self, limit: int | None = None) -> tuple[Problem, ...]:
        check_limit(limit)
        return self._problems[:limit]


class GeneratedTask(RuledTask):
    """Problems of one generator and seed, made as they are asked for.

    ``size`` of them make the full set, and more can be had. One that comes again is passed over.
    """

    def __init__(self, name: str, rule: JudgingRule, size: int, stream: Iterator[Problem]) -> None:
        super().__init__(name, rule)
        self.size = size
        self._stream = stream
        self._made: dict[str, Problem] = {}

    def problems(self, limit: int | None = None) -> tuple[Problem, ...]:
        """The first ``limit`` problems, ``size`` of them where it is None.

        Raises:
            TaskError: If ``limit`` is below 1 or beyond what the generator can make.
        """
        check_limit(limit)
        wanted = self.size if limit is None else limit
        while len(self._made) < wanted:
            problem = next(self._stream, None)
            if problem is None:
                raise TaskError(
                    f"task {self.name} can make {len(self._made)} different problems, "
                    f"not {wanted}: ask for fewer"
                )
            self._made.setdefault(problem.id, problem)
        return tuple(self._made.values())[:wanted]
