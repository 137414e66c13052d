"""Which truncation loses least: each strategy against the whole conversation, and each other.

A strategy's limits are a fixed sequence from the whole conversation downwards, each tested for
non-inferiority at the level of the sequence (see `saturation`). Several strategies are several
sequences, so each has its part of the error that is allowed (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pytest_tokenbudget.common.text_layout import count, share
from pytest_tokenbudget.core.saturation import BudgetComparison, Saturation, saturation_point
from pytest_tokenbudget.stats.intervals import Estimate, Floats, clustered_rate
from pytest_tokenbudget.stats.paired import losses_and_wins, mcnemar
from pytest_tokenbudget.stats.resampling import holm

ALLOWED_ERROR = 0.05
# A strategy and a limit.
Truncation = tuple[str, str]


@dataclass(frozen=True)
class Candidate:
    """One way to truncate against the whole conversation.

    Attributes:
        strategy: The strategy.
        limit: The limit as it is written.
        accuracy: Rate of right answers.
        tokens: Mean tokens of a prompt.
        comparison: Against the whole conversation, paired; ``holds`` where it is shown to lose no
            more than the margin, and all larger limits of the strategy as well.
    """

    strategy: str
    limit: str
    accuracy: Estimate
    tokens: float
    comparison: BudgetComparison

    @property
    def shown(self) -> str:
        """Strategy and limit for people."""
        return f"{self.strategy} at {shown_limit(self.limit, ' tokens')}"


@dataclass(frozen=True)
class Advice:
    """The way to truncate that is recommended, or what is known instead.

    Attributes:
        chosen: Of those shown to lose no more than the margin the one with the fewest tokens; None
            where there is none.
        closest: The candidate that loses least, the one with fewer tokens of equals.
        candidates: All of them, strategy by strategy, limits rising.
        margin: Loss of accuracy that does not matter.
        strategies: How many strategies there are; the level is divided by it.
        problems: Conversations that were compared.
        whole: Rate of right answers to whole conversations.
        whole_tokens: Mean tokens of their prompts.
        needed: Conversations at which the strategy that is closest would be resolved if its answers
            stayed as observed; None where nothing is unresolved.
    """

    chosen: Candidate | None
    closest: Candidate
    candidates: tuple[Candidate, ...]
    margin: float
    strategies: int
    problems: int
    whole: Estimate
    whole_tokens: float
    needed: int | None

    @property
    def meaningful(self) -> bool:
        """Whether whole conversations are answered rightly often enough for a loss to show."""
        return self.whole.low > self.margin

    def sentence(self) -> str:
        """What is known, for people."""
        points = f"{100 * self.margin:g} points"
        whole = share(self.whole.value)
        several = f", corrected for {self.strategies} strategies" if self.strategies > 1 else ""
        level = f"one-sided 95 %{several}, n = {self.problems:,}"
        if not self.problems:
            return "no truncation is recommended: all answers to whole conversations failed"
        if not self.meaningful:
            return (
                f"no truncation is recommended: with the whole conversation only {whole} are "
                f"right, so nothing can be lost (n = {self.problems:,})"
            )
        if self.chosen is not None:
            kept = self.chosen
            return (
                f"recommended: {kept.shown}: {share(kept.accuracy.value)} right with "
                f"{count(kept.tokens)} tokens a prompt, {whole} with all "
                f"{count(self.whole_tokens)}; not worse by more than {points} ({level})"
            )
        close = self.closest
        text = (
            f"no truncation is shown to lose less than {points} ({level}); closest is "
            f"{close.shown} with {share(close.accuracy.value)} right against {whole}"
        )
        if close.comparison.worse:
            return f"{text}, and that is worse"
        wish = "" if self.needed is None else f"; about {self.needed:,} would be needed"
        return f"{text}: not resolved{wish}"


@dataclass(frozen=True)
class Contrast:
    """Two strategies at one limit, paired by conversation.

    Attributes:
        limit: The limit as it is written.
        strategy: The one.
        reference: The other.
        problems: Conversations that both were judged on.
        difference: Accuracy of the one less that of the other.
        lost: Conversations that only the reference answers rightly.
        won: Those that only the strategy does.
        p_mcnemar: Exact McNemar test of lost against won.
        p_holm: The same adjusted by Holm over all contrasts made together.
    """

    limit: str
    strategy: str
    reference: str
    problems: int
    difference: float
    lost: int
    won: int
    p_mcnemar: float
    p_holm: float


def advise(
    *,
    strategies: Sequence[str],
    limits: Sequence[str],
    correct: Mapping[Truncation, Floats],
    whole: Floats,
    tokens: Mapping[Truncation, float],
    whole_tokens: float,
    margin: float = 0.02,
) -> Advice:
    """Choose a way to truncate.

    Args:
        strategies: Names of the strategies.
        limits: Limits as they are written, rising.
        correct: For each strategy and limit one number a conversation: 1 right, 0 not, NaN for an
            error.
        whole: The same for the whole conversation.
        tokens: Mean tokens of a prompt, by strategy and limit.
        whole_tokens: Mean tokens of the whole prompts.
        margin: Loss of accuracy that does not matter.

    Raises:
        ValueError: If there is nothing to compare, or shapes disagree.
    """
    if not (strategies and limits and whole.size):
        raise ValueError("a strategy, a limit and a conversation are needed for an advice")
    confidence = 1 - ALLOWED_ERROR / len(strategies)
    ranks = range(1, len(limits) + 2)
    candidates: list[Candidate] = []
    shown: list[Candidate] = []
    found: dict[str, Saturation] = {}
    for strategy in strategies:
        columns = [*(correct[strategy, limit] for limit in limits), whole]
        scores = np.stack(columns, axis=1)[:, None, :]
        saturation = saturation_point(list(ranks), scores, margin, confidence)
        found[strategy] = saturation
        by_rank = {each.budget: each for each in saturation.comparisons}
        mine = [
            Candidate(
                strategy,
                limit,
                clustered_rate(correct[strategy, limit][:, None]),
                tokens[strategy, limit],
                by_rank[rank],
            )
            for rank, limit in zip(ranks, limits, strict=False)
        ]
        candidates += mine
        if saturation.budget is not None:
            shown += mine[saturation.budget - 1 :]
    overall = clustered_rate(whole[:, None])
    closest = max(candidates, key=lambda c: (round(c.comparison.difference, 9), -c.tokens))
    return Advice(
        chosen=min(shown, key=lambda c: (c.tokens, -c.accuracy.value), default=None),
        closest=closest,
        candidates=tuple(candidates),
        margin=margin,
        strategies=len(strategies),
        problems=overall.n,
        whole=overall,
        whole_tokens=whole_tokens,
        needed=found[closest.strategy].needed,
    )


def contrasts(
    strategies: Sequence[str], limits: Sequence[str], correct: Mapping[Truncation, Floats]
) -> tuple[Contrast, ...]:
    """Every strategy against the first one, at every limit."""
    reference, *others = strategies
    pairs = [(limit, strategy) for limit in limits for strategy in others]
    differences = []
    for limit, strategy in pairs:
        values = correct[strategy, limit] - correct[reference, limit]
        differences.append(values[np.isfinite(values)])
    counts = [losses_and_wins(values) for values in differences]
    p_values = [mcnemar(lost, won) for lost, won in counts]
    return tuple(
        Contrast(
            limit,
            strategy,
            reference,
            values.size,
            float(values.mean()) if values.size else float("nan"),
            lost,
            won,
            p,
            adjusted,
        )
        for (limit, strategy), values, (lost, won), p, adjusted in zip(
            pairs, differences, counts, p_values, holm(p_values), strict=True
        )
    )


def shown_limit(limit: str, unit: str = "") -> str:
    """A limit for people: ``25 %``, ``1,024``, and ``1,024 tokens`` with the unit `` tokens``."""
    return limit.replace("%", " %") if limit.endswith("%") else f"{int(limit):,}{unit}"
