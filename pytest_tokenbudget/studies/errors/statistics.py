"""Statistics of annotated errors: shares, transitions between budgets, agreement."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pytest_tokenbudget.stats.intervals import Estimate, Floats, clustered_rate, wilson
from pytest_tokenbudget.stats.resampling import REPLICATES

SOLVED = "solved"
NOT_ANNOTATED = "not annotated"
FEW_PROBLEMS = 30

Unit = tuple[str, int]
"""A problem and a sample."""


@dataclass(frozen=True)
class Share:
    """How often one type occurs.

    Attributes:
        count: How many.
        share: Their share with a 95 % interval of its own, by problem.
        together: An interval such that those of all types hold together with 95 % (Goodman 1965).
    """

    count: int
    share: Estimate
    together: tuple[float, float]


@dataclass(frozen=True)
class SourceAgreement:
    """How far two sources say the same.

    Attributes:
        first: One source.
        second: The other.
        n: Rows that both judged.
        problems: Problems that these rows are about.
        observed: Share of the same judgement, with its interval by problem.
        kappa: Cohen's kappa with its interval by problem; None where it has no value.
        remark: What is special about it; empty where nothing is.
        table: How often the first said one thing and the second another.
    """

    first: str
    second: str
    n: int
    problems: int
    observed: Estimate
    kappa: Estimate | None
    remark: str
    table: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def sentence(self) -> str:
        """The result in words."""
        if self.kappa is None:
            return f"{self.first} and {self.second}: {self.remark}"
        return (
            f"{self.first} and {self.second}: kappa {self.kappa.value:.2f} "
            f"[{self.kappa.low:.2f}, {self.kappa.high:.2f}], the same in "
            f"{100 * self.observed.value:.0f} % (n = {self.n}{self._of_problems})"
            + (f"; {self.remark}" if self.remark else "")
        )

    @property
    def _of_problems(self) -> str:
        if self.problems == self.n:
            return ""
        return f" rows of {self.problems} problem{'' if self.problems == 1 else 's'}"


def shares(kinds: Mapping[Unit, str], categories: Sequence[str]) -> dict[str, Share]:
    """The share of each category among the units."""
    found = Counter(kinds.values())
    counts = [found[name] for name in categories]
    return {
        name: Share(count, rate({unit: kind == name for unit, kind in kinds.items()}), together)
        for name, count, together in zip(categories, counts, goodman(counts), strict=True)
    }


def rate(hits: Mapping[Unit, bool], confidence: float = 0.95) -> Estimate:
    """The share of hits, clustered by problem where problems have several samples."""
    by_problem: dict[str, list[float]] = {}
    for (problem, _), hit in hits.items():
        by_problem.setdefault(problem, []).append(float(hit))
    if not by_problem:
        return wilson(0, 0, confidence)
    table = np.full((len(by_problem), max(map(len, by_problem.values()))), math.nan)
    for row, values in enumerate(by_problem.values()):
        table[row, : len(values)] = values
    return clustered_rate(table, confidence)


def goodman(counts: Sequence[int], confidence: float = 0.95) -> list[tuple[float, float]]:
    """Goodman's simultaneous intervals of multinomial shares."""
    from statsmodels.stats.proportion import multinomial_proportions_confint

    if not sum(counts):
        return [(0.0, 1.0)] * len(counts)
    ends = multinomial_proportions_confint(counts, 1 - confidence, method="goodman").clip(0.0, 1.0)
    return [(low, high) for low, high in ends.tolist()]


def evolution(
    before: Mapping[Unit, str], after: Mapping[Unit, str], states: Sequence[str]
) -> dict[str, dict[str, int]]:
    """How often a unit in one state at a budget is in another at the next.

    Only units that have a state at both count.
    """
    pairs = Counter((before[unit], after[unit]) for unit in before.keys() & after.keys())
    return {row: {column: pairs[row, column] for column in states} for row in states}


@dataclass(frozen=True)
class ErrorStep:
    """What became of the errors from one budget to the next.

    Attributes:
        budget: The smaller budget.
        next: The larger one.
        errors: Errors at the smaller.
        recovered: How many of them are right at the larger.
        persistent: How many are still not right.
        broken: How many that were right are not any more.
        recovery: Share of the errors that recovered, by problem.
        recovery_by_type: The same for the annotated errors, by type.
    """

    budget: int
    next: int
    errors: int
    recovered: int
    persistent: int
    broken: int
    recovery: Estimate
    recovery_by_type: Mapping[str, Estimate]


def step(
    budgets: tuple[int, int],
    right_before: Mapping[Unit, bool],
    right_after: Mapping[Unit, bool],
    types: Mapping[Unit, str],
) -> ErrorStep:
    """Compare two budgets on the units that are known at both."""
    both = right_before.keys() & right_after.keys()
    wrong = sorted(unit for unit in both if not right_before[unit])
    recovered = {unit: right_after[unit] for unit in wrong}
    kinds = sorted({types[unit] for unit in wrong if unit in types})
    return ErrorStep(
        budget=budgets[0],
        next=budgets[1],
        errors=len(wrong),
        recovered=sum(recovered.values()),
        persistent=len(wrong) - sum(recovered.values()),
        broken=sum(right_before[unit] and not right_after[unit] for unit in both),
        recovery=rate(recovered),
        recovery_by_type={
            kind: rate({unit: recovered[unit] for unit in wrong if types.get(unit) == kind})
            for kind in kinds
        },
    )


