"""Recorded generations: what a model wrote in an earlier run, of this suite or of another tool.

Files are read into records, and records into recordings: what one model wrote for one task, at one
budget or at several. Nothing is judged or counted here; see `recorded_traces` for the counting.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from pytest_tokenbudget.common.outside_text import PrintableError
from pytest_tokenbudget.core.engine import Decoding, UnrecordedDecoding
from pytest_tokenbudget.tasks.jsonl import ANSWER_INSTRUCTION
from pytest_tokenbudget.tasks.problem import NO_CATEGORY, Problem

MAIN = "main"
CLIFF = "phase3_cliff"
# What a reports folder has: the list of its files, and results of other selections.
MANIFEST = "MANIFEST"
EARLIER = "earlier"
# The table of all answers, which says nothing that the JSON beside it does not.
ANSWERS_TABLE = "answers"
_SHOWN = 60
# The last two cannot be read, and to pass over them without a word would leave results out.
_ENDINGS = (".json", ".jsonl", ".eval", ".parquet")


class RecordingError(PrintableError):
    """Recorded generations cannot be read or used; the message is for people."""


class Runs(StrEnum):
    """How the budgets of a recording hang together.

    ``single`` is one budget. With ``cuts`` every text is a prefix of that at each larger budget, as
    this suite's own files are. With ``independent`` the budgets were generated separately.
    """

    SINGLE = "single"
    CUTS = "cuts"
    INDEPENDENT = "independent"


@dataclass(frozen=True)
class Record:
    """One recorded generation, as its file says.

    Attributes:
        where: File and record, for messages.
        problem_id: The problem's id in the file.
        question: The question as shown to people.
        answers: The expected answer; of several each one is right.
        text: What the model wrote, thinking in ``<think>`` tags where the file keeps it apart.
        budget: Output tokens that were allowed; None where the file does not say.
        sample: Number of the sample, from 0.
        category: The problem's category.
        tokens: Output tokens as the file counts them; None where it does not.
        hidden: How many of them are reasoning that the file does not show.
        truncated: Whether the budget cut it, as the file says; None where it does not.
        verdicts: Whether it is right, by each scorer of the file.
        opened: Whether the text begins inside of thinking; None where the file does not say.
        error: What went wrong, where generation failed.
        assumed: Whether the file names no budget, and this is the default of the tool.
    """

    where: str
    problem_id: str
    question: str
    answers: tuple[str, ...]
    text: str
    budget: int | None = None
    sample: int = 0
    category: str = NO_CATEGORY
    tokens: int | None = None
    hidden: int = 0
    truncated: bool | None = None
    verdicts: Mapping[str, bool] = field(default_factory=dict)
    opened: bool | None = None
    error: str = ""
    assumed: bool = False

    @property
    def key(self) -> tuple[str, int]:
        """Problem and sample."""
        return self.problem_id, self.sample


@dataclass(frozen=True)
class Source:
    """What one file holds.

    Attributes:
        path: The file.
        format: ``tokenbudget``, ``lm-eval`` or ``inspect``.
        model: The model's name.
        task: The task's name.
        records: The generations, in the file's order.
        kind: ``main``, or ``stochastic`` for the samples of phase 1b.
        mode: ``plain``, or the mode that the file's name ends in.
        decoding: How tokens were chosen, as far as the file says.
        identity: What exactly the model was, where the file says.
        series: Which of this suite's evals wrote it, such as ``phase3_cliff``; empty elsewhere.
    """

    path: Path
    format: str
    model: str
    task: str
    records: tuple[Record, ...]
    kind: str = MAIN
    mode: str = "plain"
    decoding: Decoding = field(default_factory=UnrecordedDecoding)
    identity: Mapping[str, str] = field(default_factory=dict)
    series: str = ""


@dataclass(frozen=True)
class Recording:
    """What one model wrote for one task.

    Attributes:
        alias: The model's name.
        task: The task's name.
        kind: ``main`` or ``stochastic``.
        mode: ``plain`` or the mode's name.
        formats: The formats that it was read from.
        files: SHA-256 of each file by its path.
        records: Records by budget, then by problem id and sample; the budget is None where no
            record names one.
        decoding: How tokens were chosen, as far as the files say.
        model_identity: What exactly the model was, as far as the files say.
        extra: Budgets that this suite recorded for its cliff alone; the curve has no need of them.
        folder: Name of the reports folder that the files are in; empty outside of one.
        cliff: What was recorded for the cliff, where that is a series of its own: other answers at
            budgets that both have. None where the cliff shares these records.
    """

    alias: str
    task: str
    kind: str
    mode: str
    formats: tuple[str, ...]
    files: Mapping[str, str]
    records: Mapping[int | None, Mapping[tuple[str, int], Record]]
    decoding: Decoding = field(default_factory=UnrecordedDecoding)
    model_identity: Mapping[str, str] = field(default_factory=dict)
    extra: frozenset[int] = frozenset()
    folder: str = ""
    cliff: Recording | None = None

    @property
    def budgets(self) -> tuple[int, ...]:
        """The budgets that were recorded, rising; empty where the records name none."""
        return tuple(sorted(budget for budget in self.records if budget is not None))

    @property
    def samples(self) -> int:
        """Samples a problem."""
        return 1 + max(record.sample for record in self.all_records())

    @property
    def identity(self) -> dict[str, str]:
        """What identifies it: that it was recorded, and the files' contents."""
        digests = sorted(self.files.values())
        whole = digests[0]
        if len(digests) > 1:
            whole = hashlib.sha256("\n".join(digests).encode()).hexdigest()
        recorded = {f"recorded_{name}": value for name, value in self.model_identity.items()}
        return {
            "source": "recorded",
            "format": "+".join(self.formats),
            "sha256": whole,
            **recorded,
        }

    def all_records(self) -> Iterator[Record]:
        """Every record, by rising budget."""
        for budget in sorted(self.records, key=lambda b: b or 0):
            yield from self.records[budget].values()

    @cached_property
    def problems(self) -> tuple[Problem, ...]:
        """The problems, in the order of the files."""
        found: dict[str, Problem] = {}
        for record in self.all_records():
            if record.problem_id not in found:
                found[record.problem_id] = _problem(record)
        return tuple(found.values())

    @cached_property
    def prefixes(self) -> tuple[int, int]:
        """How many texts are a prefix of the same sample's at the next budget, and of how many."""
        held = pairs = 0
        for small, large in zip(self.budgets, self.budgets[1:], strict=False):
            longer = self.records[large]
            for key, record in self.records[small].items():
                if key in longer and not (record.error or longer[key].error):
                    pairs += 1
                    held += _is_cut(record, longer[key].text)
        return held, pairs

    @property
    def runs(self) -> Runs:
        """How the budgets hang together."""
        if len(self.records) == 1:
            return Runs.SINGLE
        held, pairs = self.prefixes
        return Runs.CUTS if held == pairs > 0 else Runs.INDEPENDENT


