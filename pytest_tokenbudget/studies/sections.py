"""What a run reports: one section an eval, each from one kind of study.

Conformance and tokenizers have no study: their reports are put together from what their tests
recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_tokenbudget.engines.planning import Kind
from pytest_tokenbudget.report.json_files import RunInfo

# Of a study, a thinking study or a conformance report, as the section's kind is.
Write = Callable[[Any, RunInfo, Path], list[Path]]
Lines = Callable[[Any, RunInfo, int], list[str]]


@dataclass(frozen=True)
class Section:
    """One part of the report.

    Attributes:
        fixture: It is reported where a test asked for this fixture of
            ``fixtures.REPORTED``; "" is always.
        kind: The kind of study or report that it is made from.
        write: Writes its files below a directory and says which.
        lines: What it shows on a terminal of so many columns.
    """

    fixture: str
    kind: str
    write: Write
    lines: Lines


def sections() -> tuple[Section, ...]:
    """All sections, in the order in which they are shown."""
    from pytest_tokenbudget.baselines import report as compare
    from pytest_tokenbudget.studies.allocation import report as allocation
    from pytest_tokenbudget.studies.cliff import report as cliff
    from pytest_tokenbudget.studies.conformance import analysis as conformance_study
    from pytest_tokenbudget.studies.conformance import report as conformance
    from pytest_tokenbudget.studies.context import report as context
    from pytest_tokenbudget.studies.errors import report as errors
    from pytest_tokenbudget.studies.saturation import report as saturation
    from pytest_tokenbudget.studies.scenarios import report as scenarios
    from pytest_tokenbudget.studies.stochastic import report as stochastic
    from pytest_tokenbudget.studies.structure import report as structure
    from pytest_tokenbudget.studies.thinking import report as thinking
    from pytest_tokenbudget.studies.tokenizers import analysis as tokenizers_study
    from pytest_tokenbudget.studies.tokenizers import report as tokenizers

    return (
        Section("", Kind.MAIN, saturation.write_saturation, saturation.saturation_lines),
        Section("compared", Kind.MAIN, compare.write_compared, compare.compared_lines),
        Section(
            "stochastic",
            Kind.STOCHASTIC,
            stochastic.write_stochastic,
            stochastic.stochastic_lines,
        ),
        Section("errors", Kind.MAIN, errors.write_errors, errors.errors_lines),
        Section("cliff", Kind.MAIN, cliff.write_cliff, cliff.cliff_lines),
        Section("structure", Kind.MAIN, structure.write_structure, structure.structure_lines),
        Section("scenarios", Kind.MAIN, scenarios.write_scenarios, scenarios.scenarios_lines),
        Section("thinking", Kind.THINKING, thinking.write_thinking, thinking.thinking_lines),
        Section(
            "allocation",
            Kind.THINKING,
            allocation.write_allocation,
            allocation.allocation_lines,
        ),
        Section("context", Kind.CONTEXT, context.write_context, context.context_lines),
        Section(
            "conformance",
            conformance_study.KIND,
            conformance.write_conformance,
            conformance.conformance_lines,
        ),
        Section(
            "tokenizers",
            tokenizers_study.KIND,
            tokenizers.write_tokenizers,
            tokenizers.tokenizers_lines,
        ),
    )
