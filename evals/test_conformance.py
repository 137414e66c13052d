"""Conformance: whether the limits that one sets are the limits that one gets, on any engine.

A limit is probed by asking for it and counting what comes. A thinking budget is probed in every way
in which the engine is said to know one, on prompts that make the model think for longer than it:
what is enforced, what is only a wish, and what is dropped without a word.
"""

import pytest

from pytest_tokenbudget.studies.conformance.analysis import LimitFinding
from pytest_tokenbudget.studies.conformance.budget_methods import BUDGET_METHODS
from pytest_tokenbudget.studies.conformance.limits import LIMIT_PROBES

pytestmark = pytest.mark.conformance


@pytest.mark.parametrize("probe", LIMIT_PROBES)
def test_limit(conformance, probe, record_metrics):
    """One limit: what the engine does and what it says agree with each other and the request.

    Outputs that differ when they are repeated are a result, with their rate, and pass.
    """
    found = conformance.limit(probe)
    record_metrics(
        {"finding": found.finding, "sentence": found.sentence},
        conformance=conformance.record(limit=found),
    )
    if found.finding is LimitFinding.NOT_POSSIBLE:
        pytest.skip(found.sentence)
    if found.finding is LimitFinding.BROKEN:
        pytest.fail(found.sentence, pytrace=False)


@pytest.mark.parametrize("way", BUDGET_METHODS)
def test_thinking_budget(conformance, way, record_metrics, gates):
    """One way to set a thinking budget: thinking tokens at each budget, and the verdict.

    A budget that is ignored is a result and passes, unless a gate demands more.
    """
    if reason := conformance.why_not(way):
        not_asked = {"way": way, "label": BUDGET_METHODS[way].label, "reason": reason}
        record_metrics(conformance=conformance.record(not_asked=not_asked))
        pytest.skip(f"{way}: {reason}")
    found = conformance.way(way)
    record_metrics(
        {"verdict": found.verdict, "sentence": found.sentence},
        conformance=conformance.record(way=found),
    )
    assert all(each.kept <= each.informative for each in found.budgets)
    gates.check(found)


def test_gates(conformance, record_metrics, gates):
    """What gates demand of the engine as a whole; one that is misspelt fails."""
    if not gates.demands:
        pytest.skip("no gate demands anything of the engine: see --min-conformance")
    record_metrics(conformance=conformance.record(judged=gates.demands))
    gates.check(conformance.whole())
