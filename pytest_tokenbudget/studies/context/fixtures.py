"""What an eval of context truncation may ask for.

Imports stand in the fixtures: pytest loads this module when the first eval is collected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_tokenbudget.collection.fixture_helpers import made_or_fail

if TYPE_CHECKING:
    from pytest_tokenbudget.models.resolution import ModelSpec
    from pytest_tokenbudget.session import Session
    from pytest_tokenbudget.studies.context.analysis import ContextReport
    from pytest_tokenbudget.studies.context.study import ContextStudy
    from pytest_tokenbudget.tasks.base import Task


@pytest.fixture(scope="session")
def context_study(tokenbudget: Session, model: ModelSpec, task: Task) -> ContextStudy:
    """Conversations posed whole and truncated, and the model's answers.

    What was recorded cannot be posed again: its tests are skipped.
    """
    from pytest_tokenbudget.studies.context.run import context_study_of

    return made_or_fail(lambda: context_study_of(tokenbudget, model))


@pytest.fixture(scope="session")
def context(context_study: ContextStudy) -> ContextReport:
    """What that amounts to: a point for each arm, strategy and limit, and what is recommended.

    Fails where no conversation has all its answers.
    """
    __tracebackhide__ = True
    from pytest_tokenbudget.studies.context.analysis import analyse_context

    try:
        return analyse_context(context_study)
    except ValueError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None


@pytest.fixture
def context_arm(request: pytest.FixtureRequest, context_study: ContextStudy) -> str:
    """What the conversations ask for: ``recall``, ``multi-hop`` or, unless it is one, ``task``."""
    arm: str = request.param
    if all(each.arm != arm for each in context_study.cases):
        pytest.skip(
            f"no conversation of {arm} fits: {context_study.alias} has room for "
            f"{context_study.context_plan.room:,} tokens of a prompt"
        )
    return arm


@pytest.fixture
def truncation(request: pytest.FixtureRequest) -> str:
    """The truncation strategy under test; one run of the test for each of ``--truncation``."""
    name: str = request.param
    return name


@pytest.fixture
def context_limit(request: pytest.FixtureRequest) -> str:
    """The context limit under test; one run of the test for each of ``--context-limits``.

    The whole conversation, ``100%``, is always among them.
    """
    limit: str = request.param
    return limit
