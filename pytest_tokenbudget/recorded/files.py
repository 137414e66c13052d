"""Recorded generations: what a model wrote in an earlier run, of this suite or of another tool.

Files are read into records, and records into recordings: what one model wrote for one task, at one
budget or at several. Nothing is judged or counted here; see `traces` for the counting.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from pytest_tokenbudget.recorded.records import CLIFF, Record, Recording, RecordingError, Source

# What a reports folder has: the list of its files, and results of other selections.
MANIFEST = "MANIFEST"
EARLIER = "earlier"
# The table of all answers, which says nothing that the JSON beside it does not.
ANSWERS_TABLE = "answers"
_SHOWN = 60
# The last two cannot be read, and to pass over them without a word would leave results out.
_ENDINGS = (".json", ".jsonl", ".eval", ".parquet")


class Loaded(NamedTuple):
    """One recording for each model, task, mode and kind that was found.

    A sentence tells of each file that was left out because it cannot be used, and of those that
    hold no generations.
    """

    recordings: list[Recording]
    left_out: list[str]


def load_recordings(paths: Iterable[Path]) -> Loaded:
    """Read recorded generations from files, and from all files below directories that hold any.

    What cannot be used in a directory is left out; a file that is named itself must be usable.
    Results of several selections in one reports folder stay apart: each is a recording of its own.

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
        # The reports folder that a file was written to, as far as its manifest tells.
        folder = next((parent for parent in path.parents if (parent / MANIFEST).is_file()), None)
        groups[(folder, *kind)].append(source)
    if not groups:
        raise RecordingError("no file or directory of recorded generations was given")
    recordings = [
        replace(_recording(group), folder=folder.name if isinstance(folder, Path) else "")
        for (folder, *_), group in groups.items()
    ]
    return Loaded(recordings, left_out)


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
                budget = "" if record.budget is None else f" at budget {record.budget}"
                raise RecordingError(
                    f"{record.where}: problem {record.problem_id!r}, sample {record.sample}{budget}"
                    f" is there already ({at[record.key].where}); remove one, or number the "
                    "samples with the key 'sample'"
                )
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
