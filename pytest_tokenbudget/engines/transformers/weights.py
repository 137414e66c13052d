"""The weights of a model: the device and type they get, loading, and the check of what was loaded.

Transformers fills a tensor that a checkpoint lacks with random numbers and goes on; so a checkpoint
must hold exactly the tensors that its configuration asks for.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_tokenbudget.core.engine import EngineError
from pytest_tokenbudget.engines import Config, Model
from pytest_tokenbudget.engines.loading import explained, first_line, pretrained_arguments, quiet
from pytest_tokenbudget.models import hub
from pytest_tokenbudget.models.gguf_header import read_gguf_header, read_gguf_tensor_names
from pytest_tokenbudget.models.resolution import ModelSpec

if TYPE_CHECKING:
    import torch
    from torch.nn import Module

NAMED = 5

# A tensor's name, the shape in the checkpoint, and the one that the configuration asks for.
Mismatch = tuple[str, tuple[int, ...], tuple[int, ...]]


def choose_device(device: str) -> str:
    """The device that ``auto`` means, or the one that was named.

    Raises:
        EngineError: If this machine has no such device.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        wanted = torch.device(device)
    except RuntimeError:
        raise EngineError(
            f"unknown device {device!r}; allowed are auto, cpu, cuda, cuda:N and mps"
        ) from None
    if wanted.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (wanted.index or 0) >= count:
            seen = f"torch sees {count} GPUs" if count else "torch sees no CUDA GPU"
            raise EngineError(f"device {device!r} is not there: {seen}; use --device cpu or auto")
    elif wanted.type == "mps":
        if not torch.backends.mps.is_available():
            raise EngineError("device 'mps' is not there; use --device cpu or auto")
    elif wanted.type != "cpu":
        raise EngineError(f"device {device!r} is not supported; allowed are cpu, cuda and mps")
    return device


def choose_dtype(dtype: str, device: str) -> torch.dtype:
    """The type of the weights that ``auto`` means on a device, or the one that was named.

    Raises:
        EngineError: If it is unknown.
    """
    import torch

    named: dict[str, torch.dtype] = {
        name: getattr(torch, name) for name in ("float32", "bfloat16", "float16")
    }
    if dtype in named:
        return named[dtype]
    if dtype != "auto":
        raise EngineError(f"unknown dtype {dtype!r}; allowed are auto, {', '.join(named)}")
    if device.startswith("cuda"):
        # Emulated bfloat16 on old cards is slow and no more exact.
        real = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if real else torch.float16
    return torch.float32 if device == "cpu" else torch.float16


def load_weights(
    spec: ModelSpec, config: Config, device: str, dtype: torch.dtype, quantization: str
) -> Model:
    """The model itself, ready to run on its device; raises EngineError if it cannot be loaded."""
    from transformers import AutoModelForCausalLM

    source, options = pretrained_arguments(spec)
    if spec.kind == "gguf":
        if quantization != "none":
            raise EngineError(
                f"model {spec.alias}: a GGUF file is unpacked as it is and cannot be quantised "
                f"again; use --quantization none"
            )
        from transformers import GgufConfig

        options["quantization_config"] = GgufConfig(dequantize=True)
    else:
        # Weights in pickle files would run whatever code is in them.
        options["use_safetensors"] = True
    if quantization != "none":
        options["quantization_config"] = _bitsandbytes(spec, quantization, dtype)
    if quantization != "none" or device != "cpu":
        options["device_map"] = {"": device}
    # The bar over a GGUF file's tensors obeys no setting.
    hidden = contextlib.redirect_stderr(io.StringIO())
    with explained(spec, "weights", device), quiet(), hub.access(spec.kind == "hub"), hidden:
        # With its loading information it gives a pair, which its annotations do not say.
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source,
            config=config,
            dtype=dtype,
            trust_remote_code=False,
            output_loading_info=True,
            # A wrong shape is then listed with its name in place of an error that has none.
            ignore_mismatched_sizes=True,
            **options,
        )
        model: Model = loaded[0]
        check_tensors(spec, model, loaded[1])
    return model.eval()


