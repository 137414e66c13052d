"""What a model answered under one limit, judged: what gates look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

from pytest_tokenbudget.core.scoring import JudgedCut
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.core.trace import Outcome
from pytest_tokenbudget.tasks.problem import Problem


def matches(patterns: Sequence[str], names: Iterable[str]) -> bool:
    """Whether one of the names is meant; no pattern means all."""
    return not patterns or any(fnmatchcase(name, p) for p in patterns for name in names)


# What a problem is sorted by besides its category.
LABELS = ("framing", "game")


@dataclass(frozen=True)
class Answers:
    """What a model answered under one limit, judged.

    Attributes:
        judged: In the order of the problems, and of the samples within each.
        samples: Samples a problem.
        tokens: Output tokens of each.
        max_tokens: The most tokens that one could have.
    """

    judged: Sequence[JudgedCut]
    samples: int
    tokens: Sequence[int]
    max_tokens: int

    def in_categories(self, categories: Sequence[str]) -> Answers:
        """Those to problems of some categories; all without one."""
        if not categories:
            return self
        kept = [
            place for place, j in enumerate(self.judged) if matches(categories, labels(j.problem))
        ]
        return Answers(
            [self.judged[place] for place in kept],
            self.samples,
            [self.tokens[place] for place in kept],
            self.max_tokens,
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """All that problems are sorted by."""
        found = [label for j in self.judged for label in labels(j.problem)]
        return tuple(dict.fromkeys(found))

    @property
    def errors(self) -> int:
        return sum(j.outcome is Outcome.ERROR for j in self.judged)


def labels(problem: Problem) -> tuple[str, ...]:
    """What a problem may be called as one of a category."""
    also = (problem.metadata.get(name) for name in LABELS)
    return (problem.category, *(label for label in also if isinstance(label, str)))


class AnswersByBudget(NamedTuple):
    """Answers of a study at every budget.

    ``largest`` is the budget that a gate without one means. ``by_mode`` has for each mode a
    function from a budget to the answers there; the first is judged if a gate names no mode.
    """

    largest: int
    by_mode: Mapping[str, Callable[[int], Answers]]


def study_answers(study: Study) -> Callable[[int], Answers]:
    """The answers of a study whose budgets are cuts, by budget."""

    def at(budget: int) -> Answers:
        judged = study.judged(budget)
        return Answers(judged, study.samples, [j.cut.tokens_used for j in judged], budget)

    return at
