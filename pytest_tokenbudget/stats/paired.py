"""Bounds and tests of a difference between two answers to the same problems, right or wrong.

References:
    Tango (1998), Statistics in Medicine 17:891: the score interval of a paired difference.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from pytest_tokenbudget.stats.intervals import (
    Floats,
    bootstrap_lower,
    check_confidence,
    normal_quantile,
)

EXACT_PAIRS = 5000
"""Up to how many pairs a paired difference is tested exactly."""


def tango_lower(lost: float, won: float, n: float, confidence: float = 0.95) -> float:
    """Tango's one-sided lower score bound of a paired difference of proportions.

    The difference is (won - lost) / n. The score test takes the discordance under each
    hypothetical difference by restricted maximum likelihood, so that it works without discordant
    pairs; the bound is the difference at which it meets the normal quantile. Counts may be
    fractions: plans for other numbers of problems scale observed ones.
    """
    from scipy.optimize import brentq

    _check_pairs(lost, won, n, confidence)
    quantile = normal_quantile(confidence)
    observed = (won - lost) / n

    def excess(difference: float) -> float:
        return float(tango_score(lost, won, n, difference)) - quantile

    # Right at -1 and at the observed difference the variance can be zero.
    lowest, highest = -1 + 1e-9, observed - 1e-12
    if highest <= lowest or excess(lowest) <= 0:
        return -1.0
    return float(brentq(excess, lowest, highest, xtol=1e-10))


def paired_lower(
    lost: float, won: float, n: int, confidence: float = 0.95, judged_at: float = 0.0
) -> float:
    """One-sided lower bound of a paired difference that keeps its level at every ``n``.

    Tango's bound alone is too optimistic where few pairs are discordant (its error rate reaches
    6.8 % instead of 5 % at 133 pairs and a difference of -0.02). So the same score also orders the
    possible tables of an exact unconditional test: a difference is refuted only if, whatever the
    discordance, tables that speak at least as much against it have a probability of at most
    1 - confidence. The lower of the two bounds counts. Beyond ``EXACT_PAIRS`` pairs the exact test
    would change next to nothing and is left out.

    Of ``n`` pairs the first alone is right in ``won`` and the second alone in ``lost``. The bound
    will be held against ``judged_at``: exact tests of neighbouring differences need not nest, and
    the bound is above this one only if this one is refuted.
    """
    from scipy.optimize import brentq

    highest = tango_lower(lost, won, n, confidence)
    if n > EXACT_PAIRS or highest <= -1:
        return highest

    def excess(difference: float) -> float:
        return paired_p(lost, won, n, difference) - (1 - confidence)

    lowest = -1 + 1e-6
    if lowest < judged_at < highest:
        refuted = excess(judged_at) <= 0
        if refuted:
            lowest = judged_at
        else:
            highest = judged_at
    if excess(highest) <= 0:
        return highest
    if excess(lowest) >= 0:
        return lowest if lowest == judged_at else -1.0
    bound = float(brentq(excess, lowest, highest, xtol=1e-5))
    return max(bound, lowest) if lowest == judged_at else min(bound, highest)


def paired_bounds(
    values: Floats, single: bool, confidence: float = 0.95, judged_at: float = 0.0
) -> tuple[float, float]:
    """One-sided lower and upper bound of a mean difference, one value from -1 to 1 a problem.

    With one sample a problem (``single``) values are -1, 0 and 1, and ``paired_lower`` serves, held
    against ``judged_at`` below and above 0; else the bounds are those of ``bootstrap_lower``.
    """
    if not values.size:
        return -1.0, 1.0
    if not single:
        lower = bootstrap_lower(values, confidence=confidence)
        return lower, -bootstrap_lower(-values, confidence=confidence)
    lost, won = losses_and_wins(values)
    lower = paired_lower(lost, won, values.size, confidence, -judged_at)
    return lower, -paired_lower(won, lost, values.size, confidence, judged_at)


def losses_and_wins(values: Floats) -> tuple[int, int]:
    """How many differences are below and above 0, rounding aside."""
    return int((values < -1e-9).sum()), int((values > 1e-9).sum())


def mcnemar(lost: int, won: int) -> float:
    """Exact two-sided McNemar test: were nothing different, losses and wins were as likely."""
    from scipy.stats import binomtest

    return float(binomtest(lost, lost + won).pvalue) if lost + won else 1.0


# From no more discordance than the difference itself forces to as much as there can be; the worst
# case is often near the former.
_DISCORDANCE: Floats = np.append(0.0, np.geomspace(1e-4, 1.0, 40))
_UNLIKELY = 80.0  # exp(-80) of a probability is far below the last digit of any that counts


def tango_score(lost: ArrayLike, won: ArrayLike, n: float, difference: float) -> Floats:
    lost, won = np.asarray(lost, np.float64), np.asarray(won, np.float64)
    linear = (2 * n - won + lost) * difference - won - lost
    constant = -lost * difference * (1 - difference)
    root = np.sqrt(np.maximum(linear**2 - 8 * n * constant, 0.0))
    share_lost = np.maximum(root - linear, 0.0) / (4 * n)
    variance = n * (2 * share_lost + difference * (1 - difference))
    score: Floats = (won - lost - n * difference) / np.sqrt(np.maximum(variance, 1e-300))
    return score


def paired_p(lost: float, won: float, n: int, difference: float) -> float:
    """P-value against a paired difference of ``difference`` or less.

    The larger of Tango's and, up to ``EXACT_PAIRS`` pairs, the exact one, as in ``paired_lower``.
    """
    from scipy.special import ndtr

    _check_pairs(lost, won, n, 0.5)
    score = float(tango_score(lost, won, n, difference))
    p = float(ndtr(-score))
    return p if n > EXACT_PAIRS else max(p, _exact_p(score - 1e-9, n, difference))


def _exact_p(reached: float, n: int, difference: float) -> float:
    """Largest probability, over the discordance, of tables that score at least ``reached``."""
    from scipy.special import xlog1py, xlogy
    from scipy.stats import binom

    losses = np.arange(n + 1)
    # For each number of losses the score rises with the wins: find the first that reaches it.
    low, high = np.zeros(n + 1, dtype=np.int64), n - losses + 1
    while (low < high).any():
        middle = (low + high) // 2
        enough = tango_score(losses, np.minimum(middle, n - losses), n, difference) >= reached
        low, high = (
            np.where(enough | (low >= high), low, middle + 1),
            np.where(enough, middle, high),
        )
    possible = low <= n - losses
    losses, first = losses[possible], low[possible]
    least = max(0.0, -difference)
    share_lost = least + _DISCORDANCE * ((1 - difference) / 2 - least)
    share_won = np.clip((share_lost + difference) / (1 - share_lost), 0.0, 1.0)
    # Chernoff's bound tells which numbers of losses are too unlikely to matter: most of them.
    share = losses / n
    divergence = xlogy(share, share) + xlogy(1 - share, 1 - share)
    divergence = divergence - xlogy(share, share_lost[:, None])
    divergence -= xlog1py(1 - share, -share_lost[:, None])
    row, column = np.nonzero(n * divergence < _UNLIKELY)
    chance = np.zeros(divergence.shape)
    chance[row, column] = binom.pmf(losses[column], n, share_lost[row]) * binom.sf(
        first[column] - 1, n - losses[column], share_won[row]
    )
    return float(chance.sum(axis=1).max())


def _check_pairs(lost: float, won: float, n: float, confidence: float) -> None:
    check_confidence(confidence)
    if lost < 0 or won < 0 or n <= 0 or lost + won > n * (1 + 1e-9):
        raise ValueError(f"{lost} lost and {won} won of {n} pairs is impossible")
