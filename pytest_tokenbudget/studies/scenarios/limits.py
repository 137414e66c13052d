"""One limit for all scenarios against one for each group of them, learned and replayed.

A group gets a limit of its own where its traces allow the promise (see ``limits``). Where they do
not, it gets that of all, or the most that one of its traces took if that is more. Limits are
replayed on problems that they were not learned on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pytest_tokenbudget.common.text_layout import decimal, share
from pytest_tokenbudget.stats.intervals import Estimate, Floats, clustered_rate, mean_estimate
from pytest_tokenbudget.stats.limits import Promise, Recommendation, promised_limit, recommend
from pytest_tokenbudget.stats.resampling import Ints, advantages, folds
from pytest_tokenbudget.stats.truncation import Bools, as_traces, upper_rate

ONE_LIMIT = "one limit"
# Shares at which the path from small limits to large ones is drawn.
TARGETS = (0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.001)
# How often problems are drawn anew to see how much learned limits change with them.
REDRAWN = 199
# Problems below which nothing is replayed: each fold would have one of them, or none.
FEWEST = 10

Names = NDArray[np.object_]
Methods = Mapping[str, str | None]
"""Methods to set limits by their names: the split whose groups have limits, None for one limit."""


@dataclass(frozen=True)
class GroupLimit:
    """The limit of a group.

    Attributes:
        limit: The limit; None where there is no trace.
        promised: Whether the group's own traces promise that it truncates at most the target.
        found: What they say.
    """

    limit: int | None
    promised: bool
    found: Recommendation


class Learned(NamedTuple):
    """The limit of all scenarios, and those of the groups, by split and name."""

    overall: GroupLimit
    groups: Mapping[str, Mapping[str, GroupLimit]]


def learn(
    tokens: ArrayLike,
    complete: ArrayLike,
    splits: Mapping[str, Sequence[str]],
    *,
    target: float,
    confidence: float = 0.95,
) -> Learned:
    """Limits from traces.

    Args:
        tokens: Tokens that each trace took, one a problem or problems x samples; NaN where there
            is none (an error).
        complete: Whether each ended by itself, in the same shape; otherwise it met its cap.
        splits: By the name of each split, the group of each problem.
        target: Share of answers that a limit may truncate.
        confidence: One-sided confidence of each promise, which stands for itself.
    """
    needs, ended = as_traces(tokens, complete)

    def look(name: str, rows: Bools) -> Recommendation:
        return recommend(
            needs[rows],
            ended[rows],
            name=name,
            target=target,
            confidence=confidence,
            rules=(),
            fit=False,
        )

    everything = look("all", np.ones(needs.shape[0], bool))
    overall = GroupLimit(_or_most(everything), everything.promise is Promise.KEPT, everything)
    groups: dict[str, dict[str, GroupLimit]] = {}
    for split, labels in splits.items():
        names = np.asarray(labels, dtype=object)
        groups[split] = {}
        for name in dict.fromkeys(labels):
            found = look(name, np.asarray(names == name))
            limit = _or_most(found)
            if found.promise is not Promise.KEPT and overall.limit is not None:
                limit = max(overall.limit, limit or 0)
            groups[split][name] = GroupLimit(limit, found.promise is Promise.KEPT, found)
    return Learned(overall, groups)


def _or_most(recommendation: Recommendation) -> int | None:
    if recommendation.limit is not None:
        return recommendation.limit
    return None if recommendation.best is None else recommendation.best.limit


@dataclass(frozen=True)
class ReplayOutcome:
    """What a method to set limits comes to, on problems that it was not learned on.

    Attributes:
        name: One limit, or limits per a split's groups.
        split: The split; None for one limit.
        truncation: Share of answers that are cut.
        upper: One-sided upper bound of this share.
        allowed: Mean limit: the room that is kept free for an answer.
        spent: Mean tokens that answers take.
        accuracy: Share of right answers; None where it is not known.
        room_saved: Mean of the one limit less this one's. Limits change with the problems that they
            are learned on: the interval is that of limits learned on problems drawn anew.
        more_truncated: Share of truncated answers less that under one limit, paired by problem.
    """

    name: str
    split: str | None
    truncation: Estimate
    upper: float
    allowed: Estimate
    spent: Estimate
    accuracy: Estimate | None
    room_saved: Estimate
    more_truncated: Estimate


class _Traces(NamedTuple):
    """What is replayed: problems x samples, and the group of each problem by split."""

    needs: Floats
    ended: Bools
    names: Mapping[str, Names]
    right: Bools | None

    @property
    def problems(self) -> int:
        return int(self.needs.shape[0])

    def select(self, rows: Ints) -> _Traces:
        """Some of the problems, also several times."""
        names = {split: labels[rows] for split, labels in self.names.items()}
        return _Traces(self.needs[rows], self.ended[rows], names, None)

    def limit(self, target: float, confidence: float) -> tuple[float, bool]:
        """The limit of all of them as in ``learn``, and whether it is promised."""
        found = promised_limit(self.needs, self.ended, target, confidence)
        return (float(self.needs.max()), False) if found is None else (float(found), True)

    def limits(
        self, split: str, general: float, target: float, confidence: float
    ) -> dict[str, float]:
        """The limits of a split's groups as in ``learn``; ``general`` is that of all."""
        found = {}
        for name in set(self.names[split].tolist()):
            rows = np.flatnonzero(self.names[split] == name)
            limit, promised = self.select(rows).limit(target, confidence)
            found[name] = limit if promised else max(general, limit)
        return found

    def parts(self, seed: int) -> list[tuple[Ints, Ints]]:
        """The problems to judge on and those to learn on, fold by fold."""
        every = np.arange(self.problems)
        return [(part, np.setdiff1d(every, part)) for part in folds(self.problems, seed=seed)]


