"""Limits: exact bounds against other implementations, promises and fits by simulation."""

import itertools
import math

import numpy as np
import pytest
from scipy import integrate, stats
from slow_cases import slow

from pytest_tokenbudget.report.limits import limits_record
from pytest_tokenbudget.stats.intervals import bootstrap_lower
from pytest_tokenbudget.stats.length_fits import (
    Gamma,
    LogNormal,
    _anderson_darling,
    fit_lengths,
)
from pytest_tokenbudget.stats.limits import (
    RULES,
    LimitVerdict,
    Promise,
    recommend,
    recommend_by_category,
)
from pytest_tokenbudget.stats.truncation import (
    judge_limit,
    problems_needed,
    truncates,
    upper_rate,
)
from pytest_tokenbudget.studies.thinking.report import _rules as rules_of_thumb


def lengths(seed=0, n=400, cap=math.inf):
    drawn = np.ceil(np.random.default_rng(seed).lognormal(5, 0.5, n))
    return np.minimum(drawn, cap), drawn <= cap


# --- what a limit truncates -------------------------------------------------------------------


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (0, 299), (3, 40), (39, 40), (40, 40)])
def test_the_bound_of_single_traces_is_the_exact_one(hits, n):
    column = np.array([1.0] * hits + [0.0] * (n - hits))[:, None]
    exact = stats.binomtest(hits, n, alternative="less").proportion_ci(0.95, method="exact")
    assert upper_rate(column, 0.95) == pytest.approx(exact.high, abs=1e-9)


def test_the_bound_of_several_samples_counts_problems():
    rng = np.random.default_rng(0)
    table = (rng.random((60, 4)) < rng.beta(0.3, 3, (60, 1))).astype(float)
    assert upper_rate(table, 0.95) == pytest.approx(-bootstrap_lower(-table.mean(axis=1)))
    # Copies of a trace are no further evidence.
    copies = np.repeat(table[:, :1], 5, axis=1)
    assert upper_rate(copies, 0.95) == upper_rate(table[:, :1], 0.95)


def test_end_of_sequence_at_the_limit_is_complete_and_a_cap_there_is_not():
    tokens, complete = [10, 20, 20, 30], [True, True, False, True]
    at = {limit: truncates(tokens, complete, limit) for limit in (9, 10, 19, 20, 25, 30)}
    assert [cut.truncated for cut in at.values()] == [4, 3, 3, 2, 1, 0]
    assert [cut.unknown for cut in at.values()] == [0, 0, 0, 0, 1, 1]
    assert math.isnan(at[25].share.value)
    assert at[25].upper == upper_rate(np.array([[1.0], [1.0], [0.0], [0.0]]), 0.95)
    assert at[25].lower == 1 - upper_rate(np.array([[0.0], [1.0], [1.0], [1.0]]), 0.95)


def test_verdicts():
    tokens, complete = lengths(1, 1000)
    assert judge_limit(truncates(tokens, complete, 2000), 0.01) is LimitVerdict.HOLDS
    assert judge_limit(truncates(tokens, complete, 200), 0.01) is LimitVerdict.REFUTED
    # 1 % is the rate itself: no number of traces decides it.
    near = int(np.sort(tokens)[989])
    assert judge_limit(truncates(tokens, complete, near), 0.01) is LimitVerdict.UNRESOLVED
    short, ended = lengths(1, 1000, cap=420)
    assert judge_limit(truncates(short, ended, 500), 0.05) is LimitVerdict.HOLDS
    assert judge_limit(truncates(short, ended, 500), 0.01) is LimitVerdict.UNMEASURED


# --- promises ---------------------------------------------------------------------------------


def test_problems_needed():
    assert problems_needed(0.01) == 299
    assert problems_needed(0.05) == 59
    assert problems_needed(0.01, 0.99) == 459
    assert problems_needed(0.01, share=0.01) is None


