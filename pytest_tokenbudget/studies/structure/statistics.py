"""Structure over a study: which parts fit within a budget, and what goes with verification.

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
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from pytest_tokenbudget.common.text_layout import percent, points
from pytest_tokenbudget.stats.intervals import Estimate, Floats, clustered_rate
from pytest_tokenbudget.studies.structure.rules import KINDS, PARTS, SegmentKind
from pytest_tokenbudget.studies.structure.segments import Structure

REPLICATES = 4000
_CHUNK = 250


class PartState(StrEnum):
    """How much of a part of a solution stands within a budget."""

    COMPLETE = "complete"
    BEGUN = "begun"
    CUT_OFF = "cut_off"  # the trace has it, all of it beyond the budget
    NONE = "none"  # the trace ended without it
    UNKNOWN = "unknown"  # the trace was capped before any of it


class VerificationGroup(StrEnum):
    """What became of the verification of an answer at a budget; exactly one applies."""

    VERIFIED = "verified"
    CUT_OFF = "cut_off"  # it has one, which the budget cut or cut off
    NONE = "none"
    UNKNOWN = "unknown"


_GROUP_OF = {
    PartState.COMPLETE: VerificationGroup.VERIFIED,
    PartState.BEGUN: VerificationGroup.CUT_OFF,
    PartState.CUT_OFF: VerificationGroup.CUT_OFF,
    PartState.NONE: VerificationGroup.NONE,
    PartState.UNKNOWN: VerificationGroup.UNKNOWN,
}


def fit(structure: Structure, kind: SegmentKind, tokens: int) -> PartState:
    """How much of the answer's part ``kind`` stands within the first ``tokens`` tokens.

    A part is complete with its last segment. Of a trace that was capped, segments beyond the cap
    are not known: a part counts as complete with the last segment that is seen whole, but not where
    the cap cut into it.
    """
    begun = structure.begun_at(kind)
    if begun is None:
        return PartState.NONE if structure.ended else PartState.UNKNOWN
    if begun > tokens:
        return PartState.CUT_OFF
    done = structure.done_at(kind)
    return PartState.COMPLETE if done is not None and done <= tokens else PartState.BEGUN


@dataclass(frozen=True)
class PartFit:
    """One part of a solution at one budget.

    Attributes:
        kind: The part.
        begun: Share of traces in which something of it stands within the budget.
        complete: Share in which all of it does.
        traces: How many traces there are of each `PartState`.
    """

    kind: SegmentKind
    begun: Estimate
    complete: Estimate
    traces: Mapping[str, int]


@dataclass(frozen=True)
class Stratum:
    """Problems of one category, where answers with and without verification meet.

    Attributes:
        name: The category.
        verified: Answers with verification, and the right ones among them.
        none: Answers without, and the right ones among them.
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
        unresolved = "" if low > 0 or high < 0 else "; not resolved whether there is a difference"
        return (
            f"answers with verification are right {percent(abs(value))} points {direction} often "
            f"than answers without [{points(low)}, {points(high)}], {matched} "
            f"(n = {n:,} problems){unresolved}: an association, not an effect"
        )


@dataclass(frozen=True)
class GroupAccuracy:
    """Answers with the same fate of their verification.

    Attributes:
        traces: How many there are.
        accuracy: Share of right ones; None without any.
    """

    traces: int
    accuracy: Estimate | None


@dataclass(frozen=True)
class StructurePoint:
    """All traces at one budget.

    Attributes:
        budget: The budget.
        problems: Problems behind the shares.
        parts: What fits, for setup, computation, verification, answer.
        groups: Accuracy by the fate of the verification.
        comparison: Verified answers against those that have none.
    """

    budget: int
    problems: int
    parts: tuple[PartFit, ...]
    groups: Mapping[str, GroupAccuracy]
    comparison: VerificationComparison

    def part(self, kind: SegmentKind) -> PartFit:
        """What fits of ``kind``."""
        return next(part for part in self.parts if part.kind is kind)


