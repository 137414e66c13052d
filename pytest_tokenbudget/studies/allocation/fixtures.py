"""What an eval of allocation may ask for.

Imports stand in the fixtures: pytest loads this module when the first eval is collected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_tokenbudget.models.resolution import ModelSpec
    from pytest_tokenbudget.session import Session
    from pytest_tokenbudget.studies.allocation.analysis import AllocationReport
    from pytest_tokenbudget.studies.thinking.study import ThinkingStudy


@pytest.fixture(scope="session")
def allocation(
    tokenbudget: Session, model: ModelSpec, thinking_study: ThinkingStudy, _every_mode: None
) -> AllocationReport:
    """Which thinking budget the model gets in each mode, and ways to allocate that are better."""
    from pytest_tokenbudget.studies.allocation.analysis import analyse_allocation, attach_model

    attach_model(tokenbudget, model, thinking_study)
    return analyse_allocation(thinking_study)
