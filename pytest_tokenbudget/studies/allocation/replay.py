"""Stored traces under another allocation: what each policy would have chosen, cross-validated.

A policy has *arms* (limits, or rules for stopping) and sorts problems into *groups* by what can be
known before the limit is needed. For each price of a token it takes in every group the arm with the
largest accuracy less the price of the tokens. Falling prices trace its frontier. Groups and choices
are made on the other problems of a cross-validation, so that no problem judges a choice that it had
a part in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pytest_tokenbudget.stats.intervals import Floats
from pytest_tokenbudget.stats.resampling import Ints
from pytest_tokenbudget.studies.thinking.statistics import check_budgets

STABLE = tuple((same, stride) for same in (2, 3, 4) for stride in (1, 2, 4))
"""How many probes in a row must agree, and how many budgets apart they are."""


GROUPS = 3
"""Groups of predicted difficulty."""


@dataclass(frozen=True)
class Replay:
    """What policies are replayed on; only problems of which everything is known.

    Attributes:
        budgets: Rising; the last one may stand for no limit.
        correct: Problems x budgets, 1 or 0.
        tokens: Problems x budgets, all tokens that an answer took under each budget.
        missing: Problems left out because something was missing.
        categories: One a problem.
        features: Problems x features, known once ``features_from`` tokens have been thought.
        features_from: Thinking tokens that the features take; smaller budgets cannot be chosen.
        answers: Problems x budgets, the answer given, None where there is none.
        probe_tokens: Problems x budgets, tokens of closer and forced answer, which a probe costs.
        natural_tokens: Thinking tokens without a limit; infinite where the thinking met its cap.
    """

    budgets: tuple[int, ...]
    correct: Floats
    tokens: Floats
    missing: int = 0
    categories: NDArray[Any] | None = None
    features: Floats | None = None
    features_from: int = 0
    answers: NDArray[Any] | None = None
    probe_tokens: Floats | None = None
    natural_tokens: Floats | None = None

    @property
    def problems(self) -> int:
        """Problems that take part."""
        return int(self.correct.shape[0])


def make_replay(
    budgets: Sequence[int],
    correct: ArrayLike,
    tokens: ArrayLike,
    *,
    categories: Sequence[str] | None = None,
    features: ArrayLike | None = None,
    features_from: int = 0,
    answers: Sequence[Sequence[str | None]] | NDArray[Any] | None = None,
    probe_tokens: ArrayLike | None = None,
    natural_tokens: ArrayLike | None = None,
) -> Replay:
    """Check what is to be replayed and leave out problems of which something is missing (NaN).

    The arguments are as the attributes of ``Replay``.

    Raises:
        ValueError: If shapes disagree, budgets do not rise, scores are other than 0, 1 or NaN, or
            fewer than two problems remain.
    """
    check_budgets(budgets)
    right, spent = np.asarray(correct, np.float64), np.asarray(tokens, np.float64)
    if right.ndim != 2 or right.shape[1] != len(budgets) or spent.shape != right.shape:
        raise ValueError(
            f"expected problems x {len(budgets)} budgets: correct has shape {right.shape}, "
            f"tokens has {spent.shape}"
        )
    if not np.isin(right[np.isfinite(right)], (0.0, 1.0)).all():
        raise ValueError("scores must be 0, 1, or NaN where there is none")
    problems = right.shape[0]
    known = np.isfinite(right).all(axis=1) & np.isfinite(spent).all(axis=1)
    names = None if categories is None else np.asarray(categories, dtype=object)
    given = None if answers is None else np.empty(right.shape, dtype=object)
    if given is not None and answers is not None:
        if len(answers) != problems:
            raise ValueError(f"answers of {len(answers)} problems, correct of {problems}")
        for row, some in enumerate(answers):
            given[row] = np.asarray(list(some), dtype=object)
    traits = None if features is None else np.asarray(features, np.float64)
    probes = None if probe_tokens is None else np.asarray(probe_tokens, np.float64)
    ends = None if natural_tokens is None else np.asarray(natural_tokens, np.float64)
    for what, each in (
        ("categories", names),
        ("features", traits),
        ("probe tokens", probes),
        ("natural tokens", ends),
    ):
        if each is not None and each.shape[0] != problems:
            raise ValueError(f"{what} of {each.shape[0]} problems, correct of {problems}")
    if traits is not None:
        known &= np.isfinite(traits).all(axis=1)
    if ends is not None:
        known &= ~np.isnan(ends)
    if known.sum() < 2:
        raise ValueError(f"{int(known.sum())} problems are complete: a replay needs at least two")

    def kept(array: NDArray[Any] | None) -> NDArray[Any] | None:
        return None if array is None else array[known]

    return Replay(
        budgets=tuple(budgets),
        correct=right[known],
        tokens=spent[known],
        missing=int(problems - known.sum()),
        categories=kept(names),
        features=kept(traits),
        features_from=features_from,
        answers=kept(given),
        probe_tokens=None if probes is None else np.nan_to_num(probes[known]),
        natural_tokens=kept(ends),
    )


@dataclass(frozen=True)
class Arms:
    """What a policy may choose: settings, and what each problem would have come to under each."""

    settings: tuple[Mapping[str, Any], ...]
    correct: Floats
    tokens: Floats


class Grouping(NamedTuple):
    """Groups of all problems, as learned on some; those learned on are judged without themselves.

    Attributes:
        labels: Group of each problem.
        describe: Settings that find the group of a new problem.
    """

    labels: NDArray[Any]
    describe: Mapping[str, Any]


@dataclass(frozen=True)
class Policy:
    """A way to allocate tokens: its arms, and how it groups problems given the rows to learn on."""

    name: str
    arms: Arms
    group: Callable[[Ints], Grouping]


def one_limit(replay: Replay) -> Policy:
    """The same limit for all."""
    labels = np.zeros(replay.problems, np.int64)
    return Policy("one limit", _limits(replay), lambda rows: Grouping(labels, {}))


def by_category(replay: Replay) -> Policy | None:
    """A limit for each category."""
    names = replay.categories
    if names is None or len(set(names.tolist())) < 2:
        return None
    return Policy("per category", _limits(replay), lambda rows: Grouping(names, {}))


def by_difficulty(replay: Replay) -> Policy | None:
    """A limit for each third of problems by predicted difficulty.

    Difficulty is the place, among the budgets, of the first at which the answer is right; beyond
    the last where none is. It is predicted by ridge regression, its penalty chosen by leaving one
    out, and the problems learned on are grouped by predictions that left them out as well.
    """
    traits = replay.features
    first = np.searchsorted(replay.budgets, replay.features_from)
    if traits is None or not traits.shape[1] or first >= len(replay.budgets):
        return None
    right = replay.correct > 0.5
    place = np.where(right.any(axis=1), right.argmax(axis=1), len(replay.budgets))

    def group(rows: Ints) -> Grouping:
        fit = fit_ridge(traits[rows], place[rows].astype(np.float64))
        predicted = fit.predict(traits)
        predicted[rows] = fit.left_out
        edges = np.quantile(fit.left_out, np.arange(1, GROUPS) / GROUPS)
        labels = np.searchsorted(edges, predicted, side="left")
        describe = {
            "edges": edges.tolist(),
            "weights": fit.weights.tolist(),
            "intercept": fit.intercept,
            "explained": fit.explained,
            "features_from": replay.features_from,
        }
        return Grouping(labels, describe)

    return Policy("predicted difficulty", _limits(replay, int(first)), group)


def first_stable(replay: Replay) -> Policy | None:
    """Stop where the same answer came in several probes in a row."""
    if replay.answers is None:
        return None
    labels = np.zeros(replay.problems, np.int64)
    return Policy("first stable answer", stable_arms(replay), lambda rows: Grouping(labels, {}))


def _limits(replay: Replay, first: int = 0) -> Arms:
    settings = tuple({"limit": budget} for budget in replay.budgets[first:])
    return Arms(settings, replay.correct[:, first:], replay.tokens[:, first:])


def stable_arms(replay: Replay, settings: Sequence[tuple[int, int]] = STABLE) -> Arms:
    """Replay stopping at the first stable answer.

    At every probe the thinking is ended by force and an answer is given. Where that answer was the
    same in the last few probes, it counts; else the thinking goes on as if not probed. All probes
    are paid for. Thinking that ends by itself is not probed any more.
    """
    assert replay.answers is not None
    count = replay.problems
    ends = np.full(count, np.inf) if replay.natural_tokens is None else replay.natural_tokens
    probe = np.zeros_like(replay.tokens) if replay.probe_tokens is None else replay.probe_tokens
    correct, tokens, named = [], [], []
    last = len(replay.budgets) - 1
    for same, stride in settings:
        places = sorted({*range(0, last + 1, stride), last})
        right, spent = np.zeros(count), np.zeros(count)
        paid, run = np.zeros(count), np.zeros(count, np.int64)
        before = np.full(count, None, dtype=object)
        going = np.ones(count, np.bool_)
        for place in places:
            answer = replay.answers[:, place]
            given = np.array([each is not None for each in answer], np.bool_)
            alike = np.array([a == b for a, b in zip(answer, before, strict=True)], np.bool_)
            run = np.where(given, np.where(alike, run + 1, 1), 0)
            over = (replay.budgets[place] >= ends) | (place == last)
            stop = going & (over | (run >= same))
            right[stop] = replay.correct[stop, place]
            spent[stop] = replay.tokens[stop, place] + paid[stop]
            going &= ~stop
            paid += np.where(going, probe[:, place], 0.0)
            before = answer
        correct.append(right)
        tokens.append(spent)
        named.append({"same": same, "probe_at": [replay.budgets[place] for place in places]})
    return Arms(tuple(named), np.column_stack(correct), np.column_stack(tokens))


@dataclass(frozen=True)
class Ridge:
    """A ridge regression.

    Attributes:
        weights: Of the features as they are.
        intercept: Prediction where all features are 0.
        penalty: Penalty on standardised features.
        left_out: Prediction of each row learned on, learned without it.
        explained: Share of the variance that these predictions explain; below 0 if they are worse
            than the mean.
    """

    weights: Floats
    intercept: float
    penalty: float
    left_out: Floats
    explained: float

    def predict(self, features: Floats) -> Floats:
        """Predictions for other rows."""
        return np.asarray(features @ self.weights + self.intercept, np.float64)


def fit_ridge(features: Floats, target: Floats) -> Ridge:
    """Fit a ridge regression, with the penalty that predicts best when leaving one out."""
    n = target.size
    middle, scale = features.mean(axis=0), features.std(axis=0)
    scale = np.where(scale > 1e-12, scale, 1.0)
    u, s, vt = np.linalg.svd((features - middle) / scale, full_matrices=False)
    mean = float(target.mean())
    turned = u.T @ (target - mean)
    best: tuple[float, float, Floats] | None = None
    for penalty in n * np.geomspace(1e-3, 1e3, 19):
        shrink = s**2 / (s**2 + penalty)
        fitted = u @ (shrink * turned)
        leverage = np.minimum((u**2) @ shrink + 1 / n, 1 - 1e-9)
        misses = (target - mean - fitted) / (1 - leverage)
        error = float(np.mean(misses**2))
        if best is None or error < best[0]:
            best = (error, float(penalty), misses)
    assert best is not None
    error, penalty, misses = best
    weights = (vt.T @ (s / (s**2 + penalty) * turned)) / scale
    # Without a row, the mean of the others misses it by n / (n - 1) of what the mean misses it by.
    plain = float(np.mean(((target - mean) * n / max(n - 1, 1)) ** 2))
    return Ridge(
        weights=weights,
        intercept=mean - float(middle @ weights),
        penalty=penalty,
        left_out=target - misses,
        explained=1 - error / plain if plain > 0 else 0.0,
    )


# --- choices ----------------------------------------------------------------------------------


class Choices(NamedTuple):
    """What a policy chooses at each price, learned on some rows.

    Attributes:
        picks: Prices x problems, the arm of each.
        accuracy: At each price, on the rows learned on.
        tokens: Mean tokens at each price, on these rows.
        groups: Names of the groups.
        arms: Prices x groups, the arm of each.
        describe: Settings of the grouping.
    """

    picks: Ints
    accuracy: Floats
    tokens: Floats
    groups: NDArray[Any]
    arms: Ints
    describe: Mapping[str, Any]


def prices(replay: Replay) -> Floats:
    """Prices of a token in accuracy, falling to 0, that trace a frontier."""
    unit = max(float(replay.tokens.mean(axis=0).max()), 1.0)
    return np.append(np.geomspace(1e2, 1e-4, 48), 0.0) / unit


def choose(policy: Policy, rows: Ints, token_prices: Floats) -> Choices:
    """Learn a policy on some rows and say what it chooses for all, at each price."""
    labels, describe = policy.group(rows)
    groups, members = np.unique(labels, return_inverse=True)
    members = members.ravel()
    counts = np.bincount(members[rows], minlength=groups.size).astype(np.float64)
    right = np.zeros((groups.size, len(policy.arms.settings)))
    spent = np.zeros_like(right)
    np.add.at(right, members[rows], policy.arms.correct[rows])
    np.add.at(spent, members[rows], policy.arms.tokens[rows])
    # A group not learned on is treated as the average problem.
    unseen = counts == 0
    right[unseen], spent[unseen] = right.sum(axis=0), spent.sum(axis=0)
    size = np.where(unseen, counts.sum(), counts)[:, None]
    right, spent = right / size, spent / size
    # Of arms that are equally good, the cheaper one.
    worth = right - (token_prices[:, None, None] + 1e-12) * spent
    arms: Ints = worth.argmax(axis=2)
    shares = counts / counts.sum()
    take = np.arange(groups.size)
    return Choices(
        picks=arms[:, members],
        accuracy=right[take, arms] @ shares,
        tokens=spent[take, arms] @ shares,
        groups=groups,
        arms=arms,
        describe=describe,
    )
