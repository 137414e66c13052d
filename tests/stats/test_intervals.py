"""Intervals against other implementations, brute force, enumeration and simulation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from statsmodels.stats.proportion import proportion_confint

from pytest_tokenbudget.stats.intervals import (
    bootstrap_lower,
    clustered_rate,
    clustered_standard_error,
    mean_estimate,
    wilson,
)
from pytest_tokenbudget.stats.paired import paired_lower, paired_p, tango_lower


@given(st.integers(1, 3000), st.floats(0, 1), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
@settings(max_examples=50, deadline=None)
def test_wilson_agrees_with_scipy_and_statsmodels(n, share, confidence):
    successes = round(share * n)
    estimate = wilson(successes, n, confidence)
    scipy_ends = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    ends = proportion_confint(successes, n, alpha=1 - confidence, method="wilson")
    assert (estimate.low, estimate.high) == pytest.approx((scipy_ends.low, scipy_ends.high))
    assert (estimate.low, estimate.high) == pytest.approx(ends, abs=1e-12)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


def test_wilson_of_the_design_example():
    low, high = wilson(117, 200)[1:3]
    assert (round(low, 3), round(high, 3)) == (0.516, 0.651)


def test_a_rate_of_nothing_is_unknown():
    for estimate in (wilson(0, 0), clustered_rate(np.full((3, 2), np.nan))):
        assert math.isnan(estimate.value)
        assert estimate[1:] == (0.0, 1.0, 0)


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5)])
def test_impossible_counts_are_refused(successes, n):
    with pytest.raises(ValueError, match="between 0 and n"):
        wilson(successes, n)


def brute_force_error(table):
    count = sum(not math.isnan(s) for row in table for s in row)
    mean = sum(s for row in table for s in row if not math.isnan(s)) / count
    total = 0.0
    for row in table:
        for a in row:
            for b in row:
                if not (math.isnan(a) or math.isnan(b)):
                    total += (a - mean) * (b - mean)
    return math.sqrt(max(total, 0.0)) / count


@given(
    st.integers(1, 4).flatmap(
        lambda width: st.lists(
            st.lists(st.sampled_from([0.0, 1.0, math.nan]), min_size=width, max_size=width),
            min_size=1,
            max_size=8,
        )
    )
)
def test_clustered_error_is_millers_double_sum(table):
    if all(math.isnan(s) for row in table for s in row):
        assert math.isnan(clustered_standard_error(table))
    else:
        assert clustered_standard_error(table) == pytest.approx(brute_force_error(table), abs=1e-9)


def test_one_sample_a_problem_gives_wilson():
    scores = np.array([[1], [0], [1], [1], [np.nan]])
    assert clustered_rate(scores) == pytest.approx(wilson(3, 4))


def test_copies_of_a_sample_are_no_evidence():
    rng = np.random.default_rng(0)
    one = (rng.random((60, 1)) < 0.7).astype(float)
    single, copied = clustered_rate(one), clustered_rate(np.repeat(one, 5, axis=1))
    assert copied.n == single.n == 60
    assert copied.high - copied.low >= 0.99 * (single.high - single.low)
    independent = clustered_rate((rng.random((60, 5)) < 0.7).astype(float))
    assert independent.high - independent.low < 0.6 * (single.high - single.low)


def test_no_difference_between_problems_is_no_certainty():
    halves = np.tile([0.0, 1.0], (10, 1))
    assert clustered_rate(halves) == pytest.approx(wilson(5, 10))
    assert clustered_rate(np.ones((10, 4))) == pytest.approx(wilson(10, 10))


def test_clustered_rate_covers_the_truth():
    """At a high rate and few problems, where a symmetric interval clipped at 1 fails."""
    rng = np.random.default_rng(1)
    alpha, beta = 5.7, 0.3
    covered = symmetric = 0
    runs = 1500
    for _ in range(runs):
        scores = rng.random((30, 4)) < rng.beta(alpha, beta, (30, 1))
        estimate = clustered_rate(scores)
        covered += estimate.low <= 0.95 <= estimate.high
        half = stats.t.ppf(0.975, 29) * clustered_standard_error(scores)
        symmetric += abs(scores.mean() - 0.95) <= half
    assert covered / runs >= 0.93
    assert symmetric < covered


@given(st.lists(st.integers(0, 2000), min_size=2, max_size=30))
@settings(deadline=None)
def test_mean_of_single_samples_is_the_t_interval(tokens):
    estimate = mean_estimate(np.array(tokens, float)[:, None])
    error = stats.sem(tokens)
    half = stats.t.ppf(0.975, len(tokens) - 1) * error
    assert estimate.value == pytest.approx(np.mean(tokens))
    assert estimate.high - estimate.value == pytest.approx(half, abs=1e-9)


def test_one_problem_says_nothing_about_others():
    estimate = mean_estimate([[100.0, 120.0]])
    assert estimate.value == 110
    assert math.isnan(estimate.low)
    assert math.isnan(estimate.high)


@pytest.mark.parametrize(
    ("lost", "won", "n", "confidence", "ends"),
    [
        # As R's PropCIs::scoreci.mp(25, 28, 618, 0.90) and (7, 1, 21, 0.95) give them.
        (25, 28, 618, 0.95, (-0.0148, 0.0247)),
        (7, 1, 21, 0.975, (-0.517, -0.026)),
    ],
)
def test_tango_agrees_with_another_implementation(lost, won, n, confidence, ends):
    low = tango_lower(lost, won, n, confidence)
    high = -tango_lower(won, lost, n, confidence)
    assert (low, high) == pytest.approx(ends, abs=5e-4)


@pytest.mark.parametrize(("lost", "won", "n"), [(0, 0, 40), (3, 1, 40), (10, 14, 200), (0, 5, 9)])
def test_tango_is_the_score_test_by_numerical_likelihood(lost, won, n):
    bound = tango_lower(lost, won, n)

    def deviance(share_lost):
        cells = ((lost, share_lost), (won, share_lost + bound))
        cells += ((n - lost - won, 1 - 2 * share_lost - bound),)
        return -sum(count * math.log(max(p, 1e-300)) for count, p in cells if count)

    least, most = max(0.0, -bound), (1 - bound) / 2
    share_lost = optimize.minimize_scalar(
        deviance, bounds=(least, most), method="bounded", options={"xatol": 1e-12}
    ).x
    variance = n * (2 * share_lost + bound - bound**2)
    assert (won - lost - n * bound) / math.sqrt(variance) == pytest.approx(1.6449, abs=2e-3)


def test_tango_without_discordance_has_a_width():
    z2 = stats.norm.ppf(0.95) ** 2
    assert tango_lower(0, 0, 200) == pytest.approx(-z2 / (200 + z2))
    assert tango_lower(5, 0, 5) == -1


def smallest_wins(n, difference, level):
    """For each number of losses, how many wins refute the difference (n + 1: none do)."""
    first = np.full(n + 1, n + 1)
    wins = 0
    for lost in range(n + 1):
        # More losses never need fewer wins, which spares most of the search.
        while lost + wins <= n and paired_p(lost, wins, n, difference) > level:
            wins += 1
        if lost + wins > n:
            break
        first[lost] = wins
    return first


@pytest.mark.parametrize(("n", "margin"), [(40, 0.02), (40, 0.1), (133, 0.02), (200, 0.02)])
def test_error_rate_at_the_margin_by_enumeration(n, margin):
    """No simulation: every table there can be, over every discordance there can be."""
    level = 0.05
    first = smallest_wins(n, -margin, level)
    losses = np.arange(n + 1)
    for difference in (-margin, -1.5 * margin):
        won = np.append(0, np.geomspace(1e-4, 1, 150))[:, None] * (1 + difference) / 2
        lost = won - difference
        wins = np.clip(won / (1 - lost), 0, 1)
        chance = stats.binom.pmf(losses, n, lost) * stats.binom.sf(first - 1, n - losses, wins)
        assert chance.sum(axis=1).max() <= level + 2e-4


def test_tango_alone_would_not_keep_the_level():
    """Why the exact test is there: no loss among 133 refutes -0.02, yet happens in 6.8 %."""
    assert tango_lower(0, 0, 133) > -0.02
    assert stats.binom.pmf(0, 133, 0.02) > 0.067
    assert paired_lower(0, 0, 133, judged_at=-0.02) < -0.02


@given(st.integers(1, 120), st.data(), st.sampled_from([-0.1, -0.02, 0.0, 0.05]))
@settings(max_examples=60, deadline=None)
def test_paired_bound_and_p_value_say_the_same(n, data, judged_at):
    lost = data.draw(st.integers(0, n))
    won = data.draw(st.integers(0, n - lost))
    bound = paired_lower(lost, won, n, judged_at=judged_at)
    assert -1 <= bound <= tango_lower(lost, won, n) <= (won - lost) / n
    p = paired_p(lost, won, n, judged_at)
    if abs(p - 0.05) > 1e-3:
        assert (bound > judged_at) == (p < 0.05)


@given(st.integers(1, 400), st.data(), st.sampled_from([0.8, 0.95, 0.99]))
@settings(max_examples=60, deadline=None)
def test_bounds_without_wins_are_the_exact_binomial_ones(n, data, confidence):
    lost = data.draw(st.integers(0, n - 1))
    exact = -stats.beta.ppf(confidence, lost + 1, n - lost)
    assert bootstrap_lower([-1, 0], [lost, n - lost], confidence) == pytest.approx(exact, abs=1e-7)


@pytest.mark.parametrize(("lost", "n"), [(0, 5), (0, 149), (0, 200), (2, 300)])
def test_exact_paired_bound_without_wins_is_the_binomial_one(lost, n):
    exact = -stats.beta.ppf(0.95, lost + 1, n - lost)
    assert paired_lower(lost, 0, n) == pytest.approx(exact, abs=1e-4)


@pytest.mark.parametrize(
    "values", [[0.5, -0.25, 0, 0, 0, 0.25], [0.0] * 20, [-1, 1, 1, 1], [-0.2] * 9 + [0.6]]
)
def test_computed_bootstrap_quantile_is_the_simulated_one(values):
    rng = np.random.default_rng(2)
    weights = rng.dirichlet(np.ones(len(values) + 1), 200_000)
    simulated = np.quantile(weights @ np.append(values, -1.0), 0.05)
    assert bootstrap_lower(values) == pytest.approx(simulated, abs=5e-3)


def test_bootstrap_bound_moves_with_its_values():
    values = np.array([0.25, -0.5, 0.0, 0.75, 0.0, -0.25])
    bound = bootstrap_lower(values)
    assert bound < values.mean()
    assert bootstrap_lower(values, confidence=0.99) < bound < bootstrap_lower(values + 0.1)
    assert bootstrap_lower(np.tile(values, 10)) > bound
    assert bootstrap_lower([-1.0, -1.0]) == -1
    with pytest.raises(ValueError, match="at least"):
        bootstrap_lower([-1.5])


@pytest.mark.slow
@pytest.mark.parametrize("n", [40, 200])
def test_bootstrap_error_rate_at_the_margin(n):
    """Several samples: per-problem differences of unlike shapes whose true mean is -margin."""
    rng = np.random.default_rng(3)
    margin, runs = 0.05, 4000
    levels = np.arange(-4, 5) / 4
    shapes = {
        "rare and total": {-1.0: 0.05},
        "small and common": {-0.25: 0.2},
        "both ways": {-0.5: 0.15, 0.25: 0.1},
        "wins hide a loss": {-1.0: 0.15, 0.5: 0.2},
    }
    for name, shape in shapes.items():
        chances = np.array([shape.get(level, 0.0) for level in levels])
        assert chances @ levels == pytest.approx(-margin)
        chances[4] = 1 - chances.sum()
        drawn = rng.multinomial(n, chances, size=runs)
        # Tables that repeat are judged once.
        tables, times = np.unique(drawn, axis=0, return_counts=True)
        likely = tables @ levels / n > -margin
        wrong = sum(
            int(count)
            for table, count in zip(tables[likely], times[likely], strict=True)
            if bootstrap_lower(levels, table) > -margin
        )
        assert wrong / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs), name
