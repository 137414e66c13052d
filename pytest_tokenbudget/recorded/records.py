"""Recorded generations as data: what files hold, and what one model wrote for one task."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from pytest_tokenbudget.common.outside_text import PrintableError
from pytest_tokenbudget.core.engine import Decoding, UnrecordedDecoding
from pytest_tokenbudget.tasks.jsonl import ANSWER_INSTRUCTION, json_kind
from pytest_tokenbudget.tasks.problem import NO_CATEGORY, Problem

MAIN = "main"
CLIFF = "phase3_cliff"


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
        for budget in sorted(self.records, key=lambda b: b or 0):
            yield from self.records[budget].values()

    @cached_property
    def problems(self) -> tuple[Problem, ...]:
        """The problems, in the order of the files."""
        found: dict[str, Problem] = {}
        for record in self.all_records():
            if record.problem_id not in found:
                messages = (
                    {"role": "system", "content": ANSWER_INSTRUCTION},
                    {"role": "user", "content": record.question},
                )
                found[record.problem_id] = Problem(
                    record.problem_id,
                    record.question,
                    record.answers[0],
                    record.category,
                    messages,
                    {"answers": list(record.answers)},
                )
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
        if len(self.records) == 1:
            return Runs.SINGLE
        held, pairs = self.prefixes
        return Runs.CUTS if held == pairs > 0 else Runs.INDEPENDENT


def _is_cut(record: Record, longer: str) -> bool:
    # A cut may end inside a character, and some tools strip white space at the end.
    text = record.text.rstrip("\ufffd")
    if record.truncated is False and record.text != longer:
        return False
    return longer.startswith(text) or longer.startswith(text.rstrip())


_NEEDED = "\0needed"
# No model writes more in one output; every token that is claimed takes memory.
MOST_TOKENS = 1_000_000


def expected(answer: str) -> str:
    """The expected answer: of a worked solution what stands after its last ``####``."""
    return answer.rpartition("####")[2].strip() or answer.strip()


class Fields:
    """One JSON object with where it stands.

    Readers of values give None, or nothing, where one is null or not there.

    Raises:
        RecordingError: If it is no object.
    """

    def __init__(self, where: str, found: object) -> None:
        if not isinstance(found, dict):
            raise RecordingError(f"{where}: {json_kind(found)}; an object is needed")
        self.where = where
        self.found: Mapping[str, object] = found

    def bad(self, key: str, found: str, allowed: str) -> RecordingError:
        return RecordingError(f"{self.where}: {key!r} is {found}; allowed is {allowed}")

    def missing(self, key: str) -> RecordingError:
        there = ", ".join(repr(name) for name in list(self.found)[:8]) or "no key"
        more = ", ..." if len(self.found) > 8 else ""
        return RecordingError(f"{self.where}: {key!r} is missing; there is {there}{more}")

    def get(self, key: str) -> object:
        return self.found.get(key)

    def text(self, key: str, otherwise: str | None = _NEEDED, *, empty: bool = False) -> str:
        """A string; an empty one counts as missing unless ``empty``."""
        value = self.get(key)
        if value is None:
            if otherwise == _NEEDED:
                raise self.missing(key)
            return otherwise or ""
        if not isinstance(value, str):
            raise self.bad(key, json_kind(value), "a string")
        if not (empty or value.strip()) and otherwise == _NEEDED:
            raise self.bad(key, "empty", "a string that is not")
        return value

    def scalar(self, key: str) -> str:
        """A string that is not empty, or a number, as a string."""
        value = self.get(key)
        if value is None:
            raise self.missing(key)
        shown = number_text(value)
        if shown is None and isinstance(value, str):
            shown = value.strip()
        if not shown:
            found = "empty" if shown == "" else json_kind(value)
            raise self.bad(key, found, "a string that is not empty, or a number")
        return shown

    def name(self, key: str) -> str:
        value = self.get(key)
        if isinstance(value, Decimal):
            raise self.bad(key, str(value), "a string or a whole number")
        return self.scalar(key)

    def count(self, key: str, at_least: int = 0) -> int | None:
        """A whole number; None where it is null or not there."""
        value = self.get(key)
        if value is None:
            return None
        if isinstance(value, Decimal) and value == value.to_integral_value():
            value = int(value)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or value < at_least:  # type: ignore[operator]
            found = str(value) if isinstance(value, int | Decimal) else json_kind(value)
            raise self.bad(key, found.lower(), f"a whole number from {at_least}")
        return int(value)  # type: ignore[call-overload,no-any-return]

    def tokens(self, key: str, at_least: int = 0) -> int | None:
        """A number of output tokens; None where it is null or not there."""
        value = self.count(key, at_least)
        if value is not None and value > MOST_TOKENS:
            raise self.bad(key, f"{value:,}", f"a number of tokens up to {MOST_TOKENS:,}")
        return value

    def number(self, key: str, otherwise: float) -> float:
        """A number; ``otherwise`` where it is none."""
        text = number_text(self.get(key))
        return otherwise if text is None else float(text)

    def flag(self, key: str) -> bool | None:
        value = self.get(key)
        if value is None or isinstance(value, bool):
            return value
        if value in (0, 1) and isinstance(value, int | Decimal):
            return bool(value)
        raise self.bad(
            key, json_kind(value) if not _is_number(value) else str(value), "true or false"
        )

    def inner(self, key: str) -> Fields | None:
        value = self.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.bad(key, json_kind(value), "an object")
        return Fields(self.where, value)

    def items(self, key: str) -> Sequence[object]:
        value = self.get(key)
        if value is None:
            return ()
        if not isinstance(value, list):
            raise self.bad(key, json_kind(value), "a list")
        return value


def number_text(value: object) -> str | None:
    """A JSON number written out, but not 1e999 as a million digits; None for anything else."""
    if not _is_number(value):
        return None
    plain = isinstance(value, Decimal) and abs(value.adjusted()) < 50
    return format(value, "f") if plain else str(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)
