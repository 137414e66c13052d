"""Phase 1 against a stored run: what changed since, problem by problem.

Collected where --tokenbudget-compare names a run. A change is a result and passes, unless
--tokenbudget-compare-fail says how much of one is tolerated.
"""

import pytest

pytestmark = pytest.mark.phase1


def test_against_baseline(compared, budget, record_metrics, baseline_gates):
    """Accuracy, truncation and tokens used at ``budget`` tokens, then and now."""
    if budget not in compared.budgets:
        pytest.skip(f"{compared.label} has no budget of {budget:,} tokens")
    record_metrics(compared.at(budget), baseline=baseline_gates.record(budget))
    baseline_gates.check(budget)
