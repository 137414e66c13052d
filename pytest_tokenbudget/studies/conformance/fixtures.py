"""What an eval of an engine may ask for.

Imports stand in the fixtures: pytest loads this module when the first eval is collected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_tokenbudget.collection.fixture_helpers import former_name

if TYPE_CHECKING:
    from pytest_tokenbudget.models.resolution import ModelSpec
    from pytest_tokenbudget.session import Session
    from pytest_tokenbudget.studies.conformance.run import Conformance


@pytest.fixture(scope="session")
def conformance(
    request: pytest.FixtureRequest,
    tokenbudget: Session,
    model: ModelSpec,
    tmp_path_factory: pytest.TempPathFactory,
) -> Conformance:
    """Probes of the limits and thinking budgets of the model's engine, each made once.

    What was recorded cannot be probed: its tests are skipped.
    """
    if tokenbudget.recordings is not None:
        pytest.skip("what was recorded cannot be probed: name the model or its server")
    from pytest_tokenbudget.common import xdist
    from pytest_tokenbudget.report.item_hooks import progress_shown
    from pytest_tokenbudget.studies.conformance.run import Conformance, selected_probes

    base = tmp_path_factory.getbasetemp()
    return Conformance(
        tokenbudget,
        model,
        (base.parent if xdist.worker_id() else base) / "tokenbudget",
        selected_probes(request.session.items, model),
        lambda: progress_shown(request.config),
    )


@pytest.fixture
def conformance_gates(gates: object) -> object:
    """The former name of ``gates`` in tests of this eval."""
    former_name("conformance_gates", "gates")
    return gates
