"""What an eval of phase 1 may ask for.

Imports stand in the fixtures: pytest loads this module when the first eval is collected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_tokenbudget.core.saturation import Saturation
    from pytest_tokenbudget.core.study import Study


@pytest.fixture(scope="session")
def saturation(study: Study) -> Saturation:
    """The smallest budget that is not worse than the largest, with its evidence."""
    return study.saturation
