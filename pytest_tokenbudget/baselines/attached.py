"""A study's comparison with a stored run, made once and kept with the study."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_tokenbudget.baselines.checks import BaselineGates
from pytest_tokenbudget.baselines.comparison import Comparison, compare_with
from pytest_tokenbudget.baselines.run import BaselineError, run_of
from pytest_tokenbudget.report.json_files import RunInfo

if TYPE_CHECKING:
    from pytest_tokenbudget.baselines.reading import Baseline
    from pytest_tokenbudget.baselines.values import Tolerance
    from pytest_tokenbudget.report.study import Study

_COMPARISON = "comparison with a baseline"
_GATES = "gates of that comparison"


def comparison_of(study: Study, baseline: Baseline) -> Comparison:
    """How a study differs from a stored run.

    Raises:
        BaselineError: If they cannot be compared.
    """
    from pytest_tokenbudget.report.reporter import versions

    def make() -> Comparison:
        return compare_with(baseline, run_of(study, RunInfo(versions=versions())))

    return study.once(_COMPARISON, make)


def attach_comparison(
    study: Study, baseline: Baseline, tolerances: Sequence[Tolerance] = (), confidence: float = 0.95
) -> None:
    """Keep with a study what its report says of the comparison; nothing where there is none."""
    # The tests that asked for it have failed with the reason.
    with suppress(BaselineError):
        comparison = comparison_of(study, baseline)
        study.once(_GATES, lambda: BaselineGates(tolerances, comparison, confidence))


def attached(study: Study) -> BaselineGates | None:
    """What was attached to a study, None where nothing was."""
    return study.once(_GATES, lambda: None)
