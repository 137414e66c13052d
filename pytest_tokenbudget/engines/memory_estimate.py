"""How much memory a model needs for a budget and a batch, from its configuration alone.

The weights are counted on a model without data, so every architecture that Transformers knows is
counted as it is. The cache of ordinary attention is counted as :mod:`.memory` does, which chooses
batch sizes while a model runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from pytest_tokenbudget.core.engine import EngineError
from pytest_tokenbudget.engines import Config, Model
from pytest_tokenbudget.engines.loading import first_line, load_config, quiet
from pytest_tokenbudget.engines.memory import inner_size, layer_cache_bytes, layer_configs, widths
from pytest_tokenbudget.models.resolution import Quantization
from pytest_tokenbudget.models.spec import ModelSpec
from pytest_tokenbudget.models.thinking_formats import models_file

if TYPE_CHECKING:
    import torch

DTYPES: Final = ("float32", "bfloat16", "float16")
# Left to the CUDA context, the allocator's gaps, and other programs.
RESERVE: Final = 0.1
# bitsandbytes: a scale a block, the scales themselves in bytes with a scale a block of theirs.
_BLOCK: Final = 64
_NESTED_BLOCK: Final = 256
_CODEBOOKS: Final = 16 * 4 + 256 * 4 + 4
# The last token's logits, in float32, and copies of them that sampling makes.
_LOGITS: Final = 16
_LINEAR_ATTENTION: Final = frozenset({"linear_attention", "mamba", "recurrent", "conv"})


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that a model needs while it generates.

    Attributes:
        weights: All parameters and buffers.
        cache_row: Keys and values of one row at its full length.
        working_row: What one row needs besides, at its worst moment.
        rows: Rows in the batch.
        prompt: Tokens of the prompt.
        budget: Tokens of the output.
        parameters: How many numbers the weights are.
        notes: What was taken into account, and what could not be.
    """

    weights: int
    cache_row: int
    working_row: int
    rows: int
    prompt: int
    budget: int
    parameters: int
    notes: tuple[str, ...] = ()

    @property
    def cache(self) -> int:
        """Keys and values of all rows."""
        return self.cache_row * self.rows

    @property
    def working(self) -> int:
        """What all rows need besides."""
        return self.working_row * self.rows

    @property
    def total(self) -> int:
        """Everything."""
        return self.weights + self.cache + self.working

    def largest_batch(self, memory: int, reserve: float = RESERVE) -> int:
        """How many rows a device's bytes hold, ``reserve`` of them left free; 0 if not even one."""
        left = int(memory * (1 - reserve)) - self.weights
        return max(0, left // (self.cache_row + self.working_row))


def estimate_memory(
    config: Config,
    *,
    budget: int,
    prompt: int = 512,
    rows: int = 1,
    dtype: str = "bfloat16",
    quantization: Quantization = "none",
) -> MemoryEstimate:
    """What a model needs; no weights are loaded.

    Args:
        config: The model's configuration, as Transformers reads it.
        budget: Output tokens, thinking and answer together.
        prompt: Tokens of the prompt, prefilled at once.
        rows: Rows that decode together.
        dtype: Type of the cache and of the weights that are not quantised.
        quantization: ``none``, ``8bit`` or ``4bit`` (NF4 with double quantisation).

    Raises:
        EngineError: If Transformers cannot build the model, or a number is out of range.
    """
    import torch

    if dtype not in DTYPES:
        raise EngineError(f"unknown dtype {dtype!r}; allowed are {', '.join(DTYPES)}")
    for name, value, least in (("budget", budget, 1), ("prompt", prompt, 1), ("rows", rows, 1)):
        if value < least:
            raise EngineError(f"{name} must be at least {least}, not {value}")
    kind: torch.dtype = getattr(torch, dtype)
    text = config.get_text_config()
    weights, parameters, notes = _weights(config, kind, quantization)
    cache, working, cache_notes = row_memory(text, kind, prompt=prompt, budget=budget)
    longest = getattr(text, "max_position_embeddings", None)
    if isinstance(longest, int) and prompt + budget > longest:
        notes.append(f"{prompt + budget:,} tokens are more than the model's context of {longest:,}")
    return MemoryEstimate(
        weights, cache, working, rows, prompt, budget, parameters, (*notes, *cache_notes)
    )


def estimate_config(spec: ModelSpec) -> tuple[Config, str]:
    """A configuration to estimate memory with, and a note that is empty where it is the model's.

    A model's own files come first: those on disk, and those in the hub's cache. Without them the
    sizes that this package knows are used, and nothing is downloaded. Other hub models are looked
    up on the hub.

    Raises:
        EngineError: If there is no configuration.
    """
    shape = known_shapes().get(spec.source) if spec.kind == "hub" else None
    if shape is None:
        return load_config(spec), ""
    import transformers
    from huggingface_hub import try_to_load_from_cache

    revision = spec.revision or "main"
    if isinstance(try_to_load_from_cache(spec.source, "config.json", revision=revision), str):
        return load_config(spec), ""

    factory: Any = transformers.AutoConfig
    return factory.for_model(**shape), (
        f"sizes of {spec.source} from this package's catalogue: the model's own files are not in "
        "the hub's cache"
    )


def known_shapes() -> Mapping[str, Mapping[str, Any]]:
    """The sizes that this package knows, by hub id, as keys of config.json."""
    return cast(Mapping[str, Mapping[str, Any]], models_file()["shapes"])


def row_memory(
    config: Config, dtype: torch.dtype, *, prompt: int, budget: int
) -> tuple[int, int, list[str]]:
    """Bytes of one row's cache at its full length, what it needs besides, and notes.

    ``config`` is the text model's; of ``dtype`` only the size of its numbers is looked at.
    """
    # The last token is written and never read again, so it has no place in the cache.
    cache, notes = cache_bytes(config, dtype, prompt + budget - 1)
    # While a layer's keys grow by one token, the old ones stand beside the new ones.
    growing = cache // max(1, config.num_hidden_layers) // 2
    prefilled = cache_bytes(config, dtype, prompt)[0] + _prefill_bytes(config, dtype, prompt)
    peak = max(prefilled, cache + growing)
    return cache, peak - cache + _LOGITS * config.vocab_size, notes


def cache_bytes(config: Config, dtype: torch.dtype, tokens: int) -> tuple[int, list[str]]:
    """Bytes that Transformers' dynamic cache has for one row, and what was taken into account.

    Layers with a sliding window keep the window only. Multi-head latent attention is kept unfolded
    by Transformers; vLLM and SGLang keep the latent, which a note says.
    """
    layers: int = config.num_hidden_layers
    latent = getattr(config, "kv_lora_rank", None)
    rope = getattr(config, "qk_rope_head_dim", None)
    if latent and rope and getattr(config, "qk_nope_head_dim", None):
        value_dim = getattr(config, "v_head_dim", None) or config.qk_nope_head_dim
        width = config.num_attention_heads * (config.qk_nope_head_dim + rope + value_dim)
        folded = layers * (latent + rope) * dtype.itemsize * tokens
        note = (
            f"latent attention: {folded / 2**20:,.0f} MiB a row in engines that keep the latent "
            f"(vLLM, SGLang), which Transformers unfolds"
        )
        return layers * width * dtype.itemsize * tokens, [note]
    kinds = list(getattr(config, "layer_types", None) or ())
    window = getattr(config, "sliding_window", None)
    if not kinds and window and getattr(config, "use_sliding_window", True):
        kinds = ["sliding_attention"] * layers
    kinds = kinds or ["full_attention"] * layers
    bytes_, notes = 0, []
    # A window of w keeps w - 1 tokens of the past.
    kept = min(tokens, max(1, window - 1)) if window else tokens
    # The last layers of some models (Gemma 3n, Gemma 4 E4B) read the cache of earlier ones.
    own = layers - (getattr(config, "num_kv_shared_layers", None) or 0)
    for kind, layer in zip(kinds[:own], layer_configs(config)[:own], strict=True):
        if kind not in _LINEAR_ATTENTION:
            places = kept if kind == "sliding_attention" else tokens
            bytes_ += layer_cache_bytes(layer, dtype) * places
    sliding = kinds.count("sliding_attention")
    linear = sum(kind in _LINEAR_ATTENTION for kind in kinds)
    if sliding and window:
        notes.append(f"{sliding} of {len(kinds)} layers keep a window of {window:,} tokens")
    if linear:
        notes.append(
            f"{linear} of {len(kinds)} layers keep a state of fixed size, which is not counted"
        )
    return bytes_, notes


def _prefill_bytes(config: Config, dtype: torch.dtype, prompt: int) -> int:
    """What a prompt of one row needs while it goes through a layer.

    :func:`.memory.row_bytes`, which chooses batches, rounds this up.
    """
    query, key = max(widths(layer) for layer in layer_configs(config))
    inner = inner_size(config)
    experts = getattr(config, "moe_intermediate_size", None)
    if experts:
        inner = max(inner, experts * (getattr(config, "num_experts_per_tok", None) or 1))
    # The residual and its norm; then gate, up and their product, or queries and keys while they
    # are turned. The mask is kept as booleans and as numbers.
    a_token = 2 * config.hidden_size + max(3 * inner, 4 * query + 4 * key)
    return int(prompt * a_token * dtype.itemsize + prompt * prompt * (1 + dtype.itemsize))


def suggested_rows(tokens: int) -> int:
    """The rule of thumb for output tokens that the estimate replaces: 4, 2 or 1 rows."""
    return 4 if tokens <= 4096 else 2 if tokens <= 16_384 else 1


def _weights(
    config: Config, dtype: torch.dtype, quantization: Quantization
) -> tuple[int, int, list[str]]:
    """Bytes and number of the weights, counted on a model without data."""
    from torch import nn

    model = _empty_model(config)
    head = model.get_output_embeddings()
    total = parameters = 0
    quantised: dict[int, int] = {}
    if quantization != "none":
        for module in model.modules():
            if type(module) is nn.Linear and module is not head:
                quantised[id(module.weight)] = _packed(module.weight, quantization)
    for parameter in model.parameters():
        parameters += parameter.numel()
        total += quantised.get(id(parameter), parameter.numel() * dtype.itemsize)
    for buffer in model.buffers():
        # Tables of positions stay in float32 whatever the weights are.
        total += buffer.numel() * buffer.element_size()
    notes = []
    if quantization != "none" and parameters:
        share = sum(
            parameter.numel() for parameter in model.parameters() if id(parameter) in quantised
        )
        notes.append(
            f"{share / parameters:.0%} of the parameters are quantised; embeddings, norms and the "
            f"output layer stay in {str(dtype).removeprefix('torch.')}"
        )
        if isinstance(getattr(config.get_text_config(), "num_local_experts", None), int) and (
            share < parameters / 2
        ):
            notes.append("experts that are one tensor are not quantised by bitsandbytes")
    own = getattr(config, "quantization_config", None)
    if own:
        method = own.get("quant_method") if isinstance(own, Mapping) else own.quant_method
        notes.append(f"its files hold {method} weights; counted is what they become when unpacked")
    return total, parameters, notes


def _packed(weight: torch.Tensor, quantization: Quantization) -> int:
    """Bytes of a quantised matrix with its scales, as bitsandbytes keeps it."""
    numbers, rows = weight.numel(), weight.shape[0]
    if quantization == "8bit":
        return numbers + rows * 4
    blocks = math.ceil(numbers / _BLOCK)
    return math.ceil(numbers / 2) + blocks + math.ceil(blocks / _NESTED_BLOCK) * 4 + _CODEBOOKS


def _empty_model(config: Config) -> Model:
    import torch
    import transformers

    factory: Any = transformers.AutoModelForCausalLM
    try:
        with quiet(), torch.device("meta"):
            return factory.from_config(config, trust_remote_code=False)
    except Exception as error:
        raise EngineError(
            f"Transformers cannot build a model of type {getattr(config, 'model_type', '?')!r} "
            f"from its configuration ({first_line(error)})"
        ) from error
