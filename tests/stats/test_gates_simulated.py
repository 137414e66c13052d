"""Chances that verdicts state, on a few simulated runs; the benchmark of that name counts 1,000."""

from pathlib import Path

import pytest

from benchmarks.simulated_gates import KINDS, RULES, DecisionRule, Threshold, count, table
from benchmarks.test_simulated_gates import check

PAIRS = 80


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_gates_fail_as_often_as_they_say(kind):
    # The interval of a change is exact too, and takes its time.
    problems = 40 if kind.name.startswith("change") else 90
    found = []
    for name, rule in RULES.items():
        given = {"margin": kind.loss} if rule["rule"] is DecisionRule.NONINFERIOR else {}
        demand = Threshold(kind.threshold, kind.at_least, **rule, **given)
        found.append(count(kind, name, demand, PAIRS, problems))
        check(found[-1], PAIRS, near=0.08)
    assert table(found).count("\n") == 1 + len(RULES)


def test_the_page_has_the_benchmarks_table():
    page = (Path(__file__).parents[2] / "docs" / "gates.md").read_text("utf-8")
    header, line = table([]).splitlines()
    rows = page.split(f"{header}\n{line}\n")[1].split("\n\n")[0].splitlines()
    shown = [tuple(cell.strip() for cell in row.split("|")[1:3]) for row in rows]
    # Two of the rules also have as many problems as they ask for.
    assert dict.fromkeys(shown) == dict.fromkeys((k.name, r) for k in KINDS for r in RULES)
    assert len(rows) == len(KINDS) * (len(RULES) + 2)
