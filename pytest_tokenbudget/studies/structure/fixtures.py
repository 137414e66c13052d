"""What an eval of the structure of solutions may ask for.

Imports stand in the fixtures: pytest loads this module when the first eval is collected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_tokenbudget.core.study import Study
    from pytest_tokenbudget.studies.structure.analysis import StructureStudy


@pytest.fixture(scope="session")
def structure(study: Study) -> StructureStudy:
    """What solutions consist of, and which parts fit within each budget."""
    from pytest_tokenbudget.studies.structure.analysis import analyse_structure

    return analyse_structure(study)
