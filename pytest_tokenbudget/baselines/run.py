"""A run as it is kept for comparisons: how every answer stood at each budget, with its text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_tokenbudget.common.outside_text import PrintableError
from pytest_tokenbudget.core.trace import Outcome
from pytest_tokenbudget.report.json_files import RunInfo, header, truncated

if TYPE_CHECKING:
    from pytest_tokenbudget.baselines.run_statistics import Scores
    from pytest_tokenbudget.core.study import Study

SCHEMA = "tokenbudget-baseline/1"


class BaselineError(PrintableError):
    """A run cannot be stored, found, read or compared with; the message is for people."""


@dataclass(frozen=True)
class RunAnswer:
    """One sample of one problem; sequences have a value for each budget of the run.

    Attributes:
        sample: Number of the sample, from 0.
        category: The problem's category.
        question: The problem's question.
        expected: The expected answer.
        outcomes: What the answer amounts to.
        truncated: Whether the budget cut it.
        tokens: Output tokens used.
        predicted: The answer that was found in it, None where there is none.
        texts: What the model wrote.
    """

    problem_id: str
    sample: int
    category: str
    question: str
    expected: str
    outcomes: tuple[str, ...]
    truncated: tuple[bool, ...]
    tokens: tuple[int, ...]
    predicted: tuple[str | None, ...]
    texts: tuple[str, ...]

    def right(self, place: int) -> bool:
        """Whether it is right at the budget of this place."""
        return self.outcomes[place] == Outcome.CORRECT

    def to_json(self) -> dict[str, object]:
        """As one object; of a text that begins the longest one only its length is kept."""
        longest = self.texts[-1]
        return {
            "problem_id": self.problem_id,
            "sample": self.sample,
            "category": self.category,
            "question": self.question,
            "ground_truth": self.expected,
            "outcome": list(self.outcomes),
            "truncated": list(self.truncated),
            "tokens_used": list(self.tokens),
            "predicted": list(self.predicted),
            "generated": longest,
            "shown": [len(t) if longest.startswith(t) else t for t in self.texts],
        }


@dataclass(frozen=True)
class Run:
    """What one model answered in one run of phase 1.

    Attributes:
        model: The model's name as given.
        identity: What exactly the model was.
        mode: ``plain`` or ``thinking``.
        task: The task's name.
        extractor: The rules that found the answers, with their version.
        decoding: How tokens were chosen.
        samples: Samples a problem.
        budgets: The budgets, rising.
        answers: Every answer by problem id and sample, in the order of the problems.
        versions: Versions of packages.
        started: When the run began.
    """

    model: str
    identity: Mapping[str, str]
    mode: str
    task: str
    extractor: str
    decoding: Mapping[str, object]
    samples: int
    budgets: tuple[int, ...]
    answers: Mapping[tuple[str, int], RunAnswer]
    versions: Mapping[str, str]
    started: str = ""

    @property
    def problems(self) -> tuple[str, ...]:
        """Ids of the problems, in order."""
        return tuple(dict.fromkeys(problem for problem, _ in self.answers))

    def scores(self, problems: Sequence[str], budgets: Sequence[int]) -> Scores:
        """The answers to some problems at some budgets, as arrays."""
        import numpy as np

        from pytest_tokenbudget.baselines.run_statistics import Scores

        places = [self.budgets.index(budget) for budget in budgets]
        shape = (3, len(problems), self.samples, len(budgets))
        table = np.full(shape, np.nan)
        for row, problem in enumerate(problems):
            for sample in range(self.samples):
                answer = self.answers.get((problem, sample))
                for column, place in enumerate(places if answer else ()):
                    assert answer is not None
                    if answer.outcomes[place] != Outcome.ERROR:
                        table[:, row, sample, column] = (
                            answer.right(place),
                            answer.truncated[place],
                            answer.tokens[place],
                        )
        return Scores(*table)


def run_of(study: Study, info: RunInfo) -> Run:
    """What is kept of a study.

    Args:
        study: A study of phase 1; problems that lack traces are left out.
        info: The run that made it.
    """
    columns = [study.judged(budget) for budget in study.budgets]
    answers = {}
    for row in zip(*columns, strict=True):
        problem, sample = row[0].problem, row[0].cut.trace.sample
        answers[problem.id, sample] = RunAnswer(
            problem_id=problem.id,
            sample=sample,
            category=problem.category,
            question=problem.question,
            expected=problem.answer,
            outcomes=tuple(each.outcome.value for each in row),
            truncated=tuple(truncated(each) for each in row),
            tokens=tuple(each.cut.tokens_used for each in row),
            predicted=tuple(each.predicted for each in row),
            texts=tuple(each.cut.text for each in row),
        )
    return Run(
        model=study.alias,
        identity=dict(study.identity),
        mode=study.mode,
        task=study.task.name,
        extractor=study.task.extractor,
        decoding=study.decoding.identity(),
        samples=study.samples,
        budgets=study.budgets,
        answers=answers,
        versions=dict(info.versions),
        started=info.started,
    )


def record_of(study: Study, info: RunInfo) -> dict[str, object]:
    """A study as it is stored: what it was, its curve for readers, and every answer."""
    run = run_of(study, info)
    # Such files are kept in repositories: where things lay on this machine is nobody's business.
    settings = {name: value for name, value in info.settings.items() if not _is_path(value)}
    return {
        **header(study, replace(info, settings=settings), SCHEMA),
        "budgets": list(study.budgets),
        "curve": list(study.curve.points) if study.scored else [],
        "answers": [answer.to_json() for answer in run.answers.values()],
    }


def _is_path(value: object) -> bool:
    parts = value if isinstance(value, tuple) and value else (value,)
    return any(isinstance(part, Path) for part in parts)
