"""The curve: denominators, bounds and what goes with each accuracy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pytest_tokenbudget.core.curve import build_curve
from pytest_tokenbudget.core.trace import Outcome
from pytest_tokenbudget.stats.intervals import wilson

WORDS = [outcome.value for outcome in Outcome]
CUT = ("truncated_in_thinking", "truncated_in_answer")


def one_budget(cuts, samples=1):
    """A point from (outcome, truncated, tokens) rows, problem by problem."""
    words, cut, tokens = (
        np.array(column).reshape(-1, samples, 1) for column in zip(*cuts, strict=True)
    )
    return build_curve([64], words, cut, tokens).at(64)


def test_point_by_hand():
    point = one_budget(
        [
            ("correct", False, 40),
            ("correct", True, 64),
            ("wrong", False, 50),
            ("truncated_in_answer", True, 64),
            ("truncated_in_thinking", True, 64),
            ("error", False, 9999),
            ("no_answer", False, 30),
            ("empty", False, 1),
        ]
    )
    assert (point.problems, point.samples) == (8, 8)
    assert point.accuracy == pytest.approx(wilson(2, 7))
    assert point.completed == pytest.approx(wilson(1, 4))
    assert point.truncation == pytest.approx(wilson(3, 7))
    assert point.best_case == pytest.approx(5 / 8)
    assert point.worst_case == pytest.approx(2 / 8)
    assert point.mean_tokens.value == pytest.approx((40 + 64 * 3 + 50 + 30 + 1) / 7)
    assert point.max_tokens == 64
    assert sum(point.outcomes.values()) == 8
    assert list(point.outcomes) == WORDS
    assert point.outcomes["error"] == 1


def test_all_truncated_has_no_completed_accuracy():
    point = one_budget([("truncated_in_answer", True, 64)] * 20)
    assert point.completed is None
    assert point.accuracy == pytest.approx(wilson(0, 20))
    assert (point.worst_case, point.best_case) == (0, 1)


def test_only_errors_is_no_measurement():
    point = one_budget([("error", False, 0)] * 3)
    assert point.accuracy.n == point.truncation.n == 0
    assert np.isnan(point.accuracy.value)
    assert (point.accuracy.low, point.accuracy.high) == (0, 1)
    assert (point.worst_case, point.best_case) == (0, 1)
    assert point.completed is None
    assert point.max_tokens == 0


def test_intervals_count_problems_not_samples():
    rows = [("correct", False, 10)] * 10 + [("wrong", False, 10)] * 10
    point = one_budget(rows, samples=5)
    assert (point.problems, point.samples) == (4, 20)
    assert point.accuracy.n == 4
    assert point.accuracy.high - point.accuracy.low > 0.6


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_invariants(data):
    shape = data.draw(hnp.array_shapes(min_dims=3, max_dims=3, max_side=5))
    words = data.draw(hnp.arrays("U21", shape, elements=st.sampled_from(WORDS)))
    declared = data.draw(hnp.arrays(bool, shape))
    truncated = np.isin(words, CUT) | (declared & (words == "correct"))
    tokens = data.draw(hnp.arrays(np.int64, shape, elements=st.integers(0, 4096)))
    budgets = [32 * 2**b for b in range(shape[2])]
    curve = build_curve(budgets, words, truncated, tokens)
    assert curve.budgets == tuple(budgets)
    for point in curve.points:
        assert sum(point.outcomes.values()) == point.samples == shape[0] * shape[1]
        assert 0 <= point.worst_case <= point.best_case <= 1
        if point.accuracy.n:
            slack = 1e-12
            assert point.worst_case - slack <= point.accuracy.value <= point.best_case + slack
            for rate in filter(None, (point.accuracy, point.completed, point.truncation)):
                assert 0 <= rate.low <= rate.value + slack
                assert rate.value - slack <= rate.high <= 1
            unresolved = point.truncation.value > 0 or point.outcomes["error"] > 0
            assert unresolved or point.best_case == pytest.approx(point.accuracy.value)
        assert point.mean_tokens.n == point.accuracy.n
        assert not point.mean_tokens.value > point.max_tokens + 1e-9


def test_a_budget_that_is_not_there_is_named_with_those_that_are():
    words = np.full((2, 1, 2), "correct")
    curve = build_curve([32, 64], words, np.zeros((2, 1, 2)), np.ones((2, 1, 2)))
    with pytest.raises(ValueError, match=r"no budget 48; it has 32, 64"):
        curve.at(48)


@pytest.mark.parametrize(
    ("budgets", "shape", "word", "message"),
    [
        ([64, 32], (2, 1, 2), "correct", "must rise"),
        ([32, 32], (2, 1, 2), "correct", "must rise"),
        ([], (2, 1, 0), "correct", "must rise"),
        ([32], (2, 1, 2), "correct", "x 1 budgets"),
        ([32, 64], (0, 1, 2), "correct", "no problem"),
        ([32, 64], (2, 1, 2), "right", "unknown outcomes right; known: correct, wrong"),
    ],
)
def test_bad_input_is_named(budgets, shape, word, message):
    with pytest.raises(ValueError, match=message):
        build_curve(budgets, np.full(shape, word), np.zeros(shape), np.zeros(shape))


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"tokens has shape \(3, 1, 1\)"):
        build_curve([32], np.full((2, 1, 1), "wrong"), np.zeros((2, 1, 1)), np.zeros((3, 1, 1)))
