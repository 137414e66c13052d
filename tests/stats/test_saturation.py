"""The saturation point: what is claimed, what is not, and how often wrongly."""

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from slow_cases import slow

from pytest_tokenbudget.core.saturation import Status, saturation_point
from pytest_tokenbudget.stats.paired import tango_lower


def table(n, right_at_largest, *columns):
    """Scores of n problems: for each smaller budget (lost, won) against the largest, rising."""
    largest = np.arange(n) < right_at_largest
    scores = []
    for lost, won in columns:
        column = largest.copy()
        column[:lost] = False
        column[n - won :] = True
        scores.append(column)
    return np.stack([*scores, largest], axis=1)[:, None, :].astype(float)


def test_zero_discordance_resolves_two_points_at_200_but_not_at_40():
    at_200 = saturation_point([256, 512], table(200, 120, (0, 0)))
    assert at_200.budget == 256
    assert at_200.comparisons[0].lower_bound == pytest.approx(-(1 - 0.05 ** (1 / 200)), abs=1e-4)
    at_40 = saturation_point([256, 512], table(40, 24, (0, 0)))
    assert at_40.status is Status.UNRESOLVED
    assert at_40.budget is None
    assert at_40.needed == 149
    assert at_40.sentence().startswith(
        "not resolved at n = 40; about 150 problems would be needed; 256 is as good here as 512"
    )


def test_the_sentence_of_a_saturated_curve():
    result = saturation_point([64, 128, 256, 512], table(200, 120, (90, 0), (40, 0), (0, 0)))
    assert result.budget == 256
    assert result.sentence() == (
        "saturates at 256: not worse than 512 by more than 2 points (one-sided 95 %); "
        "128 is worse by more than that"
    )
    assert [each.budget for each in result.comparisons] == [256, 128, 64]
    assert result.needed is None


def test_the_sequence_stops_at_the_first_failure():
    """A lower budget that would hold by itself is not reached past one that fails."""
    result = saturation_point([64, 128, 256, 512], table(300, 200, (0, 0), (30, 0), (0, 0)))
    assert [each.holds for each in result.comparisons] == [True, False, True]
    assert result.budget == 256
    assert result.failed is result.comparisons[1]


def test_all_budgets_alike_saturate_at_the_smallest_or_below():
    result = saturation_point([64, 128, 256], table(200, 120, (0, 0), (0, 0)))
    assert result.budget == 64
    assert result.sentence().startswith("saturates at 64 or below: not worse than 256")


def test_a_curve_that_still_rises_has_no_saturation_point():
    result = saturation_point([64, 128, 256], table(200, 120, (100, 0), (40, 0)))
    assert result.status is Status.NOT_REACHED
    assert result.budget is None
    assert result.needed is None
    found = re.match(
        r"not reached below 256: 128 is worse by at least ([\d.]+) points", result.sentence()
    )
    assert found
    # 40 of 200 were lost, at least this share at 95 %.
    assert float(found[1]) == pytest.approx(100 * stats.beta.ppf(0.05, 40, 161), abs=0.6)


def test_probably_worse_is_not_shown_to_be_worse():
    result = saturation_point([128, 256], table(40, 30, (4, 1)))
    assert result.status is Status.UNRESOLVED
    assert not result.comparisons[0].worse
    assert "7.5 points below 256" in result.sentence()
    assert "neither shown nor ruled out" in result.sentence()
    assert result.needed is not None
    assert result.needed > 40


def test_saturated_above_an_unresolved_budget_says_both():
    result = saturation_point([64, 128, 256], table(200, 150, (3, 0), (0, 0)))
    assert result.budget == 128
    assert result.needed is not None
    assert "; 64 is not resolved at n = 200; about " in result.sentence()


def test_a_difference_at_the_margin_needs_no_number():
    result = saturation_point([128, 256], table(100, 60, (2, 0)), margin=0.02)
    assert result.status is Status.UNRESOLVED
    assert result.needed is None
    assert "no number of problems would do" in result.sentence()


@pytest.mark.parametrize("n", [40, 200])
def test_without_accuracy_nothing_is_called_saturated(n):
    """At accuracy 0 every budget is as good, which says nothing about budgets."""
    result = saturation_point([32, 64], np.zeros((n, 1, 2)))
    assert result.status is Status.UNRESOLVED
    assert result.budget is None
    assert "accuracy at 64 is 0.0 %" in result.sentence()


