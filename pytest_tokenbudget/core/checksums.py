"""Checksums of the store's rows: damage that SQLite does not see is found before a row is used.

Each row has its checksum, over all of its columns, in a table of its own. So a row that was changed
is found, and so is one that went missing. A damaged row is never used; before another row takes its
place it is kept in the table ``damaged``, as SQL literals.
"""

from __future__ import annotations

import hashlib
import sqlite3
import struct
import time
from collections.abc import Sequence
from typing import NamedTuple

Value = bytes | str | int | float | None


class ChecksummedTable(NamedTuple):
    """A table whose rows have checksums."""

    table: str
    key: tuple[str, ...]
    others: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.key, *self.others)

    def key_of(self, row: str) -> str:
        """SQL: what identifies a row among the checksums of its table."""
        return " || char(10) || ".join(f"{row}.{name}" for name in self.key)

    def where(self, row: str) -> str:
        """SQL: the row with the key that is given as parameters."""
        return " AND ".join(f"{row}.{name} = ?" for name in self.key)

    def raw(self, row: str) -> str:
        """SQL: types and values of a row, as :func:`row_checksum` takes them.

        Texts come as bytes, since damage may have made them invalid UTF-8.
        """
        names = [f"{row}.{name}" for name in self.columns]
        types = " || ' ' || ".join(f"typeof({name})" for name in names)
        values = (
            f"CASE typeof({n}) WHEN 'text' THEN CAST({n} AS BLOB) ELSE {n} END" for n in names
        )
        return f"{types}, {', '.join(values)}"

    def checksum(self, row: str) -> str:
        """SQL: the checksum that a row ought to have."""
        return f"row_checksum({self.raw(row)})"

    def intact(self, row: str) -> str:
        """SQL: whether a row is what was written."""
        return (
            f"({self.checksum(row)} IS (SELECT checksum FROM checksums"
            f" WHERE kind = '{self.table}' AND key = {self.key_of(row)}))"
        )


TRACES = ChecksummedTable(
    "traces",
    ("key",),
    (
        *("model", "output_ids", "offsets", "text", "stop_reason", "engine_reason", "error"),
        *("cap", "new_tokens", "seconds", "created", "run", "owner", "counted", "usage"),
    ),
)
PROMPTS = ChecksummedTable("prompts", ("model", "render"), ("ids", "opens_thinking"))
WINDOWS = ChecksummedTable("windows", ("model", "key"), ("facts",))
SERVERS = ChecksummedTable("servers", ("urls", "served"), ("facts",))
FILES = ChecksummedTable("files", ("path", "size", "mtime_ns"), ("sha256",))

SIGN_ALL = tuple(
    f"INSERT INTO checksums SELECT '{kind.table}', {kind.key_of('r')}, {kind.checksum('r')}"
    f" FROM {kind.table} r{readable}"
    for kind, readable in (
        (TRACES, f" WHERE row_readable({TRACES.raw('r')})"),
        *((kind, "") for kind in (PROMPTS, WINDOWS, SERVERS, FILES)),
    )
)
"""SQL that gives all rows of a file without checksums theirs, but for traces that were damaged."""


def row_checksum(types: str | bytes, *values: Value) -> int:
    """A 64-bit checksum of a row.

    Args:
        types: SQLite's types of the values.
        values: The values; texts as bytes.
    """
    parts = [types.encode() if isinstance(types, str) else types]
    for value in values:
        if isinstance(value, str):
            parts.append(value.encode())
        elif isinstance(value, bytes):
            parts.append(value)
        elif isinstance(value, float):
            parts.append(struct.pack("<d", value))
        else:
            parts.append(str(value).encode())
    lengths = struct.pack(f"<{len(parts)}Q", *map(len, parts))
    digest = hashlib.blake2b(b"".join([lengths, *parts]), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def sign(db: sqlite3.Connection, kind: ChecksummedTable, keys: Sequence[Sequence[Value]]) -> None:
    """Give rows that have just been written their checksums, in the same transaction."""
    db.executemany(
        f"INSERT OR REPLACE INTO checksums SELECT '{kind.table}', {kind.key_of('r')},"
        f" {kind.checksum('r')} FROM {kind.table} r WHERE {kind.where('r')}",
        keys,
    )


def signed(db: sqlite3.Connection, kind: ChecksummedTable, key: Sequence[Value]) -> bool:
    """Whether there is a checksum for a key, so that there was a row."""
    marks = " || char(10) || ".join("?" for _ in kind.key)
    found = db.execute(
        f"SELECT 1 FROM checksums WHERE kind = '{kind.table}' AND key = {marks}", key
    )
    return found.fetchone() is not None


def forget(db: sqlite3.Connection, kind: ChecksummedTable, keys: Sequence[Sequence[Value]]) -> None:
    """Drop rows and their checksums."""
    marks = " || char(10) || ".join("?" for _ in kind.key)
    db.executemany(f"DELETE FROM {kind.table} AS r WHERE {kind.where('r')}", keys)
    db.executemany(f"DELETE FROM checksums WHERE kind = '{kind.table}' AND key = {marks}", keys)


def keep_damaged(
    db: sqlite3.Connection, kind: ChecksummedTable, keys: Sequence[Sequence[Value]]
) -> None:
    """Keep those of the rows that are damaged in the table ``damaged``, before they are dropped."""
    literals = " || ', ' || ".join(
        f"quote(CASE typeof(r.{n}) WHEN 'text' THEN CAST(r.{n} AS BLOB) ELSE r.{n} END)"
        for n in kind.columns
    )
    db.executemany(
        f"INSERT INTO damaged SELECT {time.time()!r}, '{kind.table}', {literals}"
        f" FROM {kind.table} r WHERE {kind.where('r')} AND NOT {kind.intact('r')}",
        keys,
    )
