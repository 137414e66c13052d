"""Values that results rest on, as they were computed before: no library may change them unseen."""

import numpy as np
import pytest

from pytest_tokenbudget.stats.evidence import Rate, mean_evidence, quantile_estimate
from pytest_tokenbudget.stats.intervals import clustered_rate, wilson
from pytest_tokenbudget.stats.resampling import holm
from pytest_tokenbudget.stats.truncation import upper_rate
from pytest_tokenbudget.studies.conformance import verdict
from pytest_tokenbudget.studies.errors.statistics import agreement, goodman


def same(expected):
    return pytest.approx(expected, abs=1e-12, rel=1e-12)


@pytest.mark.parametrize(
    ("successes", "n", "score", "exact"),
    [
        (0, 7, (0.0, 0.35433043506668743), (0.0, 0.40961639722500337)),
        (7, 7, (0.6456695649333126, 1.0), (0.5903836027749967, 1.0)),
        (
            117,
            200,
            (0.5157391490134403, 0.6510571455024242),
            (0.5133753143831974, 0.6540663318192197),
        ),
        (
            1,
            1319,
            (0.00013384465011300741, 0.004281997310193977),
            (1.9194514785438004e-05, 0.0042168289163175745),
        ),
        # Of problems whose samples agree, rates may be fractions.
        (
            37.5,
            50,
            (0.6151339165427336, 0.849192283890587),
            (0.607392071520054, 0.8615862345326064),
        ),
    ],
)
def test_intervals_of_rates(successes, n, score, exact):
    assert wilson(successes, n)[1:3] == same(score)
    assert Rate(successes, n).estimate(0.95)[1:3] == same(exact)
    # What nothing or everything does has no rounding at its end.
    for low, high in (wilson(successes, n)[1:3], Rate(successes, n).estimate(0.95)[1:3]):
        assert (low == 0, high == 1) == (successes == 0, successes == n)


def test_other_confidences_and_samples():
    assert wilson(117, 200, 0.99)[1:3] == same((0.49393737643941577, 0.6706040469081058))
    assert Rate(117, 200).estimate(0.9)[1:3] == same((0.5245269463245412, 0.643568540235443))
    table = [[1, 1, 0], [0, 0, 0], [1, 1, 1], [1, 0, np.nan], [1, 1, 1]]
    clustered = clustered_rate(table)
    assert clustered[1:3] == same((0.19233278176658247, 0.9315340584740492))
    # Student's quantile of two problems is far beyond normal ones.
    low, high = clustered_rate([[1, 1, 0], [0, 1, 0]], 0.9999)[1:3]
    assert 0 <= low < 1e-6
    assert 1 - 1e-6 < high <= 1


@pytest.mark.parametrize(
    ("hits", "bound"),
    [([1, 0, 0, 0, 0], 0.6574083180011386), ([0] * 300, 0.009936081944457708), ([1] * 4, 1.0)],
)
def test_upper_bounds_of_truncation(hits, bound):
    assert upper_rate(np.array(hits, float)[:, None], 0.95) == same(bound)


def test_shares_of_kinds_together():
    expected = [
        (0.0, 0.13492064477689944),
        (0.019877317853983938, 0.24480523020638054),
        (0.1565098534220037, 0.497458404488756),
        (0.4295111330161554, 0.7867587057896197),
    ]
    found = goodman([0, 3, 12, 25])
    assert [end for ends in found for end in ends] == same([e for ends in expected for e in ends])
    assert goodman([0, 0]) == [(0.0, 1.0)] * 2
    assert goodman([4, 0])[1][0] == 0


def test_p_values():
    adjusted = holm([0.01, 0.04, 0.03, 0.5, 0.9, 1e-9])
    assert adjusted == same((0.05, 0.12, 0.12, 1.0, 1.0, 6e-09))
    assert holm([]) == ()
    chances = [
        verdict.one_sided_sign_test(*each) for each in ((9, 1), (40, 24), (0, 0), (300, 250))
    ]
    assert chances == same([0.0107421875, 0.029970594783499616, 1.0, 0.018289372774551352])


def test_agreement_of_annotators():
    first, second = dict(enumerate("aabbbccaab")), dict(enumerate("aabbcccabb"))
    kappa = agreement(("x", "y"), first, second).kappa
    assert kappa[:3] == same((0.6969696969696971, 0.1902818871567676, 0.9232244891360963))


def test_quantiles_and_skewed_means():
    tokens = np.random.default_rng(0).gamma(2, 50, 40).round()
    assert quantile_estimate(tokens, 0.5, most=1024) == (87, 53, 109, 40)
    assert quantile_estimate(tokens, 0.9, most=1024) == (204, 145, 262, 40)
    assert quantile_estimate(tokens, 0.99, most=1024) == (262, 233, 1024, 40)
    assert quantile_estimate([5.0], 0.5) == (5, 0, np.inf, 1)
    mean = mean_evidence(tokens[:, None], scales=True)
    assert mean.skewness == same(0.9225390512918681)
    assert mean.estimate(0.95)[1:3] == same((80.07852207071348, 123.8854640642928))
