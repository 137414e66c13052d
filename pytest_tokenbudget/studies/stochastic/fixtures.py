"""What an eval of several samples a problem may ask for.

Imports stand in the fixtures: pytest loads this module when the first eval is collected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_tokenbudget.collection.fixture_helpers import fitting_budget, former_name, made_or_fail

if TYPE_CHECKING:
    from pytest_tokenbudget.core.study import Study
    from pytest_tokenbudget.models.resolution import ModelSpec
    from pytest_tokenbudget.session import Session
    from pytest_tokenbudget.studies.stochastic.analysis import Stochastic
    from pytest_tokenbudget.tasks.base import Task


@pytest.fixture(scope="session")
def stochastic_study(tokenbudget: Session, model: ModelSpec, task: Task) -> Study:
    """The same with several samples a problem: ``--samples`` at ``--sample-budgets``."""
    from pytest_tokenbudget.engines.planning import Kind

    return made_or_fail(lambda: tokenbudget.study(model, Kind.STOCHASTIC))


@pytest.fixture(scope="session")
def stochastic(stochastic_study: Study) -> Stochastic:
    """What several samples a problem say at the budgets of phase 1b."""
    from pytest_tokenbudget.studies.stochastic.analysis import analyse_stochastic

    return analyse_stochastic(stochastic_study)


@pytest.fixture
def sample_budget(request: pytest.FixtureRequest, stochastic_study: Study) -> int:
    """The budget under test; one run of the test for each of ``--sample-budgets``."""
    return fitting_budget(request.param, stochastic_study)


@pytest.fixture
def stochastic_gates(stochastic_study: object, gates: object) -> object:
    """The former name of ``gates`` in tests of this eval."""
    former_name("stochastic_gates", "gates")
    return gates
