"""Two runs against each other: the numbers, on arrays made by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from text_snapshots import TextFile, text_of

from pytest_tokenbudget.baselines.run_statistics import (
    ParetoPoint,
    Scores,
    compare,
    pairwise,
    pareto,
    rate_change,
    ratio_of_means,
    token_change,
)


def column(*values):
    return np.array(values, dtype=float).reshape(-1, 1)


def table(lost, won, both, neither):
    """Right answers before and after, one sample a problem."""
    before = [1.0] * lost + [0.0] * won + [1.0] * both + [0.0] * neither
    after = [0.0] * lost + [1.0] * won + [1.0] * both + [0.0] * neither
    return column(*before), column(*after)


def scores(correct, truncated=None, tokens=None):
    correct = np.asarray(correct, dtype=float)[:, :, None]
    truncated = np.zeros_like(correct) if truncated is None else np.asarray(truncated)[:, :, None]
    tokens = np.full_like(correct, 9.0) if tokens is None else np.asarray(tokens)[:, :, None]
    return Scores(correct, truncated.astype(float), tokens.astype(float))


def test_losses_and_wins_and_mcnemar_by_hand():
    change = rate_change(*table(lost=9, won=3, both=100, neither=88))
    assert (change.before, change.after) == (0.545, 0.515)
    assert change.difference.value == pytest.approx(-0.03)
    assert change.difference.n == 200
    assert (change.fell, change.rose) == (9, 3)
    # 2 * P(K <= 3), K binomial of 12 and one half.
    assert change.p_mcnemar == pytest.approx(2 * (1 + 12 + 66 + 220) / 4096)
    assert change.difference.low < -0.03 < 0 < change.difference.high


def test_a_clear_loss():
    change = rate_change(*table(lost=20, won=2, both=100, neither=10))
    assert change.difference.high < 0
    assert change.p_mcnemar < 0.001


def test_sentences_on_changes(snapshot):
    rates = {
        "a loss": table(lost=9, won=3, both=100, neither=88),
        "a clear loss": table(lost=20, won=2, both=100, neither=10),
        "nothing in common": (column(), column()),
    }
    tokens = {
        "more tokens": (column(10, 20, 30, 20), column(11, 22, 33, 22)),
        "one problem": (column(5), column(6)),
    }
    sentences = {name: rate_change(*each).sentence("accuracy") for name, each in rates.items()}
    sentences |= {name: token_change(*each).sentence() for name, each in tokens.items()}
    assert text_of(sentences) == snapshot(extension_class=TextFile)


def test_runs_that_are_alike_are_known_only_to_within_an_interval():
    change = rate_change(*table(0, 0, 60, 40))
    assert change.difference.value == 0
    assert change.p_mcnemar == 1
    assert -0.05 < change.difference.low < 0 < change.difference.high < 0.05
    assert "unchanged [" in change.sentence("accuracy")


def test_an_error_in_either_run_leaves_the_problem_out():
    before, after = table(4, 1, 3, 2)
    before[0] = after[1] = math.nan
    change = rate_change(before, after)
    assert (change.fell, change.rose, change.difference.n) == (2, 1, 8)
    nothing = rate_change(column(math.nan), column(1.0))
    assert nothing.difference.n == 0
    assert nothing.sentence("accuracy") == "accuracy: no problem was scored by both"


def test_other_numbers_of_samples_are_compared_by_each_problems_mean():
    before = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    after = np.array([[0.0], [1.0], [1.0]])
    change = rate_change(before, after)
    assert change.before == pytest.approx(5 / 9)
    assert change.difference.value == pytest.approx(1 / 9)
    assert (change.fell, change.rose) == (1, 1)
    assert change.difference.low < change.difference.value < change.difference.high


def test_accuracy_of_the_completed_looks_at_what_both_completed():
    before = scores([[1], [1], [0], [1]], [[0], [1], [0], [0]])
    after = scores([[1], [1], [1], [0]], [[0], [0], [1], [0]])
    (point,) = compare([64], before, after)
    assert point.problems == 4
    assert point.completed.difference.n == 2
    assert (point.completed.fell, point.completed.rose) == (1, 0)
    assert (point.truncation.fell, point.truncation.rose) == (1, 1)


def test_tokens_by_hand():
    change = token_change(column(10, 20, 30, 20), column(11, 22, 33, 22))
    assert (change.before, change.after) == (20, 22)
    assert change.difference.value == pytest.approx(2)
    # Every problem takes a tenth more: nothing is left to chance.
    assert change.ratio[:3] == pytest.approx((0.1, 0.1, 0.1))


def test_a_ratio_that_the_data_do_not_bound_says_so():
    assert math.isnan(ratio_of_means(np.array([1.0, 0.0]), np.array([0.0, 5.0])).high)
    assert math.isnan(ratio_of_means(np.array([5.0]), np.array([6.0])).low)
    assert math.isnan(ratio_of_means(np.zeros(3), np.ones(3)).value)


def test_fiellers_interval_has_its_level():
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(400):
        one = rng.lognormal(5, 0.5, 60)
        other = 1.1 * one * rng.lognormal(-0.02, 0.2, 60)
        found = ratio_of_means(one, other)
        held += found.low <= 0.1 <= found.high
    assert 0.92 <= held / 400 <= 0.98


@pytest.mark.slow
def test_the_interval_of_a_change_has_its_level_and_nothing_fails_by_chance():
    rng = np.random.default_rng(1)
    draws = [tuple(rng.multinomial(80, [0.05, 0.05, 0.9])[:2]) for _ in range(400)]
    found = {
        (lost, won): rate_change(*table(int(lost), int(won), 80 - lost - won, 0)).difference
        for lost, won in set(draws)
    }
    intervals = [found[drawn] for drawn in draws]
    assert np.mean([each.low <= 0 <= each.high for each in intervals]) >= 0.93
    assert np.mean([each.high < -0.02 for each in intervals]) <= 0.025


@settings(max_examples=40, deadline=None)
@given(*[st.integers(0, 25)] * 4)
def test_turning_the_runs_round_turns_the_signs_round(lost, won, both, neither):
    before, after = table(lost, won, both, neither)
    there, back = rate_change(before, after), rate_change(after, before)
    assert (there.fell, there.rose) == (lost, won) == (back.rose, back.fell)
    assert there.p_mcnemar == back.p_mcnemar
    if there.difference.n:
        assert there.difference.low == -back.difference.high
        assert there.difference.low <= there.difference.value <= there.difference.high


def test_shapes_that_disagree_are_refused():
    one = scores([[1], [0]])
    with pytest.raises(ValueError, match="shape"):
        compare([64], one, scores([[1]]))
    with pytest.raises(ValueError, match="rise"):
        compare([0], one, one)


def test_pairs_of_models_are_adjusted_by_holm():
    (few,) = compare([64], *(scores(t) for t in table(9, 3, 50, 30)))
    (many,) = compare([64], *(scores(t) for t in table(20, 2, 50, 30)))
    first, second, third = pairwise([("a", "b", few), ("a", "c", many), ("b", "c", few)])
    assert second.p_holm == pytest.approx(3 * many.accuracy.p_mcnemar)
    assert first.p_holm == third.p_holm == pytest.approx(2 * few.accuracy.p_mcnemar)
    assert second.shown()
    assert not first.shown()


def test_the_pareto_front_by_hand():
    small, large = ParetoPoint("a", 32, 0.2, 30.0), ParetoPoint("a", 64, 0.6, 50.0)
    beaten, same = ParetoPoint("b", 32, 0.2, 31.0), ParetoPoint("b", 64, 0.6, 50.0)
    unknown = ParetoPoint("c", 32, math.nan, 1.0)
    assert pareto([large, beaten, small, same, unknown]) == (small, large)
    assert pareto([]) == ()


places = st.lists(
    st.builds(ParetoPoint, st.just("m"), st.just(1), st.integers(0, 9), st.integers(0, 9)),
    max_size=12,
)


@given(places)
def test_no_place_beats_one_of_the_front_and_every_other_is_beaten(every):
    front = pareto(every)

    def beats(one, other):
        return (
            one.accuracy >= other.accuracy
            and one.price <= other.price
            and ((one.accuracy, one.price) != (other.accuracy, other.price))
        )

    for place in every:
        beaten = any(beats(other, place) for other in every)
        assert beaten or any((p.accuracy, p.price) == (place.accuracy, place.price) for p in front)
        assert not (beaten and place in front)
