"""The structure of the solutions of a study: segments, what fits within budgets, verification."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pytest_tokenbudget.core.cliff import cliff_budgets, study_cliff
from pytest_tokenbudget.core.scoring import JudgedCut, scores
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.core.trace import Cut, Outcome, StopReason, Trace, split_thinking
from pytest_tokenbudget.stats.intervals import Estimate, mean_estimate
from pytest_tokenbudget.stats.points import ByBudget
from pytest_tokenbudget.studies.structure.rules import KINDS, RULES, SegmentKind
from pytest_tokenbudget.studies.structure.segments import Structure, totals, trace_structure
from pytest_tokenbudget.studies.structure.statistics import (
    KindsByPlace,
    StructurePoint,
    along,
    structure_point,
)

PART_NAMES = ("thinking", *(kind.value for kind in KINDS))


@dataclass(frozen=True)
class TraceStructure:
    """One trace at the largest budget, with its structure.

    Attributes:
        judged: The trace, whole and judged.
        structure: Its segments.
    """

    judged: JudgedCut
    structure: Structure


@dataclass(frozen=True)
class StructureStudy(ByBudget[StructurePoint]):
    """What solutions consist of, which parts fit within a budget, and what verification goes with.

    Attributes:
        rules: Version of the rules that made the segments.
        points: One for each budget, rising; those of the cliff are among them.
        traces: All traces that did not end in an error.
        tokens: Mean tokens a trace for each kind, and for "thinking".
        counts: Sums over traces: segments, operations, equations, loops.
        steps: Mean number of computation steps.
        along: What tokens are doing, by their place.
        cliff: The budgets between which accuracy rises most steeply; None where that is not known.
    """

    rules: str
    WHAT = "the structure"

    points: tuple[StructurePoint, ...]
    traces: tuple[TraceStructure, ...]
    tokens: Mapping[str, Estimate]
    counts: Mapping[str, int]
    steps: Estimate
    along: KindsByPlace
    cliff: tuple[int, int] | None

    def mean_tokens(self) -> str:
        """The mean tokens of each part in words; parts that nothing has are left out."""
        means = ((name, self.tokens[name].value) for name in PART_NAMES)
        parts = [f"{name} {mean:.1f}" for name, mean in means if mean > 0]
        return f"mean tokens: {', '.join(parts)}"


def analyse_structure(study: Study) -> StructureStudy:
    """The structure of all traces; computed once a study.

    Raises:
        ValueError: If no problem has all its traces.
    """
    return study.cached(_analyse, study)


def structure_of(trace: Trace, study: Study) -> Structure:
    """The structure of one trace, thinking and answer apart."""
    thinking_end = 0
    if study.thinking is not None:
        _, answer, open_at_end = split_thinking(trace, trace.text, study.thinking)
        # Blank text after an open block is no answer. The text does not depend on token counts.
        thinking_end = len(trace.text) if open_at_end else len(trace.text) - len(answer)
    return trace_structure(
        trace.text,
        trace.offsets,
        trace.output_ids,
        ended=trace.stop_reason in (StopReason.EOS, StopReason.STOP),
        thinking_end=thinking_end,
        tags=() if study.thinking is None else (study.thinking.open, study.thinking.close),
    )


def _analyse(study: Study) -> StructureStudy:
    if not study.complete:
        raise ValueError(
            f"no problem of {study.task.name} has all its traces of {study.alias}: there is "
            "nothing to analyse"
        )
    shape = (len(study.complete), study.samples)
    known: dict[int, Structure] = {}

    def structures(judged: Sequence[JudgedCut]) -> list[Structure]:
        # Independent recorded runs have other traces at each budget; cuts share theirs.
        for j in judged:
            if id(j.cut.trace) not in known:
                known[id(j.cut.trace)] = structure_of(j.cut.trace, study)
        return [known[id(j.cut.trace)] for j in judged]

    def rows(flat: list[Structure]) -> list[list[Structure]]:
        return [flat[i : i + study.samples] for i in range(0, len(flat), study.samples)]

    points = []
    whole = study.judged(study.largest)
    for budget in _budgets(study):
        judged = study.judged(budget)
        uncut = judged if budget > study.largest or _independent(study) else whole
        used = [_tokens_of(j.cut, w.cut.trace) for j, w in zip(judged, uncut, strict=True)]
        points.append(
            structure_point(
                budget,
                rows(structures(uncut)),
                np.array(used, dtype=np.int64).reshape(shape),
                scores(judged).reshape(shape),
                [problem.category for problem in study.complete],
            )
        )
    flat = structures(whole)
    failed = np.array([j.outcome is Outcome.ERROR for j in whole])
    good = [
        TraceStructure(judged, one)
        for judged, one in zip(whole, flat, strict=True)
        if judged.outcome is not Outcome.ERROR
    ]

    def mean(values: list[float]) -> Estimate:
        return mean_estimate(np.where(failed, np.nan, np.array(values)).reshape(shape))

    tokens = {kind.value: mean([float(s.tokens_of(kind)) for s in flat]) for kind in KINDS}
    tokens["thinking"] = mean([float(sum(s.tokens[: s.thinking])) for s in flat])
    for kind in SegmentKind:
        tokens[f"thinking_{kind.value}"] = mean([float(s.tokens_of(kind, True)) for s in flat])
    kept = [one.structure for one in good]
    return StructureStudy(
        RULES,
        tuple(points),
        tuple(good),
        tokens,
        totals(kept),
        mean([float(s.steps) for s in flat]),
        along(kept),
        _cliff(study),
    )


def _budgets(study: Study) -> list[int]:
    budgets = set(study.budgets)
    if study.by_token_available:
        budgets.update(study.usable(cliff_budgets(study)))
    return sorted(budgets)


def _independent(study: Study) -> bool:
    """Whether the budgets are recorded runs of their own, none a cut of another."""
    runs = getattr(study, "runs", None)
    return getattr(runs, "name", "") == "INDEPENDENT"


def _tokens_of(cut: Cut, whole: Trace) -> int:
    """How many tokens of the whole trace stand within a cut of it.

    A recorded cut is a text of its own, and counted on its own: it is found in the whole by its
    characters.
    """
    if cut.trace is whole:
        return min(cut.tokens_used, len(whole.output_ids))
    return bisect_right(whole.offsets, len(cut.text)) if cut.truncated else len(whole.output_ids)


def _cliff(study: Study) -> tuple[int, int] | None:
    """The steepest window, where accuracy is known at every token."""
    if not study.by_token_available or not cliff_budgets(study):
        return None
    steepest = study_cliff(study).steepest
    return None if steepest is None else (steepest.low, steepest.high)
