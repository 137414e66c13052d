"""Phase 3, structure: from a study to its analysis, result files and lines on the terminal."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_tokenbudget.common.style import MAX_WIDTH, columns, count, percent, plural, wrapped
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.core.trace import Cut, Outcome, Trace
from pytest_tokenbudget.report.files import to_plain, to_record, write_json
from pytest_tokenbudget.report.json_files import RunInfo, file_stem, header
from pytest_tokenbudget.stats.points import ByBudget
from pytest_tokenbudget.studies.cliff.report import analyse_cliff, cliff_budgets

if TYPE_CHECKING:
    from pytest_tokenbudget.core.scoring import Judged
    from pytest_tokenbudget.stats.intervals import Estimate
    from pytest_tokenbudget.studies.structure.segments import Structure
    from pytest_tokenbudget.studies.structure.statistics import Along, Fit, StructurePoint

SCHEMA = "tokenbudget-phase3-structure/1"
_PARTS = ("thinking", "setup", "computation", "verification", "answer", "other")


@dataclass(frozen=True)
class TraceStructure:
    """One trace at the largest budget, with its structure.

    Attributes:
        judged: The trace, whole and judged.
        structure: Its segments.
    """

    judged: Judged
    structure: Structure


@dataclass(frozen=True)
class StructureStudy(ByBudget["StructurePoint"]):
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
    along: Along
    cliff: tuple[int, int] | None


def analyse_structure(study: Study) -> StructureStudy:
    """The structure of all traces; computed once a study.

    Raises:
        ValueError: If no problem has all its traces.
    """
    return study.once(_analyse, study)


def structure_of(trace: Trace, study: Study) -> Structure:
    """The structure of one trace, thinking and answer apart."""
    from pytest_tokenbudget.core.trace import StopReason, split_thinking
    from pytest_tokenbudget.studies.structure.segments import trace_structure

    thinking_end = 0
    if study.thinking is not None:
        _, answer, open_at_end = split_thinking(trace, trace.text, study.thinking)
        # Blank text after an open block is no answer, and text is the same whoever counts it.
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
    import numpy as np

    from pytest_tokenbudget.stats.intervals import mean_estimate
    from pytest_tokenbudget.studies.structure.segments import KINDS, RULES, Kind, totals
    from pytest_tokenbudget.studies.structure.statistics import along, structure_point

    if not study.complete:
        raise ValueError(
            f"no problem of {study.task.name} has all its traces of {study.alias}: there is "
            "nothing to analyse"
        )
    shape = (len(study.complete), study.samples)
    known: dict[int, Structure] = {}

    def structures(judged: Sequence[Judged]) -> list[Structure]:
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
        of = judged if budget > study.largest or _independent(study) else whole
        used = [_tokens_of(j.cut, w.cut.trace) for j, w in zip(judged, of, strict=True)]
        points.append(
            structure_point(
                budget,
                rows(structures(of)),
                np.array(used, dtype=np.int64).reshape(shape),
                np.array(
                    [
                        float("nan") if j.outcome is Outcome.ERROR else float(j.correct)
                        for j in judged
                    ]
                ).reshape(shape),
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
    for kind in Kind:
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
    steepest = analyse_cliff(study).cliff.steepest
    return None if steepest is None else (steepest.low, steepest.high)


def write_structure(study: Study, run: RunInfo, directory: Path) -> list[Path]:
    """Write the structure below ``directory``, each file whole or not at all.

    Args:
        study: The study; problems whose traces are not all there are left out and counted.
        run: The run that made it.
        directory: The reports directory; files go to its ``results`` and ``figures``.

    Returns:
        The result file and both figures.
    """
    from pytest_tokenbudget.studies.structure.figure import structure_figures

    record = header(study, run, SCHEMA)
    if study.complete:
        record.update(_findings(analyse_structure(study)))
    path = directory / "results" / f"phase3_structure_analysis_{file_stem(study)}.json"
    return [write_json(path, record), *structure_figures(study, directory)]


def _findings(result: StructureStudy) -> dict[str, object]:
    return {
        "rules": result.rules,
        "mean_tokens": to_plain(dict(result.tokens)),
        "mean_steps": to_plain(result.steps),
        "counts": dict(result.counts),
        "points": [
            {
                **to_record(point),
                "comparison": {
                    **to_record(point.comparison),
                    "sentence": point.comparison.sentence(),
                },
            }
            for point in result.points
        ],
        "across_cliff": _across(result),
        "along": to_plain(result.along),
        "traces": [_trace_record(one) for one in result.traces],
    }


def _across(result: StructureStudy) -> dict[str, object] | None:
    """Which parts became complete within the steepest window."""
    if result.cliff is None:
        return None
    low, high = (result.at(budget) for budget in result.cliff)
    return {
        "from": low.budget,
        "to": high.budget,
        "complete": {
            part.kind.value: {
                "from": to_plain(part.complete),
                "to": to_plain(high.part(part.kind).complete),
            }
            for part in low.parts
        },
    }


def _trace_record(one: TraceStructure) -> dict[str, object]:
    found, judged = one.structure, one.judged
    answer = found.segments[found.thinking :]
    return {
        "problem_id": judged.problem.id,
        "sample": judged.cut.trace.sample,
        "category": judged.problem.category,
        "outcome": judged.outcome,
        "ended": found.ended,
        "steps": found.steps,
        "operations": sum(s.operations for s in answer),
        "equations_right": sum(s.right for s in answer),
        "equations_wrong": sum(s.wrong for s in answer),
        "equations_unclear": sum(s.unclear for s in answer),
        "loop": None if found.loop is None else to_plain(found.loop._asdict()),
        # Kind, first character, character after the last, tokens; thinking first.
        "thinking_segments": found.thinking,
        "segments": [
            [s.kind.value, s.start, s.end, tokens]
            for s, tokens in zip(found.segments, found.tokens, strict=True)
        ],
    }


def structure_lines(study: Study, run: RunInfo, width: int = MAX_WIDTH) -> list[str]:
    """What is known about the structure, as lines of at most 80 columns.

    Args:
        study: The study.
        run: The run that made it.
        width: Columns of the terminal; sentences are wrapped to it.
    """
    width = columns(width)
    lines: list[str] = []
    for sentence in structure_sentences(study):
        lines += wrapped(f"phase 3: {sentence}", width)
    return lines


def structure_sentences(study: Study) -> list[str]:
    """What is known about the structure, in words."""
    if not study.complete:
        return ["no problem has all its traces yet: no structure to show"]
    from pytest_tokenbudget.studies.structure.rules import Kind
    from pytest_tokenbudget.studies.structure.statistics import Fit

    result = analyse_structure(study)
    if not result.traces:
        return ["every trace ended in an error: no structure to show"]
    last = result.points[-1]
    said = [_answer(result), _makeup(result)]
    verified = last.part(Kind.VERIFICATION).traces
    said.append(_verification(verified, last.budget, Fit))
    if result.cliff is not None:
        low, high = (result.at(budget) for budget in result.cliff)
        gains = ", ".join(
            f"{part.kind.value} {percent(part.complete.value)} to "
            f"{percent(high.part(part.kind).complete.value)} %"
            for part in low.parts
        )
        said.append(f"complete parts from {count(low.budget)} to {count(high.budget)}: {gains}")
    said.append(last.comparison.sentence())
    loops = result.counts["traces_with_a_loop"]
    if loops:
        said.append(
            f"{plural(loops, 'answer')} of {len(result.traces):,} "
            f"{'repeats itself' if loops == 1 else 'repeat themselves'}, "
            f"{result.counts['loops_to_the_end']:,} to the end"
        )
    return said


def _answer(result: StructureStudy) -> str:
    """What solutions consist of, in one line."""
    tokens = {name: result.tokens[name].value for name in _PARTS}
    total = sum(tokens.values())
    if not total:
        return "solutions hold no token"
    parts = sorted((name for name in _PARTS if tokens[name] > 0), key=lambda name: -tokens[name])
    shares = ", ".join(f"{100 * tokens[name] / total:.0f} % {name}" for name in parts)
    return f"solutions are {shares}"


def _makeup(result: StructureStudy) -> str:
    parts = [
        f"{name} {result.tokens[name].value:.1f}"
        for name in _PARTS
        if result.tokens[name].value > 0
    ]
    wrong = result.counts["equations_wrong"]
    checked = wrong + result.counts["equations_right"]
    return (
        f"mean tokens: {', '.join(parts)} ({result.rules}); {count(wrong)} of "
        f"{plural(checked, 'equation')} wrong"
    )


def _verification(traces: Mapping[str, int], budget: int, fits: type[Fit]) -> str:
    total = sum(traces.values())
    cut = traces[fits.BEGUN] + traces[fits.CUT_OFF]
    said = (
        f"of {plural(total, 'answer')} at {count(budget)}, {traces[fits.COMPLETE]:,} have all "
        f"their verification, {cut:,} were cut before its end, {traces[fits.NONE]:,} have none"
    )
    unknown = traces[fits.UNKNOWN]
    return f"{said}, {unknown:,} were cut before any is known" if unknown else said
