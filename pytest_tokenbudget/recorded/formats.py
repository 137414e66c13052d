"""The formats of recorded generations: this suite's JSON, lm-evaluation-harness, Inspect."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

from pytest_tokenbudget.common.outside_files import (
    FileError,
    JsonError,
    decode,
    parse_json,
    read_bytes,
    read_json,
)
from pytest_tokenbudget.common.outside_text import printable
from pytest_tokenbudget.core.engine import Decoding, UnrecordedDecoding
from pytest_tokenbudget.recorded.inspect import read_inspect
from pytest_tokenbudget.recorded.lm_eval import read_lm_eval
from pytest_tokenbudget.recorded.records import (
    MAIN,
    Fields,
    Record,
    RecordingError,
    Source,
    expected,
)
from pytest_tokenbudget.tasks.problem import NO_CATEGORY

OWN = "tokenbudget"
# phase1_main_MODEL_budget512.json; a mode other than plain stands after "+".
_NAME = re.compile(r"(?P<series>phase[0-9][a-z]?_[a-z]+)_(?P<stem>.+)_budget(?P<budget>\d+)\Z")
_BUDGET = re.compile(r"(?P<stem>.+?)[_-]budget[_-]?(?P<budget>\d+)\Z")
_ENDED = ("eos", "stop", "end_turn", "stop_sequence")
_CUT = ("length", "max_tokens")
_REASONS = (*_ENDED, *_CUT, "error")


def read_source(path: Path, certain: bool) -> Source | None:
    """What a file holds; None where it holds no records and need not (it is not ``certain`` to).

    A file that was named itself is certain to hold some.

    Raises:
        RecordingError: If it is damaged, or its records are bad.
    """
    try:
        raw = read_bytes(path)
        for magic, sentence in _BINARY.items():
            if raw.startswith(magic):
                raise RecordingError(f"{path}: {sentence}")
        text = decode(path, raw)
    except FileError as error:
        raise RecordingError(str(error)) from None
    rows = _lines(path, text) if path.suffix.lower() == ".jsonl" else _whole(path, text)
    if isinstance(rows, list) and rows and isinstance(rows[0][1], dict):
        where, first = rows[0]
        if "resps" in first or ("filtered_resps" in first and "doc" in first):
            return read_lm_eval(path, [Fields(at, row) for at, row in rows])
        samples = isinstance(first.get("samples"), list)
        if "generated" in first or ("problem_id" in first and (samples or certain)):
            return _own(path, [Fields(at, row) for at, row in rows])
        if certain:
            raise RecordingError(
                f"{where}: this is no recorded generation; there is {_keys(first)}, but 'generated'"
                " (this suite), or 'doc' and 'resps' (lm-evaluation-harness) are needed"
            )
    if isinstance(rows, dict) and "eval" in rows and ("samples" in rows or "plan" in rows):
        return read_inspect(path, Fields(str(path), rows))
    if certain:
        there = "there is no record in it"
        if isinstance(rows, dict):
            there = f"a JSON object with {_keys(rows)}"
        allowed = "allowed are a list of records, lines of them (.jsonl), and an Inspect log"
        raise RecordingError(f"{path}: {there}; {allowed}")
    return None


def _keys(found: Mapping[str, object]) -> str:
    names = [printable(repr(key), 60) for key in list(found)[:7]]
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "") if names else "no key"


# What files of other formats begin with, and how to get from them to what is read here.
_BINARY = {
    b"PK\x03\x04": (
        "a zip archive, as Inspect's .eval logs are; write the log as JSON first: "
        "inspect log dump FILE.eval > FILE.json"
    ),
    b"PAR1": (
        "a Parquet file; write it as JSON Lines first, with pandas: "
        'read_parquet(FILE).to_json("FILE.jsonl", orient="records", lines=True)'
    ),
    b"\x1f\x8b": "a gzip archive; unpack it first: gunzip FILE",
    b"\x28\xb5\x2f\xfd": "a Zstandard archive; unpack it first: unzstd FILE",
}


def _lines(path: Path, text: str) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = []
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"{path}, line {number}"
            try:
                rows.append((where, _parse(line, where)))
            except JsonError as error:
                half = number == len(lines)
                hint = "; it is the last line and has no end: half-written? Remove it" * half
                raise RecordingError(f"{where}: {error}{hint}") from None
    return rows


def _whole(path: Path, text: str) -> list[tuple[str, object]] | object:
    try:
        found = _parse(text, str(path))
    except JsonError as error:
        raise RecordingError(f"{path}, line {error.line}: {error}") from None
    if isinstance(found, list):
        return [(f"{path}, record {number}", row) for number, row in enumerate(found, 1)]
    return found


def _parse(text: str, where: str) -> object:
    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in found if names.count(name) > 1)
            raise RecordingError(f"{where}: the key {twice!r} stands twice in one object")
        return found

    return parse_json(text, parse_float=Decimal, object_pairs_hook=unique)


def _own(path: Path, rows: list[Fields]) -> Source:
    match = _NAME.fullmatch(path.stem)
    named = match or _BUDGET.fullmatch(path.stem)
    stem, plus, mode = (named["stem"] if named else path.stem).partition("+")
    budget = int(named["budget"]) if named else None
    series = match["series"] if match else ""
    nested = any("samples" in row.found for row in rows)
    source = Source(
        path,
        OWN,
        stem,
        task="recorded",
        records=tuple(_own_record(row, budget) for outer in rows for row in _samples(outer)),
        kind="stochastic" if nested or series.startswith("phase1b") else MAIN,
        mode=mode if plus else "plain",
        series=series,
    )
    return _with_combined(source, match)


def _samples(row: Fields) -> Iterator[Fields]:
    """The record itself, or one for each of the samples that stand in it as a list."""
    if row.get("samples") is None:
        yield row
        return
    shared = {key: value for key, value in row.found.items() if key != "samples"}
    numbers = set()
    for place, sample in enumerate(row.items("samples")):
        own = Fields(f"{row.where}, sample {place + 1}", sample)
        number = own.count("sample_id")
        if number in numbers:
            raise own.bad("sample_id", f"{number} once more", "a number for each sample")
        if number is not None:
            numbers.add(number)
        # Samples may be numbered from any number on; here their order counts.
        yield Fields(own.where, {**shared, **own.found, "sample": place})


def _own_record(row: Fields, budget: int | None) -> Record:
    truncated = row.flag("truncated")
    reason = row.text("stop_reason", None) or row.text("finish_reason", None) or ""
    if reason and reason not in _REASONS:
        raise row.bad("stop_reason", f"{reason!r}", ", ".join(_REASONS))
    outcome = row.text("outcome", None) or ""
    error = row.text("error", None)
    nothing = row.get("generated") is None and "generated" in row.found
    failed = reason == "error" or outcome == "error" or bool(error) or nothing
    if reason and not failed:
        by_reason = reason in _CUT
        if truncated is not None and truncated != by_reason:
            raise row.bad(
                "truncated", str(truncated).lower(), f"what stop_reason {reason!r} says as well"
            )
        truncated = by_reason
    correct = row.flag("correct")
    return Record(
        where=row.where,
        problem_id=row.name("problem_id"),
        question=row.text("question"),
        answers=(expected(row.scalar("ground_truth")),),
        text="" if nothing else row.text("generated", empty=True),
        budget=row.tokens("budget", at_least=1) or budget,
        sample=row.count("sample") or 0,
        category=row.text("category", None) or NO_CATEGORY,
        tokens=None if nothing else row.tokens("tokens_used"),
        truncated=truncated,
        verdicts={} if correct is None or failed else {"recorded": correct},
        opened=True if outcome == "truncated_in_thinking" else None,
        error=(error or ("nothing was generated" if nothing else "recorded as an error"))
        if failed
        else "",
    )


def _with_combined(source: Source, match: re.Match[str] | None) -> Source:
    """Take model, task and decoding from the suite's combined file beside, if it is there."""
    if match is None:
        return source
    phase = match["series"].partition("_")[0]
    path = source.path.with_name(f"{phase}_combined_{match['stem']}.json")
    try:
        found = read_json(path)
    except FileError:
        return source
    if not isinstance(found, dict):
        return source
    identity = found.get("identity")
    words = identity.items() if isinstance(identity, dict) else ()
    return replace(
        source,
        model=_word(found.get("model"), source.model),
        task=_word(found.get("task"), source.task),
        mode=_word(found.get("mode"), source.mode),
        decoding=_decoding(found.get("decoding")),
        identity={name: value for name, value in words if isinstance(value, str)},
    )


def _word(value: object, otherwise: str) -> str:
    return value if isinstance(value, str) and value else otherwise


def _decoding(found: object) -> Decoding:
    if not isinstance(found, dict) or "temperature" not in found:
        return UnrecordedDecoding()
    settings = Fields("", found)
    stop = found.get("stop")
    return Decoding(
        temperature=settings.number("temperature", 0.0),
        top_p=settings.number("top_p", 1.0),
        seed=int(settings.number("seed", 0)),
        stop=tuple(map(str, stop)) if isinstance(stop, list) else (),
    )
