"""Accuracy of answers with verification against that of answers without.

Whether a model verifies is its own choice, and it may verify where it is sure. So accuracy with
and without verification is compared within strata of problems (their categories, usually the number
of steps), by the difference of Mantel and Haenszel: strata weighted by n1 n0 / (n1 + n0). It stays
an association: nothing here makes a model verify.

The interval is a Bayesian bootstrap by problem. To each group it adds half a right and half a wrong
answer, spread over the strata: so it has a width even where all answers of a group are right. With
one stratum and one sample it is the interval of two independent Jeffreys posteriors.

References:
    Mantel and Haenszel (1959), JNCI 22:719. Greenland and Robins (1985), Biometrics 41:55.
    Rubin (1981), Annals of Statistics 9:130.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pytest_tokenbudget.stats.intervals import Estimate, Floats, clustered_rate

REPLICATES = 4000
_CHUNK = 250


@dataclass(frozen=True)
class Stratum:
    """Problems of one category, where answers with and without verification meet.

    Attributes:
        name: The category.
        verified: Answers with verification.
        verified_right: Right ones among them.
        none: Answers without.
        none_right: Right ones among them.
        verified_accuracy: Share of right ones with verification; None without any.
        none_accuracy: Share of right ones without.
    """

    name: str
    verified: int
    verified_right: int
    none: int
    none_right: int
    verified_accuracy: Estimate | None = None
    none_accuracy: Estimate | None = None

    @property
    def comparable(self) -> bool:
        return self.verified > 0 and self.none > 0


@dataclass(frozen=True)
class VerificationComparison:
    """Accuracy of answers with verification less that of answers without.

    Attributes:
        difference: Matched by stratum; None where it cannot be compared.
        crude: Without matching; None likewise.
        strata: All strata in which either group has answers.
        compared: Answers in strata that have both groups.
        left_out: Answers of either group in strata that have one group only.
        reason: Why it cannot be compared; empty where it can.
    """

    difference: Estimate | None
    crude: float | None
    strata: tuple[Stratum, ...]
    compared: int
    left_out: int
    reason: str = ""

    def sentence(self) -> str:
        """The finding in words."""
        if self.difference is None:
            return f"accuracy with and without verification cannot be compared: {self.reason}"
        value, low, high, n = self.difference
        strata = sum(s.comparable for s in self.strata)
        matched = f"matched over {strata} categories" if strata > 1 else "in one category"
        direction = "more" if value >= 0 else "less"
        told = "" if low > 0 or high < 0 else "; not resolved whether there is a difference"
        return (
            f"answers with verification are right {abs(100 * value):.1f} points {direction} often "
            f"than answers without [{100 * low:+.1f}, {100 * high:+.1f}], {matched} "
            f"(n = {n:,} problems){told}: an association, not an effect"
        )


def compare(
    correct: Floats,
    verified: NDArray[np.bool_],
    none: NDArray[np.bool_],
    strata: Sequence[str],
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> VerificationComparison:
    """Accuracy of verified answers less that of the others, matched by stratum.

    Args:
        correct: 1 or 0, problems x samples.
        verified: Which answers have verification.
        none: Which have none; what is in neither group is left aside.
        strata: Category of each problem.
        confidence: Two-sided confidence.
        seed: Of the bootstrap.
    """
    right = np.nan_to_num(correct)
    # Answers and right answers of each group by problem.
    sums = np.stack(
        [m.sum(axis=1, dtype=np.float64) for m in (verified, none)]
        + [np.where(m, right, 0.0).sum(axis=1) for m in (verified, none)],
        axis=1,
    )
    names = sorted(set(strata), key=_natural)
    member = np.array([[s == name for name in names] for s in strata], dtype=np.float64)
    member = member.reshape(len(strata), len(names))
    table = member.T @ sums

    def rate(group: NDArray[np.bool_], place: int) -> Estimate | None:
        inside = group & (member[:, place] > 0)[:, None]
        return clustered_rate(np.where(inside, correct, np.nan)) if inside.any() else None

    kept = tuple(
        Stratum(
            name, int(n1), round(x1), int(n0), round(x0), rate(verified, place), rate(none, place)
        )
        for place, (name, (n1, n0, x1, x0)) in enumerate(zip(names, table.tolist(), strict=True))
        if n1 + n0 > 0
    )
    both = (table[:, 0] > 0) & (table[:, 1] > 0)
    compared = int(table[both, :2].sum())
    left_out = int(table[:, :2].sum()) - compared
    reason = _why_not(int(verified.sum()), int(none.sum()), bool(both.any()))
    if reason:
        return VerificationComparison(None, None, kept, compared, left_out, reason)
    total = table.sum(axis=0)
    in_both = member[:, both]
    problems = int((in_both.any(axis=1) & (sums[:, :2].sum(axis=1) > 0)).sum())
    value = float(_mantel_haenszel(table[None, both, :])[0])
    draws = _replicates(in_both, sums, table[both], seed)
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return VerificationComparison(
        Estimate(value, min(float(low), value), max(float(high), value), problems),
        float(total[2] / total[0] - total[3] / total[1]),
        kept,
        compared,
        left_out,
    )


def _replicates(member: Floats, sums: Floats, table: Floats, seed: int) -> Floats:
    """The matched difference under random weights of problems."""
    rng = np.random.default_rng(seed)
    used = member.any(axis=1)
    member, sums = member[used], sums[used]
    strata = member.shape[1]
    by_stratum = (member[:, :, None] * sums[:, None, :]).reshape(len(sums), -1)
    weight = table[:, 0] * table[:, 1] / (table[:, 0] + table[:, 1])
    share = weight / weight.sum()
    draws = []
    for start in range(0, REPLICATES, _CHUNK):
        count = min(_CHUNK, REPLICATES - start)
        drawn = rng.standard_exponential((count, len(sums))) @ by_stratum
        cells = drawn.reshape(count, strata, 4)
        halves = rng.standard_gamma(0.5, (count, 4))
        more = np.stack(
            [
                halves[:, 0] + halves[:, 1],
                halves[:, 2] + halves[:, 3],
                halves[:, 0],
                halves[:, 2],
            ],
            axis=1,
        )
        draws.append(_mantel_haenszel(cells + share[None, :, None] * more[:, None, :]))
    return np.concatenate(draws)


def _mantel_haenszel(cells: Floats) -> Floats:
    """Matched differences of tables: replicates x strata x (n1, n0, x1, x0)."""
    n1, n0, x1, x0 = np.moveaxis(cells, 2, 0)
    both = n1 + n0
    difference: Floats = ((x1 * n0 - x0 * n1) / both).sum(axis=1) / (n1 * n0 / both).sum(axis=1)
    return difference


def _why_not(verified: int, none: int, meet: bool) -> str:
    if not verified and not none:
        return "no answer is known to have verification within the budget, or to have none"
    if not none:
        return "every answer that is known to its end has verification"
    if not verified:
        return "no answer has its verification within the budget"
    return "" if meet else "no category has answers of both kinds"


def _natural(name: str) -> tuple[int, float, str]:
    """Sorts ``10-step`` after ``9-step``."""
    digits = "".join(c for c in name.split("-", maxsplit=1)[0] if c.isdigit())
    return (0, float(digits), name) if digits else (1, math.inf, name)