class _Tried(NamedTuple):
    """A limit for each problem, and what it does there."""

    limits: Floats
    truncated: Floats
    spent: Floats
    correct: Floats | None


@dataclass(frozen=True)
class ScenarioReplay:
    """Methods to set limits, replayed.

    Attributes:
        problems: Problems that were replayed.
        target: Share of answers that a limit may truncate.
        outcomes: One limit first.
        frontiers: For each method, the mean limit and the share of truncated answers with limits
            that truncate a given share of those learned on; from small limits to large ones.
        better: The method that is shown to take less room than one limit without truncating more,
            the one that saves most where there are several; None where there is none.
        confidence: Two-sided confidence of intervals.
    """

    problems: int
    target: float
    outcomes: tuple[ReplayOutcome, ...]
    frontiers: Mapping[str, tuple[tuple[float, float], ...]]
    better: str | None
    confidence: float

    def outcome(self, name: str) -> ReplayOutcome:
        """What the method of that name comes to.

        Raises:
            ValueError: If there is none, naming those there are.
        """
        for each in self.outcomes:
            if each.name == name:
                return each
        there = ", ".join(each.name for each in self.outcomes)
        raise ValueError(f"no {name!r} was replayed, only {there}")

    def sentence(self) -> str:
        """A summary in one sentence."""
        if self.better is None:
            methods = " or ".join(each.name for each in self.outcomes[1:])
            return (
                f"one limit for all: limits {methods} are not shown to take less room without "
                f"truncating more (n = {self.problems:,})"
            )
        found, one = self.outcome(self.better), self.outcome(ONE_LIMIT)
        saved = found.room_saved
        return (
            f"limits {self.better} keep {decimal(found.allowed.value)} tokens free instead of "
            f"{decimal(one.allowed.value)}, {decimal(saved.value)} fewer [{decimal(saved.low)}, "
            f"{decimal(saved.high)}], and truncate {share(found.truncation.value)} instead of "
            f"{share(one.truncation.value)} (n = {self.problems:,})"
        )


