"""Sampling by keyed noise."""

from __future__ import annotations

import numpy as np
import torch

from pytest_tokenbudget.core.engine import Decoding
from pytest_tokenbudget.engines.sampling import Noise, choose


def draw(decoding: Decoding, logits: torch.Tensor, count: int) -> np.ndarray:
    noises = [Noise(decoding.seed, (1, 2), sample) for sample in range(count)]
    tokens = choose(logits.expand(count, -1), decoding, noises, [7] * count)
    return np.bincount(tokens, minlength=logits.shape[-1]) / count


def test_sampling_draws_from_the_softmax():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -3.0])
    for temperature in (0.5, 1.0, 2.0):
        wanted = torch.softmax(logits / temperature, dim=-1).numpy()
        drawn = draw(Decoding(temperature=temperature), logits, 4000)
        assert np.abs(drawn - wanted).max() < 5 * np.sqrt(0.25 / 4000)


def test_top_p_keeps_the_smallest_set_that_holds_it():
    logits = torch.log(torch.tensor([0.15, 0.5, 0.05, 0.3]))
    kept = {
        top_p: set(np.flatnonzero(draw(Decoding(temperature=1, top_p=top_p), logits, 600)))
        for top_p in (0.01, 0.45, 0.6, 0.9, 1.0)
    }
    assert kept == {
        0.01: {1},
        0.45: {1},
        0.6: {1, 3},
        0.9: {0, 1, 3},
        1.0: {0, 1, 2, 3},
    }


def test_noise_of_one_step_is_not_that_of_the_next():
    noise = Noise(0, (1, 2, 3), 0)
    steps = [noise.exponential(step, 64) for step in range(4)]
    assert len(np.unique(np.concatenate(steps))) == 256
    assert np.array_equal(steps[2], Noise(0, (1, 2, 3), 0).exponential(2, 64))
    for other in (Noise(1, (1, 2, 3), 0), Noise(0, (1, 23), 0), Noise(0, (1, 2, 3), 1)):
        assert not np.intersect1d(steps[0], other.exponential(0, 64)).size
