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
    change = compared.at(budget)
    checks = [check.record() for check in baseline_gates.judge(budget)]
    record_metrics(change, baseline={"label": compared.label, "checks": checks})
    baseline_gates.check(budget)
