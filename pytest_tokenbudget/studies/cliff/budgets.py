"""Budgets of the cliff, as the selected models have room for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_tokenbudget.engines.planning import Kind, SetupError

if TYPE_CHECKING:
    from pytest_tokenbudget.models.resolution import ModelSpec
    from pytest_tokenbudget.session import Session


def budgets_under_test(session: Session, spec: ModelSpec) -> tuple[int, ...]:
    """Budgets of the cliff that the model's context could have room for, or that are recorded.

    Raises:
        pytest.UsageError: If no study can be made of what was recorded.
    """
    if session.recordings is not None:
        from pytest_tokenbudget.core.cliff import cliff_budgets

        if not session.recordings.holds(spec, Kind.MAIN):
            return ()
        try:
            return cliff_budgets(session.study(spec))
        except SetupError as error:
            raise pytest.UsageError(str(error)) from None
    asked = session.settings_of(spec).cliff_budgets
    return tuple(b for b in asked if spec.context is None or b < spec.context)


def largest_budget(session: Session, spec: ModelSpec) -> int:
    """Output tokens that traces must reach to for the cliff; 0 if it has no budget."""
    return max(budgets_under_test(session, spec), default=0)