class Loaded(NamedTuple):
    """What was found in files and directories.

    Attributes:
        recordings: One for each model, task, mode and kind.
        left_out: A sentence for each file that was left out because it cannot be used, and one
            about those that hold no generations.
    """

    recordings: list[Recording]
    left_out: list[str]


def load_recordings(paths: Iterable[Path]) -> Loaded:
    """Read recorded generations.

    Results of several selections in one reports folder stay apart: each is a recording of its own.

    Args:
        paths: Files and directories; of a directory every file below it that holds records. What
            cannot be used there is left out; a file that is named itself must be usable.

    Raises:
        RecordingError: If there is nothing, a file that was named is bad, or files contradict each
            other; it names the file, the line or record, the key, what was found and what is
            allowed.
    """
    from pytest_tokenbudget.recorded.formats import read_source

    sources: dict[Path, Source] = {}
    left_out: list[str] = []
    for given in paths:
        empty: list[str] = []
        bad: list[str] = []
        files = list(_files(given))
        for path in files:
            named = path == given
            try:
                source = read_source(path, certain=named)
            except RecordingError as error:
                if named:
                    raise
                bad.append(str(error))
                continue
            if source is None:
                empty.append(path.name)
            elif path.resolve() not in sources:
                sources[path.resolve()] = source
        if len(empty) + len(bad) == len(files):
            raise RecordingError(_nothing(given, empty, bad))
        left_out += bad
        if empty:
            shown = ", ".join(empty[:3]) + (f" and {len(empty) - 3} more" if len(empty) > 3 else "")
            left_out.append(f"{given}: no generations in {shown}")
    groups: dict[tuple[object, ...], list[Source]] = defaultdict(list)
    for path, source in sources.items():
        kind = (source.model, source.task, source.mode, source.kind)
        groups[(_reports_folder(path), *kind)].append(source)
    if not groups:
        raise RecordingError("no file or directory of recorded generations was given")
    recordings = [
        replace(_recording(group), folder=folder.name if isinstance(folder, Path) else "")
        for (folder, *_), group in groups.items()
    ]
    return Loaded(recordings, left_out)


def _reports_folder(path: Path) -> Path | None:
    """The reports folder that a file was written to, as far as its manifest tells."""
    return next((parent for parent in path.parents if (parent / MANIFEST).is_file()), None)


def _files(given: Path) -> Iterator[Path]:
    if given.is_file():
        yield given
    elif given.is_dir():
        for path in sorted(given.rglob("*")):
            hidden = any(part.startswith(".") for part in path.relative_to(given).parts)
            table = path.stem == ANSWERS_TABLE and path.parent.name == "results"
            if path.suffix.lower() in _ENDINGS and path.is_file() and not (hidden or table):
                yield path
    else:
        raise RecordingError(f"there is no file or directory {given}")


