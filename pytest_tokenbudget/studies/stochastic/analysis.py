"""Several samples a problem: how much of a result is chance, and what more samples would bring.

Deviations are named for what they deviate across. "Across samples" is how the overall accuracy
differs from one sample of all problems to the next: the noise of decoding. "Across problems" is how
the success rates of problems differ: how unlike in difficulty they are. The standard error is that
of the mean success as an estimate for other problems of this kind, clustered by problem.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pytest_tokenbudget.common.text_layout import point_change
from pytest_tokenbudget.core.curve import check_axis
from pytest_tokenbudget.core.scoring import scores
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.stats.intervals import (
    Estimate,
    Floats,
    clustered_rate,
    clustered_standard_error,
    wilson,
)
from pytest_tokenbudget.stats.points import ByBudget
from pytest_tokenbudget.stats.resampling import bootstrap_mean, holm, p_words, sign_test
from pytest_tokenbudget.studies.stochastic.repeats import (
    intraclass_correlation,
    majority_votes,
    pass_at_k,
)

NO_SAMPLES = "no sample was scored"
ONE_SAMPLE = "there is one sample a problem"
ONE_PROBLEM = "there is one problem"
NO_PREDICTIONS = "answers were not given"


@dataclass(frozen=True)
class PassAt:
    """The chance that at least one of k samples is right, averaged over problems.

    ``rate.n`` counts the problems that have at least k samples; the others are left out.
    """

    k: int
    rate: Estimate


@dataclass(frozen=True)
class SamplePoint:
    """What several samples a problem say at one budget.

    What cannot be had is None, and ``unavailable`` says why by the field's name.

    Attributes:
        budget: The budget.
        problems: Problems with at least one sample that was scored.
        samples: Samples asked for, a problem.
        missing: Samples that were not scored (errors).
        mean_success: Share of right samples, its interval clustered by problem.
        sample_accuracies: Accuracy of each sample over all problems.
        deviation_across_samples: Standard deviation of these accuracies (n - 1).
        deviation_across_problems: Standard deviation of the problems' success rates (n - 1). The
            chance of a few samples is part of it.
        standard_error: Of the mean success, clustered by problem, with the correction n / (n - 1).
        intraclass_correlation: Share of the variance that lies between problems: 1 where samples
            of a problem always agree, 0 where they agree no more than samples of any problems. Its
            interval is a jackknife by problem.
        pass_at: For k of 1 to ``samples``.
        majority_vote: Accuracy of the most frequent answer of each problem. Of answers that are
            equally frequent, the one that came first (smallest sample number) counts. A sample
            without an answer has no vote; a problem without votes is not solved.
        always: Share of problems right in all samples. This and the next two are over the
            problems of which no sample is missing.
        sometimes: Share of problems right in some samples and not in others.
        never: Share of problems right in none.
        unavailable: Names of fields that are None, and why.
    """

    budget: int
    problems: int
    samples: int
    missing: int
    mean_success: Estimate
    sample_accuracies: tuple[float, ...]
    deviation_across_samples: float | None
    deviation_across_problems: float | None
    standard_error: float | None
    intraclass_correlation: Estimate | None
    pass_at: tuple[PassAt, ...]
    majority_vote: Estimate | None
    always: Estimate | None
    sometimes: Estimate | None
    never: Estimate | None
    unavailable: dict[str, str]


@dataclass(frozen=True)
class BudgetDifference:
    """A smaller budget against the largest, paired by problem.

    Attributes:
        budget: The smaller budget.
        other: The largest.
        difference: Mean success at ``budget`` less that at ``other``, with a bootstrap interval.
        worse: Problems in which the smaller budget does worse.
        better: Problems in which it does better.
        p: Exact two-sided paired test by problem (with one sample a problem, McNemar's).
        p_holm: The same, adjusted for all these comparisons.
    """

    budget: int
    other: int
    difference: Estimate
    worse: int
    better: int
    p: float
    p_holm: float

    def sentence(self) -> str:
        """A summary in one sentence."""
        pair = f"{self.budget} against {self.other}"
        if self.difference.n == 0:
            return f"{pair}: no problem was scored at both"
        value, low, high = self.difference[:3]
        seen = f"{point_change(self.difference, ' points')}, n = {self.difference.n:,}"
        if low <= 0 <= high:
            return f"{pair}: {seen}: no difference is shown"
        return f"{pair}: {seen}, {p_words(self.p_holm)}: {'worse' if value < 0 else 'better'}"


@dataclass(frozen=True)
class Stochastic(ByBudget[SamplePoint]):
    """Several samples a problem at several budgets.

    Attributes:
        points: One for each budget, rising.
        differences: Every smaller budget against the largest.
        confidence: Two-sided confidence of every interval.
    """

    WHAT = "phase 1b"

    points: tuple[SamplePoint, ...]
    differences: tuple[BudgetDifference, ...]
    confidence: float


def analyse_stochastic(study: Study) -> Stochastic:
    """What several samples a problem say at the study's budgets; computed once a study.

    Raises:
        ValueError: If no problem has all its traces.
    """
    return study.cached(_analyse, study)


def _analyse(study: Study) -> Stochastic:
    shape = (len(study.complete), study.samples)
    cuts = [study.judged(budget) for budget in study.budgets]
    if not study.complete:
        raise ValueError(
            f"no problem of {study.task.name} has all its samples of {study.alias}: there is "
            "nothing to analyse"
        )
    answers = np.empty((len(study.budgets), shape[0] * shape[1]), dtype=object)
    for row, column in enumerate(cuts):
        answers[row] = [judged.predicted for judged in column]
    return analyse_samples(
        study.budgets,
        np.stack([scores(column).reshape(shape) for column in cuts], axis=2),
        np.moveaxis(answers.reshape(-1, *shape), 0, 2),
    )


def analyse_samples(
    budgets: Sequence[int],
    correct: ArrayLike,
    predicted: ArrayLike | None = None,
    confidence: float = 0.95,
) -> Stochastic:
    """Analyse several samples a problem at each budget, and the budgets against the largest.

    Args:
        budgets: Budgets in rising order.
        correct: Problems x samples x budgets, 1 for a right answer and 0 for any other; NaN where
            there is none to judge (an error).
        predicted: The answers found, in the same shape, None where there is none.
        confidence: Two-sided confidence.

    Raises:
        ValueError: If shapes disagree, budgets do not rise, or scores are other than 0, 1 or NaN.
    """
    right = np.asarray(correct, dtype=np.float64)
    check_axis(budgets, right.shape, "correct")
    answers = None if predicted is None else np.asarray(predicted, dtype=object)
    if answers is not None:
        check_axis(budgets, answers.shape, "predicted")
    points = tuple(
        sample_point(
            budget, right[:, :, b], None if answers is None else answers[:, :, b], confidence
        )
        for b, budget in enumerate(budgets)
    )
    return Stochastic(points, budget_differences(budgets, right, confidence), confidence)


def sample_point(
    budget: int, correct: ArrayLike, predicted: ArrayLike | None = None, confidence: float = 0.95
) -> SamplePoint:
    """Analyse several samples a problem at one budget.

    Args:
        budget: The budget.
        correct: Problems x samples; NaN where there is nothing to judge.
        predicted: The answers found, in the same shape, None where there is none.
        confidence: Two-sided confidence.
    """
    table = np.asarray(correct, dtype=np.float64)
    seen = np.isfinite(table)
    if table.ndim != 2 or not np.isin(table[seen], (0.0, 1.0)).all():
        raise ValueError("expected problems x samples of 0, 1, or NaN where there is none")
    answers = None if predicted is None else np.asarray(predicted, dtype=object)
    if answers is not None and answers.shape != table.shape:
        raise ValueError(f"predicted has shape {answers.shape}, correct has {table.shape}")
    missing = int((~seen).sum())
    asked = table.shape[1]
    table, seen = table[seen.any(axis=1)], seen[seen.any(axis=1)]
    problems = table.shape[0]
    unavailable: dict[str, str] = {}

    def unless(why: str, fields: Iterable[str]) -> bool:
        unavailable.update(dict.fromkeys(fields, why) if why else {})
        return not why

    nothing = "" if problems else NO_SAMPLES
    alone = nothing or ("" if asked > 1 else ONE_SAMPLE)
    single = nothing or ("" if problems > 1 else ONE_PROBLEM)
    by_sample = tuple(
        float(column[np.isfinite(column)].mean()) for column in table.T if np.isfinite(column).any()
    )
    rates = np.nanmean(table, axis=1) if problems else np.empty(0)

    deviation = spread = error = None
    if unless(alone or ("" if len(by_sample) > 1 else ONE_SAMPLE), ["deviation_across_samples"]):
        deviation = float(np.std(by_sample, ddof=1))
    if unless(single, ["deviation_across_problems", "standard_error"]):
        spread = float(np.std(rates, ddof=1))
        error = clustered_standard_error(table) * math.sqrt(problems / (problems - 1))

    correlation = None
    if unless(alone or single, ["intraclass_correlation"]):
        correlation = intraclass_correlation(table, confidence)
        unless("" if correlation else "all samples came out alike", ["intraclass_correlation"])

    vote = None
    if unless(nothing or ("" if answers is not None else NO_PREDICTIONS), ["majority_vote"]):
        assert answers is not None
        votes = majority_votes(np.asarray(correct, dtype=np.float64), answers)
        counted = votes[np.isfinite(votes)]
        vote = wilson(int(counted.sum()), counted.size, confidence)

    always = sometimes = never = None
    whole = rates[seen.all(axis=1)]
    why = alone or ("" if whole.size else "every problem lacks a sample")
    if unless(why, ["always", "sometimes", "never"]):
        solved, failed = int((whole == 1).sum()), int((whole == 0).sum())
        always, never = (wilson(n, whole.size, confidence) for n in (solved, failed))
        sometimes = wilson(whole.size - solved - failed, whole.size, confidence)

    return SamplePoint(
        budget=budget,
        problems=problems,
        samples=asked,
        missing=missing,
        mean_success=clustered_rate(table, confidence) if problems else wilson(0, 0, confidence),
        sample_accuracies=by_sample,
        deviation_across_samples=deviation,
        deviation_across_problems=spread,
        standard_error=error,
        intraclass_correlation=correlation,
        pass_at=tuple(PassAt(k, pass_at_k(table, k, confidence)) for k in range(1, asked + 1)),
        majority_vote=vote,
        always=always,
        sometimes=sometimes,
        never=never,
        unavailable=unavailable,
    )


def budget_differences(
    budgets: Sequence[int], correct: ArrayLike, confidence: float = 0.95
) -> tuple[BudgetDifference, ...]:
    """Every smaller budget against the largest, paired by problem.

    Args:
        budgets: Budgets in rising order.
        correct: Problems x samples x budgets; NaN where there is nothing to judge. Pairs with a
            NaN are left out.
        confidence: Two-sided confidence.
    """
    right = np.asarray(correct, dtype=np.float64)
    check_axis(budgets, right.shape, "correct")
    pairs = [paired(right[:, :, -1], right[:, :, b]) for b in range(len(budgets) - 1)]
    p_values = [sign_test(sums) for sums, _ in pairs]
    return tuple(
        BudgetDifference(
            budget=budget,
            other=budgets[-1],
            difference=bootstrap_mean(means, confidence),
            worse=int((sums < 0).sum()),
            better=int((sums > 0).sum()),
            p=p,
            p_holm=adjusted,
        )
        for budget, (sums, means), p, adjusted in zip(
            budgets[:-1], pairs, p_values, holm(p_values), strict=True
        )
    )


def paired(first: Floats, second: Floats) -> tuple[Floats, Floats]:
    """Differences by problem, second less first, of the problems that have a pair of samples.

    Returns:
        Their sums over a problem's pairs, whole numbers, and their means.
    """
    differences = second - first
    seen = np.isfinite(differences)
    kept = seen.any(axis=1)
    sums = np.where(seen, differences, 0.0).sum(axis=1)[kept]
    means: Floats = sums / seen.sum(axis=1)[kept]
    return sums, means
