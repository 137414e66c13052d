"""Stored runs from their files: a baseline's own, or the results of phase 1 as they lie."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pytest_tokenbudget.baselines.run import SCHEMA, BaselineError, Run, RunAnswer
from pytest_tokenbudget.common.outside_files import FileError, MissingFileError, read_json
from pytest_tokenbudget.core.trace import Outcome
from pytest_tokenbudget.recorded.records import Fields, RecordingError
from pytest_tokenbudget.studies.saturation.report import SCHEMA as RESULTS
from pytest_tokenbudget.tasks.problem import NO_CATEGORY

_COMBINED = re.compile(r"phase1_combined_(?P<stem>.+)\.json\Z")
_ALLOWED = (
    "allowed are a file that --tokenbudget-save wrote, a phase1_combined_MODEL.json with the other "
    "results beside it, and a directory of such results; what another tool wrote can be read with "
    "--recorded, and saved"
)


@dataclass(frozen=True)
class Baseline:
    """Stored runs, one a model.

    Attributes:
        label: What it is called in messages.
        path: The file or directory.
        saved: When it was saved; empty for results as they lie.
        machine: The machine it was saved on.
        commit: The commit it was saved at; empty where there is none.
    """

    label: str
    path: Path
    runs: tuple[Run, ...]
    saved: str = ""
    machine: Mapping[str, object] = field(default_factory=dict)
    commit: Mapping[str, object] = field(default_factory=dict)

    def run_for(self, alias: str) -> Run:
        """The run that a model is compared with: the only one, else that of its name.

        Raises:
            BaselineError: If there are several of other names.
        """
        if len(self.runs) == 1:
            return self.runs[0]
        for run in self.runs:
            if run.model == alias:
                return run
        raise BaselineError(
            f"{self.label} has several models, and {alias} is not among them; there are "
            f"{', '.join(run.model for run in self.runs)}"
        )


def read_baseline(path: Path, label: str = "") -> Baseline:
    """The stored runs of a file or directory.

    Args:
        path: A baseline, a combined result of phase 1, or a directory of results.
        label: What it is called in messages; without one the file's name.

    Raises:
        BaselineError: If there is none, or it cannot be read.
    """
    label = label or path.stem
    try:
        if path.is_dir():
            return _results(path, label)
        document = Fields(str(path), _load(path))
        schema = document.get("schema")
        if schema == SCHEMA:
            return _stored(path, label, document)
        if schema == RESULTS:
            return Baseline(label, path, (_combined(path, document),))
        raise BaselineError(f"{path}: no stored run{_seen(schema)}; {_ALLOWED}")
    except RecordingError as error:
        raise BaselineError(str(error)) from None


def _seen(schema: object) -> str:
    if not isinstance(schema, str):
        return ""
    if schema.startswith(SCHEMA.partition("/")[0]):
        return f" of the version that is known here ({schema}, not {SCHEMA})"
    return f" (its schema is {schema})"


def _load(path: Path) -> object:
    try:
        return read_json(path)
    except MissingFileError:
        raise BaselineError(f"there is no file or directory {path}") from None
    except FileError as error:
        raise BaselineError(f"{error}; {_ALLOWED}") from None


def _results(path: Path, label: str) -> Baseline:
    folder = path / "results" if (path / "results").is_dir() else path
    files = sorted(f for f in folder.iterdir() if _COMBINED.fullmatch(f.name))
    if not files:
        raise BaselineError(f"{path}: no phase1_combined_MODEL.json in it; {_ALLOWED}")
    return Baseline(label, path, tuple(_combined(f, Fields(str(f), _load(f))) for f in files))


def _stored(path: Path, label: str, document: Fields) -> Baseline:
    runs = []
    for number, one in enumerate(document.items("runs"), 1):
        fields = Fields(f"{path}, run {number}", one)
        budgets = _budgets(fields)
        answers = [
            _answer(Fields(f"{fields.where}, answer {place}", each), len(budgets))
            for place, each in enumerate(fields.items("answers"), 1)
        ]
        runs.append(_run(fields, budgets, answers))
    if not runs:
        raise BaselineError(f"{path}: it holds no run")
    return Baseline(
        label,
        path,
        tuple(runs),
        saved=document.text("saved", None),
        machine=_object(document, "machine"),
        commit=_object(document, "commit"),
    )


def _combined(path: Path, document: Fields) -> Run:
    match = _COMBINED.fullmatch(path.name)
    if match is None:
        raise BaselineError(
            f"{path}: its answers lie in files named after it, so it must be called "
            "phase1_combined_MODEL.json"
        )
    budgets = _budgets(document)
    columns: list[dict[tuple[str, int], Fields]] = []
    for budget in budgets:
        file = path.with_name(f"phase1_main_{match['stem']}_budget{budget}.json")
        rows = _load(file)
        if not isinstance(rows, list):
            raise BaselineError(f"{file}: a list of answers is needed")
        fields = [Fields(f"{file}, record {n}", row) for n, row in enumerate(rows, 1)]
        columns.append({(f.name("problem_id"), f.count("sample") or 0): f for f in fields})
        if columns[-1].keys() != columns[0].keys():
            raise BaselineError(f"{file} has other problems or samples than at {budgets[0]} tokens")
    answers = [_of_records([column[key] for column in columns]) for key in columns[0]]
    return _run(document, budgets, answers)


def _budgets(fields: Fields) -> tuple[int, ...]:
    values = fields.items("budgets")
    budgets = tuple(v for v in values if isinstance(v, int) and not isinstance(v, bool) and v > 0)
    if not budgets or len(budgets) < len(values) or list(budgets) != sorted(set(budgets)):
        raise fields.bad("budgets", repr(list(values))[:60], "a list of whole numbers that rise")
    return budgets


def _run(fields: Fields, budgets: tuple[int, ...], answers: Iterable[RunAnswer]) -> Run:
    by_key: dict[tuple[str, int], RunAnswer] = {}
    for answer in answers:
        if by_key.setdefault((answer.problem_id, answer.sample), answer) is not answer:
            raise BaselineError(
                f"{fields.where}: problem {answer.problem_id!r}, sample {answer.sample} is there "
                "twice"
            )
    if not by_key:
        raise BaselineError(f"{fields.where}: it holds no answer")
    return Run(
        model=fields.text("model"),
        identity={k: str(v) for k, v in _object(fields, "identity").items()},
        mode=fields.text("mode"),
        task=fields.text("task"),
        extractor=fields.text("extractor"),
        decoding=_object(fields, "decoding"),
        samples=1 + max(sample for _, sample in by_key),
        budgets=budgets,
        answers=by_key,
        versions={k: str(v) for k, v in _object(fields, "versions").items()},
        started=fields.text("started", None),
    )


def _object(fields: Fields, key: str) -> dict[str, object]:
    inner = fields.inner(key)
    return dict(inner.found) if inner else {}


def _answer(fields: Fields, budgets: int) -> RunAnswer:
    def column(key: str, kinds: type | tuple[type, ...], allowed: str) -> Sequence[object]:
        values = fields.items(key)
        if len(values) != budgets:
            raise fields.bad(key, f"a list of {len(values)}", f"one of {budgets}, one a budget")
        for value in values:
            if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
                raise fields.bad(key, repr(value)[:40], allowed)
        return values

    longest = fields.text("generated", empty=True)
    shown = column("shown", (int, str), "a length or a text")
    return RunAnswer(
        problem_id=fields.name("problem_id"),
        sample=fields.count("sample") or 0,
        category=fields.text("category", None) or NO_CATEGORY,
        question=fields.text("question"),
        expected=fields.scalar("ground_truth"),
        outcomes=tuple(_outcome(fields, v) for v in column("outcome", str, "an outcome")),
        truncated=tuple(bool(v) for v in column("truncated", bool, "true or false")),
        tokens=tuple(int(str(v)) for v in column("tokens_used", int, "a whole number")),
        predicted=tuple(
            None if v is None else str(v)
            for v in column("predicted", (str, type(None)), "a text or null")
        ),
        texts=tuple(longest[:v] if isinstance(v, int) else str(v) for v in shown),
    )


def _of_records(records: Sequence[Fields]) -> RunAnswer:
    first = records[0]
    return RunAnswer(
        problem_id=first.name("problem_id"),
        sample=first.count("sample") or 0,
        category=first.text("category", None) or NO_CATEGORY,
        question=first.text("question"),
        expected=first.scalar("ground_truth"),
        outcomes=tuple(_outcome(r, r.text("outcome")) for r in records),
        truncated=tuple(bool(r.flag("truncated")) for r in records),
        tokens=tuple(r.count("tokens_used") or 0 for r in records),
        predicted=tuple(r.text("predicted", None, empty=True) or None for r in records),
        texts=tuple(r.text("generated", empty=True) for r in records),
    )


def _outcome(fields: Fields, value: object) -> str:
    if value not in list(Outcome):
        raise fields.bad("outcome", repr(value), ", ".join(Outcome))
    return str(value)
