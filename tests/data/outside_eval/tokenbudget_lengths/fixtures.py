"""What a test of this eval can ask for."""

import pytest

from pytest_tokenbudget.collection.fixture_helpers import leave_out


@pytest.fixture(scope="session")
def answer_lengths(study):
    """The points of the study by limit."""
    from tokenbudget_lengths.analysis import analyse

    return {point.budget: point for point in analyse(study)}


@pytest.fixture
def length_limit(request, study):
    """The limit under test: the test runs once for each."""
    if request.param > study.reach:
        leave_out(request.param, study)
    return request.param
