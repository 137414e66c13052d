"""Allocation by evidence: which policy answers more with the same tokens, and which spends fewer.

Every policy is judged against one limit for all at exactly its own average tokens; between two
limits, one limit is taken to do as mixing the two at random does. Everything that a policy
learns, it learns on other problems than those that it is judged on. Intervals are by problem;
those of advantages are widened for what the folds of a cross-validation share.

References:
    Lin et al. (2025), Plan and Budget, arXiv 2505.16122: accuracy squared over tokens (E3).
    Li et al. (2025), SelfBudgeter, arXiv 2505.11274.
    Rubin (1981), Annals of Statistics 9:130: the Bayesian bootstrap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pytest_tokenbudget.common.text_layout import decimal, point_change
from pytest_tokenbudget.stats.intervals import Estimate, Floats
from pytest_tokenbudget.stats.paired import paired_lower
from pytest_tokenbudget.stats.resampling import Ints, advantages, folds, ratio_estimate
from pytest_tokenbudget.studies.allocation.policy_results import (
    Judge,
    PolicyPoint,
    Spent,
    e3_estimate,
    oracle,
)
from pytest_tokenbudget.studies.allocation.replay import (
    Policy,
    Replay,
    by_category,
    by_difficulty,
    choose,
    first_stable,
    one_limit,
    prices,
)


@dataclass(frozen=True)
class PublishedSaving:
    """A published saving of tokens at held accuracy. It is about other models and other tasks."""

    name: str
    saving: float
    words: str
    source: str


CLAIMS = (
    PublishedSaving(
        "SelfBudgeter, 1.5B",
        0.61,
        "responses 61 % shorter on average on GSM8K, MATH500 and AIME2025, accuracy nearly kept",
        "arXiv 2505.11274, abstract of a version between v2 and v5; v5 gives 61 % without the size",
    ),
    PublishedSaving(
        "SelfBudgeter, 7B",
        0.48,
        "the same for the larger model: 48 % shorter",
        "arXiv 2505.11274, the same abstract; v5 does not give it",
    ),
    PublishedSaving(
        "Plan-and-Budget",
        0.39,
        "up to 39 % fewer tokens",
        "arXiv 2505.16122, abstract",
    ),
)
"""What others report. SelfBudgeter trains the model; nothing replayed here does."""


@dataclass(frozen=True)
class Held:
    """What a policy saves when it is told to keep the accuracy of the largest budget.

    Attributes:
        point: Where it comes out.
        saving: Share of the tokens of the largest budget that it saves.
        difference: Accuracy less that at the largest budget.
        lower_bound: One-sided lower bound of this difference.
        held: Whether that bound is above minus the margin: accuracy is shown to be kept.
    """

    point: PolicyPoint
    saving: Estimate
    difference: float
    lower_bound: float
    held: bool


@dataclass(frozen=True)
class PolicyResult:
    """A policy replayed.

    Attributes:
        frontier: From few tokens to many.
        working: At the mean tokens of the reference limit or below, as near as its settings come.
            Its advantage has an interval such that those of all policies hold together.
        e3: At the working point, with its interval.
        held: With accuracy kept.
        settings: What to set for the working point, learned on all problems.
        held_settings: The same with accuracy kept.
    """

    name: str
    frontier: tuple[PolicyPoint, ...]
    working: PolicyPoint
    e3: Estimate
    held: Held
    settings: Mapping[str, Any]
    held_settings: Mapping[str, Any]


@dataclass(frozen=True)
class PolicyStudy:
    """All policies, and whether one is better than one limit for all.

    Attributes:
        problems: Problems that were replayed.
        missing: Problems left out.
        reference: The limit at whose mean tokens policies are compared.
        limits: One limit for all, at each budget.
        policies: One limit for all first, then the others that could be replayed.
        left_out: Policies that could not be, and why.
        oracle: The cheapest budget that is right, for each problem; the cheapest where none is.
        winner: The policy with the largest advantage, of those whose advantage is shown; None
            where none is.
        tied: Others whose advantage is shown, and which are not shown to be less good.
        margin: Loss of accuracy that does not matter.
        confidence: Two-sided confidence of intervals, one-sided of lower bounds.
        claims: Published savings to stand beside ``held``.
    """

    problems: int
    missing: int
    reference: int
    limits: Mapping[int, PolicyPoint]
    policies: tuple[PolicyResult, ...]
    left_out: Mapping[str, str]
    oracle: PolicyPoint
    winner: str | None
    tied: tuple[str, ...]
    margin: float
    confidence: float
    claims: tuple[PublishedSaving, ...] = CLAIMS

    def policy(self, name: str) -> PolicyResult:
        """The policy of that name.

        Raises:
            ValueError: If it was not replayed, naming those that were.
        """
        for each in self.policies:
            if each.name == name:
                return each
        there = ", ".join(each.name for each in self.policies)
        raise ValueError(f"no policy {name!r} was replayed, only {there}")

    @property
    def settings(self) -> Mapping[str, Any]:
        """Settings of the winner, or the reference limit where there is no winner."""
        return (
            {"limit": self.reference} if self.winner is None else self.policy(self.winner).settings
        )

    def sentence(self) -> str:
        """The result in one sentence: budgets are what is set, means are what is spent."""
        reference_mean = decimal(self.limits[self.reference].mean_tokens.value)
        if self.winner is None:
            return (
                f"no policy is shown to be better than a thinking budget of {self.reference:,} for "
                f"all at its mean of {reference_mean} tokens (n = {self.problems:,})"
            )
        point = self.policy(self.winner).working
        value, interval = point_change(point.advantage).split(" ", 1)
        text = (
            f"{self.winner}: {value} points {interval} against one thinking budget for all at the "
            f"same mean of {decimal(point.mean_tokens.value)} tokens, thinking and answer "
            f"(n = {self.problems:,}; budget {self.reference:,} takes {reference_mean} on average)"
        )
        return f"{text}; not told apart from {', '.join(self.tied)}" if self.tied else text


def compare_policies(
    replay: Replay,
    *,
    reference: int | None = None,
    margin: float = 0.02,
    confidence: float = 0.95,
    seed: int = 0,
) -> PolicyStudy:
    """Replay all policies that the data allow and compare them with one limit for all.

    Args:
        replay: What they are replayed on.
        reference: The limit at whose mean tokens they are compared. Without it the one with the
            largest accuracy squared over tokens here, which favours one limit for all, if any.
        margin: Loss of accuracy that does not matter.
        confidence: Of every interval and bound.
        seed: Of the folds.

    Raises:
        ValueError: If the reference is none of the budgets, or a number is out of its range.
    """
    for what, value in (("margin", margin), ("confidence", confidence)):
        if not 0 < value < 1:
            raise ValueError(f"{what} {value} is not between 0 and 1")
    if reference is None:
        worth = replay.correct.mean(axis=0) ** 2 / np.maximum(replay.tokens.mean(axis=0), 1.0)
        reference = replay.budgets[int(worth.argmax())]
    if reference not in replay.budgets:
        there = ", ".join(map(str, replay.budgets))
        raise ValueError(f"reference limit {reference} is none of the budgets {there}")
    found, left_out = _policies(replay)
    together = 1 - (1 - confidence) / max(1, len(found) - 1)
    judge = Judge(replay, confidence)
    results, gains = [], []
    for policy in found:
        run = _cross_validate(policy, replay, replay.budgets.index(reference), seed)
        working, held = (
            judge.points([run.working], together, learned=True)[0],
            _held(judge, run.held, margin),
        )
        results.append(
            PolicyResult(
                name=policy.name,
                frontier=_frontier(judge, run.frontier),
                working=working,
                e3=e3_estimate(run.working, confidence),
                held=held,
                settings=run.settings,
                held_settings=run.held_settings,
            )
        )
        gains.append(judge.gains(run.working))
    shown = [i for i in range(1, len(results)) if results[i].working.advantage.low > 0]
    winner = max(shown, key=lambda i: results[i].working.advantage.value, default=None)
    others = [i for i in shown if i != winner]
    behind = (
        ()
        if winner is None
        else advantages([gains[winner] - gains[i] for i in others], together, learned=True)
    )
    limits = [Spent(replay.correct[:, b], replay.tokens[:, b]) for b in range(len(replay.budgets))]
    return PolicyStudy(
        problems=replay.problems,
        missing=replay.missing,
        reference=reference,
        limits=dict(zip(replay.budgets, judge.points(limits), strict=True)),
        policies=tuple(results),
        left_out=left_out,
        oracle=judge.points([oracle(replay)])[0],
        winner=None if winner is None else results[winner].name,
        tied=tuple(results[i].name for i, gap in zip(others, behind, strict=True) if gap.low <= 0),
        margin=margin,
        confidence=confidence,
    )


def _policies(replay: Replay) -> tuple[list[Policy], dict[str, str]]:
    found = [one_limit(replay)]
    left_out = {}
    for name, policy, why in (
        ("per category", by_category(replay), "there are not two categories"),
        ("predicted difficulty", by_difficulty(replay), "there are no features, or too late ones"),
        ("first stable answer", first_stable(replay), "there are no answers at the budgets"),
    ):
        if policy is None:
            left_out[name] = why
        else:
            found.append(policy)
    return found, left_out


class _Run(NamedTuple):
    """A policy on problems that it did not learn on, and its settings when it learns on all."""

    frontier: tuple[Spent, ...]
    working: Spent
    held: Spent
    settings: Mapping[str, Any]
    held_settings: Mapping[str, Any]


def _cross_validate(policy: Policy, replay: Replay, reference: int, seed: int) -> _Run:
    token_prices = prices(replay)
    everything = np.arange(replay.problems)
    picks: Ints = np.zeros((token_prices.size + 2, replay.problems), np.int64)
    for part in folds(replay.problems, seed=seed):
        rows = np.setdiff1d(everything, part)
        learned = choose(policy, rows, token_prices)
        working = _affordable(
            learned.accuracy, learned.tokens, float(replay.tokens[rows, reference].mean())
        )
        held = _keeping(learned.accuracy, learned.tokens, float(replay.correct[rows, -1].mean()))
        picks[:, part] = learned.picks[:, part][[*range(token_prices.size), working, held]]
    spent = [
        Spent(policy.arms.correct[everything, row], policy.arms.tokens[everything, row])
        for row in picks
    ]
    learned = choose(policy, everything, token_prices)
    working = _affordable(
        learned.accuracy, learned.tokens, float(replay.tokens[:, reference].mean())
    )
    held = _keeping(learned.accuracy, learned.tokens, float(replay.correct[:, -1].mean()))

    def settings(price: int) -> Mapping[str, Any]:
        chosen = {
            str(group): dict(policy.arms.settings[arm])
            for group, arm in zip(learned.groups, learned.arms[price], strict=True)
        }
        groups = {"groups": chosen} if len(chosen) > 1 else next(iter(chosen.values()))
        return {**learned.describe, **groups}

    return _Run(tuple(spent[:-2]), spent[-2], spent[-1], settings(working), settings(held))


def _affordable(accuracy: Floats, tokens: Floats, most: float) -> int:
    """The best price that spends no more; the cheapest where all do."""
    within = tokens <= most * (1 + 1e-9)
    if not within.any():
        return int(tokens.argmin())
    return int(np.lexsort((tokens, -np.where(within, accuracy, -1.0)))[0])


def _keeping(accuracy: Floats, tokens: Floats, least: float) -> int:
    """The cheapest price with at least this accuracy; the most accurate where none has."""
    enough = accuracy >= least - 1e-12
    if not enough.any():
        return int(np.lexsort((tokens, -accuracy))[0])
    return int(np.where(enough, tokens, np.inf).argmin())


def _frontier(judge: Judge, spent: tuple[Spent, ...]) -> tuple[PolicyPoint, ...]:
    unlike = {(each.correct.tobytes(), each.tokens.tobytes()): each for each in spent}
    points = judge.points(list(unlike.values()), learned=True)
    return tuple(sorted(points, key=lambda point: point.mean_tokens.value))


def _held(judge: Judge, spent: Spent, margin: float) -> Held:
    replay, n = judge.replay, judge.replay.problems
    largest, most = replay.correct[:, -1], replay.tokens[:, -1]
    gap = spent.correct - largest
    lost, won = int((gap < 0).sum()), int((gap > 0).sum())
    lower = paired_lower(lost, won, n, judge.confidence, -margin)
    typical = float(most.mean())
    share = ratio_estimate(
        spent.tokens, most, ((0.0, typical), (typical, typical)), confidence=judge.confidence
    )
    share = share or Estimate(math.nan, math.nan, math.nan, n)
    return Held(
        point=judge.points([spent], learned=True)[0],
        saving=Estimate(1 - share.value, 1 - share.high, 1 - share.low, n),
        difference=float(gap.mean()),
        lower_bound=lower,
        held=lower > -margin,
    )
