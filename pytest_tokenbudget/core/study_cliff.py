"""The cliff of a study: the budgets it is looked for between, and where it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_tokenbudget.common.text_layout import plural
from pytest_tokenbudget.core.scoring import scores
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.settings.options import DEFAULT_CLIFF_BUDGETS

if TYPE_CHECKING:
    from pytest_tokenbudget.core.cliff import Cliff
    from pytest_tokenbudget.stats.intervals import Floats


def cliff_budgets(study: Study) -> tuple[int, ...]:
    """Budgets between which the cliff is looked for: of those asked for, what traces reach to.

    Where recorded runs know too few of these for a cliff, all that were recorded take their place.
    """
    study = study.cliff_study
    asked = study.cliff_budgets or DEFAULT_CLIFF_BUDGETS
    known = study.usable(asked)
    return study.budgets if study.source is not None and len(known) < 3 else known


def out_of_reach(study: Study) -> str:
    return f"traces reach to {plural(study.reach, 'token')}, below the smallest budget of the cliff"


def correct_at(study: Study, budgets: tuple[int, ...]) -> Floats:
    """Whether answers are right, problems x samples x budgets; NaN where an error left none."""
    import numpy as np

    shape = (len(study.complete), study.samples)
    return np.stack([scores(study.judged(b)).reshape(shape) for b in budgets], axis=2)


def study_cliff(study: Study) -> Cliff:
    """Where accuracy rises most steeply between budgets; computed once a study.

    Raises:
        ValueError: If no problem has all its traces, or no budget of the cliff is within reach.
    """
    study = study.cliff_study
    return study.once(_find, study, cliff_budgets(study))


def _find(study: Study, budgets: tuple[int, ...]) -> Cliff:
    from pytest_tokenbudget.core.cliff import find_cliff

    if not study.complete:
        raise ValueError(
            f"no problem of {study.task.name} has all its traces of {study.alias} to "
            f"{study.reach} tokens: there is nothing to analyse"
        )
    if not budgets:
        raise ValueError(f"{study.alias}: {out_of_reach(study)}")
    return find_cliff(budgets, correct_at(study, budgets))
