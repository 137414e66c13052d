"""Limits for groups of scenarios: learned, replayed, tested, and rules of thumb judged."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pytest_tokenbudget.stats.limits import Promise
from pytest_tokenbudget.stats.resampling import folds
from pytest_tokenbudget.stats.truncation import LimitVerdict, truncates
from pytest_tokenbudget.studies.scenarios.checks import judge_given, lengths_differ, mean_gap
from pytest_tokenbudget.studies.scenarios.limits import ONE_LIMIT, learn, replay_limits


def drawn(n, seed=0, shift=0.0):
    """Lengths of ``n`` problems in two kinds in turn; the second is longer by ``shift``."""
    rng = np.random.default_rng(seed)
    kinds = ["short", "long"] * (n // 2)
    lengths = rng.integers(50, 80, n).astype(float)
    return lengths + np.array([shift if kind == "long" else 0 for kind in kinds]), kinds


def by_kind(n, target=0.05, **options):
    lengths, kinds = drawn(n, **options)
    ended = np.ones(n, bool)
    return lengths, learn(lengths, ended, {"kind": kinds}, target=target)


# --- limits of groups --------------------------------------------------------------------------


def test_each_group_gets_its_own_limit_where_that_is_promised():
    lengths, learned = by_kind(400, shift=500)
    short, long = (learned.groups["kind"][name] for name in ("short", "long"))
    assert short.promised
    assert long.promised
    assert short.limit < 80
    assert 550 <= long.limit < 580
    assert {n: c.limit for n, c in learned.groups["kind"].items()} == {
        "short": short.limit,
        "long": long.limit,
    }
    for name, choice in learned.groups["kind"].items():
        own = lengths[0::2] if name == "short" else lengths[1::2]
        assert (own > choice.limit).mean() <= 0.05


def test_a_group_without_a_promise_gets_what_is_not_below_anything_seen():
    # 59 problems promise 5 %: all 80 together, but none of the two kinds alone.
    lengths, learned = by_kind(80, shift=500)
    assert learned.overall.promised
    short, long = (learned.groups["kind"][name] for name in ("short", "long"))
    assert not short.promised
    assert short.found.promise is Promise.TOO_FEW
    assert short.limit == learned.overall.limit
    assert long.limit == max(learned.overall.limit, lengths.max())


@given(st.lists(st.tuples(st.integers(1, 60), st.booleans(), st.sampled_from("abc")), min_size=1))
def test_no_limit_is_promised_or_below_what_it_must_not_be(rows):
    lengths = np.array([length if ended else 64 for length, ended, _ in rows], float)
    ended = np.array([ended for _, ended, _ in rows])
    names = [name for *_, name in rows]
    learned = learn(lengths, ended, {"kind": names}, target=0.05)
    for name, choice in learned.groups["kind"].items():
        own = lengths[np.array(names) == name]
        if choice.promised:
            assert truncates(own, ended[np.array(names) == name], choice.limit).upper <= 0.05
        else:
            assert choice.limit >= max(own.max(), learned.overall.limit)


def test_a_trace_that_met_its_cap_is_never_within_a_limit():
    lengths, ended = np.full(100, 20.0), np.ones(100, bool)
    lengths[:10], ended[:10] = 64, False
    learned = learn(lengths, ended, {"kind": ["a", "b"] * 50}, target=0.05)
    assert (learned.overall.limit, learned.overall.promised) == (64, False)
    assert learned.overall.found.promise is Promise.CAP_TOO_LOW
    replay = replay_limits(lengths, ended, {"kind": ["a", "b"] * 50}, target=0.05)
    assert replay.outcome(ONE_LIMIT).truncation.value == pytest.approx(0.1)
    assert replay.better is None


# --- replayed ----------------------------------------------------------------------------------


def test_unlike_groups_need_less_room_with_limits_of_their_own():
    lengths, kinds = drawn(400, shift=500)
    replay = replay_limits(lengths, np.ones(400, bool), {"kind": kinds}, target=0.05)
    one, own = (replay.outcome(name) for name in (ONE_LIMIT, "per kind"))
    assert replay.better == "per kind"
    assert own.split == "kind"
    assert own.room_saved.value == pytest.approx(one.allowed.value - own.allowed.value)
    assert own.room_saved.low > 200
    assert own.upper <= max(0.05, one.upper)
    assert own.spent.value == pytest.approx(lengths.mean(), abs=1)
    assert "limits per kind keep" in replay.sentence()
    with pytest.raises(ValueError, match="no 'per mood' was replayed, only one limit, per kind"):
        replay.outcome("per mood")


def test_a_limit_is_judged_on_problems_that_it_was_not_learned_on():
    lengths, kinds = drawn(40, seed=3, shift=300)
    replay = replay_limits(lengths, np.ones(40, bool), {"kind": kinds}, target=0.05)
    cut, allowed = [], []
    for part in folds(40):
        rest = np.setdiff1d(np.arange(40), part)
        cut += (lengths[part] > lengths[rest].max()).tolist()
        allowed += [lengths[rest].max()] * part.size
    one = replay.outcome(ONE_LIMIT)
    assert one.truncation.value == np.mean(cut) > 0
    assert one.allowed.value == pytest.approx(np.mean(allowed))


@pytest.mark.slow
def test_like_groups_are_seldom_said_to_need_limits_of_their_own():
    said = 0
    for seed in range(24):
        lengths, kinds = drawn(140, seed=seed)
        replay = replay_limits(lengths, np.ones(140, bool), {"kind": kinds}, target=0.05)
        said += replay.better is not None
    assert said <= 3


def test_right_answers_are_counted_at_each_problems_limit():
    lengths, kinds = drawn(40, shift=300)
    right = np.arange(1, 401)[None, :] >= lengths[:, None]
    replay = replay_limits(
        lengths, np.ones(40, bool), {"kind": kinds}, target=0.05, correct_by_token=right
    )
    for each in replay.outcomes:
        assert each.accuracy.value == pytest.approx(1 - each.truncation.value)


def test_the_way_from_small_limits_to_large_ones():
    lengths, kinds = drawn(200, shift=300)
    replay = replay_limits(lengths, np.ones(200, bool), {"kind": kinds}, target=0.05)
    for points in replay.frontiers.values():
        limits, shares = zip(*points, strict=True)
        assert list(limits) == sorted(limits)
        assert list(shares) == sorted(shares, reverse=True)
    # At the same truncation, limits of their own keep less room free.
    assert replay.frontiers["per kind"][-1][0] < replay.frontiers[ONE_LIMIT][-1][0] - 100


@pytest.mark.parametrize(("n", "kinds"), [(8, ["a", "b"]), (40, ["a", "a"])])
def test_too_little_to_replay(n, kinds):
    assert replay_limits(np.ones(n), np.ones(n, bool), {"k": kinds * (n // 2)}, target=0.1) is None


def test_errors_are_left_out_of_the_replay():
    lengths, kinds = drawn(40, shift=300)
    lengths[:5] = np.nan
    replay = replay_limits(lengths, np.ones(40, bool), {"kind": kinds}, target=0.05)
    assert replay.problems == 35
    assert replay.outcome(ONE_LIMIT).truncation.n == 35


# --- lengths -----------------------------------------------------------------------------------


def test_unlike_lengths_are_found_and_like_ones_mostly_not():
    lengths, kinds = drawn(60, shift=30)
    p, explained = lengths_differ(lengths, kinds)
    assert p < 0.01
    assert explained > 0.5
    found = [lengths_differ(*drawn(40, seed=s), draws=199)[0] < 0.05 for s in range(100)]
    assert sum(found) <= 11  # of 100 at 5 %, 99.5 % of the time


def test_what_lies_between_strata_does_not_count():
    """Angry scenarios are of the long game more often; within a game nothing differs."""
    found = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        games = ["long"] * 30 + ["short"] * 30
        moods = ["anger"] * 24 + ["joy"] * 6 + ["anger"] * 6 + ["joy"] * 24
        lengths = rng.normal(0, 5, 60) + np.array([100.0 if g == "long" else 10 for g in games])
        assert lengths_differ(lengths, moods, draws=199)[0] < 0.05
        found.append(lengths_differ(lengths, moods, games, draws=199)[0] < 0.05)
    assert sum(found) <= 9


def test_capped_traces_count_as_the_longest_and_missing_ones_not():
    lengths = np.array([1.0, 2, 3, np.inf, np.inf, np.inf, np.nan])
    assert lengths_differ(lengths, list("aaabbba"))[0] == pytest.approx(0.1, abs=0.03)
    assert math.isnan(lengths_differ(np.ones(4), list("aabb"))[0])
    assert math.isnan(lengths_differ(np.arange(4.0), list("aaaa"))[0])


def test_the_gap_of_means_is_students_within_one_stratum():
    rng = np.random.default_rng(1)
    first, second = rng.normal(10, 2, 12), rng.normal(8, 2, 9)
    gap = mean_gap([first], [second])
    low, high = stats.ttest_ind(first, second).confidence_interval()
    assert gap[:3] == pytest.approx((first.mean() - second.mean(), low, high))
    # Games that only one of them has say nothing.
    assert mean_gap([first, [99.0]], [second, []])[:3] == pytest.approx(gap[:3])


def test_the_gap_holds_where_games_differ():
    held = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        sizes = [(5, 2), (2, 6), (4, 4)]
        pairs = [
            (rng.normal(level + 3, 2, a), rng.normal(level, 2, b))
            for level, (a, b) in zip((0, 50, 200), sizes, strict=True)
        ]
        gap = mean_gap([a for a, _ in pairs], [b for _, b in pairs])
        held += gap.low <= 3 <= gap.high
    assert 180 <= held <= 198


# --- limits that were fixed beforehand ---------------------------------------------------------


def test_one_given_limit_is_judged_as_a_rule_is():
    lengths, kinds = drawn(100, shift=20)
    ended = np.ones(100, bool)
    found = judge_given(lengths, ended, [70] * 100, {"kind": kinds}, target=0.05)
    [whole] = found["all"]
    rule = truncates(lengths, ended, 70)
    assert (whole.truncation.truncated, whole.truncation.upper) == (rule.truncated, rule.upper)
    assert whole.limits == (70, 70)
    assert {each.name for each in found["kind"]} == {"short", "long"}
    assert [each.verdict for each in found["kind"]] == [LimitVerdict.REFUTED] * 2


def test_given_limits_of_their_own():
    lengths, kinds = drawn(200, shift=500)
    ended = np.ones(200, bool)
    limits = [600 if kind == "long" else 79 for kind in kinds]
    [whole] = judge_given(lengths, ended, limits, {}, target=0.05)["all"]
    assert (whole.truncation.truncated, whole.verdict) == (0, LimitVerdict.HOLDS)
    assert whole.limits == (79, 600)
    lengths[:20], ended[:20] = 64, False
    [capped] = judge_given(lengths, ended, limits, {}, target=0.05)["all"]
    assert (capped.truncation.unknown, capped.verdict) == (20, LimitVerdict.UNMEASURED)
