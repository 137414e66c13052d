"""The manifest of a reports folder: which files belong to which results.

The folder's ``MANIFEST`` is a JSON file without a suffix, so that nobody takes it for a result. It
lists what this plugin wrote, and what was measured: task, problems, model, decoding and budgets.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_tokenbudget.common.outside_files import parse_json, read_json
from pytest_tokenbudget.common.outside_text import PrintableError
from pytest_tokenbudget.core.plan import digest
from pytest_tokenbudget.recorded.files import MANIFEST
from pytest_tokenbudget.report.files import write_json

if TYPE_CHECKING:
    from pytest_tokenbudget.tasks.problem import Problem

SCHEMA = "tokenbudget-manifest/1"
ADOPTED = "adopted"
_FOLDERS = ("results", "figures")
# The names of what this plugin writes into them.
_OURS = re.compile(
    r"phase\d|fig\d|(thinking|allocation|scenarios|context|conformance|tokenizers|compare)_"
    r"|(metrics|gates)\.json\Z"
)
_CONVERSATIONS = "tokenbudget-context"


class ManifestError(PrintableError, OSError):
    """A manifest cannot be used; the message is for people."""


class ProblemSet(NamedTuple):
    """Which problems of a task were used.

    Attributes:
        number: How many.
        sha256: Digest of their ids, questions and answers; empty where it is not known.
    """

    number: int
    sha256: str = ""

    def same_as(self, other: ProblemSet) -> bool:
        """Whether these are the same problems, as far as both are known."""
        unknown = not (self.sha256 and other.sha256)
        return self.number == other.number and (unknown or self.sha256 == other.sha256)


Selection = Mapping[str, ProblemSet]
"""Problems by task."""


def problems_of(problems: Iterable[Problem]) -> ProblemSet:
    """Describe the problems of a task."""
    rows = sorted({(p.id, p.question, str(p.answer)) for p in problems})
    return ProblemSet(len(rows), digest(rows))


def same_selection(one: Selection | None, other: Selection | None) -> bool:
    """Whether results of both can stand side by side; None is for results of no task."""
    if one is None or other is None:
        return True
    return one.keys() == other.keys() and all(one[task].same_as(other[task]) for task in one)


@dataclass(frozen=True)
class Entry:
    """Results that were written together, and what they are results of.

    Attributes:
        section: The part of the report, such as ``saturation``.
        selection: The problems; None for what is measured without a task.
        model: The model's name in the files' names; empty for files about a whole run.
        mode: The mode, which is part of the files' names, too.
        kind: The kind of study.
        models: Digest of each model's identity by name; several where models are compared.
        origin: Digest of how tokens were chosen, or of the recorded files.
        details: Digest of further settings that make other results of the same problems.
        budgets: The budgets.
        samples: Samples a problem.
        complete: Whether nothing is missing.
        files: The files, relative to the reports folder.
    """

    section: str
    selection: Selection | None = None
    model: str = ""
    mode: str = ""
    kind: str = ""
    models: Mapping[str, str] = field(default_factory=dict)
    origin: str = ""
    details: str = ""
    budgets: tuple[int, ...] = ()
    samples: int = 1
    complete: bool = True
    files: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str, str]:
        """Entries with the same key write the same files."""
        return self.section, self.model, self.mode

    @property
    def _study(self) -> tuple[str, str, str]:
        return self.kind, self.model, self.mode

    def replaceable_by(self, newer: Entry) -> bool:
        """Whether ``newer`` has everything that this entry has."""
        return (
            self.details == newer.details
            and set(self.budgets) <= set(newer.budgets)
            and self.samples <= newer.samples
            and (newer.complete or not self.complete)
        )

    def conflicts_with(self, newer: Entry) -> bool:
        """Whether this entry cannot stay in a folder that ``newer`` is written to."""
        if not same_selection(self.selection, newer.selection):
            return True
        both = self.models.keys() & newer.models.keys()
        if any(self.models[name] != newer.models[name] for name in both):
            return True
        same_study = self.kind and self._study == newer._study
        if same_study and self.origin != newer.origin:
            return True
        return self.key == newer.key and not self.replaceable_by(newer)

    def label(self) -> str:
        """A short name of the selection, for people and for a folder."""
        if self.selection is None:
            return self.section
        if not self.selection:
            return "mixed"
        return "+".join(f"{task}-{problems.number}" for task, problems in self.selection.items())


def read_entries(folder: Path) -> list[Entry]:
    """Read the entries of a reports folder; of one without a manifest, what its results tell.

    Raises:
        ManifestError: If the manifest was written by a newer version.
        OSError: If it cannot be read.
    """
    try:
        record = parse_json((folder / MANIFEST).read_text(encoding="utf-8"))
        if not isinstance(record, dict):
            raise ValueError("not an object")
        schema = record.get("schema")
        entries = [_from_record(each) for each in record["entries"]] if schema == SCHEMA else []
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return adopt(folder)
    if schema != SCHEMA:
        raise ManifestError(
            f"{folder / MANIFEST} has the schema {schema!r}, and this version knows {SCHEMA!r}: "
            "name another folder with --reports, or update the plugin"
        )
    return entries


def write_entries(folder: Path, entries: Sequence[Entry]) -> None:
    """Write the manifest; without entries there is none."""
    if entries:
        records = [
            {
                **{name: value for name, value in vars(entry).items() if name != "selection"},
                "selection": None if entry.selection is None else dict(entry.selection),
            }
            for entry in entries
        ]
        write_json(folder / MANIFEST, {"schema": SCHEMA, "entries": records})
    else:
        (folder / MANIFEST).unlink(missing_ok=True)


def _from_record(record: Mapping[str, Any]) -> Entry:
    values = {name: record[name] for name in Entry.__dataclass_fields__ if name in record}
    if values["selection"] is not None:
        values["selection"] = {
            task: ProblemSet(int(found["number"]), str(found["sha256"]))
            for task, found in values["selection"].items()
        }
    for name in ("budgets", "files"):
        values[name] = tuple(values[name])
    entry = Entry(**values)
    for file in entry.files:
        # Files are moved by these names.
        if Path(file).is_absolute() or ".." in Path(file).parts:
            raise ValueError(f"{file} is outside of the folder")
    return entry


def add(entries: Iterable[Entry], new: Entry) -> list[Entry]:
    """Entries with ``new`` among them, which takes over its files.

    A file that several models share belongs to each of their entries.
    """
    kept = []
    files = set(new.files)
    for entry in entries:
        if entry.key == new.key:
            new = replace(new, files=tuple(dict.fromkeys([*entry.files, *new.files])))
        elif entry.section == new.section:
            kept.append(entry)
        elif left := tuple(file for file in entry.files if file not in files):
            kept.append(replace(entry, files=left))
    return [*kept, new]


def adopt(folder: Path) -> list[Entry]:
    """Describe the results of a folder that has no manifest, from what the results say."""
    headers = list(_headers(folder))
    if not headers:
        return []
    tasks: dict[str, set[int]] = {}
    for _, header in headers:
        # Conversations are counted by themselves.
        of_task = not header["schema"].startswith(_CONVERSATIONS)
        if of_task and isinstance(header.get("task"), str):
            number = int(header.get("problems") or 0) + int(header.get("missing") or 0)
            tasks.setdefault(header["task"], set()).add(number)
    several = len(tasks) != 1 or any(len(numbers) > 1 for numbers in tasks.values())
    found = {} if several else {task: ProblemSet(max(numbers)) for task, numbers in tasks.items()}
    everything = _files(folder)
    entries = []
    for stem, header in headers:
        if header["schema"].startswith("tokenbudget-phase1/"):
            mine = re.compile(
                rf"results/phase1_(combined_{re.escape(stem)}|main_{re.escape(stem)}_budget\d+)\.json"
                rf"|figures/fig1_[a-z_]+_{re.escape(stem)}\.(png|svg)"
            )
            files = tuple(name for name in everything if mine.fullmatch(name))
            entries.append(_adopted(header, found, files))
    taken = {file for entry in entries for file in entry.files}
    rest = tuple(name for name in everything if name not in taken)
    return [*entries, Entry(ADOPTED, found if tasks else None, files=rest)] if rest else entries


def _adopted(header: Mapping[str, Any], selection: Selection, files: tuple[str, ...]) -> Entry:
    return Entry(
        section="saturation",
        selection=selection,
        model=str(header.get("model")),
        mode=str(header.get("mode")),
        kind="main",
        models={str(header.get("model")): digest_of(header.get("identity") or {})},
        origin=origin_of(header.get("decoding"), header.get("identity") or {}),
        budgets=tuple(header.get("budgets") or ()),
        samples=int(header.get("samples") or 1),
        complete=bool(header.get("complete")),
        files=files,
    )


def digest_of(identity: Mapping[str, object]) -> str:
    """Digest of a model's identity, without what tells recorded files apart."""
    return digest({k: v for k, v in identity.items() if k not in ("sha256", "format")})[:16]


def origin_of(decoding: object, identity: Mapping[str, object]) -> str:
    """Digest of how tokens were chosen and, for recorded answers, of the files."""
    return digest([decoding, identity.get("sha256") if "source" in identity else None])[:16]


def _headers(folder: Path) -> Iterable[tuple[str, dict[str, Any]]]:
    """What the combined files of phase 1 and others say first."""
    for path in sorted((folder / "results").glob("*.json")):
        try:
            record = read_json(path)
        except (OSError, ValueError):
            continue
        schema = record.get("schema") if isinstance(record, dict) else None
        if isinstance(schema, str) and schema.startswith("tokenbudget-") and "model" in record:
            yield path.stem.removeprefix("phase1_combined_"), record


def _files(folder: Path) -> list[str]:
    return [
        path.relative_to(folder).as_posix()
        for name in _FOLDERS
        for path in sorted((folder / name).glob("*"))
        if path.is_file() and _OURS.match(path.name)
    ]


def listed(entries: Collection[Entry]) -> set[str]:
    """All files of entries."""
    return {file for entry in entries for file in entry.files}
