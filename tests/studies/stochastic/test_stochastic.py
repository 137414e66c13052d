"""Several samples a problem: every number against another way to have it."""

import itertools
import json
import math
import statistics
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from studies import make_study
from text_snapshots import TextFile, text_of

from pytest_tokenbudget.core.engine import Decoding
from pytest_tokenbudget.report.json_files import RunInfo
from pytest_tokenbudget.stats.intervals import bootstrap_lower, clustered_rate
from pytest_tokenbudget.stats.resampling import (
    bootstrap_mean,
    bootstrap_p,
    holm,
    may_be_largest,
    problem_weights,
    sign_test,
)
from pytest_tokenbudget.studies.stochastic.analysis import (
    analyse_samples,
    analyse_stochastic,
    sample_point,
)
from pytest_tokenbudget.studies.stochastic.repeats import (
    intraclass_correlation,
    majority_votes,
    pass_at_k,
)
from pytest_tokenbudget.studies.stochastic.report import stochastic_lines, write_stochastic


def drawn(seed=0, problems=40, samples=5, missing=0.0):
    rng = np.random.default_rng(seed)
    scores = (rng.random((problems, samples)) < rng.beta(1.5, 1.0, (problems, 1))).astype(float)
    scores[rng.random(scores.shape) < missing] = np.nan
    return scores


# --- resampling -------------------------------------------------------------------------------


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (3, 0), (4, 11), (7, 7), (1, 2), (60, 25)])
def test_sign_test_of_single_differences_is_mcnemar(lost, won):
    from statsmodels.stats.contingency_tables import mcnemar

    sums = [-1] * lost + [1] * won + [0] * 5
    expected = mcnemar([[10, lost], [won, 10]], exact=True).pvalue if lost + won else 1.0
    assert sign_test(sums) == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.integers(-4, 4), max_size=9))
def test_sign_test_counts_every_choice_of_signs(sums):
    totals = [
        abs(sum(s * abs(d) for s, d in zip(signs, sums, strict=True)))
        for signs in itertools.product((-1, 1), repeat=len(sums))
    ]
    expected = sum(total >= abs(sum(sums)) for total in totals) / len(totals)
    assert sign_test(sums) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("size", [1, 2, 3, 10])
def test_holm_is_that_of_statsmodels(size):
    from statsmodels.stats.multitest import multipletests

    p_values = np.random.default_rng(size).random(size) ** 3
    p_values[-1] = p_values[0]
    expected = multipletests(p_values, method="holm")[1]
    assert holm(p_values.tolist()) == pytest.approx(tuple(expected), abs=1e-12)
    assert holm([]) == ()


@pytest.mark.parametrize("seed", [0, 1])
def test_bootstrap_mean_is_its_simulation(seed):
    """The computed quantiles are those of very many simulated replicates."""
    rng = np.random.default_rng(seed)
    values = rng.choice([-1.0, -0.4, 0.0, 0.2, 1.0], size=30, p=[0.05, 0.1, 0.5, 0.2, 0.15])
    size = math.sqrt(np.mean(values[values != 0] ** 2))
    weights = rng.standard_gamma([1.0] * 30 + [0.5, 0.5], size=(200_000, 32))
    means = weights @ np.append(values, [-size, size]) / weights.sum(axis=1)
    found = bootstrap_mean(values)
    assert found.value == pytest.approx(values.mean())
    assert found.n == 30
    assert [found.low, found.high] == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.003)


def test_bootstrap_mean_of_gains_alone_is_jeffreys_beta():
    """Half a loss is part of it; the rest is the beta interval of Jeffreys' prior on gains."""
    found = bootstrap_mean([1.0] * 40 + [0.0] * 360)
    beta = stats.beta(40.5, 360.5)
    assert [found.low, found.high] == pytest.approx(beta.ppf([0.025, 0.975]), abs=0.003)


def test_bootstrap_mean_keeps_a_width_and_holds_its_value():
    none = bootstrap_mean([0.0] * 50)
    assert none.low == pytest.approx(-none.high)
    assert 0.02 < none.high < 0.08
    assert bootstrap_mean([1.0] * 5).high == 1.0
    assert math.isnan(bootstrap_mean([]).value)


