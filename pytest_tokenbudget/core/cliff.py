"""The cliff: where accuracy rises most steeply, with evidence or the words "not resolved".

Budgets divide tokens into windows; the gain of a window is the accuracy at its end less that at its
start, on the same problems. Some window is always the steepest one seen. It is called the cliff
only where two things are shown:

1. It gains more a token than all other windows together. The test is one-sided, by problem, on a
   window's gain less its share of what the others gain, with Holm's correction over all windows:
   were accuracy to rise evenly, the chance that any window passes would be at most the error level
   (1 - confidence).
2. Its place is known. The windows that may be the truly steepest (``may_be_largest``, which keeps
   that one with the stated confidence) reach over at most half of all windows. From the first of
   them to the end of the last is the interval on the cliff's place.

Accuracy may fall from one budget to the next; nothing is smoothed, and no order is forced on it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from pytest_tokenbudget.common.text_layout import listed, plural
from pytest_tokenbudget.core.curve import check_axis
from pytest_tokenbudget.core.saturation import first_resolved, points, rounded_up
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.settings.options import DEFAULT_CLIFF_BUDGETS
from pytest_tokenbudget.stats.intervals import Estimate, Floats
from pytest_tokenbudget.stats.resampling import (
    REPLICATES,
    bootstrap_mean,
    bootstrap_p,
    holm,
    may_be_largest,
    p_words,
    problem_weights,
    sign_test,
)


class CliffStatus(StrEnum):
    """What is known about the cliff."""

    RESOLVED = "resolved"
    UNRESOLVED = "unresolved"


@dataclass(frozen=True)
class BudgetStep:
    """From one budget to the next.

    Attributes:
        gain: Accuracy at ``high`` less that at ``low``, with a bootstrap interval by problem;
            ``per_token`` is the same divided by the tokens between them.
        gained: Problems that do better at ``high``; ``lost`` are those that do worse.
        p: Exact two-sided test of any difference, paired by problem: McNemar's with one sample a
            problem; with several its generalisation, random signs by problem.
        p_holm: The same, adjusted by Holm over all steps; ``significant`` where it is at most the
            error level.
        excess_per_token: Its gain a token less that of all other steps together; None where it is
            the only one.
        p_steeper: One-sided test that this is above 0, adjusted by Holm over all steps.
        may_be_steepest: Whether it can be the truly steepest.
    """

    low: int
    high: int
    gain: Estimate
    per_token: Estimate
    gained: int
    lost: int
    p: float
    p_holm: float
    significant: bool
    excess_per_token: float | None
    p_steeper: float
    may_be_steepest: bool

    @property
    def width(self) -> int:
        return self.high - self.low


@dataclass(frozen=True)
class Cliff:
    """The steepest window, and what is known about it.

    Attributes:
        status: Whether it is shown to be a cliff, by the rule at the top of this module.
        steepest: The step with the largest gain a token (the first of equals); None without steps.
        place: From where to where the truly steepest window may lie, with ``confidence``.
        problems: Problems that were scored.
        confidence: Two-sided confidence of intervals; one less it is the error level of tests.
        needed: Problems at which it would be resolved if gains stayed as seen (an even chance, not
            a promise, and a hopeful one, since the steepest of several is seen at its best); None
            where it is resolved or no number of problems would do.
        reason: Why it is not resolved; "" where it is.
    """

    status: CliffStatus
    steps: tuple[BudgetStep, ...]
    steepest: BudgetStep | None
    place: tuple[int, int] | None
    problems: int
    confidence: float
    needed: int | None
    reason: str

    @property
    def budgets(self) -> tuple[int, ...]:
        return tuple(s.low for s in self.steps[:1]) + tuple(s.high for s in self.steps)

    def at(self, budget: int) -> BudgetStep | None:
        """The step that ends at ``budget``; None at the smallest.

        Raises:
            ValueError: If there is no such budget, naming those there are.
        """
        if budget not in self.budgets:
            there = ", ".join(map(str, self.budgets))
            raise ValueError(f"the cliff has no budget {budget}; it has {there}")
        return next((step for step in self.steps if step.high == budget), None)

    @property
    def ranked(self) -> tuple[tuple[BudgetStep, ...], ...]:
        """Windows in which accuracy rises, the steepest first; equally steep ones are grouped."""
        found: dict[float, list[BudgetStep]] = {}
        for step in self.steps:
            if step.gain.value > 0:
                found.setdefault(round(step.per_token.value, 12), []).append(step)
        return tuple(tuple(found[slope]) for slope in sorted(found, reverse=True))

    def sentence(self) -> str:
        steepest = self.steepest
        if steepest is None or self.place is None:
            return f"cliff not resolved: {self.reason}"
        gain = f"{points(steepest.gain.value)} in {steepest.width} tokens"
        if self.status is CliffStatus.RESOLVED:
            return (
                f"cliff from {steepest.low} to {steepest.high} tokens: {gain}, steeper than the "
                f"rest of {self.budgets[0]} to {self.budgets[-1]} ({p_words(steepest.p_steeper)}); "
                f"{100 * self.confidence:g} % interval of its place {self.place[0]} to "
                f"{self.place[1]}"
            )
        wish = (
            f"; about {rounded_up(self.needed):,} problems would be needed"
            if self.needed is not None
            else ""
        )
        seen = ""
        if self.ranked:
            others = [f"{step.low} to {step.high}" for step in self.ranked[0][1:]]
            alike = f" ({listed(others, len(others))} alike)" if others else ""
            seen = f"; steepest here from {steepest.low} to {steepest.high}, {gain}{alike}"
        return f"cliff not resolved at n = {self.problems:,}{wish}: {self.reason}{seen}"


def find_cliff(
    budgets: Sequence[int],
    correct: ArrayLike,
    confidence: float = 0.95,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Cliff:
    """Find the cliff of one model on one task.

    Args:
        budgets: Budgets in rising order.
        correct: Problems x samples x budgets, 1 for a right answer and 0 for any other; NaN where
            there is none to judge. A sample that lacks a budget is left out at all of them.
        confidence: Two-sided confidence of intervals; one less it is the error level of tests.
        replicates: Resamples of problems for the interval of the place.
        seed: Of these.

    Raises:
        ValueError: If shapes disagree or budgets do not rise.
    """
    scores = np.asarray(correct, dtype=np.float64)
    check_axis(budgets, scores.shape, "correct")
    sums, means = _by_problem(scores)
    widths = np.diff(np.asarray(budgets, dtype=np.float64))
    problems = means.shape[0]
    if widths.size == 0 or problems == 0:
        reason = "no problem was scored" if widths.size else f"{budgets[0]} is the only budget"
        return Cliff(CliffStatus.UNRESOLVED, (), None, None, problems, confidence, None, reason)
    gains = np.diff(means, axis=1)
    # Equal gains stay equal whatever the rounding: the first of equals is the steepest.
    slopes = np.round(gains.mean(axis=0) / widths, 12)
    drawn = problem_weights(problems, replicates, seed) @ (gains / widths)
    kept, behind = may_be_largest(slopes, drawn, confidence)
    excesses = [_excess(gains, widths, index) for index in range(widths.size)]
    p_values = [sign_test(column) for column in np.diff(sums, axis=1).T]
    p_adjusted = holm(p_values)
    p_steeper = holm([1.0 if e is None else bootstrap_p(e[0], lowest=e[1]) for e in excesses])
    steps = []
    for index, (low, high) in enumerate(pairwise(budgets)):
        column, excess = gains[:, index], excesses[index]
        gain = bootstrap_mean(column, confidence)
        steps.append(
            BudgetStep(
                low=low,
                high=high,
                gain=gain,
                per_token=_divided(gain, high - low),
                gained=int((column > 1e-9).sum()),
                lost=int((column < -1e-9).sum()),
                p=p_values[index],
                p_holm=p_adjusted[index],
                significant=p_adjusted[index] <= 1 - confidence,
                excess_per_token=None if excess is None else float(excess[0].mean()) / (high - low),
                p_steeper=p_steeper[index],
                may_be_steepest=bool(kept[index]),
            )
        )
    top = int(np.argmax(slopes))
    first, last = np.flatnonzero(kept)[[0, -1]].tolist()
    most = max(1, len(steps) // 2)
    needed, reason = None, ""
    if steps[top].gain.value <= 0:
        reason = f"accuracy rises nowhere from {budgets[0]} to {budgets[-1]}"
    elif excesses[top] is None:
        reason = "there is one window alone, and no other to compare it with"
    else:
        steep = steps[top].p_steeper <= 1 - confidence
        placed = last - first + 1 <= most
        if not steep:
            reason = "no window is shown to be steeper than the rest"
        elif not placed:
            reason = f"the steepest may lie anywhere from {steps[first].low} to {steps[last].high}"
        if reason:
            wanted = [
                0 if steep else _needed_steep(excesses[top], len(steps), problems, confidence),
                0 if placed else _needed_place(behind, top, most, problems),
            ]
            needed = None if None in wanted else max(n for n in wanted if n is not None)
    return Cliff(
        status=CliffStatus.UNRESOLVED if reason else CliffStatus.RESOLVED,
        steps=tuple(steps),
        steepest=steps[top],
        place=(steps[first].low, steps[last].high),
        problems=problems,
        confidence=confidence,
        needed=needed,
        reason=reason,
    )


def _divided(estimate: Estimate, by: float) -> Estimate:
    return Estimate(estimate.value / by, estimate.low / by, estimate.high / by, estimate.n)


def _by_problem(scores: Floats) -> tuple[Floats, Floats]:
    """Right samples of each problem at each budget, and their share of its whole samples."""
    whole = np.all(np.isfinite(scores), axis=2)
    counts = whole.sum(axis=1)
    sums: Floats = np.where(whole[:, :, None], scores, 0.0).sum(axis=1)[counts > 0]
    return sums, sums / counts[counts > 0][:, None]


def _excess(gains: Floats, widths: Floats, index: int) -> tuple[Floats, float] | None:
    """By problem: a step's gain less its share of all others', and the least that can be."""
    share = float(widths[index] / (widths.sum() - widths[index])) if widths.size > 1 else 0.0
    if not share:
        return None
    others = gains.sum(axis=1) - gains[:, index]
    # A problem that is right at the start can be lost in this step and won in two others at most:
    # the gains of a problem add up to no more than its way from wrong to right.
    return gains[:, index] - share * others, -1.0 - 2 * share


def _needed_steep(
    excess: tuple[Floats, float] | None, steps: int, problems: int, confidence: float
) -> int | None:
    """Problems that would show a step to be steeper, before the first of Holm's corrections."""
    if excess is None or excess[0].mean() <= 1e-12:
        return None
    levels, counts = np.unique(np.round(excess[0], 12), return_counts=True)
    return first_resolved(
        lambda size: (
            bootstrap_p(levels, counts * (size / problems), excess[1]) <= (1 - confidence) / steps
        ),
        problems + 1,
        2.0,
    )


