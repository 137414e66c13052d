"""Whether a checkpoint holds exactly the tensors that its configuration asks for.

Transformers fills a tensor that a checkpoint lacks with random numbers and goes on.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_tokenbudget.core.engine import EngineError
from pytest_tokenbudget.models.gguf_header import read_gguf_header, read_gguf_tensor_names
from pytest_tokenbudget.models.resolution import ModelSpec

if TYPE_CHECKING:
    from torch.nn import Module

NAMED = 5

# A tensor's name, the shape in the checkpoint, and the one that the configuration asks for.
Mismatch = tuple[str, tuple[int, ...], tuple[int, ...]]


def check_tensors(spec: ModelSpec, model: Module, loaded: Mapping[str, Collection[Any]]) -> None:
    """Refuse a model some of whose weights are not those of its checkpoint.

    Tied weights that a checkpoint leaves out, and tensors that the architecture is known to ignore,
    are no fault.

    Args:
        spec: The model, for messages.
        model: The model as Transformers loaded it.
        loaded: Transformers' loading information: ``missing_keys``, ``unexpected_keys`` and
            ``mismatched_keys``.

    Raises:
        EngineError: If tensors are missing, unexpected, or of the wrong shape; it names them.
    """
    mismatches: set[Mismatch] = {
        (name, tuple(found), tuple(wanted)) for name, found, wanted in loaded["mismatched_keys"]
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
                f"{name} ({_shape(found)} in the file, {_shape(wanted)} by the configuration)"
                for name, found, wanted in sorted(mismatches)
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
        found = tuple(weight.shape if packed is None else packed.shape)
        wanted = (module.out_features, module.in_features)
        if found != wanted:
            yield f"{name}.weight", found, wanted


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
