"""Context: what is lost when a conversation does not fit, and which truncation loses least.

Conversations tell facts at every depth, at lengths up to what the model's context has room for, and
end with a question. Each is posed whole, and truncated by every strategy to every limit. What a
window still holds is known exactly, so that what the model fails by itself and what truncation
takes from it are separate numbers.
"""

import pytest

pytestmark = pytest.mark.context


def test_truncated(context, context_arm, truncation, context_limit, record_metrics):
    """One arm (one fact, two facts, the task after small talk) in one window."""
    point = context.at(context_arm, truncation, context_limit)
    record_metrics(point)
    groups = [point.if_kept, point.if_lost, point.if_unasked]
    assert point.no_window + sum(each.n for each in groups if each) <= point.curve.problems


def test_recommendation(context, record_metrics):
    """The strategy and limit to set, or why none can be recommended.

    "Not resolved" is a result and passes.
    """
    for arm, advice in context.advice.items():
        record_metrics(advice, arm=arm, sentence=advice.sentence())
        assert advice.chosen is None or advice.chosen.comparison.holds
