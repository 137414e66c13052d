"""How thresholds decide, and whether the power and the chances that verdicts state are true."""

import math
from bisect import bisect_left

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_tokenbudget.stats.decision_rules import (
    Decision,
    DecisionRule,
    MetricUnit,
    Threshold,
    decide,
    not_kept_at,
    ruling_of,
)
from pytest_tokenbudget.stats.evidence import Change, Mean, Rate, mean_evidence, rate_evidence
from pytest_tokenbudget.stats.intervals import (
    Estimate,
    clustered_rate,
    mean_estimate,
    wilson,
)

RULES = (
    {"rule": DecisionRule.POINT},
    {"rule": DecisionRule.CONFIDENT},
    {"rule": DecisionRule.CONFIDENT, "allow_inconclusive": True},
    {"rule": DecisionRule.NONINFERIOR, "margin": 0.05},
)
LEVEL = 0.025


def kept(evidence, demand):
    return demand.kept_by(ruling_of(evidence.estimate(demand.confidence), demand))


def exactly(demand, n, truth):
    """How often a rate does not keep a demand: all possible runs, weighted."""
    from scipy.stats import binom

    # More successes never turn a verdict back.
    first = bisect_left(
        range(n + 1), True, key=lambda k: kept(Rate(k, n), demand) is demand.at_least
    )
    fewer = float(binom.cdf(first - 1, n, truth))
    return fewer if demand.at_least else 1 - fewer


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("threshold", "at_least"), [(0.6, True), (0.9, True), (0.05, False)])
def test_chances_of_a_rate_are_exact(rule, threshold, at_least):
    demand = Threshold(threshold, at_least, **rule)
    for truth in (0.5, threshold, 0.97):
        said = not_kept_at(Rate(0, 60), demand, truth)
        assert exactly(demand, 60, truth) == pytest.approx(said, abs=1e-9)


@pytest.mark.parametrize("threshold", [0.02, 0.5, 0.6, 0.9, 0.98])
@pytest.mark.parametrize("n", [20, 97, 300])
def test_a_confident_gate_fails_by_chance_no_more_often_than_its_level(threshold, n):
    for at_least in (True, False):
        demand = Threshold(threshold, at_least, DecisionRule.CONFIDENT, allow_inconclusive=True)
        assert exactly(demand, n, threshold) <= LEVEL
        worse = Threshold(threshold, at_least, DecisionRule.NONINFERIOR, margin=0.01)
        bound = worse.bound
        if 0 < bound < 1:
            assert 1 - exactly(worse, n, bound) <= LEVEL, "passes what is worse by the margin"


@pytest.mark.parametrize("rule", RULES[:3:2])
def test_the_detectable_change_has_its_power(rule):
    demand = Threshold(0.6, **rule)
    verdict = decide(Rate(57, 100), demand)
    assert exactly(demand, 100, 0.6 - verdict.detectable) == pytest.approx(0.8, abs=1e-6)


@pytest.mark.parametrize("at_least", [True, False])
def test_a_threshold_at_the_end_of_the_range_is_missed_by_one_answer(at_least):
    end = 1.0 if at_least else 0.0
    demand = Threshold(end, at_least, DecisionRule.CONFIDENT, allow_inconclusive=True, change=0.1)
    verdict = decide(Rate(20 if at_least else 0, 20), demand)
    assert (verdict.ruling, verdict.by_chance) == (Decision.INCONCLUSIVE, 0.0)
    assert verdict.detectable == pytest.approx(1 - 0.2 ** (1 / 20))
    assert verdict.needed == 16, "the least n with 1 - 0.9 ** n of at least 80 %"
    assert decide(Rate(19 if at_least else 1, 20), demand).ruling is Decision.FAILED


def test_the_detectable_margin_has_its_power():
    verdict = decide(Rate(57, 100), Threshold(0.6, rule=DecisionRule.NONINFERIOR, margin=0.05))
    wide = Threshold(0.6, rule=DecisionRule.NONINFERIOR, margin=verdict.detectable + 1e-9)
    assert 1 - exactly(wide, 100, 0.6) >= 0.8
    narrow = Threshold(0.6, rule=DecisionRule.NONINFERIOR, margin=verdict.detectable - 0.01)
    assert 1 - exactly(narrow, 100, 0.6) < 0.8


