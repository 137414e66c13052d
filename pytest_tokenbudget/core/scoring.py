"""From a cut to its outcome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from pytest_tokenbudget.core.trace import Cut, Outcome, StopReason
from pytest_tokenbudget.tasks.base import NO_ANSWER, AnswerVerdict, Task
from pytest_tokenbudget.tasks.problem import Problem

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class JudgedCut:
    """A cut with what it amounts to.

    Attributes:
        problem: What was asked.
        cut: The trace as it stands at a budget.
        outcome: What it amounts to.
        predicted: The answer that was found, None where there is none.
        branch: Which rule of the extractor found it.
    """

    problem: Problem
    cut: Cut
    outcome: Outcome
    predicted: str | None = None
    branch: str | None = None

    @property
    def correct(self) -> bool:
        return self.outcome is Outcome.CORRECT


def judge(task: Task, problem: Problem, cut: Cut) -> JudgedCut:
    """Decide the outcome of a cut.

    A truncated cut is right only where an answer was declared before the cut; otherwise it counts
    as truncated, never as wrong.
    """
    return judge_by(partial(task.judge_text, problem), problem, cut)


def judge_by(
    judge_text: Callable[[str, bool], AnswerVerdict], problem: Problem, cut: Cut
) -> JudgedCut:
    """Decide the outcome of a cut, whose answer a function judges.

    Args:
        judge_text: Takes the answer's text and whether it was cut.
        problem: What was asked.
        cut: The cut.
    """
    outcome, verdict = _decide(judge_text, cut)
    return JudgedCut(problem, cut, outcome, verdict.predicted, verdict.branch)


def _decide(
    judge_text: Callable[[str, bool], AnswerVerdict], cut: Cut
) -> tuple[Outcome, AnswerVerdict]:
    if cut.trace.stop_reason is StopReason.ERROR:
        return Outcome.ERROR, NO_ANSWER
    if cut.in_thinking:
        # A model that ends by itself without closing its thinking was not cut: it did not answer.
        return (Outcome.TRUNCATED_IN_THINKING if cut.truncated else Outcome.NO_ANSWER), NO_ANSWER
    if not cut.truncated and not cut.answer.strip():
        return Outcome.EMPTY, NO_ANSWER
    verdict = judge_text(cut.answer, cut.truncated)
    if verdict.correct:
        return Outcome.CORRECT, verdict
    if cut.truncated:
        return Outcome.TRUNCATED_IN_ANSWER, verdict
    return (Outcome.NO_ANSWER if verdict.predicted is None else Outcome.WRONG), verdict


def scores(judged: tuple[JudgedCut, ...]) -> NDArray[np.float64]:
    """1 for a right answer, 0 for any other, NaN where an error left nothing to judge."""
    import numpy as np

    return np.array([np.nan if j.outcome is Outcome.ERROR else float(j.correct) for j in judged])
