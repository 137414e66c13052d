"""Tables of a trace store: schema versions, rows, and checksums of rows.

Each row has its checksum, over all of its columns, in a table of its own. So damage that SQLite
does not see is found before a row is used, and so is a row that went missing. A damaged row is
never used; before another row takes its place it is kept in the table ``damaged``, as SQL literals.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import struct
import sys
import time
from array import array
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import cache
from typing import Any, NamedTuple

from pytest_tokenbudget.core.trace import StopReason, Trace

Value = bytes | str | int | float | None


class ChecksummedTable(NamedTuple):
    """A table whose rows have checksums."""

    table: str
    key: tuple[str, ...]
    value_columns: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.key, *self.value_columns)

    def key_of(self, row: str) -> str:
        """SQL: what identifies a row among the checksums of its table."""
        return " || char(10) || ".join(f"{row}.{name}" for name in self.key)

    def key_condition(self, row: str) -> str:
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

CHECKSUM_ALL = tuple(
    f"INSERT INTO checksums SELECT '{kind.table}', {kind.key_of('r')}, {kind.checksum('r')}"
    f" FROM {kind.table} r{readable}"
    for kind, readable in (
        (TRACES, f" WHERE row_readable({TRACES.raw('r')})"),
        *((kind, "") for kind in (PROMPTS, WINDOWS, SERVERS, FILES)),
    )
)
"""SQL that gives all rows of a file without checksums theirs, but for traces that were damaged."""


def row_checksum(types: str | bytes, *values: Value) -> int:
    """A 64-bit checksum of a row, of SQLite's types and the values; texts as bytes."""
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


def write_checksums(
    db: sqlite3.Connection, kind: ChecksummedTable, keys: Sequence[Sequence[Value]]
) -> None:
    """Give rows that have just been written their checksums, in the same transaction."""
    db.executemany(
        f"INSERT OR REPLACE INTO checksums SELECT '{kind.table}', {kind.key_of('r')},"
        f" {kind.checksum('r')} FROM {kind.table} r WHERE {kind.key_condition('r')}",
        keys,
    )


def has_checksum(db: sqlite3.Connection, kind: ChecksummedTable, key: Sequence[Value]) -> bool:
    """Whether there is a checksum for a key, so that there was a row."""
    marks = " || char(10) || ".join("?" for _ in kind.key)
    found = db.execute(
        f"SELECT 1 FROM checksums WHERE kind = '{kind.table}' AND key = {marks}", key
    )
    return found.fetchone() is not None


def delete_rows(
    db: sqlite3.Connection, kind: ChecksummedTable, keys: Sequence[Sequence[Value]]
) -> None:
    marks = " || char(10) || ".join("?" for _ in kind.key)
    db.executemany(f"DELETE FROM {kind.table} AS r WHERE {kind.key_condition('r')}", keys)
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
        f" FROM {kind.table} r WHERE {kind.key_condition('r')} AND NOT {kind.intact('r')}",
        keys,
    )


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
    """Whether a row can be a trace; SQLite calls it with what ``ChecksummedTable.raw`` gives."""
    try:
        trace_of(values)
    except ValueError:
        return False
    return True


SCHEMA_VERSION = 4

FIRST_VERSION = """
CREATE TABLE prompts (
    model TEXT NOT NULL,
    render TEXT NOT NULL,
    ids BLOB NOT NULL,
    opens_thinking INTEGER NOT NULL,
    PRIMARY KEY (model, render)
) WITHOUT ROWID;
CREATE TABLE traces (
    key TEXT PRIMARY KEY,
    model TEXT NOT NULL,
    output_ids BLOB NOT NULL,
    offsets BLOB NOT NULL,
    text TEXT NOT NULL,
    stop_reason TEXT NOT NULL,
    engine_reason TEXT NOT NULL,
    error TEXT NOT NULL,
    cap INTEGER NOT NULL,
    new_tokens INTEGER NOT NULL,
    seconds REAL NOT NULL,
    created REAL NOT NULL,
    run TEXT NOT NULL,
    owner TEXT NOT NULL
);
CREATE TABLE replaced AS SELECT * FROM traces WHERE 0;
CREATE INDEX traces_run ON traces (run, model);
CREATE TABLE claims (
    key TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    deadline REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE plans (
    run TEXT NOT NULL,
    name TEXT NOT NULL,
    plan TEXT NOT NULL,
    to_generate INTEGER NOT NULL,
    missing INTEGER NOT NULL,
    created REAL NOT NULL,
    PRIMARY KEY (run, name)
) WITHOUT ROWID;
CREATE TABLE runs (
    run TEXT PRIMARY KEY,
    began REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE notes (
    id INTEGER PRIMARY KEY,
    run TEXT NOT NULL,
    text TEXT NOT NULL
);
CREATE TABLE files (
    path TEXT NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    PRIMARY KEY (path, size, mtime_ns)
) WITHOUT ROWID;
"""

