"""Phase 1: how accuracy, truncation and tokens used depend on the output budget.

Every problem is answered once, at the largest budget; every smaller budget is a cut of that trace.
"""

import pytest

pytestmark = pytest.mark.phase1


def test_accuracy_at_budget(curve, budget, record_metrics, gates):
    """Accuracy, truncation and tokens used when generation stops at ``budget`` tokens."""
    point = curve.at(budget)
    record_metrics(point)
    gates.check(point)


def test_saturation_point(saturation, record_metrics, gates):
    """The smallest budget that is not worse than the largest by more than the margin.

    "Not resolved" is a result and passes, unless a gate demands more; else the test fails only
    where the rule contradicts itself.
    """
    record_metrics(saturation, sentence=saturation.sentence())
    smaller = [c.budget for c in saturation.comparisons if c.holds]
    assert saturation.budget is None or not smaller or saturation.budget <= min(smaller)
    gates.check_saturation(saturation)
