"""Recorded generations as data: what files hold, and what one model wrote for one task."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from pytest_tokenbudget.common.outside_text import PrintableError
from pytest_tokenbudget.core.engine import Decoding, UnrecordedDecoding
from pytest_tokenbudget.tasks.jsonl import ANSWER_INSTRUCTION
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
