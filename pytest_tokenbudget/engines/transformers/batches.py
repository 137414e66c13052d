"""A batch of rows that decode together, each leaving it as it ends."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_tokenbudget.core.engine import Decoding
from pytest_tokenbudget.engines.rows import BatchRow
from pytest_tokenbudget.engines.sampling import choose
from pytest_tokenbudget.engines.transformers.shared_prefixes import (
    Cache,
    Ids,
    branch,
    can_branch,
    share,
)

if TYPE_CHECKING:
    import torch

    from pytest_tokenbudget.engines import Model

# Columns of padding that all rows share cost time at every step, cutting them off costs once.
PADDING_WORTH_TRIMMING = 16


class Batch:
    """Rows that are padded on the left and decode in step.

    Args:
        model: A causal language model of Transformers.
        rows: At least one row.
        pad_id: Any valid id; what it stands for is masked.
        shares: Whether rows that begin alike are prefilled once, where the model's cache allows it
            and it pays.
    """

    def __init__(
        self, model: Model, rows: Sequence[BatchRow], pad_id: int, shares: bool = True
    ) -> None:
        import torch

        self.rows = list(rows)
        self._model = model
        self._device = model.device
        # Prompts need the last position's logits only; a few models do not know how to skip.
        known = inspect.signature(model.forward).parameters
        self._options = {"logits_to_keep": 1} if "logits_to_keep" in known else {}
        self._cache = new_cache(model)
        shares = shares and can_branch(self._cache)
        ids = [row.ids for row in self.rows]
        with torch.inference_mode():
            self._input, self._mask = self._begin(ids, pad_id, shares)

    def step(self, decoding: Decoding) -> list[BatchRow]:
        """Generate one token a row.

        Returns:
            The rows that ended with it; they have left the batch.
        """
        import torch

        with torch.inference_mode():
            logits = self._forward(self._input, self._mask)
            tokens = choose(
                logits,
                decoding,
                [row.noise for row in self.rows],
                [len(row.output) for row in self.rows],
            )
            for row, token in zip(self.rows, tokens, strict=True):
                row.append(token)
            kept = [i for i, row in enumerate(self.rows) if row.stop_reason is None]
            ended = [row for row in self.rows if row.stop_reason is not None]
            if not kept:
                self.rows = []
                return ended
            following = torch.tensor([[tokens[i]] for i in kept], device=self._device)
            if ended:
                self._keep(kept)
            self._input = following
            self._mask = torch.cat([self._mask, torch.ones_like(following)], dim=1)
        return ended

    def _begin(
        self, rows: Sequence[Ids], pad_id: int, shares: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Fill the cache with what rows share; what is still to be fed, and the mask of it all."""
        import torch

        width = max(map(len, rows))
        ids = [[pad_id] * (width - len(row)) + list(row) for row in rows]
        mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
        done = 0
        if shares and (sharing := share(rows)):
            # Stems may begin alike in their turn, as problems after the same examples do.
            self._forward(*self._begin(sharing.stems, pad_id, shares))
            branch(self._cache, sharing)
            done = width - sharing.tail
        return (
            torch.tensor([row[done:] for row in ids], device=self._device),
            torch.tensor(mask, device=self._device),
        )

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Logits after the last of ``ids``; the mask covers what is in the cache, too."""
        width = ids.shape[1]
        if width == 1:
            positions = mask.sum(dim=1, keepdim=True) - 1
        else:
            positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -width:]
        output = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            **self._options,
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def _keep(self, kept: list[int]) -> None:
        """Drop all other rows, and the padding that no row needs any more."""
        import torch

        index = torch.tensor(kept, device=self._device)
        # Unlike batch_select_indices, linear-attention layers know this one too.
        self._cache.reorder_cache(index)
        self._mask = self._mask[index]
        self.rows = [self.rows[i] for i in kept]
        spare = int(self._mask.argmax(dim=1).min())
        if spare >= PADDING_WORTH_TRIMMING and can_branch(self._cache):
            self._mask = self._mask[:, spare:]
            for layer in self._cache.layers:
                layer.keys = layer.keys[..., spare:, :]
                layer.values = layer.values[..., spare:, :]


def new_cache(model: Model) -> Cache:
    """An empty cache of the layers that a model has."""
    from transformers import DynamicCache

    return DynamicCache(config=model.config)
