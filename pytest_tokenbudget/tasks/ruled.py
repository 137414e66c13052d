"""What tasks have in common that judge by one of the rules: a way to judge, and when it turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from pytest_tokenbudget.tasks import judges, verdict_changes
from pytest_tokenbudget.tasks.base import AnswerVerdict, check_limit
from pytest_tokenbudget.tasks.problem import Problem
from pytest_tokenbudget.tasks.verdict_changes import Stretch


class JudgingRule(NamedTuple):
    """A way to judge.

    Attributes:
        extractor: Its name and version.
        judge: Takes the expected answer, the text and whether it was truncated.
        unsettled: Takes the expected answer and a text, and says where the verdict on the text's
            beginnings can change: after every character, if nothing else is known.
    """

    extractor: str
    judge: Callable[[str, str, bool], AnswerVerdict]
    unsettled: Callable[[str, str], Sequence[Stretch]] = verdict_changes.everywhere


NUMBER = JudgingRule(judges.NUMBERS, judges.judge_number, verdict_changes.in_number)
TEXT = JudgingRule(judges.TEXTS, judges.judge_text, verdict_changes.in_text)
ANSWER = JudgingRule(judges.ANSWERS, judges.judge_answer, verdict_changes.in_answer)
CONTAINS = JudgingRule(judges.CONTAINS, judges.judge_contains, verdict_changes.in_words)
CHOICE = JudgingRule(judges.JSON_CHOICE, judges.judge_choice, verdict_changes.in_choice)


class RuledTask:
    """A task whose answers are judged by a rule.

    Args:
        name: Name of the task.
        rule: The rule.
    """

    def __init__(self, name: str, rule: JudgingRule) -> None:
        self.name = name
        self.rule = rule

    @property
    def extractor(self) -> str:
        """Name and version of the way answers are found."""
        return self.rule.extractor

    def rule_of(self, problem: Problem) -> JudgingRule:
        """How a problem is judged."""
        return self.rule

    def judge_text(self, problem: Problem, text: str, truncated: bool) -> AnswerVerdict:
        return self.rule_of(problem).judge(problem.answer, text, truncated)

    def unsettled(self, problem: Problem, text: str) -> Sequence[Stretch]:
        """Where in an answer's text the verdict on its beginnings can change."""
        return self.rule_of(problem).unsettled(problem.answer, text)


class GivenTask(RuledTask):
    """A task of so many problems and no more.

    Args:
        name: Name of the task.
        rule: How it is judged.
        problems: The problems.
    """

    def __init__(self, name: str, rule: JudgingRule, problems: tuple[Problem, ...]) -> None:
        super().__init__(name, rule)
        self._problems = problems

    @property
    def size(self) -> int:
        return len(self._problems)

    def problems(self, limit: int | None = None) -> tuple[Problem, ...]:
        """The first ``limit`` problems, or as many as there are."""
        check_limit(limit)
        return self._problems[:limit]
