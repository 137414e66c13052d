"""Tokens a character and a word, and how much text fits a limit.

Passages are drawn independently and are the pieces of evidence: an interval says how the rate
would differ in other texts of the same kind, as far as a few passages can say that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pytest_tokenbudget.stats.intervals import Estimate, mean_estimate


@dataclass(frozen=True)
class CharacterFit:
    """How many characters fit a number of tokens.

    Attributes:
        characters: The estimate for a long text, with its interval; NaN as its upper end where
            nothing bounds it.
        fewest: As many fit even if all is like the passage with the most tokens a character.
        most: As many fit if all is like the passage with the fewest.
    """

    characters: Estimate
    fewest: int
    most: int


def ratio_estimate(above: ArrayLike, below: ArrayLike, confidence: float = 0.95) -> Estimate:
    """The ratio of two sums over passages, with the linearised interval and the t quantile.

    The ratio is that of the sums, as in one long text, not the mean of ratios: short passages do
    not count for more than they hold.

    Args:
        above: One value a passage.
        below: What each is divided by, in all above 0.
        confidence: Two-sided confidence.

    Raises:
        ValueError: If there is nothing to divide by, or the lengths differ.
    """
    over = np.asarray(above, dtype=np.float64).ravel()
    under = np.asarray(below, dtype=np.float64).ravel()
    if over.size != under.size or over.size == 0 or under.sum() <= 0:
        raise ValueError(f"a ratio needs pairs with a sum above 0: {over.size} and {under.size}")
    ratio = float(over.sum() / under.sum())
    left = mean_estimate((over - ratio * under)[:, None], confidence)
    half = (left.high - left.value) / float(under.mean())
    return Estimate(ratio, max(ratio - half, 0.0), ratio + half, left.n)


def characters_that_fit(
    room: int, tokens: Sequence[int], characters: Sequence[int], confidence: float = 0.95
) -> CharacterFit:
    """How many characters of a kind of text fit ``room`` tokens.

    Args:
        room: Tokens that the text may have; none fit where it is not above 0.
        tokens: Tokens of each passage of that kind, in all above 0.
        characters: Characters of each, every one above 0.
        confidence: Two-sided confidence.
    """
    rate = ratio_estimate(tokens, characters, confidence)
    room = max(room, 0)
    rates = [t / c for t, c in zip(tokens, characters, strict=True)]
    found = Estimate(
        math.floor(room / rate.value),
        math.floor(room / rate.high) if math.isfinite(rate.high) else math.nan,
        math.floor(room / rate.low) if rate.low > 0 else math.nan,
        rate.n,
    )
    least = min(rates)
    most = math.floor(room / least) if least > 0 else math.floor(room / rate.value)
    return CharacterFit(found, math.floor(room / max(rates)), most)
