"""Rows that begin alike are prefilled once.

The forced answers of a problem are its prompt, more or less of its thinking, and a closer; its
samples have one prompt; few-shot prompts have one beginning. Every row is split into a head and a
tail, and the tail has the same length in all rows of a batch. A head that another head begins with
is not prefilled: its keys and values are copied out of those of the longer one, the stem.

    row                       head              tail, here of 2 tokens
    p p p t t c c             p p p t t         c c
    p p p t t t t c c         p p p t t t t     c c     <- its head is the stem of both

Tails of one length make a rectangle, and so the batch stands, before its tails are computed, just
as if its heads had been prefilled one by one: padding on the left and nothing else to mask.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import Any, TypeAlias

Ids: TypeAlias = tuple[int, ...]
# What types a cache's layers have differs from version to version.
Cache: TypeAlias = Any

# A second forward pass and the copies cost something too: sharing must spare this share of the
# tokens that would be prefilled without it.
LEAST_SAVED = 0.25
# How many lengths of the tail are tried, so that looking costs little where nothing is alike.
MOST_TAILS = 64


@dataclass(frozen=True)
class Sharing:
    """How rows share what they begin with.

    Attributes:
        tail: Tokens at the end of each row that are computed for it alone.
        stems: What is prefilled for several rows at once, longest first.
        stem_of: For each row, the number of the stem that begins with its head.
        heads: For each row, the tokens of its head; 0 where it is no longer than the tail.
    """

    tail: int
    stems: tuple[Ids, ...]
    stem_of: tuple[int, ...]
    heads: tuple[int, ...]


def share(rows: Sequence[Ids]) -> Sharing | None:
    """Find the sharing that leaves the fewest tokens of the rows to prefill.

    None where it would spare less than ``LEAST_SAVED`` of them.
    """
    packed = [array("I", row).tobytes() for row in rows]
    size = array("I").itemsize
    fewest = (1 - LEAST_SAVED) * sum(map(len, rows))
    best: Sharing | None = None
    for tail in _tails(rows):
        heads = [row[: -tail * size] for row in packed]
        stem_of = _stems(heads)
        stems = sorted(set(stem_of.values()), key=lambda stem: (-len(stem), stem))
        tokens = sum(map(len, stems)) // size + sum(min(tail, len(row)) for row in rows)
        if tokens <= fewest:
            fewest = tokens
            number = {stem: i for i, stem in enumerate(stems)}
            best = Sharing(
                tail,
                tuple(tuple(array("I", stem)) for stem in stems),
                tuple(number[stem_of[head]] for head in heads),
                tuple(len(head) // size for head in heads),
            )
    return best


def family_order(rows: Sequence[Ids]) -> list[int]:
    """Numbers of the rows in the order in which they are best cut into batches.

    Rows that share follow one another, those of the longest stem first, and among them the longest
    row; where sharing does not pay all rows go by length.
    """
    sharing = share(rows)

    stem_of = sharing.stem_of if sharing else [0] * len(rows)
    return sorted(range(len(rows)), key=lambda row: (stem_of[row], -len(rows[row])))


def can_branch(cache: Cache) -> bool:
    """Whether a cache keeps every token's keys and values, each in a place of its own.

    Sliding windows have forgotten the beginning, and the state of linear attention holds all
    tokens at once.
    """
    from transformers.cache_utils import DynamicLayer

    # Subclasses keep more than keys and values.
    return bool(cache.layers) and all(type(layer) is DynamicLayer for layer in cache.layers)


def branch(cache: Cache, sharing: Sharing) -> None:
    """Turn the cache of the stems, padded on the left, into that of the rows' heads.

    Layer by layer, so that beside one layer no more is held than the heads need.
    """
    import torch

    device = cache.layers[0].keys.device
    lengths = torch.tensor([len(sharing.stems[stem]) for stem in sharing.stem_of], device=device)
    heads = torch.tensor(sharing.heads, device=device)
    stem_of = torch.tensor(sharing.stem_of, device=device)[:, None]
    # What a stem has beyond the head falls off on the right; what moves in on the left is masked.
    columns = torch.arange(len(sharing.stems[0]), device=device) - (lengths - heads)[:, None]
    columns = columns.clamp(min=0)
    for layer in cache.layers:
        layer.keys = layer.keys[stem_of, :, columns].transpose(1, 2)
        layer.values = layer.values[stem_of, :, columns].transpose(1, 2)


def _tails(rows: Sequence[Ids]) -> list[int]:
    """Lengths of the tail worth trying: what rows have beyond the beginning that is alike."""
    tails: set[int] = set()
    for pair in pairwise(sorted(rows)):
        alike = (left == right for left, right in zip(*pair, strict=False))
        shared = sum(takewhile(bool, alike))
        # The last token is always computed: its logits choose the first one that is generated.
        tails |= {max(1, len(row) - shared) for row in pair}
    return sorted(tails)[:: len(tails) // MOST_TAILS + 1]


def _stems(heads: Iterable[bytes]) -> dict[bytes, bytes]:
    """For each head the longest one that begins with it."""
    stem_of: dict[bytes, bytes] = {}
    stem = b""
    # In this order a head comes right after something that begins with it, if anything does.
    for head in sorted(set(heads), reverse=True):
        if not stem.startswith(head):
            stem = head
        stem_of[head] = stem
    return stem_of