@pytest.mark.parametrize(
    ("lost", "won", "n", "margin"),
    [(0, 0, 40, 0.02), (1, 1, 60, 0.02), (4, 4, 100, 0.03), (4, 0, 40, 0.05), (5, 3, 50, 0.1)],
)
def test_needed_problems_do_resolve_it(lost, won, n, margin):
    result = saturation_point([128, 256], table(n, n // 2, (lost, won)), margin=margin)
    assert result.status is Status.UNRESOLVED
    assert result.needed is not None
    # Whole multiples of the table keep its shares exactly; exact tests are a little jagged in n.
    often = math.ceil(1.2 * result.needed / n)
    again = saturation_point([128, 256], table(n, n // 2, (lost, won)).repeat(often, 0), margin)
    assert again.status is not Status.UNRESOLVED
    seldom = int(0.8 * result.needed / n)
    if seldom:
        before = saturation_point(
            [128, 256], table(n, n // 2, (lost, won)).repeat(seldom, 0), margin
        )
        assert before.status is Status.UNRESOLVED


def test_missing_pairs_are_dropped_by_budget():
    scores = table(10, 6, (0, 0), (1, 0))
    scores[0, 0, 0] = np.nan
    scores[9, 0, 2] = np.nan
    result = saturation_point([64, 128, 256], scores)
    assert result.problems == 9
    assert [each.problems for each in result.comparisons] == [9, 8]
    assert result.comparisons[0].lost == 1


def test_nothing_scored_is_unresolved():
    scores = np.full((5, 1, 2), np.nan)
    assert "no problem was scored" in saturation_point([64, 128], scores).sentence()
    scores[:, :, 1] = 1
    result = saturation_point([64, 128], scores)
    assert result.status is Status.UNRESOLVED
    assert "no problem was scored" in result.sentence()
    assert (result.comparisons[0].lower_bound, result.comparisons[0].upper_bound) == (-1, 1)


def test_one_budget_has_nothing_to_compare():
    result = saturation_point([512], np.ones((30, 1, 1)))
    assert result.status is Status.UNRESOLVED
    assert "only budget" in result.sentence()


def test_mcnemar_is_exact_and_by_problem():
    comparison = saturation_point([128, 256], table(50, 30, (7, 2))).comparisons[0]
    assert (comparison.lost, comparison.won) == (7, 2)
    assert comparison.p_mcnemar == pytest.approx(2 * stats.binom.cdf(2, 9, 0.5))
    assert comparison.difference == pytest.approx(-0.1)


def test_copied_samples_change_next_to_nothing():
    one = table(200, 150, (3, 1), (0, 0))
    single = saturation_point([64, 128, 256], one)
    copied = saturation_point([64, 128, 256], one.repeat(4, axis=1))
    assert copied.budget == single.budget == 128
    for a, b in zip(single.comparisons, copied.comparisons, strict=True):
        assert (a.lost, a.won, a.problems) == (b.lost, b.won, b.problems)
        assert b.lower_bound == pytest.approx(a.lower_bound, abs=0.006)


def test_several_samples_without_variance_stay_honest():
    few = saturation_point([128, 256], np.ones((40, 8, 2)))
    assert few.status is Status.UNRESOLVED
    assert few.needed == 149
    assert saturation_point([128, 256], np.ones((200, 8, 2))).budget == 128


def test_more_samples_resolve_more():
    """Independent noise within problems averages out; one sample does not show what four do."""
    rng = np.random.default_rng(4)
    traces = rng.random((300, 6)) < 0.7
    flips = rng.random((300, 6)) < 0.06
    scores = np.stack([traces ^ flips, traces], axis=2).astype(float)
    many = saturation_point([128, 256], scores, 0.05).comparisons[0]
    one = saturation_point([128, 256], scores[:, :1], 0.05).comparisons[0]
    assert many.upper_bound - many.lower_bound < 0.7 * (one.upper_bound - one.lower_bound)


@pytest.mark.parametrize(
    ("n", "discordance"), [(40, 0.1), slow(40, 0.3), slow(200, 0.05), slow(200, 0.1)]
)
def test_error_rate_at_the_margin(n, discordance):
    """Simulated whole: budgets that lose exactly the margin are called saturated in at most 5 %."""
    rng = np.random.default_rng(5)
    margin, runs = 0.05, 20_000
    won = (discordance - margin) / 2
    drawn = rng.multinomial(n, [won + margin, won, 1 - discordance], size=runs)
    tables, times = np.unique(drawn[:, :2], axis=0, return_counts=True)
    wrong = 0
    for (lost, wins), count in zip(tables.tolist(), times.tolist(), strict=True):
        # The bound is never above Tango's, which is quick to tell most tables that cannot hold.
        if tango_lower(lost, wins, n) > -margin:
            result = saturation_point([128, 256], table(n, n // 2, (lost, wins)), margin)
            wrong += count * (result.budget == 128)
    assert wrong / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_invariants(data):
    n, samples = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 3))
    seed = data.draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    scores = (rng.random((n, samples, 4)) < rng.random(4)).astype(float)
    scores[rng.random(scores.shape) < 0.1] = np.nan
    margin = data.draw(st.sampled_from([0.01, 0.02, 0.2, 0.5]))
    result = saturation_point([8, 16, 32, 64], scores, margin)
    assert result.sentence()
    assert (result.budget is not None) == (result.status is Status.SATURATED)
    for each in result.comparisons:
        assert not (each.holds and each.worse)
        assert 0 <= each.p_mcnemar <= 1
        if each.problems:
            assert -1 <= each.lower_bound <= each.difference + 1e-9
            assert each.difference - 1e-9 <= each.upper_bound <= 1
    if result.budget is not None:
        above = [each for each in result.comparisons if each.budget >= result.budget]
        assert all(each.holds for each in above)
    if result.needed is not None:
        assert result.failed is not None
        assert result.needed > result.failed.problems


@pytest.mark.parametrize(
    ("budgets", "scores", "margin", "message"),
    [
        ([64, 32], np.ones((3, 1, 2)), 0.02, "must rise"),
        ([32, 64], np.ones((3, 2)), 0.02, "expected problems x samples x 2 budgets"),
        ([32, 64], np.ones((3, 1, 2)), 2, "0.02 is 2 points"),
        ([32, 64], np.full((3, 1, 2), 5), 0.02, "between 0 and 1, or NaN"),
    ],
)
def test_bad_input_is_named(budgets, scores, margin, message):
    with pytest.raises(ValueError, match=message):
        saturation_point(budgets, scores, margin)
