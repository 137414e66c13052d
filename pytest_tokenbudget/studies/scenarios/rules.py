"""Limits that were fixed before the traces were seen: rules of thumb, and one's own settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pytest_tokenbudget.stats.rules_of_thumb import Guideline
from pytest_tokenbudget.stats.truncation import (
    LimitVerdict,
    Truncation,
    as_traces,
    judge_limit,
    truncates,
)


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
class Kept:
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
) -> dict[str, tuple[Kept, ...]]:
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
            groups.append(Kept(name, ends, cut, judge_limit(cut, target)))
        found[split] = tuple(groups)
    return found
