"""Phase 3, the cliff: between which budgets accuracy rises most steeply, and with what evidence.

All budgets are cuts of the traces of phase 1.
"""

import pytest

pytestmark = pytest.mark.phase3


def test_gain_up_to_budget(cliff, cliff_budget, record_metrics, gates):
    """Accuracy at the budget, and what the step from the one before gained, tested by problem."""
    point = cliff.at(cliff_budget)
    record_metrics(point)
    if point.step is not None:
        assert point.step.high == cliff_budget
        assert point.step.gain.low <= point.step.gain.value <= point.step.gain.high
    gates.check(point)


def test_cliff_window(cliff, record_metrics):
    """The steepest window between budgets, and where the truly steepest may lie.

    "Not resolved" is a result and passes.
    """
    found = cliff.cliff
    record_metrics(found, sentence=found.sentence())
    if found.steepest is not None:
        assert found.place[0] <= found.steepest.low < found.steepest.high <= found.place[1]


def test_where_answers_come(cliff, record_metrics):
    """The same from the accuracy at every token, and the token at which each answer came."""
    answers = cliff.answers
    if answers is None:
        pytest.skip("only answers at some budgets are known, not at every token")
    record_metrics(answers, sentence=answers.sentence())
    assert len(answers.came_at) <= answers.traces