@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0]), min_size=1, max_size=30))
@settings(max_examples=40)
def test_bootstrap_p_and_bound_agree(values):
    p = bootstrap_p(values)
    for confidence in (0.9, 0.95, 0.995):
        if abs(p - (1 - confidence)) > 1e-6:
            assert (bootstrap_lower(values, confidence=confidence) > 0) == (p < 1 - confidence)


def test_the_largest_is_kept_and_the_clearly_smaller_are_not():
    rng = np.random.default_rng(0)
    noise = rng.normal(0.0, 0.5, size=(400, 4))
    values = noise - noise.mean(axis=0) + [0.0, 1.0, 1.03, 0.2]
    kept, ratio = may_be_largest(values.mean(axis=0), problem_weights(400) @ values)
    assert kept.tolist() == [False, True, True, False]
    assert ratio[values.mean(axis=0).argmax()] == 0


def test_the_largest_of_equals_is_kept_as_often_as_promised():
    rng = np.random.default_rng(1)
    held = []
    for _ in range(400):
        values = rng.normal(0.0, 1.0, size=(50, 6))
        held.append(may_be_largest(values.mean(axis=0), problem_weights(50, 400) @ values)[0][0])
    assert np.mean(held) >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / 400)


# --- several samples --------------------------------------------------------------------------


def test_deviations_are_those_that_they_are_named_for():
    scores = drawn()
    point = sample_point(512, scores)
    columns = [statistics.fmean(column) for column in scores.T.tolist()]
    rows = [statistics.fmean(row) for row in scores.tolist()]
    assert point.sample_accuracies == pytest.approx(columns)
    assert point.deviation_across_samples == pytest.approx(statistics.stdev(columns))
    assert point.deviation_across_problems == pytest.approx(statistics.stdev(rows))
    assert point.mean_success == clustered_rate(scores)


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_standard_error_is_that_of_statsmodels(missing):
    import statsmodels.api as sm

    scores = drawn(missing=missing)
    flat, groups = scores.ravel(), np.repeat(np.arange(scores.shape[0]), scores.shape[1])
    seen = np.isfinite(flat)
    kept = np.unique(groups[seen]).size
    fit = sm.OLS(flat[seen], np.ones(seen.sum())).fit(
        cov_type="cluster", cov_kwds={"groups": groups[seen], "use_correction": True}
    )
    assert kept > 1
    assert sample_point(512, scores).standard_error == pytest.approx(float(fit.bse[0]), rel=1e-9)


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_intraclass_correlation_is_that_of_an_analysis_of_variance(missing):
    import statsmodels.api as sm
    import statsmodels.formula.api as smf
    from pandas import DataFrame

    scores = drawn(1, missing=missing)
    rows, columns = np.nonzero(np.isfinite(scores))
    frame = DataFrame({"y": scores[rows, columns], "problem": rows})
    anova = sm.stats.anova_lm(smf.ols("y ~ C(problem)", frame).fit())
    between, within = anova["mean_sq"]
    counts = frame.groupby("problem").size().to_numpy()
    size = (counts.sum() - (counts**2).sum() / counts.sum()) / (counts.size - 1)
    found = intraclass_correlation(scores)
    assert found.value == pytest.approx((between - within) / (between + (size - 1) * within))


def test_intraclass_correlation_has_the_interval_of_a_jackknife():
    scores = drawn(2, problems=15)

    def fisher(value):
        return 0.5 * math.log((1 + 4 * value) / (1 - value))

    without = np.array(
        [fisher(intraclass_correlation(np.delete(scores, i, axis=0)).value) for i in range(15)]
    )
    half = stats.t.ppf(0.975, 14) * math.sqrt(14 / 15 * ((without - without.mean()) ** 2).sum())
    found = intraclass_correlation(scores)
    assert fisher(found.high) == pytest.approx(fisher(found.value) + half)
    assert fisher(found.low) == pytest.approx(fisher(found.value) - half)


