"""Phase 1b: how much of a result is chance, and what more samples would bring.

Every problem is answered several times with noise; every budget is a cut of the same samples.
"""

from itertools import pairwise

import pytest

pytestmark = pytest.mark.phase1b


def test_samples_at_budget(stochastic, sample_budget, record_metrics, gates):
    """Mean success, its spread across samples and across problems, pass@k and majority vote."""
    point = stochastic.at(sample_budget)
    record_metrics(point)
    rates = [each.rate.value for each in point.pass_at if each.rate.n == point.problems]
    # More tries cannot solve less on the same problems.
    assert all(b >= a - 1e-9 for a, b in pairwise(rates))
    gates.check(point)


def test_budgets_differ(stochastic, record_metrics):
    """Each smaller budget against the largest, paired by problem. No difference is a result."""
    for each in stochastic.differences:
        record_metrics(each, sentence=each.sentence())
        assert each.worse + each.better <= each.difference.n
