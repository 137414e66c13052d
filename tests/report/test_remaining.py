"""Expected further tokens, against lengths that are known."""

import random

import pytest

from pytest_tokenbudget.report.progress_counts import Remaining, TraceLength, expected_tokens


def batch(lengths, step, cap=1024):
    """Traces that decode together, after a number of steps: finished ones, and those going on."""
    done = [TraceLength(0, n, n < cap) for n in lengths if n <= step]
    return done, [TraceLength(0, step) for n in lengths if n > step]


@pytest.mark.parametrize("spread", [0.3, 0.6, 0.9])
def test_expectation_comes_near_what_is_really_left(spread):
    """Half-way through a batch, with as many again waiting; the early ends do not mislead it."""
    noise = random.Random(5)
    errors = []
    for _ in range(20):
        lengths = [min(1024, max(5, int(noise.lognormvariate(5, spread)))) for _ in range(128)]
        now, later = lengths[:64], lengths[64:]
        step = sorted(now)[32]
        done, going_on = batch(now, step)
        together, longest = expected_tokens(done, going_on, len(later), 1024)
        left = sum(n - step for n in now if n > step) + sum(later)
        errors.append(together / left)
        finished_only = sum(each.tokens for each in done) / len(done) * len(later)
        assert finished_only < left, "the mean of what has ended is too low"
        assert 0 < longest <= 1024
    assert 0.85 < sum(errors) / len(errors) < 1.2
    # With the widest spread a few traces of a batch hold much of what is left.
    assert sum(0.5 < each < 1.8 for each in errors) >= 19


def test_equal_lengths_are_expected_exactly():
    estimate = Remaining([TraceLength(0, 100, True)] * 8, 512)
    assert estimate.expected(0) == 100
    assert estimate.expected(40) == 60
    assert estimate.expected(99) == 1


def test_the_cap_bounds_what_is_expected():
    done = [TraceLength(0, 50, True), TraceLength(0, 512)]
    estimate = Remaining(done, 512)
    assert estimate.expected(512) == 0
    assert estimate.expected(511) <= 1
    assert estimate.expected(0) == pytest.approx((50 + 512) / 2)


def test_traces_that_all_reach_the_cap_are_expected_to_reach_it():
    together, longest = expected_tokens([TraceLength(0, 64)] * 3, [TraceLength(0, 10)], 2, 64)
    assert together == 54 + 2 * 64
    assert longest == 64


def test_nothing_is_expected_before_the_first_end():
    assert expected_tokens([], [TraceLength(0, 30)], 9, 64) is None


def test_extended_traces_count_from_where_they_began():
    """Traces that begin at 100 tokens do not say that none ends before."""
    done = [TraceLength(0, 20, True), TraceLength(0, 40, True), TraceLength(100, 120, True)]
    assert Remaining(done, 200).expected(0) == pytest.approx(30)
    together, _ = expected_tokens([TraceLength(100, 120, True)] * 4, [], 2, 200)
    assert together == pytest.approx(40)


def test_a_trace_that_is_longer_than_all_others_still_has_an_end():
    estimate = Remaining(
        [TraceLength(0, 10 * n, True) for n in range(1, 11)] + [TraceLength(0, 150)], 1024
    )
    assert 0 < estimate.expected(150) < 400
