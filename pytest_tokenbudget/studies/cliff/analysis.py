"""The cliff of a study between budgets, and where in the output answers come.

Answers are looked at in two ways, from which traces are right when stopped at every token. The
steepest window is the stretch of so many tokens over which accuracy gains most, wherever it lies;
the interval on its place is that of ``may_be_largest``. The token at which an answer came is the
first from which on a trace is right and stays right to the end; answers that were right and turned
wrong again never came, and are counted by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pytest_tokenbudget.common.text_layout import count
from pytest_tokenbudget.core.cliff import BudgetStep, Cliff, cliff_budgets, study_cliff
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.core.trace import Outcome
from pytest_tokenbudget.stats.intervals import Estimate, Floats, clustered_rate
from pytest_tokenbudget.stats.points import ByBudget
from pytest_tokenbudget.stats.resampling import (
    REPLICATES,
    bootstrap_mean,
    may_be_largest,
    problem_weights,
)

SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)
_CHUNK = 200


@dataclass(frozen=True)
class TokenWindow:
    """Tokens ``low + 1`` to ``high``, and the accuracy gained over them.

    It was chosen as the steepest of many, so its gain flatters: the same window would gain less in
    other problems. ``place`` has no such fault.
    """

    low: int
    high: int
    gain: Estimate


@dataclass(frozen=True)
class Quantile:
    """By which token a share of the answers that came had come; a bootstrap interval by problem."""

    share: float
    token: Estimate


@dataclass(frozen=True)
class AnswerPlace:
    """Where in the output answers come.

    Attributes:
        width: Tokens of the window.
        reach: Tokens that were looked at.
        problems: Problems that were scored.
        traces: Traces that were scored.
        steepest: The steepest window (the first of equals); None where accuracy rises nowhere.
        place: From where to where the truly steepest window may lie, with ``confidence``.
        came: Share of traces that are right at the end.
        came_at: For each of these the token at which its answer came, rising.
        quantiles: Of these tokens.
        turned_wrong: Share of traces that were right at some token and are not at the end.
        confidence: Two-sided confidence of every interval.
    """

    width: int
    reach: int
    problems: int
    traces: int
    steepest: TokenWindow | None
    place: tuple[int, int] | None
    came: Estimate
    came_at: tuple[int, ...]
    quantiles: tuple[Quantile, ...]
    turned_wrong: Estimate
    confidence: float

    def sentence(self) -> str:
        """A summary in one sentence."""
        if self.steepest is None or self.place is None:
            return f"accuracy rises nowhere within {self.reach:,} tokens"
        middle = next((q.token for q in self.quantiles if q.share == 0.5), None)
        level = f"{100 * self.confidence:g} % interval"
        text = (
            f"token by token, the steepest {self.width} tokens are {self.steepest.low + 1:,} to "
            f"{self.steepest.high:,} ({level} of their place {self.place[0] + 1:,} to "
            f"{self.place[1]:,})"
        )
        if middle is None:
            return text
        return (
            f"{text}; half of the right answers came by token {count(middle.value)} "
            f"[{count(middle.low)}, {count(middle.high)}]"
        )


def find_answers(
    by_token: ArrayLike,
    width: int,
    scored: ArrayLike | None = None,
    *,
    confidence: float = 0.95,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> AnswerPlace:
    """Find where in the output answers come.

    Args:
        by_token: Problems x samples x tokens: whether a trace is right when stopped after token
            1, 2, ... With no token nothing is right.
        width: Tokens of the window, at most as many as there are.
        scored: Problems x samples, False where a trace cannot be judged (an error).
        confidence: Two-sided confidence.
        replicates: Resamples of problems.
        seed: Of these.

    Raises:
        ValueError: If shapes disagree or the width does not fit.
    """
    right = np.asarray(by_token, dtype=np.bool_)
    if right.ndim != 3:
        raise ValueError(f"expected problems x samples x tokens, got shape {right.shape}")
    problems, samples, reach = right.shape
    if not 1 <= width <= reach:
        raise ValueError(f"a window of {width} tokens does not fit into {reach}")
    whole = (
        np.ones((problems, samples), dtype=np.bool_)
        if scored is None
        else np.asarray(scored, dtype=np.bool_)
    )
    if whole.shape != (problems, samples):
        raise ValueError(f"scored has shape {whole.shape}, by_token has {right.shape}")
    kept = whole.any(axis=1)
    right, whole = right[kept], whole[kept]
    right = right & whole[:, :, None]
    weights = problem_weights(max(1, right.shape[0]), replicates, seed)
    ends = right[:, :, -1]
    steepest, place = (
        _steepest(right, whole, width, weights, confidence) if right.any() else (None, None)
    )
    # From the last token at which a trace is not right, its answer comes one later; counted from 1.
    tokens = np.where(right.all(axis=2), 0, reach - np.argmin(right[:, :, ::-1], axis=2)) + 1
    rows = np.nonzero(ends)[0]
    return AnswerPlace(
        width=width,
        reach=reach,
        problems=right.shape[0],
        traces=int(whole.sum()),
        steepest=steepest,
        place=place,
        came=clustered_rate(np.where(whole, ends, np.nan), confidence),
        came_at=tuple(np.sort(tokens[ends]).tolist()),
        quantiles=_quantiles(tokens[ends], rows, weights, confidence) if rows.size else (),
        turned_wrong=clustered_rate(np.where(whole, right.any(axis=2) & ~ends, np.nan), confidence),
        confidence=confidence,
    )


def _steepest(
    right: NDArray[np.bool_],
    whole: NDArray[np.bool_],
    width: int,
    weights: Floats,
    confidence: float,
) -> tuple[TokenWindow | None, tuple[int, int] | None]:
    """The steepest window of all, and from where to where the truly steepest may lie."""
    accuracy = right.sum(axis=1) / whole.sum(axis=1)[:, None]
    # With no token nothing is right.
    accuracy = np.pad(accuracy, ((0, 0), (1, 0))).astype(np.float32)
    mean = accuracy.mean(axis=0, dtype=np.float64)
    gains = mean[width:] - mean[:-width]
    drawn = weights.astype(np.float32) @ accuracy
    top = int(np.argmax(np.round(gains, 12)))
    if gains[top] <= 0:
        return None, None
    kept, _ = may_be_largest(gains, drawn[:, width:] - drawn[:, :-width], confidence)
    first, last = np.flatnonzero(kept)[[0, -1]].tolist()
    by_problem = accuracy[:, top + width].astype(np.float64) - accuracy[:, top]
    window = TokenWindow(top, top + width, bootstrap_mean(by_problem, confidence))
    return window, (first, last + width)


def _quantiles(
    tokens: NDArray[np.int64], rows: NDArray[np.intp], weights: Floats, confidence: float
) -> tuple[Quantile, ...]:
    """Quantiles of the tokens, each trace weighted as its problem is."""
    order = np.argsort(tokens, kind="stable")
    tokens, rows = tokens[order], rows[order]
    drawn = []
    for start in range(0, weights.shape[0], _CHUNK):
        reached = np.cumsum(weights[start : start + _CHUNK, rows], axis=1)
        reached /= reached[:, -1:]
        places = [
            np.minimum((reached < share - 1e-12).sum(axis=1), rows.size - 1) for share in SHARES
        ]
        drawn.append(tokens[np.stack(places, axis=1)])
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(drawn), [tail, 1 - tail], axis=0, method="inverted_cdf")
    problems = int(np.unique(rows).size)
    values = np.quantile(tokens, SHARES, method="inverted_cdf")
    return tuple(
        Quantile(
            share, Estimate(float(value), float(min(a, value)), float(max(b, value)), problems)
        )
        for share, value, a, b in zip(SHARES, values, low, high, strict=True)
    )


@dataclass(frozen=True)
class CliffPoint:
    """One budget of the cliff.

    Attributes:
        budget: The budget.
        accuracy: Accuracy there.
        step: From the budget before to this one; None at the smallest.
    """

    budget: int
    accuracy: Estimate
    step: BudgetStep | None


@dataclass(frozen=True)
class CliffStudy(ByBudget[CliffPoint]):
    """Where accuracy rises most steeply: between budgets, and token by token.

    Attributes:
        points: One for each budget, rising.
        cliff: What is known from these budgets.
        answers: Where in the output answers come, from every token; None where only answers at
            some budgets are known.
    """

    WHAT = "the cliff"

    points: tuple[CliffPoint, ...]
    cliff: Cliff
    answers: AnswerPlace | None


def analyse_cliff(study: Study) -> CliffStudy:
    """Where accuracy rises most steeply; computed once a study.

    Raises:
        ValueError: If no problem has all its traces, or no budget of the cliff is within reach.
    """
    study = study.cliff_study
    return study.cached(_analyse, study, cliff_budgets(study))


def _analyse(study: Study, budgets: tuple[int, ...]) -> CliffStudy:
    cliff, correct = study_cliff(study), study.correct_at(budgets)
    width = round((budgets[-1] - budgets[0]) / max(1, len(budgets) - 1)) or budgets[0]
    points = tuple(
        CliffPoint(
            budget,
            clustered_rate(correct[:, :, index]),
            cliff.at(budget) if len(budgets) > 1 else None,
        )
        for index, budget in enumerate(budgets)
    )
    answers = None
    if study.by_token_available:
        right = study.correct_by_token()[1]
        fine = [j.outcome is not Outcome.ERROR for j in study.judged(study.largest)]
        answers = find_answers(
            right.reshape(*correct.shape[:2], -1),
            width,
            np.array(fine, dtype=bool).reshape(correct.shape[:2]),
        )
    return CliffStudy(points, cliff, answers)
