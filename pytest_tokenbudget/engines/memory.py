"""How many rows fit: free memory, what a row needs, and what running out of it looks like."""

from __future__ import annotations

import gc
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_tokenbudget.engines import Config

if TYPE_CHECKING:
    import torch

# More rows hardly raise the rate any more, and an interrupted batch loses all of its rows.
MOST_ROWS_CPU = 64
MOST_ROWS_GPU = 128
SHARE_OF_FREE_CPU = 0.5
SHARE_OF_FREE_GPU = 0.8

CPU_ALLOCATOR = ("can't allocate memory", "not enough memory", "out of memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on a GPU or on the CPU."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error).lower() for words in CPU_ALLOCATOR
    )


def release(device: str) -> None:
    """Give memory that is not in use any more back."""
    import torch

    gc.collect()
    if device.startswith("cuda") and torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif device.startswith("mps"):
        torch.mps.empty_cache()


def free_bytes(device: str) -> int:
    """Memory that is free on a device; on CPU no more than a container's limit leaves."""
    import torch

    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(torch.device(device))[0])
    import psutil

    free = int(psutil.virtual_memory().available)
    # Without a limit there is no number there.
    with suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        free = min(free, max(0, limit - used))
    return free


def layer_configs(config: Config) -> list[Config]:
    """The configuration of each layer; those of some models (Gemma 4) differ."""
    if getattr(config, "is_heterogeneous", False):
        return list(config.per_layer_config)
    return [config] * config.num_hidden_layers


def widths(layer: Config) -> tuple[int, int]:
    """Numbers in a token's queries and in its keys, all heads of a layer together."""
    heads = layer.num_attention_heads
    head_dim = getattr(layer, "head_dim", None) or layer.hidden_size // heads
    return heads * head_dim, (getattr(layer, "num_key_value_heads", None) or heads) * head_dim


def cache_bytes_a_token(config: Config, dtype: torch.dtype) -> int:
    """Bytes of keys and values that one token of one row occupies in all layers."""
    return sum(layer_cache_bytes(layer, dtype) for layer in layer_configs(config))


def layer_cache_bytes(layer: Config, dtype: torch.dtype) -> int:
    """Bytes of keys and values that one token of one row occupies in a layer."""
    return int(2 * widths(layer)[1] * dtype.itemsize)


def inner_size(config: Config) -> int:
    """Numbers of a token between a layer's two projections, in the widest layer."""
    sizes = [getattr(layer, "intermediate_size", None) for layer in layer_configs(config)]
    return max(int(size or 4 * config.hidden_size) for size in sizes)


def row_bytes(config: Config, dtype: torch.dtype, prompt: int, total: int) -> int:
    """Bytes that one row needs at its worst moment.

    ``prompt`` tokens are prefilled at once, ``total`` are those of prompt and output together.
    """
    cache = cache_bytes_a_token(config, dtype) * total
    # While a layer's cache grows by one token, the old and the new copy stand side by side.
    cache += cache // max(1, config.num_hidden_layers)
    wide = 6 * config.hidden_size + 3 * inner_size(config)
    prefill = prompt * wide * dtype.itemsize + 4 * prompt * prompt
    logits = 16 * config.vocab_size
    return int(cache + prefill + logits)


def rows_that_fit(config: Config, dtype: torch.dtype, device: str, prompt: int, total: int) -> int:
    """Rows of a size that fit into free memory, at least 1 and no more than pay."""
    cuda = device.startswith("cuda")
    usable = free_bytes(device) * (SHARE_OF_FREE_GPU if cuda else SHARE_OF_FREE_CPU)
    rows = int(usable // row_bytes(config, dtype, prompt, total))
    return max(1, min(rows, MOST_ROWS_GPU if cuda else MOST_ROWS_CPU))
