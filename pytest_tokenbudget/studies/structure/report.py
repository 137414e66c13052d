"""Phase 3, structure: its result file and lines on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pytest_tokenbudget.common.text_layout import (
    MAX_WIDTH,
    columns,
    count,
    percent,
    plural,
    wrapped,
)
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.report.files import to_plain, to_record
from pytest_tokenbudget.report.json_files import RunInfo, file_stem, header, write_record
from pytest_tokenbudget.report.shared_sentences import all_failed, nothing_yet
from pytest_tokenbudget.studies.structure.analysis import (
    PART_NAMES,
    StructureStudy,
    TraceStructure,
    analyse_structure,
)
from pytest_tokenbudget.studies.structure.rules import SegmentKind
from pytest_tokenbudget.studies.structure.statistics import PartState

SCHEMA = "tokenbudget-phase3-structure/1"


def write_structure(study: Study, run: RunInfo, directory: Path) -> list[Path]:
    """Write the result file and both figures."""
    from pytest_tokenbudget.studies.structure.figure import structure_figures

    record = header(study, run, SCHEMA)
    if study.complete:
        record.update(_findings(analyse_structure(study)))
    path = write_record(directory, f"phase3_structure_analysis_{file_stem(study)}", record)
    return [path, *structure_figures(study, directory)]


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


def _trace_record(trace: TraceStructure) -> dict[str, object]:
    found, judged = trace.structure, trace.judged
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
    """What is known about the structure."""
    lines: list[str] = []
    for sentence in structure_sentences(study):
        lines += wrapped(f"phase 3: {sentence}", columns(width))
    return lines


def structure_sentences(study: Study) -> list[str]:
    """What is known about the structure, in words."""
    if not study.complete:
        return [nothing_yet("no structure to show")]
    result = analyse_structure(study)
    if not result.traces:
        return [all_failed("no structure to show")]
    last = result.points[-1]
    sentences = [_answer(result), _makeup(result)]
    sentences.append(_verification(last.part(SegmentKind.VERIFICATION).traces, last.budget))
    if result.cliff is not None:
        low, high = (result.at(budget) for budget in result.cliff)
        gains = ", ".join(
            f"{part.kind.value} {percent(part.complete.value)} to "
            f"{percent(high.part(part.kind).complete.value)} %"
            for part in low.parts
        )
        sentences.append(
            f"complete parts from {count(low.budget)} to {count(high.budget)}: {gains}"
        )
    sentences.append(last.comparison.sentence())
    loops = result.counts["traces_with_a_loop"]
    if loops:
        sentences.append(
            f"{plural(loops, 'answer')} of {len(result.traces):,} "
            f"{'repeats itself' if loops == 1 else 'repeat themselves'}, "
            f"{result.counts['loops_to_the_end']:,} to the end"
        )
    return sentences


def _answer(result: StructureStudy) -> str:
    """What solutions consist of, in one line."""
    tokens = {name: result.tokens[name].value for name in PART_NAMES}
    total = sum(tokens.values())
    if not total:
        return "solutions hold no token"
    parts = sorted((name for name in tokens if tokens[name] > 0), key=lambda name: -tokens[name])
    shares = ", ".join(f"{100 * tokens[name] / total:.0f} % {name}" for name in parts)
    return f"solutions are {shares}"


def _makeup(result: StructureStudy) -> str:
    wrong = result.counts["equations_wrong"]
    checked = wrong + result.counts["equations_right"]
    return (
        f"{result.mean_tokens()} ({result.rules}); {count(wrong)} of "
        f"{plural(checked, 'equation')} wrong"
    )


def _verification(traces: Mapping[str, int], budget: int) -> str:
    cut = traces[PartState.BEGUN] + traces[PartState.CUT_OFF]
    sentence = (
        f"of {plural(sum(traces.values()), 'answer')} at {count(budget)}, "
        f"{traces[PartState.COMPLETE]:,} have all their verification, {cut:,} were cut before its "
        f"end, {traces[PartState.NONE]:,} have none"
    )
    unknown = traces[PartState.UNKNOWN]
    return f"{sentence}, {unknown:,} were cut before any is known" if unknown else sentence
