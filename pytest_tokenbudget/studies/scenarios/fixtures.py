"""What an eval of scenarios may ask for.

Imports stand in the fixtures: pytest loads this module when the first eval is collected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_tokenbudget.core.study import Study
    from pytest_tokenbudget.session import Session
    from pytest_tokenbudget.studies.scenarios.analysis import ScenarioReport


@pytest.fixture(scope="session")
def scenarios(tokenbudget: Session, study: Study) -> ScenarioReport:
    """Answers, tokens needed and limits by game, framing and category.

    Tests of tasks whose problems are all of one kind are skipped.
    """
    from pytest_tokenbudget.studies.scenarios.analysis import NoScenariosError, analyse_scenarios

    settings = tokenbudget.settings
    try:
        return analyse_scenarios(study, settings.target_truncation, settings.generation_config)
    except NoScenariosError as error:
        pytest.skip(str(error))
