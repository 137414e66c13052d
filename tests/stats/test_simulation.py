"""Intervals and verdicts on a few simulated studies; `benchmarks/test_simulation.py` counts 500.

So few tell only gross mistakes: bounds are as wide as their own chance.
"""

import math

import numpy as np
import pytest

from benchmarks import simulated
from benchmarks.simulated import CLIFF, EVEN, HILL, Tally


def check(tally):
    for name, held in tally.covered.items():
        least = 0.95 - 3.5 * math.sqrt(0.95 * 0.05 / len(held))
        assert np.mean(held) >= least, name
    for name, wrong in tally.wrong.items():
        assert np.mean(wrong) <= 0.05 + 3.5 * math.sqrt(0.95 * 0.05 / len(wrong)), name


@pytest.mark.slow
def test_rates_and_samples():
    tally = Tally()
    simulated.count_rates(tally, 60)
    simulated.count_samples(tally, 60)
    assert len(tally.covered) == 13
    check(tally)


@pytest.mark.slow
@pytest.mark.parametrize(("world", "samples"), [(CLIFF, 1), (EVEN, 1), (CLIFF, 5)])
def test_cliffs(world, samples):
    tally = Tally()
    simulated.count_cliff(tally, 25, world, "world", samples)
    check(tally)


def test_places_of_answers():
    tally = Tally()
    simulated.count_answers(tally, 20, HILL, "hill")
    check(tally)


@pytest.mark.slow
def test_saturation_at_the_margin():
    tally = Tally()
    simulated.count_saturation(tally, 40)
    check(tally)


def test_the_truth_is_what_is_drawn():
    """The closed forms agree with very many problems."""
    drawn = CLIFF.draw(np.random.default_rng(0), 20_000, 2)
    error = 4 * math.sqrt(0.25 / 40_000)
    assert np.abs(drawn.mean(axis=(0, 1)) - CLIFF.accuracy).max() < error
    right = drawn[:, :, 300].sum(axis=1)
    chance = simulated.chance_of_right(CLIFF, 2, CLIFF.right[300])
    assert np.bincount(right) / 20_000 == pytest.approx(chance, abs=0.02)
