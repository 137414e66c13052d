"""The memory that a model would take, from its files' headers, without torch."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from pytest_tokenbudget.common.outside_files import parse_json, read_json
from pytest_tokenbudget.engines.memory import MOST_ROWS_CPU, MOST_ROWS_GPU
from pytest_tokenbudget.engines.memory_estimate import row_memory
from pytest_tokenbudget.models.files import find_snapshot
from pytest_tokenbudget.models.resolution import resolve_commit
from pytest_tokenbudget.models.spec import ModelSpec

BYTES: Final = {"float32": 4, "bfloat16": 2, "float16": 2}
# Bytes of a number in a quantised matrix, its scales among them.
QUANTISED: Final = {"8bit": 1.01, "4bit": 0.52}
# What safetensors itself reads of a header.
_LONGEST_HEADER = 100_000_000
# Matrices that bitsandbytes leaves as they are.
_WHOLE = ("embed", "lm_head", "norm", "bias")


@dataclass(frozen=True)
class Memory:
    """Bytes that a model would take.

    Attributes:
        row: One row of a batch at its full length: cache, and what it needs besides.
        rows: Rows that are decoded together at the most.
    """

    weights: int
    row: int
    rows: int

    @property
    def total(self) -> int:
        """Everything, at the most."""
        return self.weights + self.rows * self.row


def memory_of(
    spec: ModelSpec,
    identity: Mapping[str, str],
    *,
    prompt: int,
    cap: int,
    rows: int | None,
    missing: int,
    device: str,
) -> Memory | None:
    """The memory that a model takes in this process; None where that cannot be told from here.

    Args:
        spec: The model.
        identity: Its dtype, quantisation and engine.
        prompt: Tokens of the longest prompt.
        cap: Output tokens of the longest trace.
        rows: Rows that were asked for; None for as many as memory allows.
        missing: Traces that are to be generated.
        device: Where it runs.
    """
    directory = _directory(spec)
    dtype = identity.get("dtype", "")
    if directory is None or identity.get("engine") != "transformers" or dtype not in BYTES:
        return None
    try:
        config = _config(directory)
        kind: Any = SimpleNamespace(itemsize=BYTES[dtype])
        weights = _weights(directory, BYTES[dtype], identity.get("quantization", "none"))
        cache, working, _ = row_memory(config, kind, prompt=max(prompt, 1), budget=max(cap, 1))
    except (
        ArithmeticError,
        OSError,
        ValueError,
        KeyError,
        AttributeError,
        TypeError,
        struct.error,
    ):
        return None
    if weights == 0:
        return None
    most = MOST_ROWS_GPU if device.startswith("cuda") else MOST_ROWS_CPU
    return Memory(weights, cache + working, max(1, min(rows or most, missing)))


def _directory(spec: ModelSpec) -> Path | None:
    if spec.endpoint is not None:
        return None
    if spec.kind == "directory":
        return Path(spec.source)
    commit = resolve_commit(spec) if spec.kind == "hub" else None
    return find_snapshot(spec.source, commit) if commit else None


def _config(directory: Path) -> SimpleNamespace:
    """The text model's configuration as an object; what it does not say is not there."""
    whole = read_json(directory / "config.json")
    return SimpleNamespace(**whole.get("text_config", whole))


def _weights(directory: Path, bytes_each: int, quantization: str) -> int:
    total = 0.0
    for file in sorted(directory.glob("*.safetensors")):
        for name, shape in _tensors(file):
            quantised = len(shape) == 2 and not any(word in name for word in _WHOLE)
            each = QUANTISED.get(quantization, bytes_each) if quantised else bytes_each
            total += math.prod(shape) * each
    return int(total)


def _tensors(file: Path) -> list[tuple[str, list[int]]]:
    """Names and shapes of what a safetensors file holds, from its header."""
    with file.open("rb") as stream:
        (size,) = struct.unpack("<Q", stream.read(8))
        header = parse_json(stream.read(min(size, _LONGEST_HEADER)).decode("utf-8"))
    return [(name, tensor["shape"]) for name, tensor in header.items() if name != "__metadata__"]
