"""Thinking: what a thinking budget costs and buys, and which one to set.

Every problem is thought about once, without a limit. A budget is enforced in two ways: hard, the
output is cut there; forced, the thinking is ended there by a closer and a short answer follows.
Beside them stand no limit, and thinking switched off.
"""

import pytest

pytestmark = pytest.mark.thinking


def test_accuracy_at_thinking_budget(thinking, thinking_budget, record_metrics, gates):
    """Accuracy, truncation and tokens under each enforcement; gates judge the forced answers."""
    for point in thinking.at(thinking_budget):
        record_metrics(point)
        assert sum(point.curve.outcomes.values()) == thinking.problems
    gates.check(thinking.gated(thinking_budget))


def test_accuracy_in_mode(thinking, mode, record_metrics, gates):
    """Accuracy, truncation and tokens in each mode; gates that name a mode judge its answers."""
    point = thinking.in_mode(mode)
    record_metrics(point, mode=mode.name, reason=mode.reason)
    assert sum(point.curve.outcomes.values()) == thinking.problems
    gates.check(thinking.gated_in(mode))


def test_usefulness(thinking, record_metrics):
    """Where answers settle, and the smallest budget that is not worse than no limit.

    "Not resolved" is a result and passes.
    """
    record_metrics(thinking.usefulness, sentence=thinking.usefulness.sentence())
    record_metrics(thinking.settling, sentence=thinking.settling.sentence())
    assert sum(course is not None for course in thinking.settling.courses) == (
        thinking.settling.problems
    )


def test_ways_of_ending(thinking, record_metrics):
    """Closers against each other, and forced answers against the hard cut, paired by problem."""
    for each in (*thinking.closers, *thinking.enforcements):
        record_metrics(each, sentence=each.sentence())
        assert each.first_only + each.second_only <= each.problems


def test_recommended_limit(thinking, record_metrics):
    """The limit that keeps truncation below the target, or why none can be promised."""
    for each in thinking.limits:
        record_metrics(each, sentence=each.sentence())
        assert each.limit is None or each.truncation.upper <= each.target


def test_switched_off_is_off(thinking, thinking_study, record_metrics):
    """Whether a model whose thinking is switched off writes any."""
    if thinking.off is None:
        pytest.skip(f"the template of {thinking_study.alias} has no switch for its thinking")
    record_metrics(thinking.off, sentence=thinking.off.sentence())
    if not thinking.off.is_off:
        pytest.fail(thinking.off.sentence(), pytrace=False)
