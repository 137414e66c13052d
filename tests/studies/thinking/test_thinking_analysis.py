"""Thinking against budget: brute force, other implementations, and how often intervals hold."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from text_snapshots import TextFile, text_of

from pytest_tokenbudget.core.saturation import Status, saturation_point
from pytest_tokenbudget.stats.resampling import bootstrap_mean, mean_intervals
from pytest_tokenbudget.stats.tokens import token_spread, token_stats, tokens_per_correct
from pytest_tokenbudget.studies.thinking.statistics import (
    Course,
    compare_methods,
    settle,
    stops_being_useful,
)

# --- tokens -----------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 500), min_size=1, max_size=60))
def test_percentiles_are_the_smallest_numbers_that_suffice(tokens):
    spread = token_spread(tokens)
    marks = {"median": 50, "p90": 90, "p95": 95, "p99": 99, "max": 100}
    for name, percent in marks.items():
        expected = next(
            x for x in sorted(tokens) if 100 * sum(y <= x for y in tokens) >= percent * len(tokens)
        )
        assert getattr(spread, name) == expected
    assert spread.mean.value == pytest.approx(np.mean(tokens))
    assert spread.lower_bounds == ()


def test_capped_traces_make_lower_bounds_of_what_they_reach():
    tokens = [*range(1, 96), 120, 120, 120, 120, 120]
    spread = token_spread(tokens, [each == 120 for each in tokens])
    assert (spread.capped, spread.p90, spread.p95, spread.p99) == (5, 90, 95, 120)
    assert spread.lower_bounds == ("mean", "p99", "max")


def test_samples_and_missing_traces_are_counted_apart():
    spread = token_spread([[1.0, 3.0], [5.0, math.nan], [math.nan, math.nan]])
    assert (spread.problems, spread.traces, spread.max) == (2, 3, 5)
    empty = token_spread([math.nan])
    assert empty.traces == 0
    assert math.isnan(empty.p99)


def test_token_stats():
    assert token_stats([10, 20, math.nan], [False, True, True]) == {
        "avg_tokens": 15.0,
        "max_tokens": 20,
        "truncated_responses": 1,
    }
    assert token_stats([], [])["avg_tokens"] is None


def test_tokens_per_correct_counts_all_tokens():
    found = tokens_per_correct([100, 50, 50, math.nan], [1, 0, 1, 1])
    assert found.value == 100
    assert found.low < 100 < found.high
    assert tokens_per_correct([100, 50], [0, 0]) is None


@pytest.mark.parametrize("rate", [0.1, 0.6])
def test_tokens_per_correct_holds_about_as_often_as_it_says(rate):
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(300):
        right = (rng.random(60) < rate).astype(float)
        tokens = rng.gamma(2, 100, 60) * np.where(right, 1.0, 1.5)
        truth = 200 * (rate + 1.5 * (1 - rate)) / rate
        found = tokens_per_correct(tokens, right)
        held += found is not None and found.low <= truth <= found.high
    assert 0.92 <= held / 300 <= 0.99


def test_mean_intervals_agree_with_the_computed_bootstrap():
    rng = np.random.default_rng(0)
    columns = rng.choice([-1.0, 0.0, 1.0], size=(80, 3), p=[0.1, 0.6, 0.3])
    columns[:, 2] = 0
    for column, found in zip(columns.T, mean_intervals(columns, replicates=20000), strict=True):
        expected = bootstrap_mean(column)
        assert found == pytest.approx(expected, abs=0.01)
        assert found.high > found.low


# --- where the answer settles -----------------------------------------------------------------

BUDGETS = (0, 32, 64, 128)


def told(rows, natural, tokens, capped=None):
    return settle(BUDGETS, np.array(rows, float), natural, tokens, capped=capped)


def test_courses_of_handmade_problems():
    rows = [
        [0, 1, 1, 1],  # early: for good from 32, thinking ends at 200
        [0, 1, 0, 1],  # early, but wavering: for good from 128
        [0, 0, 0, 0],  # late: right at the natural end only
        [0, 1, 1, 0],  # lost
        [0, 0, 0, 0],  # never
        [0, 0, math.nan, math.nan],  # ended at 50, right: late
        [0, math.nan, 0, 0],  # missing
    ]
    natural = [1, 1, 1, 0, 0, 1, 1]
    found = told(rows, natural, [200, 200, 200, 200, 200, 50, 200])
    early, late, lost, never = Course.EARLY, Course.LATE, Course.LOST, Course.NEVER
    assert found.courses == (early, early, late, lost, never, late, None)
    assert found.first == (32, 128, None, None, None, 64, None)
    assert (found.problems, found.missing, found.wavering) == (6, 1, 1)
    assert found.shares[early].value == pytest.approx(2 / 6)
    assert [round(6 * each.value) for each in found.settled] == [0, 1, 2, 3]
    # After 32 of 200, after 128 of 200, nothing of 200, nothing of 50.
    assert found.overthinking_tokens.value == pytest.approx((168 + 72) / 4)
    assert found.overthinking_share.value == pytest.approx(240 / 650)
    # At most: after 0, after 64, after 128, after 32.
    assert found.overthinking_at_most.value == pytest.approx((200 + 136 + 72 + 18) / 650)
    assert "33.3 %" in found.sentence()


def test_thinking_that_met_its_cap_is_not_its_natural_end():
    rows = [[0, 0, 1, 1]]
    ended = told(rows, [0], [64], [False])
    capped = told(rows, [0], [64], [True])
    assert ended.courses == (Course.NEVER,)  # from 64 on the natural answer stands
    assert capped.courses == (Course.LOST,)
    assert (ended.lost_unended, capped.lost_unended) == (0, 1)
    assert "cut off" not in ended.sentence()
    assert "went wrong, 1 of them cut off while thinking (n = 1)" in capped.sentence()
    # Right at a cap of 50, wrong when forced beyond it: nothing later than the cap counts.
    beyond = told([[0, 0, 0, 0]], [1], [50], [True])
    assert beyond.overthinking_at_most.value == pytest.approx((50 - 32) / 50)


@settings(deadline=None, max_examples=150)
@given(
    hnp.arrays(np.int64, st.tuples(st.integers(1, 8), st.just(4)), elements=st.integers(0, 1)),
    st.data(),
)
def test_settling_is_that_of_a_slow_walk(rows, data):
    count = len(rows)
    natural = data.draw(st.lists(st.integers(0, 1), min_size=count, max_size=count))
    lengths = data.draw(st.lists(st.integers(0, 200), min_size=count, max_size=count))
    found = told(rows, natural, lengths)
    after, most = 0, 0
    for p in range(count):
        answers = [natural[p] if b >= lengths[p] else rows[p][i] for i, b in enumerate(BUDGETS)] + [
            natural[p]
        ]
        if natural[p]:
            start = len(answers) - 1
            while start and answers[start - 1]:
                start -= 1
            point = min(lengths[p], BUDGETS[start] if start < 4 else lengths[p])
            wrong = [b for b in BUDGETS[:start] if b < lengths[p]]
            after += lengths[p] - point
            most += lengths[p] - (wrong[-1] if wrong else 0)
            assert found.first[p] == (BUDGETS[start] if start < 4 else None)
            expected = Course.EARLY if point < lengths[p] else Course.LATE
        else:
            expected = Course.LOST if any(answers) else Course.NEVER
        assert found.courses[p] is expected
    total = sum(length for length, right in zip(lengths, natural, strict=True) if right)
    if total:
        assert found.overthinking_share.value == pytest.approx(after / total)
        assert found.overthinking_at_most.value == pytest.approx(most / total)
        assert after <= most <= total
    else:
        assert found.overthinking_share is None
    assert sum(each.value for each in found.shares.values()) == pytest.approx(1)


def test_nothing_to_judge():
    found = told([[math.nan] * 4], [1], [500])
    assert (found.problems, found.missing) == (0, 1)
    assert "not known" in found.sentence()


@pytest.mark.parametrize(
    ("budgets", "scores", "words"),
    [
        ((32, 0), [[0, 1]], "must rise"),
        ((-1, 4), [[0, 1]], "at least 0"),
        ((0, 4), [[0, 1, 1]], "problems x 2"),
        ((0, 4), [[0, 0.5]], "0, 1, or NaN"),
        ((0, 4), [[0, 1], [0, 1]], "natural"),
    ],
)
def test_impossible_input_is_named(budgets, scores, words):
    with pytest.raises(ValueError, match=words):
        settle(budgets, scores, [1], [10])


# --- where the thinking stops being useful ----------------------------------------------------


def test_usefulness_is_the_saturation_point_with_the_natural_end_last():
    rng = np.random.default_rng(1)
    need, hopeless = rng.lognormal(3.5, 0.6, 400), rng.random(400) < 0.2
    correct = ((np.array(BUDGETS)[None] >= need[:, None]) & ~hopeless[:, None]).astype(float)
    natural, lengths = (~hopeless).astype(float), need * 2 + 200
    found = stops_being_useful(BUDGETS, correct, natural, lengths)
    table = np.column_stack([correct, natural])[:, None, :]
    expected = saturation_point((1, 32, 64, 128, 10**6), table)
    assert found.status is expected.status is Status.SATURATED
    assert found.budget == expected.budget == 128
    assert [each.budget for each in found.comparisons] == [128, 64, 32, 0]
    assert [each.lower_bound for each in found.comparisons] == [
        each.lower_bound for each in expected.comparisons
    ]
    assert "beyond 128 tokens" in found.sentence()


def test_thinking_may_be_of_no_use_at_all():
    right = np.ones((300, 4))
    right[:90] = 0
    found = stops_being_useful(BUDGETS, right, right[:, 0], np.full(300, 500.0))
    assert found.budget == 0
    assert "0 tokens or less" in found.sentence()


def test_thinking_may_be_useful_to_the_end_or_unresolved():
    natural = np.ones(100)
    none = stops_being_useful(BUDGETS, np.zeros((100, 4)), natural, np.full(100, 500.0))
    assert (none.status, none.budget) == (Status.NOT_REACHED, None)
    assert "useful beyond 128" in none.sentence()
    few = stops_being_useful(BUDGETS, np.ones((30, 4)), np.ones(30), np.full(30, 500.0))
    assert few.status is Status.UNRESOLVED
    assert few.needed is not None
    assert f"{few.needed:,} problems" in few.sentence()


def test_a_cap_that_thinking_met_is_not_called_no_limit():
    rows, lengths = np.ones((300, 4)), np.full(300, 500.0)
    free, capped = (
        stops_being_useful(BUDGETS, rows, rows[:, 0], lengths, capped=np.arange(300) < count)
        for count in (0, 7)
    )
    assert (free.unended, capped.unended) == (0, 7)
    assert capped.sentence().startswith(f"{free.sentence()}; but what stands for no limit")
    assert "cut off the thinking of 7 of 300" in capped.sentence()


# --- closers and enforcements -----------------------------------------------------------------


def ways(seed=0, problems=50):
    rng = np.random.default_rng(seed)
    base = rng.random((problems, 1))
    return {
        name: (base + rng.normal(0, 0.2, (problems, 4)) < level).astype(float)
        for name, level in (("bare", 0.4), ("own", 0.55), ("header", 0.5))
    }


def test_single_comparisons_are_mcnemar_with_holm():
    from statsmodels.stats.contingency_tables import mcnemar
    from statsmodels.stats.multitest import multipletests

    tables = ways()
    rows = [each for each in compare_methods(BUDGETS, tables) if each.budget is not None]
    assert len(rows) == 3 * 4
    plain = []
    for row in rows:
        b = BUDGETS.index(row.budget)
        first, second = tables[row.first][:, b], tables[row.second][:, b]
        lost, won = int((first < second).sum()), int((first > second).sum())
        assert (row.second_only, row.first_only) == (lost, won)
        plain.append(mcnemar([[0, lost], [won, 0]], exact=True).pvalue)
        assert row.p == pytest.approx(plain[-1], abs=1e-12)
        assert row.difference.value == pytest.approx(first.mean() - second.mean())
        assert row.difference.low <= row.difference.value <= row.difference.high
    adjusted = multipletests(plain, method="holm")[1]
    assert [row.p_holm for row in rows] == pytest.approx(adjusted.tolist())


def test_the_comparison_over_all_budgets_changes_signs_of_problems():
    tables = {name: table[:9] for name, table in ways(5).items()}
    whole = [each for each in compare_methods(BUDGETS, tables) if each.budget is None]
    positive = [b for b, budget in enumerate(BUDGETS) if budget]
    assert [(each.first, each.second) for each in whole] == list(itertools.combinations(tables, 2))
    for each in whole:
        gaps = (tables[each.first] - tables[each.second])[:, positive].sum(axis=1)
        totals = [
            abs(np.dot(gaps, signs)) for signs in itertools.product((-1, 1), repeat=len(gaps))
        ]
        expected = np.mean([total >= abs(gaps.sum()) - 1e-9 for total in totals])
        assert each.p == pytest.approx(expected, abs=1e-12)


def test_missing_answers_leave_their_pair_out():
    first, second = np.ones((30, 1)), np.zeros((30, 1))
    second[:10] = math.nan
    whole, single = compare_methods((64,), {"a": first, "b": second})
    assert (whole.problems, single.problems, single.first_only) == (20, 20, 20)
    assert single.shown()
    assert single.sentence().endswith("better")
    nothing = compare_methods((64,), {"a": first, "b": np.full((30, 1), math.nan)})[1]
    assert nothing.problems == 0
    assert not nothing.shown()
    with pytest.raises(ValueError, match="problems x 1"):
        compare_methods((64,), {"a": first, "b": np.ones((29, 1))})


def test_budget_zero_is_compared_by_itself():
    first, second = np.ones((40, 4)), np.ones((40, 4))
    second[4:, 0] = 0
    pooled, zero, *rest = compare_methods((0, 32, 64, 512), {"bare": first, "sentence": second})
    assert (pooled.budgets, pooled.difference.value) == ((32, 64, 512), 0.0)
    assert (zero.budgets, zero.difference.value) == ((0,), pytest.approx(0.9))
    assert [each.budgets for each in rest] == [(32,), (64,), (512,)]


def test_budget_zero_alone_has_no_comparison_over_budgets():
    [only] = compare_methods((0,), {"bare": np.ones((9, 1)), "sentence": np.zeros((9, 1))})
    assert only.budget == 0


def test_a_single_budget_above_zero_is_named():
    pooled, *_ = compare_methods((0, 64), {"bare": np.ones((9, 2)), "sentence": np.ones((9, 2))})
    assert pooled.budgets == (64,)


def test_sentences_on_two_closers(snapshot):
    first, second = np.ones((40, 4)), np.ones((40, 4))
    second[4:, 0] = 0
    pooled, zero, *_ = compare_methods((0, 32, 64, 512), {"bare": first, "sentence": second})
    single, *_ = compare_methods((0, 64), {"bare": np.ones((9, 2)), "sentence": np.ones((9, 2))})
    unlike = np.full((30, 1), math.nan)
    nothing = compare_methods((64,), {"a": np.ones((30, 1)), "b": unlike})[1]
    said = {
        "several budgets": pooled.sentence(),
        "budget zero": zero.sentence(),
        "one budget above zero": single.sentence(),
        "no problem in common": nothing.sentence(),
    }
    assert text_of(said) == snapshot(extension_class=TextFile)
