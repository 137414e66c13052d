"""The answers that gates judge in studies whose budgets are cuts of their traces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_tokenbudget.core.answers import AnswersByBudget, study_answers
from pytest_tokenbudget.engines.planning import Kind

if TYPE_CHECKING:
    from pytest_tokenbudget.core.study import Study
    from pytest_tokenbudget.models.resolution import ModelSpec
    from pytest_tokenbudget.session import Session


def main_answers(session: Session, spec: ModelSpec, study: Study, mode: object) -> AnswersByBudget:
    """The answers of the study that most evals share."""
    return cut_answers(session, spec, study, Kind.MAIN)


def sample_answers(
    session: Session, spec: ModelSpec, study: Study, mode: object
) -> AnswersByBudget:
    """The answers of several samples a problem."""
    return cut_answers(session, spec, study, Kind.STOCHASTIC)


def cut_answers(session: Session, spec: ModelSpec, study: Study, kind: Kind) -> AnswersByBudget:
    """The answers of a study, with the largest budget that the model has room for."""
    usable = [b for b in session.budgets(spec, kind) if b not in study.left_out]
    return AnswersByBudget(max(usable, default=study.largest), {"": study_answers(study)})
