"""Rows of the table ``traces``, and the traces that they are."""

from __future__ import annotations

import json
import sys
from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple

from pytest_tokenbudget.core.checksums import TRACES, Value
from pytest_tokenbudget.core.trace import StopReason, Trace


class StoredPrompt(NamedTuple):
    """A rendered prompt as the store keeps it."""

    ids: tuple[int, ...]
    opens_thinking: bool


NO_PROMPT = StoredPrompt((), False)


def pack(numbers: Sequence[int]) -> bytes:
    """Token ids or offsets as little-endian 32-bit integers."""
    packed = array("i", numbers)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def unpack(blob: bytes) -> tuple[int, ...]:
    """The inverse of :func:`pack`."""
    numbers = array("i")
    numbers.frombytes(blob)
    if sys.byteorder == "big":
        numbers.byteswap()
    return tuple(numbers)


def trace_of(
    values: Sequence[Value],
    name: tuple[str, int] = ("", 0),
    prompt: StoredPrompt = NO_PROMPT,
    reach: int = 0,
) -> Trace:
    """The trace of a row.

    Args:
        values: What the row holds, in the order of its columns; texts as bytes.
        name: Problem id and sample.
        prompt: The problem's rendered prompt.
        reach: Output tokens that are to be judged; a trace that could not be gone on from as far
            as that counts as one that ended in an error.

    Raises:
        ValueError: If the row cannot be a trace.
    """
    row: dict[str, Any] = dict(zip(TRACES.columns, values, strict=True))
    words = ("text", "stop_reason", "engine_reason", "error", "usage")
    try:
        text, stop, word, error, usage = (row[column].decode() for column in words)
        ended = StopReason(stop)
        failed = ended is StopReason.LENGTH and bool(error) and row["cap"] < reach
        if failed:
            ended = StopReason.ERROR
        return Trace(
            problem_id=name[0],
            sample=name[1],
            prompt_ids=prompt.ids,
            output_ids=unpack(row["output_ids"]),
            stop_reason=ended,
            cap=row["cap"],
            text=text,
            offsets=unpack(row["offsets"]),
            opened_by_prompt=prompt.opens_thinking,
            engine_reason=word,
            seconds=row["seconds"],
            error=error if ended is StopReason.ERROR else "",
            counted=bool(row["counted"]),
            usage=json.loads(usage) if usage else {},
            timed=row["new_tokens"] if row["seconds"] > 0 else 0,
            ended=row["created"],
        )
    except (AttributeError, TypeError) as error:  # a value of another type
        raise ValueError(f"a value of another type in the row of {name[0]}") from error


def readable(types: str, *values: Value) -> bool:
    """Whether a row can be a trace; SQLite calls it with what ``Kind.raw`` gives."""
    try:
        trace_of(values)
    except ValueError:
        return False
    return True
