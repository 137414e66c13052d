"""Sizes of the benchmarks; the plugin's own options change them.

``--num-samples 4 --budgets 16,32`` shrinks all of them to a check that they run. Without it, the
sizes are those of the expectations in docs/benchmarks.md, which are then asserted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import pytest

from pytest_tokenbudget.pytest_session.activation import activate
from pytest_tokenbudget.settings.options import Settings

GSM8K_SIZE = 1319

# pytest-benchmark's fixture is typed in part only.
Benchmark: TypeAlias = Any


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        settings: The plugin's options.
        judged: Whether the sizes are the default ones, so that expectations hold.
    """

    settings: Settings
    judged: bool

    def problems(self, default: int) -> int:
        """Problems to use: ``--num-samples``, else ``default``."""
        return self.settings.num_samples or default


@pytest.fixture(scope="session")
def sizes(pytestconfig: pytest.Config) -> Sizes:
    """How much is measured."""
    settings = activate(pytestconfig).settings
    return Sizes(settings, not settings.explicit & {"num_samples", "stage", "budgets"})
