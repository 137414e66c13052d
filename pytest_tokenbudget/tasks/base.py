"""What every task offers: problems, and a way to judge a text."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from pytest_tokenbudget.common.outside_text import PrintableError
from pytest_tokenbudget.tasks.problem import Problem


class TaskError(PrintableError):
    """A task could not be found, read or made; the message is for people."""


class AnswerVerdict(NamedTuple):
    """What a text amounts to as an answer.

    Attributes:
        predicted: The answer that was found, in canonical form; None where there is none.
        branch: Which rule of the extractor found it.
        correct: Whether it is right.
    """

    predicted: str | None
    branch: str | None
    correct: bool


NO_ANSWER = AnswerVerdict(None, None, False)


class Task(Protocol):
    """A named set of problems with its way of scoring.

    Attributes:
        name: Name as shown, and as used in file names and keys.
        extractor: Name and version of the way answers are found; part of every result.
    """

    @property
    def name(self) -> str: ...

    @property
    def extractor(self) -> str: ...

    @property
    def size(self) -> int:
        """How many problems make the full set."""

    def problems(self, limit: int | None = None) -> tuple[Problem, ...]:
        """The first ``limit`` problems, all of the full set where it is None.

        Generated tasks go on beyond their size; others give what there is. A longer set extends
        a shorter one.

        Raises:
            TaskError: If ``limit`` is below 1 or cannot be met.
        """

    def judge_text(self, problem: Problem, text: str, truncated: bool) -> AnswerVerdict:
        """Find and judge the answer in ``text``.

        Args:
            problem: What was asked.
            text: What the model wrote outside of its thinking.
            truncated: Whether the text was cut before the model came to its end. Then only a
                declared answer counts, and none that touches the cut.
        """


def check_limit(limit: int | None) -> None:
    """Refuse a limit that asks for no problem.

    Raises:
        TaskError: If ``limit`` is below 1.
    """
    if limit is not None and limit < 1:
        raise TaskError(f"at least 1 problem is needed, not {limit}")
