"""What result files have in common: the run, a header, a record of one answer.

A cut that was truncated after its answer was declared stands as it was judged: ``correct`` true,
``outcome`` ``"correct"``, ``truncated`` true. It counts as correct in ``accuracy``, as truncated in
``truncation`` and not at all in ``completed``; ``truncated_correct`` says how many there are.
"""

from __future__ import annotations

import importlib.metadata
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pytest_tokenbudget.core.scoring import JudgedCut
from pytest_tokenbudget.core.study import PLAIN, Study
from pytest_tokenbudget.core.trace import Outcome, StopReason
from pytest_tokenbudget.report.files import safe_name, write_json

VERSIONED = (
    "pytest-tokenbudget",
    "pytest",
    "pytest-xdist",
    "torch",
    "transformers",
    "tokenizers",
    "bitsandbytes",
    "datasets",
    "numpy",
)


@dataclass(frozen=True)
class RunInfo:
    """What a run is known by, beside the study that it made.

    Attributes:
        settings: The options that were in force.
        versions: Versions of the plugin and of what it stands on.
        started: When the run began, ISO 8601 with its offset.
        duration: Its wall time in seconds.
        generated_tokens: Output tokens that this run generated for the study; the rest was stored.
        complete: Whether the run came to its end; False after Ctrl-C.
    """

    settings: Mapping[str, object] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    started: str = ""
    duration: float = 0.0
    generated_tokens: int = 0
    complete: bool = True


def file_stem(study: Study) -> str:
    """The model's part of a file name; a mode other than plain has files of its own."""
    # "+" never comes out of safe_name, so no model's name can meet another model's mode.
    stem = safe_name(study.alias)
    return stem if study.mode == PLAIN else f"{stem}+{safe_name(study.mode)}"


def truncated(judged: JudgedCut) -> bool:
    """Whether the budget cut it short; what ended in an error was cut by that instead."""
    return judged.cut.truncated and judged.outcome is not Outcome.ERROR


def answer_record(judged: JudgedCut) -> dict[str, object]:
    """One answer at one budget."""
    problem, cut = judged.problem, judged.cut
    record: dict[str, object] = {
        "problem_id": problem.id,
        "question": problem.question,
        "ground_truth": problem.answer,
        "generated": cut.text,
        "predicted": judged.predicted,
        "correct": judged.correct,
        "tokens_used": cut.tokens_used,
        "budget": cut.budget,
        "outcome": judged.outcome,
        "truncated": truncated(judged),
        "stop_reason": StopReason.LENGTH if truncated(judged) else cut.trace.stop_reason,
        "branch": judged.branch,
        "sample": cut.trace.sample,
        "category": problem.category,
    }
    if cut.trace.error:
        record["error"] = cut.trace.error
    if cut.trace.usage:
        record["usage"] = dict(cut.trace.usage)
    return record


def write_record(directory: Path, name: str, record: object) -> Path:
    """Write one result file, ``results/NAME.json`` below the reports directory."""
    return write_json(directory / "results" / f"{name}.json", record)


def write_answers(study: Study, directory: Path, prefix: str, budgets: Sequence[int]) -> list[Path]:
    """Write every answer of a study, one result file a budget."""
    return [
        write_record(
            directory,
            f"{prefix}_{file_stem(study)}_budget{budget}",
            [answer_record(judged) for judged in study.judged(budget)],
        )
        for budget in budgets
    ]


def header(study: Study, run: RunInfo, schema: str) -> dict[str, object]:
    """What every result file says first: what was measured, on what, and by which run."""
    return {
        "schema": schema,
        "model": study.alias,
        "identity": dict(study.identity),
        "source": study.source,
        "mode": study.mode,
        "task": study.task.name,
        "extractor": study.task.extractor,
        "decoding": study.decoding.identity(),
        "seed": study.decoding.seed if study.decoding.known else None,
        "problems": len(study.complete),
        "samples": study.samples,
        "missing": study.missing,
        "errors": len(study.errors),
        "complete": run.complete and not study.missing and not study.errors,
        "counted": study.counted,
        "usage": study.usage,
        "started": run.started,
        "duration_seconds": run.duration,
        "settings": dict(run.settings),
        "versions": dict(run.versions),
    }


def recorded_header(
    about: Mapping[str, object], missing: Sequence[object], run: RunInfo, schema: str
) -> dict[str, object]:
    """What files say first that are put together from what tests recorded.

    Args:
        about: Of which model, and engine, it is.
        missing: What no test recorded.
        run: The run.
        schema: Name and version of the file's form.
    """
    return {
        "schema": schema,
        **about,
        "missing": list(missing),
        "complete": run.complete and not missing,
        "started": run.started,
        "duration_seconds": run.duration,
        "settings": dict(run.settings),
        "versions": dict(run.versions),
    }


def token_stats_of(judged: Sequence[JudgedCut]) -> dict[str, float | int | None]:
    """Average and maximum of the tokens used, and how many answers the budget cut short."""
    from pytest_tokenbudget.stats.tokens import token_stats

    return token_stats(
        [math.nan if j.outcome is Outcome.ERROR else j.cut.tokens_used for j in judged],
        [truncated(j) for j in judged],
    )


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for name in VERSIONED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
