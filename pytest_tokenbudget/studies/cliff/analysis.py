"""The cliff of a study: between budgets, and token by token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_tokenbudget.core.cliff import cliff_budgets, correct_at, study_cliff
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.core.trace import Outcome
from pytest_tokenbudget.stats.points import ByBudget

if TYPE_CHECKING:
    from pytest_tokenbudget.core.cliff import BudgetStep, Cliff
    from pytest_tokenbudget.stats.intervals import Estimate
    from pytest_tokenbudget.studies.cliff.answer_place import AnswerPlace


@dataclass(frozen=True)
class CliffPoint:
    """One budget of the cliff.

    Attributes:
        budget: The budget.
        accuracy: Accuracy there.
        step: From the budget before to this one; None at the smallest.
    """

    budget: int
    accuracy: Estimate
    step: BudgetStep | None


@dataclass(frozen=True)
class CliffStudy(ByBudget[CliffPoint]):
    """Where accuracy rises most steeply: between budgets, and token by token.

    Attributes:
        points: One for each budget, rising.
        cliff: What is known from these budgets.
        answers: Where in the output answers come, from every token; None where only answers at
            some budgets are known.
    """

    WHAT = "the cliff"

    points: tuple[CliffPoint, ...]
    cliff: Cliff
    answers: AnswerPlace | None


def analyse_cliff(study: Study) -> CliffStudy:
    """Where accuracy rises most steeply; computed once a study.

    Raises:
        ValueError: If no problem has all its traces, or no budget of the cliff is within reach.
    """
    study = study.cliff_study
    return study.once(_analyse, study, cliff_budgets(study))


def _analyse(study: Study, budgets: tuple[int, ...]) -> CliffStudy:
    import numpy as np

    from pytest_tokenbudget.stats.intervals import clustered_rate
    from pytest_tokenbudget.studies.cliff.answer_place import find_answers

    cliff, correct = study_cliff(study), correct_at(study, budgets)
    width = round((budgets[-1] - budgets[0]) / max(1, len(budgets) - 1)) or budgets[0]
    points = tuple(
        CliffPoint(
            budget,
            clustered_rate(correct[:, :, index]),
            cliff.at(budget) if len(budgets) > 1 else None,
        )
        for index, budget in enumerate(budgets)
    )
    answers = None
    if study.by_token_available:
        right = study.correct_by_token()[1]
        fine = [j.outcome is not Outcome.ERROR for j in study.judged(study.largest)]
        answers = find_answers(
            right.reshape(*correct.shape[:2], -1),
            width,
            np.array(fine, dtype=bool).reshape(correct.shape[:2]),
        )
    return CliffStudy(points, cliff, answers)