@pytest.mark.parametrize("share", [0.001, 0.004, 0.03])
def test_problems_needed_with_some_truncated(share):
    n = problems_needed(0.05, share=share)
    assert n is not None

    def bound(size):
        return stats.beta.ppf(0.95, math.ceil(share * size) + 1, size - math.ceil(share * size))

    assert bound(n) <= 0.05 < bound(n - 1)


def test_the_limit_is_the_order_statistic_of_tolerance_bounds():
    for n, target in ((299, 0.01), (500, 0.01), (60, 0.05), (777, 0.02)):
        tokens = np.random.default_rng(n).permutation(np.arange(1.0, n + 1))
        found = recommend(tokens, np.ones(n), target=target, fit=False)
        # The least rank r with P(Binomial(n, 1 - target) < r) of at least 95 %.
        rank = next(r for r in range(1, n + 1) if stats.binom.cdf(r - 1, n, 1 - target) >= 0.95)
        assert found.promise is Promise.KEPT
        assert found.limit == rank
        assert found.truncation.truncated == n - rank
        assert found.quantile == math.ceil((1 - target) * n - 1e-9)


def test_too_few_traces():
    tokens, complete = lengths(2, 298)
    found = recommend(tokens, complete, fit=False)
    assert (found.promise, found.limit) == (Promise.TOO_FEW, None)
    assert found.problems_needed == 299
    assert "too few traces to promise 1 %: 299 needed, 298 there" in found.sentence()
    assert found.best.upper == pytest.approx(1 - 0.05 ** (1 / 298))


def test_a_cap_that_many_met_is_too_low():
    tokens, complete = lengths(3, 1000, cap=420)
    found = recommend(tokens, complete, fit=False)
    assert (found.promise, found.limit, found.quantile) == (Promise.CAP_TOO_LOW, None, None)
    assert found.problems_needed is None
    assert "cap above 420" in found.sentence()
    few = recommend(tokens[:100], complete[:100], fit=False)
    assert few.problems_needed == 299
    # At a target above the capped share a limit is found, and capped traces count as truncated.
    loose = recommend(tokens, complete, target=0.1, fit=False)
    assert loose.limit < 420
    free = recommend(lengths(3, 1000)[0], np.ones(1000), target=0.1, fit=False)
    assert loose.limit == free.limit


def test_a_cut_counts_up_to_what_was_allowed():
    """A server that counts hidden tokens, or a record that says so, stopped below the text's."""
    tokens = np.array([20.0, 20, 20, 30])
    complete = np.array([False, True, True, True])
    found = recommend(tokens, complete, caps=np.full(4, 64.0), fit=False)
    assert (found.best.limit, found.best.truncated, found.best.unknown) == (64, 1, 0)
    assert (found.stopped_early, found.earliest_stop) == (1, (20, 64))
    assert found.needs.max == 30
    assert (
        "1 of 4 traces was cut after 20 tokens although 64 were allowed; find what stopped it, "
        "and generate with a cap above 64, 299 problems"
    ) in found.sentence()
    # 61 of 64 is what encoding again may lose; the other was stopped by something else.
    several = recommend([61.0, 9, 20], [False, False, True], caps=[64.0, 64, 64], fit=False)
    assert (several.stopped_early, several.best.truncated) == (1, 2)
    said = several.sentence()
    assert "2 of 3 traces were cut, 1 of them below it, the first after 9 tokens" in said
    whole = recommend([64.0, 64], [False, False], caps=[64.0, 64], fit=False)
    assert whole.earliest_stop is None
    assert "2 of 2 traces met it; generate with a cap above 64" in whole.sentence()


def test_traces_capped_below_the_limit_count_as_truncated_in_the_promise():
    tokens, complete = np.arange(1.0, 1001), np.ones(1000, bool)
    plain = recommend(tokens, complete, fit=False)
    complete[:2] = False  # these two met caps of 1 and 2
    found = recommend(tokens, complete, fit=False)
    assert found.limit == plain.limit + 2
    assert (found.truncation.truncated, found.truncation.unknown) == (
        plain.truncation.truncated - 2,
        2,
    )