def test_intraclass_correlation_at_its_ends():
    alike = np.repeat([[1.0], [0.0], [1.0], [0.0]], 3, axis=1)
    assert intraclass_correlation(alike).value == pytest.approx(1)
    unlike = np.array([[1.0, 0.0]] * 6)
    assert intraclass_correlation(unlike).value == pytest.approx(-1)
    assert intraclass_correlation(np.ones((5, 3))) is None
    assert sample_point(64, np.ones((5, 3))).unavailable == {
        "intraclass_correlation": "all samples came out alike",
        "majority_vote": "answers were not given",
    }


@pytest.mark.parametrize("missing", [0.0, 0.15])
def test_pass_at_k_is_the_mean_over_all_choices_of_k_samples(missing):
    scores = drawn(3, problems=12, missing=missing)
    for k in range(1, 6):
        by_problem = []
        for row in scores:
            samples = row[np.isfinite(row)]
            if samples.size >= k:
                choices = itertools.combinations(samples.tolist(), k)
                by_problem.append(statistics.fmean(max(chosen) for chosen in choices))
        found = pass_at_k(scores, k)
        if k > 1:  # pass@1 is the mean success, in which samples count alike
            assert found.n == len(by_problem)
            assert found.value == pytest.approx(statistics.fmean(by_problem))
        assert found.low <= found.value <= found.high
    assert pass_at_k(scores, 1) == clustered_rate(scores)


def test_pass_at_all_samples_has_wilsons_interval():
    from statsmodels.stats.proportion import proportion_confint

    scores = drawn(4, problems=60, samples=3)
    found = pass_at_k(scores, 3)
    solved = int(scores.any(axis=1).sum())
    assert (found.low, found.high) == pytest.approx(proportion_confint(solved, 60, method="wilson"))


def test_majority_vote_and_its_ties():
    answers = [
        ["a", "b", "b"],  # a clear majority
        ["a", "b", None],  # a tie: the first counts
        ["b", "a", None],
        [None, None, "a"],  # no answer is no vote
        [None, None, None],
        ["a", "a", "b"],  # the two of the missing samples do not vote
        ["a", "a", "a"],
    ]
    right = np.array([[float(a == "a") for a in row] for row in answers])
    right[5, :2] = np.nan
    right[6] = np.nan
    votes = majority_votes(right, answers)
    assert votes.tolist()[:6] == [0, 1, 0, 1, 0, 0]
    assert math.isnan(votes[6])
    point = sample_point(64, right, np.array(answers, dtype=object))
    assert (point.majority_vote.value, point.majority_vote.n) == (pytest.approx(2 / 6), 6)
    assert (point.problems, point.missing) == (6, 5)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=50)
def test_majority_vote_is_that_of_a_counter(seed):
    rng = np.random.default_rng(seed)
    answers = rng.choice(np.array(["a", "b", "c", None], dtype=object), size=(6, 5))
    right = (answers == "a").astype(float)
    expected = []
    for row in answers.tolist():
        # Counter lists equals in the order in which they came.
        votes = Counter(answer for answer in row if answer is not None).most_common(1)
        expected.append(float(bool(votes) and votes[0][0] == "a"))
    assert majority_votes(right, answers).tolist() == expected


def test_shares_of_problems():
    scores = np.array([[1, 1], [1, 1], [1, 0], [0, 0], [0, np.nan]])
    point = sample_point(64, scores)
    shares = [point.always, point.sometimes, point.never]
    assert [each.value for each in shares] == pytest.approx([0.5, 0.25, 0.25])
    assert {each.n for each in shares} == {4}


def test_one_sample_names_the_measures_it_lacks():
    point = sample_point(64, [[1.0], [0.0], [1.0]], np.array([["a"], [None], ["b"]], object))
    assert point.deviation_across_samples is None
    assert point.intraclass_correlation is None
    assert point.always is None
    assert set(point.unavailable) == {
        *("deviation_across_samples", "intraclass_correlation", "always", "sometimes", "never")
    }
    assert set(point.unavailable.values()) == {"there is one sample a problem"}
    assert [each.k for each in point.pass_at] == [1]
    assert point.deviation_across_problems is not None


