"""A study's comparison with a stored run, made once and kept with the study."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_tokenbudget.baselines.checks import BaselineGates
from pytest_tokenbudget.baselines.comparison import BaselineComparison, compare_with
from pytest_tokenbudget.baselines.run import BaselineError, run_of
from pytest_tokenbudget.baselines.session import baseline_of
from pytest_tokenbudget.engines.planning import Kind
from pytest_tokenbudget.report.json_files import RunInfo

if TYPE_CHECKING:
    from pytest_tokenbudget.baselines.reading import Baseline
    from pytest_tokenbudget.core.study import Study
    from pytest_tokenbudget.models.resolution import ModelSpec
    from pytest_tokenbudget.session import Session

_GATES = "gates of the comparison with a stored run"


def comparison_of(study: Study, baseline: Baseline) -> BaselineComparison:
    """How a study differs from a stored run.

    Raises:
        BaselineError: If they cannot be compared.
    """
    return study.cached(_compared, study, baseline)


def _compared(study: Study, baseline: Baseline) -> BaselineComparison:
    from pytest_tokenbudget.report.json_files import versions

    return compare_with(baseline, run_of(study, RunInfo(versions=versions())))


def gates_of(session: Session, study: Study) -> BaselineGates:
    """What a run tolerates, as it applies to a study.

    Raises:
        BaselineError: If the study cannot be compared.
    """
    baseline, settings = baseline_of(session), session.settings
    assert baseline is not None  # the fixture ``compared`` comes first
    comparison = comparison_of(study, baseline)
    spec = next((spec for spec in session.specs if spec.alias == study.alias), None)
    # Not only those of the selected tests: -k does not change what a tolerance is for.
    asked = session.budgets(spec, Kind.MAIN) if spec else comparison.budgets
    both = (b for b in asked if b in comparison.before.budgets and b not in study.left_out)
    return BaselineGates(
        settings.compare_fail, comparison, settings.gate_confidence, max(both, default=None)
    )


def attach(session: Session, spec: ModelSpec, study: Study) -> None:
    """Keep with a study of phase 1 how it differs from the stored run, for its report."""
    if baseline_of(session) is not None:
        # The tests that asked for it have failed with the reason.
        with suppress(BaselineError):
            study.set_fact(_GATES, gates_of(session, study))


def attached(study: Study) -> BaselineGates | None:
    """What was attached to a study, None where nothing was."""
    gates = study.fact(_GATES)
    return gates if isinstance(gates, BaselineGates) else None
