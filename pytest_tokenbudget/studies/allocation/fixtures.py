"""What an eval of allocation may ask for.

Imports stand in the fixtures: pytest loads this module when the first eval is collected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_tokenbudget.models.resolution import ModelSpec
    from pytest_tokenbudget.studies.allocation.analysis import AllocationReport
    from pytest_tokenbudget.studies.thinking.study import ThinkingStudy


@pytest.fixture(scope="session")
def allocation(
    model: ModelSpec, thinking_study: ThinkingStudy, _every_mode: None
) -> AllocationReport:
    """Which thinking budget the model gets in each mode, and ways to allocate that are better."""
    from pytest_tokenbudget.studies.allocation.analysis import analyse_allocation, attach_model

    attach_model(thinking_study, model)
    return analyse_allocation(thinking_study)
