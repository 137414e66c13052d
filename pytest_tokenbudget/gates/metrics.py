"""From answers to what a gate is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_tokenbudget.core.scoring import Judged
from pytest_tokenbudget.core.trace import Outcome
from pytest_tokenbudget.gates.targets import matches
from pytest_tokenbudget.stats.evidence import Evidence, mean_of, rate_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pytest_tokenbudget.tasks.problem import Problem

# What a problem is sorted by besides its category.
LABELS = ("framing", "game")


@dataclass(frozen=True)
class Answers:
    """What a model answered under one limit, judged.

    Attributes:
        judged: In the order of the problems, and of the samples within each.
        samples: Samples a problem.
        tokens: Output tokens of each.
        most: The most tokens that one could have.
    """

    judged: Sequence[Judged]
    samples: int
    tokens: Sequence[int]
    most: int

    def of(self, categories: Sequence[str]) -> Answers:
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
            self.most,
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """All that problems are sorted by."""
        found = [label for j in self.judged for label in labels(j.problem)]
        return tuple(dict.fromkeys(found))

    @property
    def errors(self) -> int:
        """Answers that an engine's error took."""
        return sum(j.outcome is Outcome.ERROR for j in self.judged)


def labels(problem: Problem) -> tuple[str, ...]:
    """What a problem may be called as one of a category."""
    also = (problem.metadata.get(name) for name in LABELS)
    return (problem.category, *(label for label in also if isinstance(label, str)))


def evidence_of(metric: str, answers: Answers) -> Evidence:
    """What answers say of a metric. An engine's error is no answer, and in its own metric only.

    Args:
        metric: Key of ``METRICS``.
        answers: The answers.
    """
    import numpy as np

    def table(values: Sequence[float]) -> NDArray[np.float64]:
        return np.array(values, dtype=np.float64).reshape(-1, answers.samples)

    outcomes = [j.outcome for j in answers.judged]
    failed = table([o is Outcome.ERROR for o in outcomes])
    if metric == "max_error_rate":
        return rate_of(failed)
    cut = table([j.cut.truncated for j in answers.judged])
    used = table(answers.tokens)
    right = table([o is Outcome.CORRECT for o in outcomes])

    def valid(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(failed == 1, np.nan, values)

    match metric:
        case "min_accuracy":
            return rate_of(valid(right))
        case "min_accuracy_completed":
            return rate_of(valid(np.where(cut == 1, np.nan, right)))
        case "max_truncation":
            return rate_of(valid(cut))
        case "max_truncated_in_thinking":
            return rate_of(valid(table([o is Outcome.TRUNCATED_IN_THINKING for o in outcomes])))
        case "max_mean_tokens":
            return mean_of(valid(used), 0.0, float(answers.most), scales=True)
    raise ValueError(f"answers say nothing of {metric}")


def longest_of(answers: Answers) -> NDArray[np.float64]:
    """Tokens of each problem's answer; of several samples, which are not independent, the longest.

    An engine's error is no answer.
    """
    import numpy as np

    used = [
        float("nan") if j.outcome is Outcome.ERROR else float(tokens)
        for j, tokens in zip(answers.judged, answers.tokens, strict=True)
    ]
    table = np.array(used, dtype=np.float64).reshape(-1, answers.samples)
    table = table[np.isfinite(table).any(axis=1)]
    longest: NDArray[np.float64] = np.nanmax(table, axis=1) if len(table) else table.ravel()
    return longest
