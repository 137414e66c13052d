"""Snapshots of texts as files that people can read; ``pytest --snapshot-update`` writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode


class TextFile(SingleFileSnapshotExtension):
    """A snapshot that is a text file of its own."""

    _write_mode = WriteMode.TEXT
    file_extension = "txt"


def text_of(cases: Mapping[str, str | Sequence[str]]) -> str:
    """Sentences or lines, each under the name of its case."""
    parts = []
    for name, said in cases.items():
        lines = [said] if isinstance(said, str) else said
        parts.append("\n".join((f"# {name}", *lines)))
    return "\n\n".join(parts) + "\n"
