"""Recommended token limits: what a limit truncates, and which one keeps a promise.

What is promised is a truncation rate: at most the target, with one-sided confidence, whatever the
distribution of lengths. The limit is then an order statistic. Were a limit chosen because few
traces exceed it, and its bound taken as if it had been chosen before, it would promise too much;
the order statistic's bound is one of the quantile and holds for the limit so chosen.

References:
    Wilks (1941), Annals of Mathematical Statistics 12:91: distribution-free tolerance limits.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

import numpy as np
from numpy.typing import ArrayLike

from pytest_tokenbudget.stats.intervals import Floats
from pytest_tokenbudget.stats.length_fits import LengthFit, fit_lengths
from pytest_tokenbudget.stats.rules_of_thumb import RULES, RuleOfThumb
from pytest_tokenbudget.stats.tokens import TokenSpread, by_sample, token_spread
from pytest_tokenbudget.stats.truncation import (
    Bools,
    LimitVerdict,
    Truncation,
    as_traces,
    judge_limit,
    problems_needed,
    truncates,
    upper_rate,
)

ALL = "all problems"
MARGINS = (1.2, 1.5)
"""Multiples of the expected use that are commonly taken for a limit."""
EARLY = 0.9
"""A trace that was cut below such a share of its cap was cut by something else. Text that is
encoded again may be a few tokens short."""


@dataclass(frozen=True)
class RuleCheck:
    """A rule of thumb against the traces.

    Attributes:
        rule: The rule.
        applies: Whether it is meant for traces of this kind.
        truncation: What it would have truncated.
        verdict: Whether it keeps to the target.
        times_recommended: How many times the recommended limit it is; None without one.
    """

    rule: RuleOfThumb
    applies: bool
    truncation: Truncation
    verdict: LimitVerdict
    times_recommended: float | None


@dataclass(frozen=True)
class Margin:
    """A multiple of the expected use as a limit: what it truncates, if it keeps to the target."""

    factor: float
    truncation: Truncation
    verdict: LimitVerdict


class Promise(StrEnum):
    """Whether the traces allow a promise."""

    KEPT = "kept"
    TOO_FEW = "too few traces"
    CAP_TOO_LOW = "cap too low"
    NO_TRACES = "no traces"


@dataclass(frozen=True)
class Recommendation:
    """A limit for one model and one category, or why there is none.

    Attributes:
        name: The category, or ``all problems``.
        target: Share of responses that may be truncated.
        confidence: One-sided confidence of the promise.
        promise: Whether a limit can be promised.
        limit: The recommended limit; None unless the promise is kept.
        truncation: What it truncates here.
        quantile: The smallest limit that truncates at most the target here, without a promise;
            None where capped traces hide it.
        best: The largest limit that was seen, and what it truncates: the most that could be
            promised.
        problems_needed: About how many problems the promise takes, if as large a share met the
            cap as here, or, where the cap is too low, if none would meet a larger one. None where
            there are as many, and where the promise is kept.
        needs: Distribution of the tokens needed. Fields in its ``lower_bounds`` say "at least".
        stopped_early: Traces that were cut well below their cap, by something else.
        earliest_stop: The fewest tokens of those, and the cap; None without any.
        fits: Fitted distributions, the better first; of one trace a problem. None of it is part
            of the promise.
        margins: Multiples of the expected use.
        rules: Rules of thumb.
    """

    name: str
    target: float
    confidence: float
    promise: Promise
    limit: int | None
    truncation: Truncation | None
    quantile: int | None
    best: Truncation | None
    problems_needed: int | None
    needs: TokenSpread
    stopped_early: int
    earliest_stop: tuple[int, int] | None
    fits: tuple[LengthFit, ...]
    margins: tuple[Margin, ...]
    rules: tuple[RuleCheck, ...]

    def sentence(self) -> str:
        return f"{self.name}: {self.finding()}"

    def finding(self) -> str:
        goal, n = f"{100 * self.target:g} %", self.needs.problems
        if self.promise is Promise.NO_TRACES:
            return "no trace to judge by"
        assert self.best is not None
        if self.limit is not None:
            return (
                f"limit {self.limit:,} truncates at most {goal} "
                f"(one-sided {100 * self.confidence:g} %, n = {n:,})"
            )
        if self.promise is Promise.CAP_TOO_LOW:
            return f"cap too low to promise {goal}: {self._why_capped(self.best.limit)}"
        need = f"{self.problems_needed:,} needed, {n:,} there"
        return (
            f"too few traces to promise {goal}: {need}; limit {self.best.limit:,} "
            f"truncates at most {100 * self.best.upper:.1f} %"
        )

    def _why_capped(self, cap: int) -> str:
        capped, early = self.needs.capped, self.stopped_early
        told, advice = f"{capped:,} of {self.needs.traces:,} traces", ""
        if self.earliest_stop is None:
            told += " met it"
        else:
            tokens, allowed = self.earliest_stop
            told += " was cut" if capped == 1 else " were cut"
            if capped > 1:
                told += f", {early:,} of them below it, the first"
            told += f" after {tokens:,} tokens although {allowed:,} were allowed"
            advice = f"find what stopped {'it' if early == 1 else 'them'}, and "
        advice += f"generate with a cap above {cap:,}"
        more = "" if self.problems_needed is None else f", {self.problems_needed:,} problems"
        return f"{told}; {advice}{more}"


@dataclass(frozen=True)
class Recommendations:
    """Limits for all problems and for each category, apart: any name can be a category's.

    Categories are in the order of first seen; there are none where there is only one, which is all
    problems.
    """

    overall: Recommendation
    by_category: Mapping[str, Recommendation]

    def __iter__(self) -> Iterator[Recommendation]:
        yield self.overall
        yield from self.by_category.values()


def recommend(
    tokens: ArrayLike,
    complete: ArrayLike,
    *,
    caps: ArrayLike | None = None,
    name: str = ALL,
    kind: str = "standard",
    target: float = 0.01,
    confidence: float = 0.95,
    rules: Sequence[RuleOfThumb] = RULES,
    fit: bool = True,
) -> Recommendation:
    """Recommend a limit from traces.

    Args:
        tokens: Tokens that each trace took, one a problem or problems x samples; NaN where there
            is none (an error).
        complete: Whether each ended by itself, in the same shape; otherwise it met its cap.
        caps: What each trace was allowed, in the same shape. A limit up to that truncates one that
            was cut, also where something stopped it earlier. None: what it took.
        name: What these traces are.
        kind: Which rules apply: ``standard``, ``thinking``, ``sequential`` or ``multi-turn``.
        target: Share of responses that may be truncated.
        confidence: One-sided confidence of the promise.
        rules: Rules of thumb to compare with.
        fit: Whether to fit distributions, too.

    Raises:
        ValueError: If shapes disagree or a number is out of its range.
    """
    needs, ended = as_traces(tokens, complete)
    for what, value in (("target", target), ("confidence", confidence)):
        if not 0 < value < 1:
            raise ValueError(f"{what} {value} is not between 0 and 1")
    seen = np.isfinite(needs)
    spread = token_spread(needs, seen & ~ended)
    reached = needs
    if caps is not None:
        reached = np.where(ended | np.isnan(needs), needs, np.maximum(needs, by_sample(caps)))
    early = seen & (needs < EARLY * reached)
    first = min(zip(needs[early], reached[early], strict=True), default=None)
    limit, truncation, best, needed = None, None, None, None
    promise = Promise.NO_TRACES
    if seen.any():
        best = truncates(reached, ended, int(reached[seen].max()), confidence)
        limit = promised_limit(needs, ended, target, confidence)
        promise = Promise.KEPT
        if limit is not None:
            truncation = truncates(reached, ended, limit, confidence)
        else:
            share = (best.truncated + best.unknown) / int(seen.sum())
            needed = problems_needed(target, confidence, share)
            promise = Promise.CAP_TOO_LOW if needed is None else Promise.TOO_FEW
            if needed is None:
                fewest = problems_needed(target, confidence)
                needed = fewest if fewest is not None and fewest > best.problems else None
    return Recommendation(
        name=name,
        target=target,
        confidence=confidence,
        promise=promise,
        limit=limit,
        truncation=truncation,
        quantile=_quantile(needs[seen], ended[seen], target),
        best=best,
        problems_needed=needed,
        needs=spread,
        stopped_early=int(early.sum()),
        earliest_stop=None if first is None else (int(first[0]), int(first[1])),
        fits=_fits(needs, ended, target, confidence) if fit else (),
        margins=_margins(needs, reached, ended, target, confidence),
        rules=tuple(
            RuleCheck(
                rule=rule,
                applies=rule.kind == kind,
                truncation=(cut := truncates(reached, ended, rule.limit, confidence)),
                verdict=judge_limit(cut, target),
                times_recommended=None if limit is None else rule.limit / limit,
            )
            for rule in rules
        ),
    )


def recommend_by_category(
    tokens: ArrayLike,
    complete: ArrayLike,
    categories: Sequence[str],
    *,
    caps: ArrayLike | None = None,
    kind: str = "standard",
    target: float = 0.01,
    fit_each: bool = True,
) -> Recommendations:
    """Recommend a limit for all traces and one for each category.

    Each promise stands for itself: with many categories, that all of them are kept together is less
    certain than each one.

    Arguments are those of ``recommend``, with one category a problem; ``fit_each`` tells whether
    distributions are fitted to each category, too, and not only to all traces.

    Raises:
        ValueError: As ``recommend``, or if there is not one category a problem.
    """
    needs, ended = as_traces(tokens, complete)
    if len(categories) != needs.shape[0]:
        raise ValueError(f"{len(categories)} categories for {needs.shape[0]} problems")
    names = np.asarray(categories, dtype=object)
    allowed = None if caps is None else by_sample(caps)

    def one(name: str, rows: Bools, fit: bool) -> Recommendation:
        return recommend(
            needs[rows],
            ended[rows],
            caps=None if allowed is None else allowed[rows],
            name=name,
            kind=kind,
            target=target,
            fit=fit,
        )

    several = list(dict.fromkeys(categories))
    return Recommendations(
        one(ALL, np.ones(len(names), bool), True),
        {
            name: one(name, np.asarray(names == name), fit_each)
            for name in (several if len(several) > 1 else ())
        },
    )


def promised_limit(needs: Floats, ended: Bools, target: float, confidence: float) -> int | None:
    """The smallest length seen whose bound on the truncation keeps to the target.

    None where no length seen can be promised. Arguments are problems x samples, as in
    ``recommend``.
    """
    seen = np.isfinite(needs)
    if needs.shape[1] == 1 and seen.all():
        # One sample a problem: it is an order statistic whose place depends on their number alone.
        lengths = np.sort(np.where(ended, needs, np.inf), axis=None)
        over = _most_over(lengths.size, target, confidence)
        found = lengths[lengths.size - 1 - over] if over >= 0 else np.inf
        return int(found) if np.isfinite(found) else None
    lengths = np.unique(needs[seen & ended])

    def kept(place: int) -> bool:
        over = np.where(ended, needs > lengths[place], True)
        return upper_rate(np.where(seen, over, np.nan), confidence) <= target

    if not lengths.size or not kept(lengths.size - 1):
        return None
    return int(lengths[bisect_left(range(lengths.size - 1), True, key=kept)])


@cache
def _most_over(problems: int, target: float, confidence: float) -> int:
    """How many problems may need more than a limit so that the target is kept; -1 if none may."""

    def is_too_many(count: int) -> bool:
        over = np.arange(problems)[:, None] < count
        return upper_rate(over.astype(np.float64), confidence) > target

    return bisect_left(range(problems), True, key=is_too_many) - 1


def _quantile(needs: Floats, ended: Bools, target: float) -> int | None:
    # A capped trace needs more than any limit that could be named.
    lengths = np.sort(np.where(ended, needs, np.inf))
    if not lengths.size:
        return None
    place = math.ceil((1 - target) * lengths.size - 1e-9) - 1
    return int(lengths[place]) if np.isfinite(lengths[place]) else None


def _fits(needs: Floats, ended: Bools, target: float, confidence: float) -> tuple[LengthFit, ...]:
    # Samples of a problem are not independent: its first one stands for it.
    rows = np.flatnonzero(np.isfinite(needs).any(axis=1))
    columns = np.isfinite(needs[rows]).argmax(axis=1)
    lengths, complete = needs[rows, columns], ended[rows, columns]
    cap = math.inf if complete.all() else float(lengths[~complete].min())
    above = np.where(complete, lengths, np.inf)
    return fit_lengths(above, cap, target=target, confidence=confidence)


def _margins(
    needs: Floats, reached: Floats, ended: Bools, target: float, confidence: float
) -> tuple[Margin, ...]:
    seen = np.isfinite(needs)
    if not seen.any():
        return ()
    mean = float(needs[seen].mean())
    cuts = [
        (factor, truncates(reached, ended, math.ceil(factor * mean), confidence))
        for factor in MARGINS
    ]
    return tuple(Margin(factor, cut, judge_limit(cut, target)) for factor, cut in cuts)