def agreement(
    names: tuple[str, str],
    first: Mapping[Hashable, str],
    second: Mapping[Hashable, str],
    *,
    problem_of: Callable[[Hashable], Hashable] = lambda key: key,
    confidence: float = 0.95,
) -> SourceAgreement:
    """Cohen's kappa of two sources on what both judged.

    Args:
        names: What the two are called.
        first: The judgement of each row by the first.
        second: The same by the second.
        problem_of: The problem that a row is about; each row is a problem of its own without it.
        confidence: Two-sided confidence of the intervals.
    """
    both = sorted(first.keys() & second.keys(), key=repr)
    pairs = Counter((first[key], second[key]) for key in both)
    kinds = sorted({kind for pair in pairs for kind in pair})
    n, same = len(both), sum(pairs[kind, kind] for kind in kinds)
    places = {problem: at for at, problem in enumerate(dict.fromkeys(map(problem_of, both)))}
    observed = rate(
        {
            (str(places[problem_of(key)]), at): first[key] == second[key]
            for at, key in enumerate(both)
        },
        confidence,
    )
    table = {row: {column: pairs[row, column] for column in kinds} for row in kinds}

    def result(kappa: Estimate | None, remark: str = "") -> SourceAgreement:
        return SourceAgreement(*names, n, len(places), observed, kappa, remark, table)

    if n == 0:
        return result(None, "no row was judged by both")
    if len(kinds) == 1:
        return result(
            None, f"all {n} rows are {kinds[0]} to both: agreement beyond chance has no value"
        )
    counts = np.zeros((len(places), len(kinds), len(kinds)))
    for key in both:
        cell = kinds.index(first[key]), kinds.index(second[key])
        counts[places[problem_of(key)], *cell] += 1
    value = float(_kappas(counts.sum(axis=0)))
    constant = any((counts.sum(axis=(0, side)) == n).any() for side in (1, 2))
    if same == n:
        remark = "no disagreement"
    elif constant:
        remark = "one of both always says the same"
    else:
        remark = "" if len(places) >= FEW_PROBLEMS else "few problems: the interval is rough"
    low, high = _kappa_interval(counts, confidence)
    return result(Estimate(value, min(low, value), max(high, value), len(places)), remark)


def _kappas(tables: Floats) -> Floats:
    """Cohen's kappa of each table of counts or weights in the last two axes.

    statsmodels' ``cohens_kappa`` gives the same of one table at a time; a bootstrap has thousands.
    """
    shares = tables / tables.sum(axis=(-2, -1), keepdims=True)
    chance = (shares.sum(axis=-1) * shares.sum(axis=-2)).sum(axis=-1)
    kappas: Floats = (np.trace(shares, axis1=-2, axis2=-1) - chance) / (1 - chance)
    return kappas


def _kappa_interval(counts: Floats, confidence: float) -> tuple[float, float]:
    """The interval of kappa by a Bayesian bootstrap by problem.

    The data alone promise too much where a kind is rare: with 37 rows of one kind that both agree
    on and 2 rows that they disagree on, no resample has another kappa than about 0.5. So half
    problems are added for what was not seen. With one of agreement and one of disagreement in all,
    intervals are too narrow where a kind is rare; with one of each for every kind, where agreement
    is high. The interval covers both.

    Args:
        counts: Problems x kinds x kinds; every kind occurs.
        confidence: Two-sided confidence.
    """
    problems, size = counts.shape[0], counts.shape[1]
    total = counts.sum(axis=0)
    marginal = (total.sum(axis=0) + total.sum(axis=1)) / 2 / total.sum()
    agree = np.eye(size)[:, :, None] * np.eye(size)  # one table a kind
    disagree = np.zeros_like(agree)
    for kind in range(size):
        others = np.where(np.arange(size) == kind, 0.0, marginal)
        disagree[kind, kind] = disagree[kind, :, kind] = others / others.sum() / 2
    apart = np.outer(marginal, marginal) * (1 - np.eye(size))
    in_all = np.stack([np.diag(marginal), apart / apart.sum()])
    random = np.random.default_rng(0)
    weights = random.standard_exponential((REPLICATES, problems))
    seen = weights @ counts.reshape(problems, -1)
    ends = []
    for added in (in_all, np.concatenate([agree, disagree])):
        half = random.standard_gamma(0.5, (REPLICATES, len(added)))
        unseen = half @ added.reshape(len(added), -1) * total.sum() / problems
        kappas = _kappas((seen + unseen).reshape(-1, size, size))
        ends.append(np.quantile(kappas, [(1 - confidence) / 2, (1 + confidence) / 2]))
    (low, high) = np.min(ends, axis=0)[0], np.max(ends, axis=0)[1]
    return float(low), float(high)