@pytest.mark.parametrize(
    "demand",
    [
        Threshold(0.6, rule=DecisionRule.CONFIDENT, change=0.1),
        Threshold(0.6, rule=DecisionRule.NONINFERIOR, margin=0.1),
        Threshold(0.4, at_least=False, rule=DecisionRule.CONFIDENT, change=0.1),
    ],
)
def test_the_needed_number_is_about_the_least_with_the_power(demand):
    verdict = decide(Rate(60, 100), demand)
    assert verdict.wanted == 0.1
    again = decide(Rate(0, verdict.needed), demand)
    assert again.detectable == pytest.approx(0.1, abs=0.004)
    assert decide(Rate(0, verdict.needed // 2), demand).detectable > 0.12


def test_rules_share_a_threshold_and_differ_in_who_must_prove():
    for successes, rulings in (
        (40, ("failed", "failed", "failed")),
        (57, ("failed", "inconclusive", "failed")),
        (66, ("passed", "inconclusive", "passed")),
        (80, ("passed", "passed", "passed")),
    ):
        found = [
            decide(Rate(successes, 100), Threshold(0.6, **rule)).ruling
            for rule in (RULES[0], RULES[1], RULES[3])
        ]
        assert tuple(found) == rulings, successes


def test_a_threshold_met_exactly_is_kept():
    for k, n, threshold in ((6, 10, 0.6), (29, 100, 0.29), (57, 100, 0.57)):
        assert decide(Rate(k, n), Threshold(threshold)).ruling is Decision.PASSED
        assert decide(Rate(k, n), Threshold(threshold, at_least=False)).ruling is Decision.PASSED
        assert not_kept_at(Rate(k, n), Threshold(threshold), threshold) < 0.6
    for rule in RULES:
        assert decide(Rate(0, 9), Threshold(0.0, **rule)).kept, "whatever is measured keeps it"
        assert decide(Rate(9, 9), Threshold(1.0, at_least=False, **rule)).kept


def test_nothing_measured_is_no_verdict():
    for nothing in (Rate(0, 0), rate_evidence(np.full((3, 1), math.nan)), Change(0, 0, 0)):
        verdict = decide(nothing, Threshold(0.5))
        assert verdict.ruling is Decision.UNKNOWN
        assert not verdict.kept
        assert verdict.sentence("accuracy", MetricUnit.SHARE) == "accuracy was not measured (n = 0)"
    alone = decide(
        mean_evidence([[9.0]]), Threshold(10.0, at_least=False, rule=DecisionRule.CONFIDENT)
    )
    assert alone.ruling is Decision.INCONCLUSIVE
    assert alone.detectable is None


def test_demands_that_contradict_themselves_are_refused():
    for wrong in (
        {"rule": DecisionRule.NONINFERIOR},
        {"margin": 0.1},
        {"rule": DecisionRule.POINT, "allow_inconclusive": True},
        {"rule": DecisionRule.NONINFERIOR, "margin": 0.1, "change": 0.2},
        {"change": 0.0},
        {"confidence": 1.0},
    ):
        with pytest.raises(ValueError, match=r"."):
            Threshold(0.5, **wrong)


def test_sentences_have_all_that_a_verdict_rests_on():
    def said(rule, successes=57):
        return decide(Rate(successes, 100), Threshold(0.6, **rule)).sentence(
            "accuracy", MetricUnit.SHARE
        )

    found = "would have been found with 80 % power"
    assert said(RULES[0]) == (
        "accuracy 57.0 % [47.2, 66.3] is below the gate's 60 % (n = 100; a change of 4.7 points "
        f"{found}; about 2,142 problems would tell 57.0 from 60)"
    )
    assert said(RULES[1]).startswith(
        "accuracy 57.0 % [47.2, 66.3] is inconclusive about the gate's 60 % (n = 100; a change of "
    )
    assert said(RULES[3]).startswith(
        "accuracy 57.0 % [47.2, 66.3] may be more than 5.0 points below the gate's 60 % (n = 100; "
    )
    assert said(RULES[3], 70).startswith(
        "accuracy 70.0 % [60.4, 78.1] is shown to be no more than 5.0 points below the gate's 60 %"
    )
    assert said(RULES[1], 90).endswith("; 19 are enough to tell 90.0 from 60)")
    tokens = decide(
        Mean(mean_evidence(np.arange(20.0)[:, None]).measured, 5.9, 0.0),
        Threshold(1234.5, at_least=False),
    )
    assert " is at most the gate's 1,234.5 tokens (n = 20; " in tokens.sentence(
        "x", MetricUnit.TOKENS
    )


@given(
    st.integers(1, 40),
    st.integers(1, 4),
    st.sampled_from([0.8, 0.95, 0.99]),
    st.integers(0, 2**32 - 1),
)
def test_a_verdict_shows_the_interval_of_tables(problems, samples, confidence, seed):
    rng = np.random.default_rng(seed)
    table = (rng.random((problems, samples)) < rng.random((problems, 1))).astype(float)
    table[rng.random(table.shape) < 0.1] = np.nan
    shown = rate_evidence(table).shown(confidence)
    assert shown == pytest.approx(clustered_rate(table, confidence), nan_ok=True)
    lengths = np.where(np.isnan(table), np.nan, rng.lognormal(5, 1, table.shape))
    expected = mean_estimate(lengths, confidence)
    if np.isfinite(expected.low):
        shown = mean_evidence(lengths, 0.0, 1e9, scales=True).shown(confidence)
        assert shown == pytest.approx(expected)


def test_problems_that_are_alike_keep_their_rate():
    """Each of five problems right in one of two samples: 50 %, not 2 of 5."""
    found = rate_evidence([[0.0, 1.0]] * 5)
    assert found.value == 0.5
    assert found.shown(0.95) == clustered_rate([[0.0, 1.0]] * 5)


def test_where_the_interval_alone_would_decide_otherwise_the_test_is_named():
    """One success of 300: Wilson's lower end is above 0.05 %, the exact bound is not."""
    demand = Threshold(0.0005, at_least=False, rule=DecisionRule.CONFIDENT)
    verdict = decide(Rate(1, 300), demand)
    assert verdict.estimate == wilson(1, 300)
    assert verdict.estimate.low > demand.threshold
    assert verdict.ruling is Decision.INCONCLUSIVE
    said = verdict.sentence("truncation", MetricUnit.SHARE)
    assert "is inconclusive about the gate's 0.05 %, by the exact binomial test (n = 300" in said
    assert "by the" not in decide(Rate(57, 100), Threshold(0.6)).sentence(
        "accuracy", MetricUnit.SHARE
    )


def test_an_interval_with_another_confidence_than_tables_have_says_so():
    demand = Threshold(0.6, rule=DecisionRule.CONFIDENT, confidence=0.99)
    said = decide(Rate(57, 100), demand).sentence("accuracy", MetricUnit.SHARE)
    low, high = (100 * end for end in wilson(57, 100, 0.99)[1:3])
    assert f"57.0 % [{low:.1f}, {high:.1f}] at 99 % is inconclusive" in said


@given(st.integers(1, 60), st.data())
def test_a_rule_with_more_to_prove_never_passes_more(n, data):
    rate = Rate(data.draw(st.integers(0, n)), n)
    threshold = data.draw(st.floats(0.01, 0.99))
    at_least = data.draw(st.booleans())
    point = decide(rate, Threshold(threshold, at_least))
    confident = decide(rate, Threshold(threshold, at_least, DecisionRule.CONFIDENT))
    if confident.ruling is Decision.PASSED:
        assert point.kept
    if confident.ruling is Decision.FAILED:
        assert not point.kept
    assert 0 <= point.by_chance <= 1


def test_a_mean_states_chances_that_come_true():
    """Simulated: what is said of one run holds over many."""
    rng = np.random.default_rng(0)
    demand = Threshold(200.0, False, DecisionRule.CONFIDENT, allow_inconclusive=True)
    runs = rng.gamma(4.0, 50.0, (800, 150, 1))
    detectable = np.mean([decide(mean_evidence(run, 0.0), demand).detectable for run in runs[:10]])
    assert np.mean([not kept(mean_evidence(run, 0.0), demand) for run in runs]) <= LEVEL + 0.012
    found = np.mean([not kept(mean_evidence(run + detectable, 0.0), demand) for run in runs])
    assert found == pytest.approx(0.8, abs=0.05)


def test_the_interval_of_skewed_lengths_is_wrong_on_both_sides_alike():
    """Without the correction the truth is above it several times as often as below it."""
    rng = np.random.default_rng(1)
    runs = rng.lognormal(np.log(200) - 0.18, 0.6, (1500, 80, 1))
    found = [mean_evidence(run, 0.0, scales=True).estimate(0.95) for run in runs]
    truth = 200.0
    for wrong in (
        np.mean([each.low > truth for each in found]),
        np.mean([each.high < truth for each in found]),
    ):
        assert wrong <= 0.025 + 3 * math.sqrt(0.025 * 0.975 / 1500)
    plain = [mean_evidence(run, 0.0).estimate(0.95) for run in runs]
    assert np.mean([each.high < truth for each in plain]) > 0.03


def test_samples_that_all_agree_are_no_certainty():
    """Twenty problems that are right in all five samples: as if there were one sample a problem."""
    for scores, right in ((np.ones((20, 5)), 20), (np.tile([1.0, 0.0], (20, 2)), 10)):
        assert rate_evidence(scores) == Rate(right, 20)
    mixed = np.ones((20, 5))
    mixed[0] = 0
    assert isinstance(rate_evidence(mixed), Mean)


@pytest.mark.parametrize(("shape", "n"), [(1.0, 200), (4.0, 300)])
def test_how_often_skewed_lengths_fail_by_chance_is_said_right(shape, n):
    """Counted in 3,000 runs of skewed lengths: the end of their interval scatters with them."""
    deviation = math.sqrt(shape)
    limit = shape + 3.1 * deviation / math.sqrt(n)
    runs = np.random.default_rng(1).gamma(shape, 1.0, (3000, n))
    kept = [
        mean_evidence(run[:, None], 0.0, scales=True).estimate(0.95).high <= limit for run in runs
    ]
    truth = Mean(Estimate(shape, 0, 0, n), deviation, 0.0, scales=True, skewness=2 / deviation)
    stated = truth.chance(False, limit, shape, 0.025)
    assert np.mean(kept) == pytest.approx(stated, abs=0.02)