def structure_point(
    budget: int,
    structures: Sequence[Sequence[Structure]],
    tokens: NDArray[np.int64],
    correct: Floats,
    strata: Sequence[str],
    *,
    seed: int = 0,
) -> StructurePoint:
    """What stands within a budget, and how right it is.

    Args:
        budget: The budget.
        structures: Of whole traces, problems x samples.
        tokens: Tokens used within the budget, problems x samples.
        correct: 1 or 0, NaN where a trace ended in an error; problems x samples.
        strata: Category of each problem.
        seed: Of the bootstrap.
    """
    shape = correct.shape
    seen = np.isfinite(correct)
    parts = []
    fits: dict[SegmentKind, list[list[PartState]]] = {}
    for kind in PARTS:
        fits[kind] = [
            [fit(one, kind, int(used)) for one, used in zip(row, line, strict=True)]
            for row, line in zip(structures, tokens, strict=True)
        ]
        values = [[state.value for state in row] for row in fits[kind]]
        codes = np.array(values, dtype=object).reshape(shape)
        complete = np.where(seen, codes == PartState.COMPLETE.value, np.nan)
        begun = np.where(seen, (complete == 1) | (codes == PartState.BEGUN.value), np.nan)
        number = Counter(codes[seen].tolist())
        traces = {state.value: number[state.value] for state in PartState}
        parts.append(PartFit(kind, clustered_rate(begun), clustered_rate(complete), traces))
    states = np.array(
        [[_GROUP_OF[f].value for f in row] for row in fits[SegmentKind.VERIFICATION]], dtype=object
    ).reshape(shape)
    groups = {}
    for group in VerificationGroup:
        inside = (states == group.value) & seen
        rate = clustered_rate(np.where(inside, correct, np.nan)) if inside.any() else None
        groups[group.value] = GroupAccuracy(int(inside.sum()), rate)
    verified, none = (
        (states == group.value) & seen
        for group in (VerificationGroup.VERIFIED, VerificationGroup.NONE)
    )
    return StructurePoint(
        budget,
        int(seen.any(axis=1).sum()),
        tuple(parts),
        groups,
        compare(correct, verified, none, strata, seed=seed),
    )


@dataclass(frozen=True)
class KindsByPlace:
    """What tokens are doing, by their place in the output.

    Attributes:
        places: The first token of each stretch, from 1.
        width: Tokens in a stretch.
        shares: For each kind, and for "thinking", the share of all traces whose tokens there do it.
    """

    places: tuple[int, ...]
    width: int
    shares: Mapping[str, tuple[float, ...]]


def along(structures: Sequence[Structure], stretches: int = 120) -> KindsByPlace:
    """What tokens are doing, by their place in the output; traces that have ended do nothing."""
    longest = max((sum(one.tokens) for one in structures), default=0)
    width = max(1, -(-longest // stretches))
    count = -(-longest // width) if longest else 0
    totals = {name: np.zeros(longest + 1) for name in (*(k.value for k in KINDS), "thinking")}
    for one in structures:
        place = 0
        for index, (piece, tokens) in enumerate(zip(one.segments, one.tokens, strict=True)):
            name = "thinking" if index < one.thinking else piece.kind.value
            # A step up where it begins and down where it ends: summed up below.
            totals[name][place] += 1
            place += tokens
            totals[name][place] -= 1
    shares = {}
    for name, steps in totals.items():
        counts = np.cumsum(steps)[:longest]
        padded = np.concatenate([counts, np.zeros(count * width - longest)]).reshape(count, width)
        inside = np.minimum(width, longest - width * np.arange(count))
        shares[name] = tuple((padded.sum(axis=1) / inside / max(1, len(structures))).tolist())
    return KindsByPlace(tuple(1 + width * i for i in range(count)), width, shares)


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

    def rate(group: NDArray[np.bool_], column: int) -> Estimate | None:
        inside = group & (member[:, column] > 0)[:, None]
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
        right, wrong = halves[:, [0, 2]], halves[:, [1, 3]]
        more = np.concatenate([right + wrong, right], axis=1)
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
