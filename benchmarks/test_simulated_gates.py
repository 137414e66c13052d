"""How often gates fail by chance and for a true loss, on simulated pairs of runs."""

from __future__ import annotations

import math

from benchmarks.conftest import Benchmark, Sizes
from benchmarks.simulated_gates import PAIRS, Row, rows, table

NEAR = 0.02
LEVEL = 0.025


def test_simulated_gates(benchmark: Benchmark, sizes: Sizes) -> None:
    """Pairs of runs with no true difference and with a true loss; the table of docs/gates.md."""
    pairs = sizes.problems(PAIRS)
    found: list[Row] = benchmark.pedantic(lambda: list(rows(pairs)), rounds=1)
    print(f"\n\n{table(found)}\n")
    benchmark.extra_info |= {"pairs": pairs, "failed": [row.failed for row in found]}
    if sizes.judged:
        for row in found:
            check(row, pairs)


def check(row: Row, pairs: int, near: float = NEAR) -> None:
    """See to it that a gate fails by chance no more often than stated, and finds what it should.

    Args:
        row: What was counted.
        pairs: How many pairs were drawn.
        near: How far power may be from what is stated, the simulation's own chance aside.
    """
    where = (row.kind.name, row.rule, row.problems)
    if row.rule == "`noninferior`":
        # What it promises is to let nothing pass that lost the margin.
        assert 1 - row.found <= LEVEL + _chance(LEVEL, pairs), where
        assert abs(row.failed - row.stated) <= near + _chance(row.stated, pairs), where
    else:
        assert row.failed <= row.stated + _chance(row.stated, pairs), where
    assert abs(row.found - row.power) <= near + _chance(row.power, pairs), where
    assert abs(row.at_detectable - 0.8) <= near + _chance(0.8, pairs), where


def _chance(rate: float, pairs: int) -> float:
    """What the simulation may be off by."""
    return 2.6 * math.sqrt(max(rate * (1 - rate), 0.0025) / pairs)
