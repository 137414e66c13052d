"""What an eval of thinking may ask for.

Imports stand in the fixtures: pytest loads this module when the first eval is collected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from pytest_tokenbudget.collection.fixture_helpers import former_name, made_or_fail, mode_under_test

if TYPE_CHECKING:
    from pytest_tokenbudget.models.resolution import ModelSpec
    from pytest_tokenbudget.session import Session
    from pytest_tokenbudget.studies.thinking.analysis import ThinkingReport
    from pytest_tokenbudget.studies.thinking.modes import ThinkingMode
    from pytest_tokenbudget.studies.thinking.study import ThinkingStudy
    from pytest_tokenbudget.tasks.base import Task


@pytest.fixture(scope="session")
def mode(
    request: pytest.FixtureRequest, tokenbudget: Session, model: ModelSpec, task: Task
) -> ThinkingMode:
    """The mode under test: its name, switch and thinking budget; one run for each of ``--modes``.

    ``study`` and all that is built on it are then the answers in that mode. Modes that the model
    does not have are skipped.
    """
    chosen = mode_under_test(tokenbudget, model, getattr(request, "param", None))
    return cast("ThinkingMode", chosen)


@pytest.fixture(scope="session")
def thinking_study(tokenbudget: Session, model: ModelSpec, task: Task) -> ThinkingStudy:
    """What the model does with its thinking: cut, ended by force, left alone, switched off.

    Tests of models that are not known to think are skipped.
    """
    from pytest_tokenbudget.studies.thinking.run import thinking_study_of

    return made_or_fail(lambda: thinking_study_of(tokenbudget, model))


@pytest.fixture(scope="session")
def _every_mode() -> None:
    """A test that asks for this needs the answers in every mode."""


@pytest.fixture(scope="session")
def thinking(thinking_study: ThinkingStudy) -> ThinkingReport:
    """What that amounts to: points, where answers settle, recommended limits."""
    from pytest_tokenbudget.studies.thinking.analysis import analyse_thinking

    return analyse_thinking(thinking_study)


@pytest.fixture
def thinking_budget(request: pytest.FixtureRequest, thinking_study: ThinkingStudy) -> int:
    """The thinking budget under test; one run of the test for each of ``--thinking-budgets``."""
    asked: int = request.param
    if asked not in thinking_study.budgets:
        pytest.skip(
            f"thinking budget {asked:,} is left out: {thinking_study.alias}'s context has no room "
            f"for it and an answer of {thinking_study.forcing.answer_tokens:,} tokens"
        )
    return asked


@pytest.fixture
def thinking_gates(thinking_study: object, gates: object) -> object:
    """The former name of ``gates`` in tests of this eval."""
    former_name("thinking_gates", "gates")
    return gates
