"""The command line of the memory estimate: what a model needs for a budget, and which batch fits.

Exit codes: 0 estimated; 2 the command line is wrong; 4 the model cannot be estimated.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import get_args

from pytest_tokenbudget.common.text_layout import Table, print_text
from pytest_tokenbudget.core.engine import EngineError
from pytest_tokenbudget.engines.memory_estimate import (
    DTYPES,
    RESERVE,
    MemoryEstimate,
    estimate_config,
    estimate_memory,
    suggested_rows,
)
from pytest_tokenbudget.models.resolution import (
    ModelError,
    Quantization,
    load_catalogue,
    resolve_model,
)
from pytest_tokenbudget.settings.config_file import ConfigError

UNUSABLE = 4
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


def size(text: str) -> int:
    """Bytes of a size such as ``24GB``, ``80GiB`` or ``512 MiB``.

    Raises:
        argparse.ArgumentTypeError: If it is none.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]?i?)b?\s*", text, re.IGNORECASE)
    unit = match[2].lower() if match else None
    if match is None or unit not in _UNITS:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write 24GB or 80GiB")
    return int(float(match[1]) * _UNITS[unit])


def table(estimates: Sequence[MemoryEstimate], memory: int | None) -> str:
    headings = ["budget", "batch", "weights", "cache", "working", "total"]
    needs = Table(*headings, *(["fits", "rule of thumb"] if memory else []), left=())
    for need in estimates:
        sizes = map(_show, (need.weights, need.cache, need.working, need.total))
        fits = (need.largest_batch(memory), suggested_rows(need.budget)) if memory else ()
        needs.add(f"{need.budget:,}", str(need.rows), *sizes, *map(str, fits))
    return "\n".join(needs.lines())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pytest_tokenbudget.estimate",
        description="Estimate the memory that a model needs for a token budget. Only the model's "
        "configuration is read; for models of the catalogue that takes no network.",
    )
    parser.add_argument("model", help="an alias, a directory with config.json, or a hub id")
    parser.add_argument(
        "--budget", type=int, nargs="+", default=[2048], help="output tokens, one or several"
    )
    parser.add_argument("--prompt", type=int, default=512, help="tokens of the prompt")
    parser.add_argument("--batch", type=int, default=1, help="rows that decode together")
    parser.add_argument("--memory", type=size, help="a GPU's memory (24GB): which batch fits?")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    parser.add_argument("--quantization", choices=get_args(Quantization), default="none")
    parser.add_argument("--json", action="store_true", help="write JSON")
    given = parser.parse_args(arguments)
    try:
        spec = resolve_model(given.model, load_catalogue(Path.cwd()))
        config, source = estimate_config(spec)
        estimates = [
            estimate_memory(
                config,
                budget=budget,
                prompt=given.prompt,
                rows=given.batch,
                dtype=given.dtype,
                quantization=given.quantization,
            )
            for budget in given.budget
        ]
    except (ModelError, EngineError, ConfigError) as error:
        print(f"error: {error}", file=sys.stderr)
        return UNUSABLE
    if given.json:
        plain = [_plain(need, given.memory) | {"sizes_from": source} for need in estimates]
        print_text(json.dumps(plain, indent=2))
        return 0
    lines = [
        f"{spec.alias}: {estimates[0].parameters:,} parameters, {given.dtype}, "
        f"quantization {given.quantization}, prompt {given.prompt:,} tokens",
        table(estimates, given.memory),
    ]
    if given.memory:
        lines.append(
            f"fits: rows on a device of {_show(given.memory)}, {RESERVE:.0%} of it left free; "
            f"rule of thumb: 4, 2 above 4,096 tokens, 1 above 16,384"
        )
    notes = dict.fromkeys([source] if source else [])
    notes |= dict.fromkeys(note for need in estimates for note in need.notes)
    print_text("\n".join([*lines, *(f"note: {note}" for note in notes)]))
    return 0


def _plain(estimate: MemoryEstimate, memory: int | None) -> dict[str, object]:
    figures: dict[str, object] = asdict(estimate)
    figures |= {"cache": estimate.cache, "working": estimate.working, "total": estimate.total}
    if memory is not None:
        figures |= {"memory": memory, "largest_batch": estimate.largest_batch(memory)}
    return figures


def _show(bytes_: int) -> str:
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20)):
        if bytes_ >= factor / 10:
            return f"{bytes_ / factor:.2f} {unit}"
    return f"{bytes_ / 2**10:.0f} KiB"


if __name__ == "__main__":
    sys.exit(main())
