"""Choosing the next token, so that it depends on the row alone.

Sampling adds noise that is keyed by seed, prompt, sample number and step. Neither the batch a row
stands in, nor its place there, nor whether it is generated in one go or extended later changes
what is drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_tokenbudget.core.engine import Decoding

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

# The smallest normal float32: a drawn zero would make an infinite score.
SMALLEST = 1.1754944e-38


def _digest(seed: int, ids: Sequence[int], sample: int) -> bytes:
    content = f"{seed}/{sample}/{','.join(map(str, ids))}"
    return hashlib.blake2b(content.encode(), digest_size=16).digest()


def request_seed(seed: int, ids: Sequence[int], sample: int) -> int:
    """A seed for one request to an engine that draws its own noise: 31 bits, which all take.

    ``ids`` are prompt and output so far. Such an engine begins its noise anew where it goes on, so
    that the seed of the prompt alone would draw the same numbers again.
    """
    return int.from_bytes(_digest(seed, ids, sample)[:4], "little") >> 1


class Noise:
    """Exponential noise of one row, one independent vector a step."""

    def __init__(self, seed: int, prompt_ids: Sequence[int], sample: int) -> None:
        digest = _digest(seed, prompt_ids, sample)
        self._key = (int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little"))

    def exponential(self, step: int, size: int) -> NDArray[np.float32]:
        """Draw the noise of a step, ``size`` numbers."""
        import numpy as np

        # Drawing counts up the lowest word; with the step above it, steps never share numbers.
        bits = np.random.Philox(
            key=np.array(self._key, dtype=np.uint64),
            counter=np.array([0, step, 0, 0], dtype=np.uint64),
        )
        drawn = np.random.Generator(bits).standard_exponential(size, dtype=np.float32)
        return np.maximum(drawn, np.float32(SMALLEST))


def nucleus(scores: torch.Tensor, top_p: float) -> torch.Tensor:
    """Mask out what lies beyond the smallest set of tokens that holds ``top_p`` of probability."""
    import torch

    ordered, order = torch.sort(scores, dim=-1, descending=True, stable=True)
    share = torch.softmax(ordered, dim=-1)
    # What stands before a token decides, so the most likely one is always kept.
    beyond = share.cumsum(dim=-1) - share >= top_p
    beyond[:, 0] = False
    return scores.masked_fill(beyond.scatter(-1, order, beyond), float("-inf"))


def choose(
    logits: torch.Tensor, decoding: Decoding, noises: Sequence[Noise], steps: Sequence[int]
) -> list[int]:
    """Choose one token for each row of logits; at temperature 0 the best one, without noise.

    ``steps`` are how many output tokens the rows have already.
    """
    import numpy as np
    import torch

    scores = logits.float()
    if decoding.greedy:
        return [int(token) for token in scores.argmax(dim=-1).tolist()]
    scores = scores / decoding.temperature
    if decoding.top_p < 1:
        scores = nucleus(scores, decoding.top_p)
    size = scores.shape[-1]
    drawn = np.stack(
        [noise.exponential(step, size) for noise, step in zip(noises, steps, strict=True)]
    )
    # The exponential race: the arg max of logits - log(E) is a draw from their softmax.
    scores = scores - torch.from_numpy(np.log(drawn)).to(scores.device)
    return [int(token) for token in scores.argmax(dim=-1).tolist()]