def _needed_place(lags: Floats, top: int, widest: int, problems: int) -> int | None:
    """Problems at which all windows but ``widest`` neighbours around the steepest would be out."""
    wanted = math.inf
    for start in range(max(0, top - widest + 1), min(top, lags.size - widest) + 1):
        outside = np.delete(lags, range(start, start + widest))
        # How far a window is behind stays, how far would exclude it shrinks with the root of n.
        least = float(outside.min())
        if least > 0:
            wanted = min(wanted, problems / least**2)
    return max(problems + 1, math.ceil(wanted)) if math.isfinite(wanted) else None


def cliff_budgets(study: Study) -> tuple[int, ...]:
    """Budgets between which the cliff is looked for: of those asked for, what traces reach to.

    Where recorded runs know too few of these for a cliff, all that were recorded take their place.
    """
    study = study.cliff_study
    asked = study.cliff_budgets or DEFAULT_CLIFF_BUDGETS
    known = study.usable(asked)
    return study.budgets if study.source is not None and len(known) < 3 else known


def out_of_reach(study: Study) -> str:
    return f"traces reach to {plural(study.reach, 'token')}, below the smallest budget of the cliff"


def study_cliff(study: Study) -> Cliff:
    """Where accuracy rises most steeply between budgets; computed once a study.

    Raises:
        ValueError: If no problem has all its traces, or no budget of the cliff is within reach.
    """
    study = study.cliff_study
    return study.cached(_find, study, cliff_budgets(study))


def _find(study: Study, budgets: tuple[int, ...]) -> Cliff:
    if not study.complete:
        raise ValueError(
            f"no problem of {study.task.name} has all its traces of {study.alias} to "
            f"{study.reach} tokens: there is nothing to analyse"
        )
    if not budgets:
        raise ValueError(f"{study.alias}: {out_of_reach(study)}")
    return find_cliff(budgets, study.correct_at(budgets))