def _bitsandbytes(spec: ModelSpec, quantization: str, dtype: torch.dtype) -> Config:
    import transformers

    try:
        import bitsandbytes  # noqa: F401
    except Exception as error:
        raise EngineError(
            f"model {spec.alias}: {quantization} quantisation needs bitsandbytes, which cannot be "
            f"imported here ({first_line(error)}); install it for your GPU, or use "
            f"--quantization none"
        ) from error
    factory: Any = transformers.BitsAndBytesConfig
    if quantization == "8bit":
        return factory(load_in_8bit=True)
    return factory(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def check_tensors(spec: ModelSpec, model: Module, loaded: Mapping[str, Collection[Any]]) -> None:
    """Refuse a model some of whose weights are not those of its checkpoint.

    Tied weights that a checkpoint leaves out, and tensors that the architecture is known to ignore,
    are no fault. ``loaded`` is Transformers' loading information: ``missing_keys``,
    ``unexpected_keys`` and ``mismatched_keys``.

    Raises:
        EngineError: If tensors are missing, unexpected, or of the wrong shape; it names them.
    """
    mismatches: set[Mismatch] = {
        (name, tuple(actual), tuple(wanted)) for name, actual, wanted in loaded["mismatched_keys"]
    }
    mismatches.update(_quantized_mismatches(model))
    wrong = {name for name, _, _ in mismatches}
    unexpected = set(loaded["unexpected_keys"]) - wrong
    if spec.kind == "gguf":
        # Transformers leaves tensors of such files out that it does not know.
        unexpected = _unknown_gguf_tensors(Path(spec.source))
    faults = [
        _fault("missing", sorted(set(loaded["missing_keys"]) - wrong)),
        _fault("unexpected", sorted(unexpected)),
        _fault(
            "of the wrong shape",
            [
                f"{name} ({_shape(actual)} in the file, {_shape(wanted)} by the configuration)"
                for name, actual, wanted in sorted(mismatches)
            ],
        ),
    ]
    if any(faults):
        raise EngineError(
            f"model {spec.alias}: the weights in {spec.source} do not match its configuration: "
            f"{'; '.join(filter(None, faults))}. Its answers would not be those of the "
            "checkpoint's model. Download the checkpoint again, or correct the configuration: "
            "tie_word_embeddings, num_hidden_layers and sizes are the usual causes"
        )


def _quantized_mismatches(model: Module) -> Iterator[Mismatch]:
    """Wrong shapes in layers that bitsandbytes quantised, which Transformers does not compare."""
    modules: Iterable[tuple[str, Any]] = model.named_modules()
    for name, module in modules:
        if not type(module).__module__.startswith("bitsandbytes"):
            continue
        weight = module.weight
        packed = getattr(weight, "quant_state", None)
        actual = tuple(weight.shape if packed is None else packed.shape)
        wanted = (module.out_features, module.in_features)
        if actual != wanted:
            yield f"{name}.weight", actual, wanted


def _unknown_gguf_tensors(path: Path) -> set[str]:
    """Tensors that the file's architecture has no place for, by the list of the gguf library."""
    import gguf

    header = read_gguf_header(path)
    architecture = header.get("general.architecture")
    known = [arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture]
    if not known:
        return set()
    blocks = header.get(f"{architecture}.block_count", 0)
    allowed = {
        gguf.TENSOR_NAMES[tensor].format(bid=block)
        for tensor in gguf.MODEL_TENSORS[known[0]]
        for block in range(int(blocks))
    }
    return {
        name
        for name in read_gguf_tensor_names(path)
        if re.sub(r"\.(weight|bias)$", "", name) not in allowed
    }


def _fault(kind: str, names: Collection[str]) -> str:
    if not names:
        return ""
    further = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    tensors = "tensor" if len(names) == 1 else "tensors"
    return f"{len(names)} {tensors} {kind}: {', '.join(list(names)[:NAMED])}{further}"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