def test_some_capped_traces_ask_for_more_problems():
    # Of 500 one may be truncated, of 320 none.
    tokens, complete = np.arange(1.0, 501), np.ones(500, bool)
    complete[-1] = False
    found = recommend(tokens, complete, fit=False)
    assert (found.limit, found.truncation.truncated) == (499, 1)
    tokens, complete = tokens[:320], np.ones(320, bool)
    complete[-1] = False
    found = recommend(tokens, complete, fit=False)
    assert found.promise is Promise.TOO_FEW
    assert found.problems_needed > 320


@pytest.mark.slow
def test_the_promise_is_kept_as_often_as_it_says():
    rng = np.random.default_rng(5)
    n, target, kept, runs = 150, 0.05, 0, 600
    for _ in range(runs):
        drawn = rng.lognormal(5, 0.6, n) + 1e3
        found = recommend(np.ceil(drawn), np.ones(n), target=target, fit=False, rules=())
        truth = stats.lognorm.sf(found.limit - 1e3, 0.6, scale=math.exp(5))
        kept += truth <= target
    # The nominal level is 95 %; the order statistic's own is a little more.
    assert 0.935 <= kept / runs <= 0.99


@pytest.mark.slow
def test_the_promise_is_kept_with_several_samples_of_a_problem():
    rng = np.random.default_rng(6)
    kept, runs = 0, 60
    for _ in range(runs):
        drawn = np.exp(rng.normal(6, 0.5, (80, 1)) + rng.normal(0, 0.2, (80, 3)))
        found = recommend(np.ceil(drawn), np.ones((80, 3)), target=0.1, fit=False, rules=())
        truth = stats.norm.sf((math.log(found.limit) - 6) / math.hypot(0.5, 0.2))
        kept += truth <= 0.1
    assert kept / runs >= 0.9


def test_rules_are_measured_each():
    tokens, complete = lengths(4, 2000, cap=900)
    found = recommend(tokens, complete, kind="thinking")
    assert len(found.rules) == len(RULES)
    assert [check.rule.limit for check in found.rules if check.applies] == [1200, 1500, 1800, 2000]
    for check in found.rules:
        if check.rule.limit <= 900:
            expected = np.mean(np.where(complete, tokens, np.inf) > check.rule.limit)
            assert check.truncation.share.value == pytest.approx(expected)
            assert check.truncation.lower <= expected <= check.truncation.upper
        assert check.times_recommended == pytest.approx(check.rule.limit / found.limit)
    verdicts = {check.rule.limit: check.verdict for check in found.rules}
    assert verdicts[600] is LimitVerdict.HOLDS
    assert recommend(*lengths(4, 2000), target=0.001).rules[0].verdict is LimitVerdict.REFUTED


def test_margins_are_multiples_of_the_mean():
    tokens, complete = lengths(4, 2000)
    low, high = recommend(tokens, complete, fit=False).margins
    assert low.truncation.limit == math.ceil(1.2 * tokens.mean())
    assert high.truncation.limit == math.ceil(1.5 * tokens.mean())
    assert high.truncation.truncated == (tokens > high.truncation.limit).sum()
    assert high.verdict is LimitVerdict.REFUTED


def test_categories_have_limits_of_their_own():
    short, long = np.arange(1.0, 401), np.arange(1001.0, 1401)
    tokens = np.concatenate([short, long])
    names = ["short"] * 400 + ["long"] * 400
    found = recommend_by_category(tokens, np.ones(800), names)
    assert [each.name for each in found] == ["all problems", "short", "long"]
    limits = {name: each.limit for name, each in found.by_category.items()}
    assert limits["short"] < 401 < 1000 < limits["long"] == limits["short"] + 1000
    assert found.by_category["short"].sentence().startswith("short: limit ")
    with pytest.raises(ValueError, match="2 categories for 800"):
        recommend_by_category(tokens, np.ones(800), ["a", "b"])