def test_one_problem_and_none():
    one = sample_point(64, [[1.0, 0.0]])
    assert one.unavailable["standard_error"] == "there is one problem"
    none = sample_point(64, np.full((3, 2), np.nan))
    assert none.problems == 0
    assert none.missing == 6
    assert math.isnan(none.mean_success.value)
    assert "no sample was scored" in none.unavailable.values()


def test_budgets_are_paired_by_problem():
    larger = drawn(5)
    smaller = larger * (np.random.default_rng(6).random(larger.shape) < 0.8)
    smaller[0] = np.nan
    result = analyse_samples([256, 512], np.stack([smaller, larger], axis=2))
    each = result.differences[0]
    by_problem = (smaller - larger)[1:].mean(axis=1)
    assert each.difference == bootstrap_mean(by_problem)
    assert (each.worse, each.better) == ((by_problem < 0).sum(), 0)
    assert each.p == sign_test((smaller - larger)[1:].sum(axis=1))
    assert each.sentence().startswith("256 against 512: -")
    assert each.sentence().endswith(": worse")
    assert result.at(256).problems == 39
    with pytest.raises(ValueError, match=r"phase 1b has no budget .*; it has 256, 512"):
        result.at(128)


def test_no_difference_is_said_to_be_none():
    scores = np.repeat(drawn(5)[:, :, None], 2, axis=2)
    assert "no difference is shown" in analyse_samples([64, 128], scores).differences[0].sentence()


@pytest.mark.parametrize("scores", [np.ones(3), np.full((2, 2), 0.5)])
def test_other_scores_are_refused(scores):
    with pytest.raises(ValueError, match="expected problems x samples"):
        sample_point(64, scores)


# --- the report -------------------------------------------------------------------------------

BUDGETS = (128, 256, 512)


def samples_study(**further):
    return make_study(
        30, BUDGETS, samples=4, decoding=Decoding(0.7, 0.9, 3), accuracy=0.8, **further
    )


def test_the_report_of_a_study(tmp_path):
    study = samples_study(errors=1)
    result = analyse_stochastic(study)
    assert analyse_stochastic(study) is result
    assert result.budgets == BUDGETS
    point = result.at(512)
    assert point.missing == 4
    assert point.mean_success == study.curve.at(512).accuracy
    files = write_stochastic(study, RunInfo(), tmp_path)
    assert [path.name for path in files] == [
        *(f"phase1b_stochastic_qwen-1.5b_budget{b}.json" for b in BUDGETS),
        "phase1b_combined_qwen-1.5b.json",
    ]
    answers = json.loads(files[0].read_text())
    assert len(answers) == 120
    assert {answer["sample"] for answer in answers} == {0, 1, 2, 3}
    combined = json.loads(files[-1].read_text())
    assert combined["schema"] == "tokenbudget-phase1b/1"
    assert combined["decoding"]["temperature"] == 0.7
    assert combined["points"][2]["mean_success"]["value"] == pytest.approx(point.mean_success.value)
    assert combined["differences"][0]["sentence"] == result.differences[0].sentence()


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_lines_of_a_study(width):
    lines = stochastic_lines(samples_study(missing=2), RunInfo(), width)
    assert all(len(line) <= min(width, 80) for line in lines)
    last = analyse_stochastic(samples_study(missing=2)).points[-1]
    shown = " ".join(lines)
    for rate in (last.mean_success, last.majority_vote, last.pass_at[-1].rate):
        assert f"{100 * rate.value:.1f} %" in shown


def test_the_words_of_a_study_that_lacks_samples(snapshot):
    said = {
        "problems without samples": stochastic_lines(samples_study(missing=2), RunInfo()),
    }
    assert text_of(said) == snapshot(extension_class=TextFile)


def test_a_study_without_traces_says_so(tmp_path):
    study = samples_study(missing=30)
    assert "nothing to show" in " ".join(stochastic_lines(study, RunInfo()))
    combined = json.loads(write_stochastic(study, RunInfo(), tmp_path)[-1].read_text())
    assert combined["points"] == []
    with pytest.raises(ValueError, match="nothing to analyse"):
        analyse_stochastic(study)
