"""The tables of a trace store: how each schema version came about, and what a file may hold."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from functools import cache

from pytest_tokenbudget.core.checksums import SIGN_ALL, row_checksum
from pytest_tokenbudget.core.trace_rows import readable

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
        *SIGN_ALL,
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