@pytest.mark.parametrize(
    "name", ["all", slow("overall"), slow("all problems"), slow("by_category"), slow(""), "None"]
)
def test_no_name_of_a_category_replaces_the_limit_for_all_problems(name):
    """Only some problems are of that category, and they are short."""
    tokens = np.concatenate([np.arange(1.0, 401), np.arange(1001.0, 1401)])
    found = recommend_by_category(tokens, np.ones(800), [name] * 400 + ["others"] * 400)
    whole = recommend(tokens, np.ones(800))
    assert found.overall.limit == whole.limit > 1300
    assert found.by_category[name].limit < 401
    assert list(found.by_category) == [name, "others"]
    record = limits_record(found)
    assert record["overall"]["limit"] == whole.limit
    assert record["by_category"][name]["limit"] < 401


def test_nothing_to_judge_by_and_impossible_input():
    found = recommend([math.nan], [False])
    assert found.promise is Promise.NO_TRACES
    assert "no trace" in found.sentence()
    assert (found.margins, found.fits, found.best) == ((), (), None)
    with pytest.raises(ValueError, match="shape"):
        recommend([1, 2], [True])
    with pytest.raises(ValueError, match="target 0 "):
        recommend([1, 2], [True, True], target=0)


# --- fitted distributions ---------------------------------------------------------------------


@pytest.mark.parametrize("share", [1.0, 0.8])
def test_fits_are_those_of_scipy(share):
    for drawn, family in (
        (np.random.default_rng(1).lognormal(5, 0.5, 500), stats.lognorm),
        (np.random.default_rng(1).gamma(4, 50, 500), stats.gamma),
    ):
        tokens = np.ceil(drawn)
        cap = math.inf if share == 1 else float(np.quantile(tokens, share))
        fits = {fit.distribution: fit for fit in fit_lengths(tokens, cap, replicates=19)}
        data = stats.CensoredData.right_censored(np.minimum(tokens, cap), tokens > cap)
        shape, _, scale = family.fit(data, floc=0)
        if family is stats.lognorm:
            expected = {"mu": math.log(scale), "sigma": shape}
            fit = fits["log-normal"]
            quantile = stats.lognorm.ppf(0.99, shape, scale=scale)
        else:
            expected = {"mean": shape * scale, "shape": shape}
            fit = fits["gamma"]
            quantile = stats.gamma.ppf(0.99, shape, scale=scale)
        assert fit.parameters == pytest.approx(expected, rel=1e-4)
        assert fit.limit == pytest.approx(quantile, abs=1.01, rel=1e-3)
        frozen = family(shape, 0, scale)
        known = tokens[tokens <= cap]
        likelihood = frozen.logpdf(known).sum()
        if known.size < tokens.size:
            likelihood += (tokens.size - known.size) * frozen.logsf(cap)
        assert fit.aic == pytest.approx(4 - 2 * likelihood, rel=1e-6)


def test_the_better_family_comes_first():
    rng = np.random.default_rng(2)
    assert fit_lengths(np.ceil(rng.lognormal(5, 0.8, 600)))[0].distribution == "log-normal"
    assert fit_lengths(np.ceil(rng.gamma(2, 100, 600)))[0].distribution == "gamma"


