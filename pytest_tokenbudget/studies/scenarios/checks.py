"""What traces say of two things that are claimed of scenarios, by tests on token counts.

That answers to one kind of scenario take more tokens than those to another; and that limits which
were fixed before the traces were seen are enough: rules of thumb, and one's own settings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pytest_tokenbudget.stats.intervals import Estimate, Floats, t_quantile
from pytest_tokenbudget.stats.rules_of_thumb import Guideline
from pytest_tokenbudget.stats.truncation import (
    LimitVerdict,
    Truncation,
    as_traces,
    judge_limit,
    truncates,
)

DRAWS = 1999
MORE = ("framing", "anger", "happiness")
"""What a guide's limits imply: the one needs more tokens than the other."""


@dataclass(frozen=True)
class MoreCheck:
    """Whether one kind of scenario needs more tokens than another.

    Attributes:
        more: The one.
        less: The other.
        difference: Mean tokens of the one less those of the other, over games that both have; over
            all together where there are too few of each.
        verdict: Whether the one needs more.
        capped: Whether traces met their cap, so that the difference is not all of it.
    """

    more: str
    less: str
    difference: Estimate
    verdict: LimitVerdict
    capped: bool


@dataclass(frozen=True)
class GroupDifference:
    """Whether the groups of a split take unlike numbers of tokens.

    Attributes:
        split: The split.
        groups: How many groups.
        problems: Problems behind it.
        p: By exchanging problems between groups, within strata.
        p_holm: The same, adjusted for the splits that were tried.
        explained: Share of the variance of ranks that lies between groups, within strata.
    """

    split: str
    groups: int
    problems: int
    p: float
    p_holm: float
    explained: float


def lengths_differ(
    tokens: ArrayLike,
    labels: Sequence[str],
    strata: Sequence[str] | None = None,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[float, float]:
    """Test whether groups take unlike numbers of tokens, by exchanging problems between them.

    It is the test of Kruskal and Wallis within strata, which scipy's ``permutation_test`` lacks.
    Ranks are compared, so that a capped trace counts as one of the longest; their means within a
    stratum are taken off. Each problem stays in its stratum.

    Args:
        tokens: One number a problem; infinite where the trace met its cap, NaN where it is missing.
        labels: The group of each problem.
        strata: What else makes problems unlike.
        draws: How often problems are exchanged.
        seed: Of the exchanges.

    Returns:
        The p-value, and the share of the variance of ranks that lies between the groups.
    """
    from scipy.stats import rankdata

    values = np.asarray(tokens, np.float64)
    known = ~np.isnan(values)
    ranks = np.asarray(rankdata(values[known]), np.float64)
    _, group = np.unique(np.asarray(labels, str)[known], return_inverse=True)
    within = np.asarray(["" for _ in labels] if strata is None else strata, str)[known]
    rng = np.random.default_rng(seed)
    drawn = np.empty((draws, ranks.size))
    for name in np.unique(within):
        rows = np.flatnonzero(within == name)
        ranks[rows] -= ranks[rows].mean()
        drawn[:, rows] = rng.permuted(np.tile(ranks[rows], (draws, 1)), axis=1)
    total = float((ranks**2).sum())
    if not known.any() or group.max() == 0 or total <= 0:
        return math.nan, math.nan
    members = np.eye(int(group.max()) + 1)[group]
    sizes = members.sum(axis=0)

    def between(table: Floats) -> Floats:
        return np.asarray(((table @ members) ** 2 / sizes).sum(axis=-1), np.float64)

    seen = float(between(ranks))
    reached = int((between(drawn) >= seen - 1e-9).sum())
    return (1 + reached) / (draws + 1), seen / total


def mean_gap(
    first: Sequence[ArrayLike], second: Sequence[ArrayLike], confidence: float = 0.95
) -> Estimate:
    """Difference of means over strata that both groups have.

    A stratum weighs as much as the smaller of its two groups. The interval is Student's, with the
    variance within strata and groups.

    Args:
        first: Numbers of the one group, stratum by stratum.
        second: Those of the other, in the same strata.
        confidence: Two-sided confidence.
    """
    both = zip(first, second, strict=True)
    pairs = [(np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in both]
    pairs = [(a, b) for a, b in pairs if a.size and b.size]
    count = sum(a.size + b.size for a, b in pairs)
    if not pairs:
        return Estimate(math.nan, math.nan, math.nan, 0)
    weights = np.array([min(a.size, b.size) for a, b in pairs], np.float64)
    weights /= weights.sum()
    value = float(sum(w * (a.mean() - b.mean()) for w, (a, b) in zip(weights, pairs, strict=True)))
    # Residuals of all strata together: one alone may have a single problem.
    left = np.concatenate([part - part.mean() for pair in pairs for part in pair])
    freedom = count - 2 * len(pairs)
    if freedom < 1:
        return Estimate(value, math.nan, math.nan, count)
    variance = float((left**2).sum()) / freedom
    spread = sum(w**2 * (1 / a.size + 1 / b.size) for w, (a, b) in zip(weights, pairs, strict=True))
    half = t_quantile((1 + confidence) / 2, freedom) * math.sqrt(variance * float(spread))
    return Estimate(value, value - half, value + half, count)


@dataclass(frozen=True)
class GuidelineCheck:
    """A rule of thumb against the traces.

    Attributes:
        guideline: The rule.
        applies: Whether it is meant for traces of this kind.
        truncation: What it truncates.
        verdict: Whether it is enough: whether it keeps to the target.
        recommended: The limit that is promised for these scenarios; None without one.
        times_recommended: How many times that the rule is.
    """

    guideline: Guideline
    applies: bool
    truncation: Truncation
    verdict: LimitVerdict
    recommended: int | None
    times_recommended: float | None


@dataclass(frozen=True)
class GivenLimit:
    """What limits that were fixed beforehand do to a group.

    Attributes:
        name: The group.
        limits: The smallest and the largest limit of its problems.
        truncation: What they truncate; its ``limit`` is 0, since there may be several.
        verdict: Whether that keeps to the target.
    """

    name: str
    limits: tuple[int, int]
    truncation: Truncation
    verdict: LimitVerdict


def judge_given(
    tokens: ArrayLike,
    complete: ArrayLike,
    limits: Sequence[int],
    splits: Mapping[str, Sequence[str]],
    *,
    target: float,
    confidence: float = 0.95,
) -> dict[str, tuple[GivenLimit, ...]]:
    """Judge limits that were fixed before these traces were seen, one a problem.

    Returns:
        By the name of each split, its groups; all problems stand under ``all``.
    """
    needs, ended = as_traces(tokens, complete)
    allowed = np.asarray(limits, np.float64)
    # What is over a limit is above 0 once the limit is taken off.
    over = needs - allowed[:, None]
    found = {}
    for split, labels in {"all": ["all"] * allowed.size, **splits}.items():
        names = np.asarray(labels, dtype=object)
        groups = []
        for name in dict.fromkeys(labels):
            rows = np.asarray(names == name)
            cut = truncates(over[rows], ended[rows], 0, confidence)
            ends = int(allowed[rows].min()), int(allowed[rows].max())
            groups.append(GivenLimit(name, ends, cut, judge_limit(cut, target)))
        found[split] = tuple(groups)
    return found
