"""Thinking against budget: where the answer settles, and which way to end it does better.

Arrays are problems x budgets, with the natural end (no limit) beside them. Where the thinking had
ended by itself before a budget, forcing it there changes nothing, and the natural answer stands.

References:
    McNemar (1947), Psychometrika 12:153, the exact form; Holm (1979), Scand. J. Statist. 6:65.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pytest_tokenbudget.common.text_layout import point_change, rate
from pytest_tokenbudget.core.saturation import BudgetComparison, Status, saturation_point
from pytest_tokenbudget.stats.intervals import Estimate, Floats, mean_estimate, wilson
from pytest_tokenbudget.stats.resampling import (
    bootstrap_mean,
    holm,
    p_words,
    ratio_estimate,
    sign_test,
)

Bools = NDArray[np.bool_]


class Course(StrEnum):
    """What forced answers at rising budgets say of one problem."""

    EARLY = "early"  # right, and stays right, before the thinking has ended by itself
    LATE = "late"  # right at the natural end, and not for good before
    LOST = "lost"  # right at some smaller budget, and not at the natural end
    NEVER = "never"


@dataclass(frozen=True)
class Settling:
    """Where answers become right for good, and what the thinking after that costs.

    Attributes:
        problems: Problems that could be judged: the natural answer and every forced one is there.
        missing: Problems that could not.
        courses: One for each problem; None where missing.
        first: For each problem the first budget at which the answer is right and stays right
            through the natural end; None where there is no such budget.
        shares: Share of each course among the problems.
        settled: For each budget the share of problems that are right there and stay right.
        wavering: Problems that are right at the natural end, and were right before and wrong again.
        lost_unended: Lost problems whose natural thinking never ended, but met its cap.
        overthinking_tokens: Mean thinking tokens after that point, over the problems right at the
            natural end. It is a lower bound, since budgets are apart; None where none is right.
        overthinking_share: The same as a share of all thinking tokens of these problems.
        overthinking_at_most: That share if each answer had settled right after the last budget at
            which it was still wrong.
    """

    budgets: tuple[int, ...]
    problems: int
    missing: int
    courses: tuple[Course | None, ...]
    first: tuple[int | None, ...]
    shares: Mapping[Course, Estimate]
    settled: tuple[Estimate, ...]
    wavering: int
    lost_unended: int
    overthinking_tokens: Estimate | None
    overthinking_share: Estimate | None
    overthinking_at_most: Estimate | None

    def sentence(self) -> str:
        """What is known, for people."""
        if not self.problems:
            return "where answers settle is not known: no problem has all its forced answers"
        early, lost = self.shares[Course.EARLY], self.shares[Course.LOST]
        text = f"{rate(early)} were right before the thinking ended and stayed right"
        if self.overthinking_share is not None:
            text += f"; thinking after that point is {rate(self.overthinking_share)} of it"
        text += f"; {rate(lost)} were right earlier and went wrong"
        if self.lost_unended:
            text += f", {self.lost_unended:,} of them cut off while thinking"
        return f"{text} (n = {self.problems:,})"


def settle(
    budgets: Sequence[int],
    correct: ArrayLike,
    natural: ArrayLike,
    natural_tokens: ArrayLike,
    *,
    capped: ArrayLike | None = None,
    confidence: float = 0.95,
) -> Settling:
    """Find where forced answers become right for good.

    Args:
        budgets: Thinking budgets in rising order, from 0.
        correct: Problems x budgets, 1 where the forced answer is right, 0 where not, NaN where
            there is none.
        natural: The same for the answer without a limit, one a problem.
        natural_tokens: Thinking tokens without a limit, one a problem.
        capped: Whether that thinking met its cap instead of ending, one a problem.
        confidence: Two-sided confidence.

    Raises:
        ValueError: If shapes disagree, budgets do not rise, or scores are other than 0, 1 or NaN.
    """
    table, lengths, ended = _with_natural(budgets, correct, natural, natural_tokens, capped)
    known = np.isfinite(table).all(axis=1) & np.isfinite(lengths)
    right = table[known] > 0.5
    lengths, ended = lengths[known], ended[known]
    n = len(lengths)
    # Right at a budget, at all larger ones, and at the natural end.
    stays = np.logical_and.accumulate(right[:, ::-1], axis=1)[:, ::-1]
    axis = np.asarray(budgets, np.float64)
    place = stays.argmax(axis=1)
    solved = right[:, -1]
    limits = np.append(axis, np.inf)
    point = np.minimum(limits[place], lengths)
    before = np.append(0.0, axis)
    # The last budget at which it was still wrong, if the thinking got that far.
    reached = np.maximum(np.searchsorted(axis, lengths) - 1, -1)
    last_wrong = before[np.minimum(place - 1, reached) + 1]
    early = solved & (point < lengths)
    lost = ~solved & right[:, :-1].any(axis=1)
    kinds = np.select(
        [early, solved, lost], [Course.EARLY.value, Course.LATE.value, Course.LOST.value], "never"
    )
    courses: list[Course | None] = [None] * len(known)
    first: list[int | None] = [None] * len(known)
    for row, index in enumerate(np.flatnonzero(known)):
        courses[index] = Course(str(kinds[row]))
        if solved[row] and place[row] < len(axis):
            first[index] = int(axis[place[row]])
    after, most, total = (lengths - point)[solved], (lengths - last_wrong)[solved], lengths[solved]
    typical = float(total.mean()) if total.size else 0.0

    def share(top: Floats) -> Estimate | None:
        pseudo = ((0.0, typical), (typical, typical))
        return ratio_estimate(top, total, pseudo, confidence=confidence)

    return Settling(
        budgets=tuple(budgets),
        problems=n,
        missing=len(known) - n,
        courses=tuple(courses),
        first=tuple(first),
        shares={kind: wilson(int((kinds == kind.value).sum()), n, confidence) for kind in Course},
        settled=tuple(wilson(int(stays[:, b].sum()), n, confidence) for b in range(len(budgets))),
        wavering=int((solved & (right[:, :-1] & ~stays[:, :-1]).any(axis=1)).sum()),
        lost_unended=int((lost & ~ended).sum()),
        overthinking_tokens=mean_estimate(after[:, None], confidence) if after.size else None,
        overthinking_share=share(after),
        overthinking_at_most=share(most),
    )


def _with_natural(
    budgets: Sequence[int],
    correct: ArrayLike,
    natural: ArrayLike,
    natural_tokens: ArrayLike,
    capped: ArrayLike | None,
) -> tuple[Floats, Floats, Bools]:
    """Problems x (budgets and the natural end), with the natural answer where thinking had ended.

    Beside them the lengths of the natural thinking, and whether it ended by itself.
    """
    check_budgets(budgets)
    lengths = np.asarray(natural_tokens, np.float64)
    ended = ~(np.zeros(lengths.shape, bool) if capped is None else np.asarray(capped, bool))
    forced, free = np.array(correct, np.float64), np.asarray(natural, np.float64)
    if forced.ndim != 2 or forced.shape[1] != len(budgets):
        raise ValueError(f"expected problems x {len(budgets)} budgets, got shape {forced.shape}")
    for name, array in (("natural", free), ("natural tokens", lengths), ("capped", ended)):
        if array.shape != forced.shape[:1]:
            raise ValueError(f"{name}: expected {forced.shape[0]} problems, got {array.shape}")
    over = ended[:, None] & (np.asarray(budgets)[None] >= lengths[:, None])
    table = np.column_stack([np.where(over, free[:, None], forced), free])
    if not np.isin(table[np.isfinite(table)], (0.0, 1.0)).all():
        raise ValueError("scores must be 0, 1, or NaN where there is none")
    return table, lengths, ended


def check_budgets(budgets: Sequence[int]) -> None:
    """Raise ValueError unless thinking budgets rise from at least 0."""
    if not len(budgets) or list(budgets) != sorted(set(budgets)) or budgets[0] < 0:
        raise ValueError(f"thinking budgets must rise from at least 0, not {list(budgets)}")


@dataclass(frozen=True)
class Usefulness:
    """The smallest thinking budget that is not worse than no limit by more than the margin.

    Attributes:
        budget: That budget; None unless ``status`` is ``saturated``.
        status: As of a saturation point; ``not_reached`` where the largest budget is shown to be
            worse than no limit.
        margin: Loss of accuracy that does not matter.
        confidence: One-sided confidence of every bound.
        problems: Problems with a natural answer.
        natural: Accuracy without a limit.
        comparisons: Every budget against no limit, in the order of testing (falling).
        needed: Problems that would resolve it, as of a saturation point.
        unended: Problems whose natural thinking met its cap: for them that cap was the limit.
    """

    budget: int | None
    status: Status
    margin: float
    confidence: float
    problems: int
    natural: Estimate
    comparisons: tuple[BudgetComparison, ...]
    needed: int | None
    unended: int = 0

    def sentence(self) -> str:
        """What is known, for people."""
        if self.unended:
            return (
                f"{self._finding()}; but what stands for no limit here cut off the thinking of "
                f"{self.unended:,} of {self.problems:,}: larger budgets tell more"
            )
        return self._finding()

    def _finding(self) -> str:
        points = f"{100 * self.margin:.1f}".removesuffix(".0") + " points"
        if self.status is Status.SATURATED:
            lowest = self.comparisons[-1].budget == self.budget
            return (
                f"thinking beyond {self.budget} tokens{' or less' if lowest else ''} brings no "
                f"more than {points} (one-sided {100 * self.confidence:g} %)"
            )
        if self.status is Status.NOT_REACHED:
            top = self.comparisons[0]
            return (
                f"thinking is useful beyond {top.budget} tokens: that budget is worse than no "
                f"limit by at least {-100 * top.upper_bound:.1f} points"
            )
        wish = "" if self.needed is None else f"; about {self.needed:,} problems would be needed"
        return f"where thinking stops being useful is not resolved at n = {self.problems:,}{wish}"


def stops_being_useful(
    budgets: Sequence[int],
    correct: ArrayLike,
    natural: ArrayLike,
    natural_tokens: ArrayLike,
    *,
    capped: ArrayLike | None = None,
    margin: float = 0.02,
    confidence: float = 0.95,
) -> Usefulness:
    """Find the smallest thinking budget that is not worse than no limit by the margin.

    The test is that of the saturation point, with the natural end as the largest budget.

    Raises:
        ValueError: As ``settle``, or if a number is out of its range.
    """
    table, _, ended = _with_natural(budgets, correct, natural, natural_tokens, capped)
    # Places stand for budgets: a saturation point knows no budget of 0 and no end without one.
    found = saturation_point(range(1, table.shape[1] + 1), table[:, None, :], margin, confidence)
    return Usefulness(
        budget=None if found.budget is None else budgets[found.budget - 1],
        status=found.status,
        margin=margin,
        confidence=confidence,
        problems=found.problems,
        natural=found.accuracy,
        comparisons=tuple(
            replace(each, budget=budgets[each.budget - 1]) for each in found.comparisons
        ),
        needed=found.needed,
        unended=int((~ended & np.isfinite(table[:, -1])).sum()),
    )


@dataclass(frozen=True)
class MethodComparison:
    """Two methods of ending the thinking, paired by problem.

    Attributes:
        budget: At which budget; None where each problem's right answers at several are added.
        budgets: The budgets that the comparison covers.
        difference: Accuracy of the first less that of the second, with a bootstrap interval.
        first_only: Problems in which the first does better.
        second_only: Problems in which the second does.
        p: Exact two-sided paired test: at one budget McNemar's, else by changing signs.
        p_holm: The same, adjusted for all comparisons of its kind (at one budget, or over all).
    """

    first: str
    second: str
    budget: int | None
    budgets: tuple[int, ...]
    problems: int
    difference: Estimate
    first_only: int
    second_only: int
    p: float
    p_holm: float

    def shown(self, level: float = 0.05) -> bool:
        """Whether a difference is shown."""
        return self.p_holm <= level

    def sentence(self) -> str:
        """What is known, for people."""
        pair = f"{self.first} against {self.second} {self._where()}"
        if not self.problems:
            return f"{pair}: no problem has both"
        value, _, interval = point_change(self.difference).partition(" ")
        text = f"{pair}: {value} points {interval}, n = {self.problems:,}"
        if not self.shown():
            return f"{text}: no difference is shown ({p_words(self.p_holm)})"
        return (
            f"{text}, {p_words(self.p_holm)}: {'better' if self.difference.value > 0 else 'worse'}"
        )

    def _where(self) -> str:
        if self.budget == 0:
            return "at budget 0, without thinking"
        if self.budget is not None:
            return f"at budget {self.budget:,}"
        if len(self.budgets) == 1:
            return f"at {self.budgets[0]:,}, the only budget above 0"
        return (
            f"over the {len(self.budgets)} budgets from {self.budgets[0]:,} to {self.budgets[-1]:,}"
        )


def compare_methods(
    budgets: Sequence[int], methods: Mapping[str, ArrayLike], confidence: float = 0.95
) -> tuple[MethodComparison, ...]:
    """Compare closers, or enforcements, with each other at each budget and over those above 0.

    Budget 0 is another kind of answer, without any thinking, and is compared only by itself.

    Args:
        budgets: Budgets in rising order.
        methods: Right answers of each method, problems x budgets: 1, 0, or NaN for none.
        confidence: Two-sided confidence of each difference.

    Returns:
        For each pair the comparison over all budgets above 0, if there are any, then those at one
        budget each.

    Raises:
        ValueError: If shapes disagree or budgets do not rise.
    """
    check_budgets(budgets)
    tables = {name: np.asarray(values, np.float64) for name, values in methods.items()}
    shapes = {table.shape for table in tables.values()}
    if len(shapes) > 1 or any(len(s) != 2 or s[1] != len(budgets) for s in shapes):
        raise ValueError(f"expected problems x {len(budgets)} budgets for all, got {shapes}")
    positive = [b for b, budget in enumerate(budgets) if budget > 0]
    above_0 = tuple(budgets[b] for b in positive)
    over_all, single = [], []
    for first, second in itertools.combinations(tables, 2):
        gaps = tables[first] - tables[second]
        if positive:
            several = gaps[:, positive]
            sums = several[np.isfinite(several).all(axis=1)].sum(axis=1)
            over_all.append(_pair((first, second), above_0, sums, confidence))
        for b, budget in enumerate(budgets):
            column = gaps[np.isfinite(gaps[:, b]), b]
            at_one = _pair((first, second), (budget,), column, confidence)
            single.append(replace(at_one, budget=budget))
    return tuple(
        replace(each, p_holm=p)
        for family in (over_all, single)
        for each, p in zip(family, holm([each.p for each in family]), strict=True)
    )


def _pair(
    names: tuple[str, str], budgets: tuple[int, ...], sums: Floats, confidence: float
) -> MethodComparison:
    p = sign_test(sums)
    return MethodComparison(
        first=names[0],
        second=names[1],
        budget=None,
        budgets=budgets,
        problems=sums.size,
        difference=bootstrap_mean(sums / len(budgets), confidence),
        first_only=int((sums > 0).sum()),
        second_only=int((sums < 0).sum()),
        p=p,
        p_holm=p,
    )
