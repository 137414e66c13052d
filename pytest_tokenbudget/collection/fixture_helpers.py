"""What fixtures of several evals do alike: make a study, choose a mode, leave out a budget.

A study that cannot be made fails the test with one sentence; one that the model cannot have skips
it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn, TypeVar

import pytest

if TYPE_CHECKING:
    from pytest_tokenbudget.core.study import Study
    from pytest_tokenbudget.models.resolution import ModelSpec
    from pytest_tokenbudget.session import Session

Made = TypeVar("Made")


def made_or_fail(make: Callable[[], Made]) -> Made:
    """What a function makes; else the test is skipped if the model cannot have it, or fails."""
    # Not hidden: pytest would speak of hidden entries where it has none to show.
    from pytest_tokenbudget.engines.planning import NotApplicableError, SetupError

    try:
        return make()
    except NotApplicableError as error:
        pytest.skip(str(error))
    except SetupError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None


def mode_under_test(session: Session, spec: ModelSpec, name: object) -> object:
    """The mode of thinking that a test runs for; it is skipped if the model has no such mode."""
    from pytest_tokenbudget import registry

    modes = registry.modes()
    if not isinstance(name, str) or modes is None:
        raise pytest.fail.Exception(
            f"the fixture 'mode' cannot be given {name!r}: name modes with --modes, and let a "
            "test function ask for 'mode' among its arguments",
            pytrace=False,
        )
    return made_or_fail(lambda: modes.mode_for(session, spec, name))


def former_name(old: str, new: str) -> None:
    """Warn that a fixture has another name now."""
    warnings.warn(f"the fixture {old!r} is called {new!r} now", DeprecationWarning, stacklevel=2)


def fitting_budget(budget: int, study: Study) -> int:
    """A budget under test. Its test is skipped if the model's context has no room for it."""
    if budget in study.left_out:
        leave_out(budget, study)
    return budget


def leave_out(budget: int, study: Study) -> NoReturn:
    """Skip the test of a budget for which the model's context has no room."""
    pytest.skip(f"budget {budget:,} is left out: {study.alias}'s context has no room for it")