@pytest.mark.parametrize("cap", [math.inf, 150.0])
def test_anderson_darling_is_its_integral(cap):
    tokens = np.random.default_rng(0).lognormal(5, 0.5, 40)
    theta = np.array([[4.9], [math.log(0.6)]])
    places = np.sort(stats.norm.cdf((np.log(tokens) - 4.9) / 0.6))
    end = 1.0 if math.isinf(cap) else float(stats.norm.cdf((math.log(cap) - 4.9) / 0.6))
    edges = [0.0, *places[places < end], end]
    total = 0.0
    for count, (low, high) in enumerate(itertools.pairwise(edges)):
        total += integrate.quad(
            lambda u, c=count: (c / 40 - u) ** 2 / (u * (1 - u)), low, high, limit=200
        )[0]
    found = _anderson_darling(LogNormal(), theta, tokens[None], cap)[0]
    assert found == pytest.approx(40 * total, rel=1e-4)


@pytest.mark.parametrize("family", [LogNormal(), Gamma()])
def test_chances_and_quantiles_belong_together(family):
    theta = np.array([[5.0], [0.3]])
    place = np.exp(family.log_quantile(theta, 0.97))
    below, above = family.chances(theta, place[:, None])
    assert (below[0, 0], above[0, 0]) == pytest.approx((0.97, 0.03))


@pytest.mark.slow
def test_goodness_of_fit_refutes_as_often_as_it_says_and_sees_two_humps():
    rng = np.random.default_rng(7)
    runs, refuted = 100, 0
    for run in range(runs):
        drawn = np.ceil(rng.lognormal(5, 0.5, 80))
        fits = fit_lengths(drawn, 200.0, replicates=99, seed=run)
        refuted += next(f for f in fits if f.distribution == "log-normal").refuted
    assert refuted <= 12
    humps = np.ceil(np.concatenate([rng.normal(100, 10, 100), rng.normal(400, 30, 100)]))
    assert all(fit.refuted for fit in fit_lengths(humps))


def test_the_bound_of_a_log_normal_quantile_is_the_closed_one():
    logs = np.random.default_rng(8).normal(7, 0.5, 60)
    fit = next(
        f for f in fit_lengths(np.exp(logs), replicates=8000) if f.distribution == "log-normal"
    )
    z = stats.norm.ppf(0.99)
    factor = stats.nct.ppf(0.95, 59, z * math.sqrt(60)) / math.sqrt(60)
    assert math.log(fit.upper) == pytest.approx(logs.mean() + factor * logs.std(ddof=1), abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["log-normal", "gamma"])
def test_bounds_of_capped_fits_hold_about_as_often_as_they_say(name):
    rng = np.random.default_rng(9)
    held, runs = 0, 100
    for run in range(runs):
        if name == "gamma":
            tokens, truth = np.ceil(rng.gamma(4, 50, 120)), stats.gamma.ppf(0.99, 4, scale=50)
        else:
            tokens, truth = np.ceil(rng.lognormal(5, 0.5, 120)), math.exp(5 + 0.5 * 2.3263)
        fits = fit_lengths(tokens, 260.0, replicates=99, seed=run)
        held += next(f for f in fits if f.distribution == name).upper >= truth
    assert 0.89 <= held / runs <= 0.995


def test_what_cannot_be_fitted_is_not():
    assert fit_lengths(np.arange(1.0, 6)) == ()
    assert fit_lengths(np.full(50, 30.0)) == ()
    assert fit_lengths(np.arange(0.0, 50)) == ()
    capped = fit_lengths(np.append(np.arange(1.0, 60), [np.inf] * 20), 59.0, replicates=49)
    assert all(fit.extrapolated for fit in capped)


# --- in words ---------------------------------------------------------------------------------


def test_rules_of_thumb_make_a_sentence():
    tokens, complete = lengths()
    (sentence,) = rules_of_thumb(
        recommend(tokens, complete, kind="thinking", target=0.1, fit=False)
    )
    assert sentence.endswith(": 1,200, 1,500, 1,800 and 2,000 hold")
    (sentence,) = rules_of_thumb(
        recommend(tokens * 5, complete, kind="thinking", target=0.1, fit=False)
    )
    assert sentence.endswith(": 1,200 is refuted; 1,500, 1,800 and 2,000 hold")