def replay_limits(
    tokens: ArrayLike,
    complete: ArrayLike,
    splits: Mapping[str, Sequence[str]],
    *,
    target: float,
    correct_by_token: ArrayLike | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> ScenarioReplay | None:
    """Replay one limit for all, and for each split one for each of its groups.

    Args:
        tokens: As in ``learn``, like the next three.
        complete: Whether each ended by itself.
        splits: The groups.
        target: Share of answers that a limit may truncate.
        correct_by_token: Traces x token counts from 1, whether each is right there; traces in the
            order of problems and of samples within each.
        confidence: Of intervals, and of each promise.
        seed: Of the folds.

    Returns:
        None where there are too few problems, or nothing that parts them.
    """
    needs, ended = as_traces(tokens, complete)
    known = np.isfinite(needs).all(axis=1)
    names = {
        split: np.asarray(labels, dtype=object)[known]
        for split, labels in splits.items()
        if len(set(np.asarray(labels, dtype=object)[known].tolist())) > 1
    }
    if known.sum() < FEWEST or not names:
        return None
    right = None
    if correct_by_token is not None:
        table = np.asarray(correct_by_token, bool)
        right = table.reshape(*needs.shape, -1)[known]
    traces = _Traces(needs[known], ended[known], names, right)
    methods: Methods = {ONE_LIMIT: None, **{f"per {split}": split for split in names}}
    learned = _learned_limits(traces, methods, target, confidence, seed)
    tried = {method: _try(traces, limits) for method, limits in learned.items()}
    one = tried[ONE_LIMIT]
    redrawn = _redrawn(traces, methods, target, confidence, seed)
    together = 1 - (1 - confidence) / max(1, len(methods) - 1)
    gaps = advantages(
        [(each.truncated - one.truncated).mean(axis=1) for each in tried.values()],
        together,
        learned=True,
    )
    outcomes = tuple(
        ReplayOutcome(
            name=method,
            split=methods[method],
            truncation=clustered_rate(each.truncated, confidence),
            upper=upper_rate(each.truncated, confidence),
            allowed=mean_estimate(each.limits[:, None], confidence),
            spent=mean_estimate(each.spent, confidence),
            accuracy=None if each.correct is None else clustered_rate(each.correct, confidence),
            room_saved=_room_saved(one, each, redrawn[method], together),
            more_truncated=gap,
        )
        for (method, each), gap in zip(tried.items(), gaps, strict=True)
    )
    most = max(target, outcomes[0].upper)
    better = [each for each in outcomes[1:] if each.room_saved.low > 0 and each.upper <= most]
    return ScenarioReplay(
        problems=int(known.sum()),
        target=target,
        outcomes=outcomes,
        frontiers=_frontiers(traces, methods, seed),
        better=max(better, key=lambda each: each.room_saved.value).name if better else None,
        confidence=confidence,
    )


def _learned_limits(
    traces: _Traces, methods: Methods, target: float, confidence: float, seed: int
) -> dict[str, Floats]:
    """For each method, the limit that each problem gets from the others."""
    found = {method: np.zeros(traces.problems) for method in methods}
    for part, rows in traces.parts(seed):
        learned = traces.select(rows)
        general, _ = learned.limit(target, confidence)
        for method, split in methods.items():
            found[method][part] = general
            if split is not None:
                own = learned.limits(split, general, target, confidence)
                found[method][part] = _by_label(traces.names[split][part], own, general)
    return found


def _redrawn(
    traces: _Traces, methods: Methods, target: float, confidence: float, seed: int
) -> dict[str, Floats]:
    """For each method, how much less room it takes than one limit, on problems drawn anew."""
    rng = np.random.default_rng(seed)
    found = {method: np.zeros(REDRAWN) for method in methods}
    for draw in range(REDRAWN):
        drawn = traces.select(rng.integers(0, traces.problems, traces.problems))
        general, _ = drawn.limit(target, confidence)
        for method, split in methods.items():
            if split is not None:
                own = drawn.limits(split, general, target, confidence)
                mean = float(_by_label(drawn.names[split], own, general).mean())
                found[method][draw] = general - mean
    return found


def _room_saved(single: _Tried, grouped: _Tried, redrawn: Floats, confidence: float) -> Estimate:
    value = float((single.limits - grouped.limits).mean())
    low, high = np.quantile(redrawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(value, min(float(low), value), max(float(high), value), single.limits.size)


def _by_label(labels: Names, limits: Mapping[str, float], general: float) -> Floats:
    return np.array([limits.get(label, general) for label in labels], np.float64)


def _try(traces: _Traces, limits: Floats) -> _Tried:
    allowed = limits[:, None]
    over = np.where(traces.ended, traces.needs > allowed, traces.needs >= allowed)
    correct = None
    if traces.right is not None:
        places = np.clip(limits.astype(np.int64) - 1, 0, traces.right.shape[2] - 1)
        correct = traces.right[np.arange(limits.size), :, places].astype(np.float64)
    spent = np.minimum(traces.needs, allowed)
    return _Tried(limits, over.astype(np.float64), spent, correct)


def _frontiers(
    traces: _Traces, methods: Methods, seed: int
) -> dict[str, tuple[tuple[float, float], ...]]:
    """What limits come to that truncate a share of those learned on, for each share."""
    most = np.where(traces.ended, traces.needs, np.inf).max(axis=1)
    cap = float(traces.needs.max())
    points: dict[str, list[tuple[float, float]]] = {method: [] for method in methods}
    for above in TARGETS:
        limits = {method: np.zeros(traces.problems) for method in methods}

        def quantile(values: Floats, above: float = above) -> float:
            return min(float(np.quantile(values, 1 - above, method="inverted_cdf")), cap)

        for part, rows in traces.parts(seed):
            general = quantile(most[rows])
            for method, split in methods.items():
                limits[method][part] = general
                if split is not None:
                    labels = traces.names[split]
                    own = {
                        name: quantile(most[rows][labels[rows] == name])
                        for name in set(labels[rows])
                    }
                    limits[method][part] = _by_label(labels[part], own, general)
        for method, each in limits.items():
            tried = _try(traces, each)
            points[method].append((float(each.mean()), float(tried.truncated.mean())))
    return {method: tuple(dict.fromkeys(each)) for method, each in points.items()}
