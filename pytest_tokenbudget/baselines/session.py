"""Baselines in a session: found and checked before anything is loaded, saved at its end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_tokenbudget.baselines.checks import BaselineGates
from pytest_tokenbudget.baselines.comparison import BaselineComparison, check_alike, compare_with
from pytest_tokenbudget.baselines.reading import Baseline
from pytest_tokenbudget.baselines.run import BaselineError, record_of, run_of
from pytest_tokenbudget.baselines.storage import find_baseline, save_baseline
from pytest_tokenbudget.common.text_layout import plural
from pytest_tokenbudget.engines.planning import Kind
from pytest_tokenbudget.report.json_files import RunInfo

if TYPE_CHECKING:
    from pytest_tokenbudget.baselines.reading import Baseline
    from pytest_tokenbudget.core.study import Study
    from pytest_tokenbudget.models.resolution import ModelSpec
    from pytest_tokenbudget.report.json_files import RunInfo
    from pytest_tokenbudget.session import Session
    from pytest_tokenbudget.settings.options import Settings


def chosen_baseline(settings: Settings) -> Baseline | None:
    """What ``--tokenbudget-compare`` names, None where it names nothing.

    Raises:
        pytest.UsageError: If there is no such thing, or it cannot be read.
    """
    if settings.compare is None:
        return None
    try:
        return find_baseline(settings.compare, settings.storage)
    except BaselineError as error:
        raise pytest.UsageError(f"--tokenbudget-compare: {error}") from None


def baseline_of(session: Session) -> Baseline | None:
    """The stored runs that ``--tokenbudget-compare`` names, None where it names nothing.

    Raises:
        pytest.UsageError: If there are none, or they cannot be read.
    """
    return session.cached(("", "baseline"), lambda: chosen_baseline(session.settings))


def has_baseline(session: Session) -> bool:
    """Whether there is a stored run to compare with."""
    return session.settings.compare is not None


def check_baseline(session: Session) -> None:
    """See to it that every model can be compared, as far as that is known before the run.

    Raises:
        pytest.UsageError: If one cannot, or a tolerance can never be judged.
    """
    settings = session.settings
    if not settings.explicit & {"compare", "compare_fail"}:
        return
    baseline = baseline_of(session)
    if baseline is None:
        if settings.compare_fail:
            raise pytest.UsageError(
                f"--tokenbudget-compare-fail: {settings.compare_fail[0]} has nothing to compare "
                "with; name a saved run with --tokenbudget-compare NAME|PATH|latest"
            )
        return
    for spec in session.specs:
        try:
            run = baseline.run_for(spec.alias)
            if session.recordings is None:
                check_alike(run, session.task.name, session.task.extractor, baseline.label)
        except BaselineError as error:
            raise pytest.UsageError(f"--tokenbudget-compare: {error}") from None
        _check_budgets(session, baseline, session.budgets(spec, Kind.MAIN), run.budgets)


def _check_budgets(
    session: Session, baseline: Baseline, run_budgets: Sequence[int], stored_budgets: Sequence[int]
) -> None:
    both = sorted(set(run_budgets) & set(stored_budgets))
    if not both:
        ours, theirs = (", ".join(map(str, budgets)) for budgets in (run_budgets, stored_budgets))
        raise pytest.UsageError(
            f"--tokenbudget-compare: {baseline.label} has the budgets {theirs} and this run has "
            f"{ours}: none in common; choose with --budgets"
        )
    for tolerance in session.settings.compare_fail:
        if tolerance.budget is not None and tolerance.budget not in both:
            close = min(both, key=lambda b: abs(b - (tolerance.budget or 0)))
            raise pytest.UsageError(
                f"--tokenbudget-compare-fail: {str(tolerance)!r} names budget {tolerance.budget}, "
                f"which this run and {baseline.label} do not both have; the nearest that they have "
                f"is {close}"
            )


def save(
    settings: Settings, studies: Iterable[tuple[object, RunInfo]], repository: Path
) -> Path | None:
    """Save what a run measured, where ``--tokenbudget-save`` asks for it.

    Returns:
        The file; None where nothing was asked for.

    Raises:
        BaselineError: If there is nothing that can be saved.
        OSError: If it cannot be written.
    """
    from pytest_tokenbudget.core.study import Study

    if settings.save is None:
        return None
    main = [(s, run) for s, run in studies if isinstance(s, Study) and s.kind == Kind.MAIN]
    if not main:
        raise BaselineError(f"not saved as {settings.save}: no selected test is of -m phase1")
    for study, run in main:
        _check_whole(study, run, settings.save)
    return save_baseline(
        settings.storage, settings.save, [record_of(*each) for each in main], repository
    )


def _check_whole(study: Study, run: RunInfo, name: str) -> None:
    # What was recorded cannot be completed: it is what it is.
    lacks = (
        "the run was interrupted"
        if not run.complete
        else f"{plural(study.missing, 'problem')} of {study.alias} without all traces"
        if study.missing and study.source is None
        else f"{plural(len(study.errors), 'trace')} of {study.alias} ended in an error"
        if study.errors and study.source is None
        else f"there is no answer of {study.alias}"
        if not study.scored
        else ""
    )
    if lacks:
        raise BaselineError(f"not saved as {name}: {lacks}; the same command goes on")


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
