"""What an eval of the cliff may ask for.

Imports stand in the fixtures: pytest loads this module when the first eval is collected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_tokenbudget.collection.fixture_helpers import leave_out

if TYPE_CHECKING:
    from pytest_tokenbudget.core.study import Study
    from pytest_tokenbudget.studies.cliff.analysis import CliffStudy


@pytest.fixture(scope="session")
def cliff(study: Study) -> CliffStudy:
    """Where accuracy rises most steeply, with its evidence."""
    from pytest_tokenbudget.studies.cliff.analysis import analyse_cliff

    return analyse_cliff(study)


@pytest.fixture
def cliff_budget(request: pytest.FixtureRequest, study: Study) -> int:
    """The budget under test; one run of the test for each of ``--cliff-budgets``."""
    value: int = request.param
    if value > study.cliff_study.reach:
        leave_out(value, study)
    return value
