"""Simulated CI: pairs of runs with a known difference, and how often each kind of gate fails.

    python -m benchmarks.simulated_gates          # 1,000 pairs a row: the table of docs/gates.md
    python -m benchmarks.simulated_gates 200      # fewer

A pair is a run that everybody was content with, and another on the same problems. Its model is the
same, or has truly lost something. Problems have chances of being solved from a beta distribution,
so that most are solved always or never, and both runs draw their answers independently.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from pytest_tokenbudget.stats.decision_rules import (
    Decision,
    DecisionRule,
    Threshold,
    decide,
    not_kept_at,
    ruling_of,
)
from pytest_tokenbudget.stats.evidence import Change, Evidence, Rate, mean_evidence
from pytest_tokenbudget.stats.intervals import Estimate

PAIRS = 1000
PROBLEMS = 300
SAID = 100  # verdicts whose smallest change is averaged
LOSS = 0.05
EASY, HARD = 0.6, 0.2
ACCURACY = EASY / (EASY + HARD)
LENGTH, LONGER = 200.0, 0.05
RULES: dict[str, dict[str, object]] = {
    "`point`": {"rule": DecisionRule.POINT},
    "`confident`": {"rule": DecisionRule.CONFIDENT},
    "`confident`, inconclusive allowed": {
        "rule": DecisionRule.CONFIDENT,
        "allow_inconclusive": True,
    },
    "`noninferior`": {"rule": DecisionRule.NONINFERIOR},
}

# A run, or a pair of them, with so many problems and so much lost.
Draw = Callable[[np.random.Generator, int, float], Evidence]


@dataclass(frozen=True)
class Kind:
    """What is gated.

    Attributes:
        name: For people.
        draw: Draws what is measured.
        threshold: What is true where nothing is lost.
        at_least: Whether the gate is a least.
        loss: What is lost where something is.
        shown: A loss, for people.
    """

    name: str
    draw: Draw
    threshold: float
    at_least: bool
    loss: float
    shown: Callable[[float], str]


@dataclass(frozen=True)
class Row:
    """How often one kind of gate fails.

    Attributes:
        kind: What is gated.
        rule: How it decides.
        problems: Problems of each run.
        stated: How often the verdicts say that it fails by chance, on average.
        failed: How often it failed where nothing was lost.
        power: How often the verdicts say that it fails for the loss.
        found: How often it failed for it.
        detectable: The smallest loss that it finds with 80 % power, as verdicts say.
        at_detectable: How often it was shown for that, inconclusive aside; for ``noninferior``,
            whose number is a margin, how often it passed where nothing was lost and this was the
            margin.
    """

    kind: Kind
    rule: str
    problems: int
    stated: float
    failed: float
    power: float
    found: float
    detectable: float
    at_detectable: float


def accuracy(rng: np.random.Generator, problems: int, loss: float) -> Rate:
    """The accuracy of one run."""
    chances = rng.beta(EASY, HARD, problems) * (1 - loss / ACCURACY)
    return Rate(int((rng.random(problems) < chances).sum()), problems)


def change(rng: np.random.Generator, problems: int, loss: float) -> Change:
    """The change of accuracy between two runs."""
    chances = rng.beta(EASY, HARD, problems)
    before = rng.random(problems) < chances
    after = rng.random(problems) < chances * (1 - loss / ACCURACY)
    lost, won = int((before & ~after).sum()), int((after & ~before).sum())
    return Change(lost, won, problems)


def length(rng: np.random.Generator, problems: int, loss: float) -> Evidence:
    """The mean length of one run's answers, which are log-normal."""
    spread = 0.5
    middle = np.log(LENGTH + loss) - spread**2 / 2
    return mean_evidence(rng.lognormal(middle, spread, (problems, 1)), 0.0, scales=True)


def points(loss: float) -> str:
    return f"{100 * loss:.1f} points"


KINDS = (
    Kind("accuracy of a run", accuracy, ACCURACY, True, LOSS, points),
    Kind("change from the run before", change, 0.0, True, LOSS, points),
    Kind("mean length", length, LENGTH, False, LENGTH * 2 * LONGER, lambda x: f"{x:.0f} tokens"),
)


@cache
def interval(evidence: Evidence, confidence: float) -> Estimate:
    """The interval of what was measured; the same pairs come again and again."""
    return evidence.estimate(confidence)


def ruling(evidence: Evidence, demand: Threshold) -> Decision:
    """What a gate decides."""
    return ruling_of(interval(evidence, demand.confidence), demand)


def fails(evidence: Evidence, demand: Threshold) -> bool:
    """Whether a gate fails."""
    return not demand.kept_by(ruling(evidence, demand))


def rows(pairs: int = PAIRS, problems: int = PROBLEMS) -> Iterator[Row]:
    """Every kind by every rule, with so many problems and with as many as a verdict asks for."""
    for kind in KINDS:
        for name, rule in RULES.items():
            margin = {"margin": kind.loss} if name == "`noninferior`" else {}
            demand = Threshold(kind.threshold, kind.at_least, **rule, **margin)
            yield count(kind, name, demand, pairs, problems)
            if name in ("`confident`, inconclusive allowed", "`noninferior`"):
                yield count(kind, name, demand, pairs, asked(kind, demand, problems))


def asked(kind: Kind, demand: Threshold, problems: int) -> int:
    """How many problems a verdict asks for, to find the loss."""
    wanted = demand if demand.margin else replace(demand, change=kind.loss)
    rng = np.random.default_rng(0)
    told = [decide(kind.draw(rng, problems, 0.0), wanted).needed for _ in range(20)]
    return round(float(np.mean([needed for needed in told if needed is not None])))


def count(kind: Kind, name: str, demand: Threshold, pairs: int, problems: int) -> Row:
    """How often a gate fails, as stated and as counted."""
    rng = np.random.default_rng(problems)
    same = [kind.draw(rng, problems, 0.0) for _ in range(pairs)]
    worse = [kind.draw(rng, problems, kind.loss) for _ in range(pairs)]
    sign = -1.0 if kind.at_least else 1.0
    said = [decide(each, demand, interval(each, demand.confidence)) for each in same[:SAID]]
    detectable = float(np.mean([verdict.detectable for verdict in said]))
    if demand.margin:
        wide = replace(demand, margin=detectable)
        at_detectable = float(np.mean([not fails(each, wide) for each in same]))
    else:
        drawn = (kind.draw(rng, problems, detectable) for _ in range(pairs))
        at_detectable = float(np.mean([ruling(each, demand) is Decision.FAILED for each in drawn]))
    lost = kind.threshold + sign * kind.loss
    return Row(
        kind,
        name,
        problems,
        float(np.mean([not_kept_at(each, demand, kind.threshold) for each in same])),
        float(np.mean([fails(each, demand) for each in same])),
        float(np.mean([not_kept_at(each, demand, lost) for each in same])),
        float(np.mean([fails(each, demand) for each in worse])),
        detectable,
        at_detectable,
    )


def table(found: list[Row]) -> str:
    """The rows as a table for the documentation."""
    lines = [
        "| gated | rule | problems | fails by chance: stated | counted "
        "| fails for the loss: stated | counted | finds with 80 % power | counted |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found:
        rates = (row.stated, row.failed, row.power, row.found)
        shown = " | ".join(f"{100 * rate:.1f} %" for rate in rates)
        smallest = f"{row.kind.shown(row.detectable)} | {100 * row.at_detectable:.1f} %"
        lines.append(f"| {row.kind.name} | {row.rule} | {row.problems:,} | {shown} | {smallest} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(list(rows(int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS))))