# What brings a file of each older version one version on. New files go the same way.
MIGRATIONS = {
    0: tuple(FIRST_VERSION.strip().rstrip(";").split(";")),
    1: (
        "ALTER TABLE traces ADD COLUMN counted INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE traces ADD COLUMN usage TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE replaced ADD COLUMN counted INTEGER",
        "ALTER TABLE replaced ADD COLUMN usage TEXT",
        "CREATE TABLE servers (urls TEXT NOT NULL, served TEXT NOT NULL, facts TEXT NOT NULL,"
        " PRIMARY KEY (urls, served)) WITHOUT ROWID",
    ),
    2: (
        "CREATE TABLE windows (model TEXT NOT NULL, key TEXT NOT NULL, facts TEXT NOT NULL,"
        " PRIMARY KEY (model, key)) WITHOUT ROWID",
    ),
    3: (
        "CREATE TABLE checksums (kind TEXT NOT NULL, key TEXT NOT NULL, checksum INTEGER NOT NULL,"
        " PRIMARY KEY (kind, key)) WITHOUT ROWID",
        "CREATE TABLE damaged (found REAL NOT NULL, kind TEXT NOT NULL, literals TEXT NOT NULL)",
        "CREATE TABLE processes (owner TEXT PRIMARY KEY, run TEXT NOT NULL, host TEXT NOT NULL,"
        " pid INTEGER NOT NULL, started TEXT NOT NULL, plan TEXT NOT NULL, seen REAL NOT NULL)"
        " WITHOUT ROWID",
        # What older versions claimed has the default lease.
        "ALTER TABLE claims ADD COLUMN lease REAL NOT NULL DEFAULT 60.0",
        *CHECKSUM_ALL,
    ),
}

# What processes are doing at the moment. It is not part of the schema that has a version: versions
# that do not know it read and write the file all the same.
STATES = """
CREATE TABLE IF NOT EXISTS states (
    run TEXT NOT NULL,
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    changed REAL NOT NULL,
    PRIMARY KEY (run, owner, name)
) WITHOUT ROWID
"""


def register(db: sqlite3.Connection) -> None:
    """Let SQL on a connection call what this package's own SQL calls."""
    db.create_function("row_checksum", -1, row_checksum, deterministic=True)
    db.create_function("row_readable", -1, readable, deterministic=True)


def migrate(db: sqlite3.Connection, version: int, upto: int = SCHEMA_VERSION) -> None:
    """Bring a file from one schema version to a later one; the caller opens the transaction."""
    for step in range(version, upto):
        for statement in MIGRATIONS[step]:
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {step + 1}")


def unexpected(db: sqlite3.Connection, version: int) -> str:
    """What a file holds that this package does not make, in words; empty where there is nothing.

    A trigger, a view or another definition of a table could change what is written or read.
    """
    known = _definitions(version)
    found = _read_definitions(db)
    for name, (kind, definition) in found.items():
        if known.get(name) != (kind, definition):
            article = "an" if kind == "index" else "a"
            changed = "another definition of the" if name in known else article
            return f"{changed} {kind} {name!r}"
    missing = [name for name in known if name not in found and name != "states"]
    return f"no {known[missing[0]][0]} {missing[0]!r}" if missing else ""


@cache
def _definitions(version: int) -> Mapping[str, tuple[str, str]]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        register(db)
        migrate(db, 0, version)
        db.execute(STATES)
        return _read_definitions(db)


def _read_definitions(db: sqlite3.Connection) -> dict[str, tuple[str, str]]:
    """Kind and definition of everything in a file by name, but for SQLite's own."""
    rows = db.execute(
        "SELECT name, type, sql FROM sqlite_master"
        " WHERE name NOT LIKE 'sqlite_%' OR type NOT IN ('table', 'index')"
    ).fetchall()
    return {str(name): (str(kind), _normal(str(sql))) for name, kind, sql in rows}


def _normal(sql: str) -> str:
    """A definition without what ``ALTER TABLE`` and ``CREATE TABLE AS`` write differently."""
    return "".join(sql.replace('"', "").split()).casefold().replace("integer", "int")
