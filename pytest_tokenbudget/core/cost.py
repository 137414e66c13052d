"""What answers cost, from their tokens and a price, and what a smaller limit saves.

Money is linear in tokens, so what a budget costs follows from the traces as they were cut there. A
right answer's price is a ratio of means: all money over all right answers, those that are wrong or
cut among what is paid for.

Reference:
    Rubin (1981), Annals of Statistics 9:130: the Bayesian bootstrap, by problem, of the ratio.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pytest_tokenbudget.models.prices import MILLION, Price
from pytest_tokenbudget.stats.intervals import Estimate, Floats, mean_estimate
from pytest_tokenbudget.stats.tokens import by_sample, tokens_per_correct


@dataclass(frozen=True)
class Cost:
    """What answers at one budget cost; those that ended in an error are none.

    ``all`` is all of them together, ``each`` one answer, right or not, and ``correct`` all money
    over the right answers, None where none is right; with intervals by problem.
    """

    answers: int
    all: float
    each: Estimate
    correct: Estimate | None


def answer_costs(
    price: Price, prompt: ArrayLike, output: ArrayLike, reasoning: ArrayLike = 0
) -> Floats:
    """What each answer costs; arrays of any one shape.

    ``output`` has the tokens that were written, those of thinking (``reasoning``) among them; NaN
    for none.
    """
    asked, written = np.asarray(prompt, np.float64), np.asarray(output, np.float64)
    thought = np.asarray(reasoning, np.float64)
    money: Floats = (
        asked * price.input + (written - thought) * price.output + thought * price.reasoning
    ) / MILLION
    return money


def cost_of(
    price: Price,
    prompt: ArrayLike,
    output: ArrayLike,
    correct: ArrayLike,
    reasoning: ArrayLike = 0,
    *,
    confidence: float = 0.95,
) -> Cost | None:
    """What answers cost; None where there is none.

    Args:
        price: The price.
        prompt: Tokens of the prompts, one a problem or problems x samples.
        output: Tokens that were written, those of thinking among them, in the same shape; NaN
            where there is no answer (an error).
        correct: Whether each is right, as a number in the same shape.
        reasoning: Tokens of thinking among them.
        confidence: Two-sided confidence.
    """
    money = by_sample(answer_costs(price, prompt, output, reasoning))
    right = np.where(np.isfinite(money), by_sample(correct), np.nan)
    seen = np.isfinite(money) & np.isfinite(right)
    if not seen.any():
        return None
    money, right = np.where(seen, money, np.nan), np.where(seen, right, np.nan)
    kept, samples = seen.any(axis=1), money.shape[1]
    return Cost(
        answers=int(seen.sum()),
        all=float(money[seen].sum()),
        each=mean_estimate(money, confidence),
        # Money is counted as tokens are: all that was spent over what is right.
        correct=tokens_per_correct(
            np.nansum(money[kept], axis=1) / samples,
            np.nansum(right[kept], axis=1) / samples,
            confidence,
        ),
    )


@dataclass(frozen=True)
class Saving:
    """What one limit saves a request against a larger one, on the same problems.

    Attributes:
        answers: Answers behind it.
        spent: Output tokens of a request at the larger one; ``tokens`` are those that are saved.
        money: Money; None without a price.
        seconds: Time of the answer; None where it is not known.
        machine_seconds: Time of the machine, which does several at once; None where it is not
            known.
        accuracy: Gain of accuracy, below 0 where right answers are lost.
        truncated: Share of answers that it cuts and the larger one does not.
    """

    limit: int
    against: int
    answers: int
    spent: float
    tokens: Estimate
    money: Estimate | None
    seconds: Estimate | None
    machine_seconds: float | None
    accuracy: Estimate
    truncated: float


def mean_saving(larger: ArrayLike, smaller: ArrayLike, confidence: float = 0.95) -> Estimate | None:
    """Mean of what is saved, never less than nothing; None where nothing is known.

    ``larger`` and ``smaller`` are what each answer takes at the larger and the smaller limit, one a
    problem or problems x samples; NaN where that is not known.
    """
    apart = by_sample(np.asarray(larger, np.float64) - np.asarray(smaller, np.float64))
    if not np.isfinite(apart).any():
        return None
    value, low, high, problems = mean_estimate(apart, confidence)
    # One problem alone has no interval.
    return Estimate(value, low if math.isnan(low) else max(low, 0.0), high, problems)
