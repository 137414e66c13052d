"""What an eval about stored runs may ask for.

Imports stand in the fixtures: pytest loads this module when the first eval is collected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_tokenbudget.baselines.checks import BaselineGates
    from pytest_tokenbudget.baselines.comparison import BaselineComparison
    from pytest_tokenbudget.core.study import Study
    from pytest_tokenbudget.session import Session


@pytest.fixture(scope="session")
def compared(tokenbudget: Session, study: Study) -> BaselineComparison:
    """The study against the stored run that ``--tokenbudget-compare`` names.

    Its tests are skipped where nothing is named, and fail where the two cannot be compared.
    """
    __tracebackhide__ = True
    from pytest_tokenbudget.baselines.run import BaselineError
    from pytest_tokenbudget.baselines.session import baseline_of, comparison_of

    baseline = baseline_of(tokenbudget)
    if baseline is None:
        pytest.skip("no --tokenbudget-compare was given")
    try:
        return comparison_of(study, baseline)
    except BaselineError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None


@pytest.fixture(scope="session")
def baseline_gates(
    tokenbudget: Session, study: Study, compared: BaselineComparison
) -> BaselineGates:
    """What ``--tokenbudget-compare-fail`` tolerates."""
    from pytest_tokenbudget.baselines.session import gates_of

    return gates_of(tokenbudget, study)
