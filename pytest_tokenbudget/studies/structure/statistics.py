"""Structure over a study: which parts fit within a budget, and what tokens do along the output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from pytest_tokenbudget.stats.intervals import Estimate, Floats, clustered_rate
from pytest_tokenbudget.studies.structure.rules import KINDS, PARTS, SegmentKind
from pytest_tokenbudget.studies.structure.segments import Structure
from pytest_tokenbudget.studies.structure.verification import VerificationComparison, compare


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
        traces: How many traces there are of each `Fit`.
    """

    kind: SegmentKind
    begun: Estimate
    complete: Estimate
    traces: Mapping[str, int]


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
        table = [
            [fit(one, kind, int(used)) for one, used in zip(row, line, strict=True)]
            for row, line in zip(structures, tokens, strict=True)
        ]
        fits[kind] = table
        codes = np.array([[f.value for f in row] for row in table], dtype=object).reshape(shape)
        complete = np.where(seen, codes == PartState.COMPLETE.value, np.nan)
        begun = np.where(
            seen, (codes == PartState.COMPLETE.value) | (codes == PartState.BEGUN.value), np.nan
        )
        counted = Counter(codes[seen].tolist())
        parts.append(
            PartFit(
                kind,
                clustered_rate(begun),
                clustered_rate(complete),
                {f.value: counted[f.value] for f in PartState},
            )
        )
    of = np.array(
        [[_GROUP_OF[f].value for f in row] for row in fits[SegmentKind.VERIFICATION]], dtype=object
    ).reshape(shape)
    groups = {}
    for group in VerificationGroup:
        inside = (of == group.value) & seen
        rate = clustered_rate(np.where(inside, correct, np.nan)) if inside.any() else None
        groups[group.value] = GroupAccuracy(int(inside.sum()), rate)
    verified, none = (
        (of == VerificationGroup.VERIFIED.value) & seen,
        (of == VerificationGroup.NONE.value) & seen,
    )
    return StructurePoint(
        budget,
        int(seen.any(axis=1).sum()),
        tuple(parts),
        groups,
        compare(correct, verified, none, strata, seed=seed),
    )


@dataclass(frozen=True)
class Along:
    """What tokens are doing, by their place in the output.

    Attributes:
        places: The first token of each stretch, from 1.
        width: Tokens in a stretch.
        shares: For each kind, and for "thinking", the share of all traces whose tokens there do it.
    """

    places: tuple[int, ...]
    width: int
    shares: Mapping[str, tuple[float, ...]]


def along(structures: Sequence[Structure], stretches: int = 120) -> Along:
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
        here = np.cumsum(steps)[:longest]
        padded = np.concatenate([here, np.zeros(count * width - longest)]).reshape(count, width)
        inside = np.minimum(width, longest - width * np.arange(count))
        shares[name] = tuple((padded.sum(axis=1) / inside / max(1, len(structures))).tolist())
    return Along(tuple(1 + width * i for i in range(count)), width, shares)