def _nothing(given: Path, empty: Sequence[str], bad: Sequence[str]) -> str:
    if bad:
        more = f"; {len(bad) - 3} more files cannot be used" if len(bad) > 3 else ""
        return f"{given}: no file in it can be used: {'; '.join(bad[:3])}{more}"
    there = ", ".join(empty[:5]) + (", ..." if len(empty) > 5 else "")
    found = f"there is {there}" if empty else "there is no .json or .jsonl file"
    return (
        f"{given}: no recorded generations in it; {found}. Allowed are this suite's JSON "
        "(phase1_main_MODEL_budgetB.json), lm-evaluation-harness's samples_TASK_DATE.jsonl "
        "(--log_samples), and an Inspect log in JSON"
    )


def _recording(sources: Sequence[Source]) -> Recording:
    """The sources of one model, task, mode and kind as one recording.

    This suite's phases 1 and 3 are cuts of the same generations and share their records. Elsewhere
    they are independent samples: then the cliff has a recording of its own.
    """
    cliff = [source for source in sources if source.series == CLIFF]
    others = [source for source in sources if source.series != CLIFF]
    if cliff and others and not _share(cliff, others):
        return replace(_merged(others), cliff=_merged(cliff))
    return _merged(sources)


def _share(cliff: Sequence[Source], others: Sequence[Source]) -> bool:
    """Whether the cliff's records are the same as the others' wherever both have one."""
    known = {(r.budget, r.key): r for source in others for r in source.records}
    if any(one.decoding != other.decoding for one in cliff for other in others):
        return False
    return all(
        replace(record, where=known[place].where) == known[place]
        for source in cliff
        for record in source.records
        if (place := (record.budget, record.key)) in known
    )


def _merged(sources: Sequence[Source]) -> Recording:
    first = sources[0]
    by_budget: dict[int | None, dict[tuple[str, int], Record]] = defaultdict(dict)
    written: dict[tuple[int | None, tuple[str, int]], Source] = {}
    needed: set[int | None] = set()
    for source in sources:
        for record in source.records:
            at, place = by_budget[record.budget], (record.budget, record.key)
            if source.series != CLIFF:
                needed.add(record.budget)
            if record.key in at:
                # Phases 1 and 3 of this suite write the same cuts where they share a budget.
                twice = written[place].series != source.series
                if twice and replace(record, where=at[record.key].where) == at[record.key]:
                    continue
                raise RecordingError(_twice(at[record.key], record))
            at[record.key] = record
            written[place] = source
    if None in by_budget and len(by_budget) > 1:
        without = next(iter(by_budget[None].values()))
        raise RecordingError(
            f"{without.where}: no budget is given, but other records of {first.model} on "
            f"{first.task} have one; give each its budget, or read them apart"
        )
    for source in sources[1:]:
        if source.decoding != first.decoding:
            raise RecordingError(
                f"{first.path} and {source.path} are both of {first.model} on {first.task}, but "
                f"{first.decoding.identity()} and {source.decoding.identity()} differ: read them "
                "apart"
            )
    recording = Recording(
        alias=first.model,
        task=first.task,
        kind=first.kind,
        mode=first.mode,
        formats=tuple(sorted({source.format for source in sources})),
        files={str(s.path): hashlib.sha256(s.path.read_bytes()).hexdigest() for s in sources},
        records=dict(by_budget),
        decoding=first.decoding,
        model_identity=first.identity,
        extra=frozenset(b for b in by_budget if b not in needed and b) if needed else frozenset(),
    )
    _check_problems(recording)
    return recording


def _twice(one: Record, other: Record) -> str:
    budget = "" if one.budget is None else f" at budget {one.budget}"
    return (
        f"{other.where}: problem {one.problem_id!r}, sample {one.sample}{budget} is there already "
        f"({one.where}); remove one, or number the samples with the key 'sample'"
    )


def _check_problems(recording: Recording) -> None:
    first: dict[str, Record] = {}
    for record in recording.all_records():
        known = first.setdefault(record.problem_id, record)
        for name in ("question", "answers"):
            one, two = getattr(known, name), getattr(record, name)
            if one != two:
                raise RecordingError(
                    f"{record.where}: problem {record.problem_id!r} has the {name.rstrip('s')} "
                    f"{_shown(two)}, but {_shown(one)} in {known.where}; one id is one problem"
                )


def _shown(value: object) -> str:
    text = repr(value[0] if isinstance(value, tuple) and len(value) == 1 else value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _problem(record: Record) -> Problem:
    return Problem(
        record.problem_id,
        record.question,
        record.answers[0],
        record.category,
        (
            {"role": "system", "content": ANSWER_INSTRUCTION},
            {"role": "user", "content": record.question},
        ),
        {"answers": list(record.answers)},
    )


def _is_cut(record: Record, longer: str) -> bool:
    # A cut may end inside a character, and some tools strip white space at the end.
    text = record.text.rstrip("\ufffd")
    if record.truncated is False and record.text != longer:
        return False
    return longer.startswith(text) or longer.startswith(text.rstrip())
