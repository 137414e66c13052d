"""The curve: accuracy, truncation and tokens used against budget, never one without the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pytest_tokenbudget.core.trace import Outcome
from pytest_tokenbudget.stats.intervals import Estimate, clustered_rate, mean_estimate
from pytest_tokenbudget.stats.points import ByBudget


@dataclass(frozen=True)
class Point:
    """What generation under one budget amounts to.

    A cut that failed (outcome ``error``) is missing data: it is out of every rate and mean, and
    counts in ``problems``, ``samples``, ``outcomes`` and in the best and worst case only.

    Attributes:
        problems: Problems posed; ``samples`` are the cuts over all of them.
        accuracy: Rate of right answers over all cuts, truncated ones included.
        completed: Rate of right answers over the cuts that were not truncated; None if all were.
        truncation: Rate of truncated cuts.
        best_case: Accuracy over all cuts if each truncated or failed one had become right.
        worst_case: Accuracy over all cuts if each of them had become wrong; an answer that was
            declared before the cut and is right stays right.
        mean_tokens: Output tokens used; ``max_tokens`` is the most that any cut used.
        outcomes: How many cuts came to which outcome, all outcomes named.
    """

    budget: int
    problems: int
    samples: int
    accuracy: Estimate
    completed: Estimate | None
    truncation: Estimate
    best_case: float
    worst_case: float
    mean_tokens: Estimate
    max_tokens: int
    outcomes: dict[str, int]


@dataclass(frozen=True)
class Curve(ByBudget[Point]):
    """Points in rising order of budget."""

    WHAT = "the curve"

    points: tuple[Point, ...]


def check_axis(budgets: Sequence[int], shape: tuple[int, ...], what: str) -> None:
    """Check that ``shape`` is problems x samples x budgets with rising budgets.

    Raises:
        ValueError: Naming ``what`` is wrong.
    """
    if not budgets or list(budgets) != sorted(set(budgets)) or budgets[0] < 1:
        raise ValueError(f"budgets must rise from at least 1, not {list(budgets)}")
    if len(shape) != 3 or shape[2] != len(budgets):
        raise ValueError(
            f"{what}: expected problems x samples x {len(budgets)} budgets, got shape {shape}"
        )
    if shape[0] == 0 or shape[1] == 0:
        raise ValueError(f"{what}: there is no problem to judge by (shape {shape})")


def build_curve(
    budgets: Sequence[int],
    outcomes: ArrayLike,
    truncated: ArrayLike,
    tokens: ArrayLike,
    confidence: float = 0.95,
) -> Curve:
    """The curve of one model on one task.

    Outcomes, truncated and tokens are problems x samples x budgets, these rising. A truncated cut
    may be ``correct`` where the right answer was declared before the cut. ``confidence`` is
    two-sided.

    Raises:
        ValueError: If shapes disagree, budgets do not rise, or an outcome is unknown.
    """
    words = np.asarray(outcomes).astype(str)
    cut_short = np.asarray(truncated, dtype=np.bool_)
    used = np.asarray(tokens, dtype=np.int64)
    for name, array in (("outcomes", words), ("truncated", cut_short), ("tokens", used)):
        check_axis(budgets, array.shape, name)
        if array.shape != words.shape:
            raise ValueError(f"{name} has shape {array.shape}, outcomes has {words.shape}")
    unknown = sorted(set(np.unique(words).tolist()) - set(Outcome))
    if unknown:
        raise ValueError(f"unknown outcomes {', '.join(unknown)}; known: {', '.join(Outcome)}")
    return Curve(
        tuple(
            _point(budget, words[:, :, b], cut_short[:, :, b], used[:, :, b], confidence)
            for b, budget in enumerate(budgets)
        )
    )


def _point(
    budget: int,
    words: NDArray[np.str_],
    cut_short: NDArray[np.bool_],
    used: NDArray[np.int64],
    confidence: float,
) -> Point:
    valid = words != Outcome.ERROR.value
    correct = words == Outcome.CORRECT.value
    completed = valid & ~cut_short
    # What a larger budget or a working engine could still have turned into a right answer.
    open_ended = ~valid | (cut_short & ~correct)
    return Point(
        budget=budget,
        problems=words.shape[0],
        samples=words.size,
        accuracy=clustered_rate(np.where(valid, correct, np.nan), confidence),
        completed=(
            clustered_rate(np.where(completed, correct, np.nan), confidence)
            if completed.any()
            else None
        ),
        truncation=clustered_rate(np.where(valid, cut_short, np.nan), confidence),
        best_case=float(np.mean(correct | open_ended)),
        worst_case=float(np.mean(correct)),
        mean_tokens=mean_estimate(np.where(valid, used, np.nan), confidence),
        max_tokens=int(used[valid].max()) if valid.any() else 0,
        outcomes={outcome.value: int(np.sum(words == outcome.value)) for outcome in Outcome},
    )
