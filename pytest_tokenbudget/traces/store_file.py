"""The file of a trace store: its schema, and what is checked before anything is written to it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

APPLICATION_ID = 0x544B4247  # "TKBG" in SQLite's header tells our files from other people's
SCHEMA_VERSION = 3
BUSY_SECONDS = 60.0
RETRY_SECONDS = 0.02
ADVICE = "Name another file with --trace-store, or move this one away"

SCHEMA = """
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
    owner TEXT NOT NULL,
    counted INTEGER NOT NULL DEFAULT 0,
    usage TEXT NOT NULL DEFAULT ''
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
CREATE TABLE servers (
    urls TEXT NOT NULL,
    served TEXT NOT NULL,
    facts TEXT NOT NULL,
    PRIMARY KEY (urls, served)
) WITHOUT ROWID;
CREATE TABLE windows (
    model TEXT NOT NULL,
    key TEXT NOT NULL,
    facts TEXT NOT NULL,
    PRIMARY KEY (model, key)
) WITHOUT ROWID;
"""

# What brings a file of each older version one version on.
MIGRATIONS = {
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


class StoreError(Exception):
    """The trace store cannot be used; the message is for people."""


def damaged(path: Path, what: object) -> StoreError:
    """The error for a file that is a trace store but cannot be read."""
    return StoreError(f"trace store {path} is damaged ({what}). {ADVICE}.")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what SQLite and the file system raise into a :class:`StoreError`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise StoreError(f"trace store {path}: {reason}. {ADVICE}.") from error
    except sqlite3.OperationalError as error:
        raise StoreError(f"trace store {path}: {error}. {ADVICE}.") from error
    except sqlite3.DatabaseError as error:
        raise damaged(path, error) from error


def connect(path: Path, check: bool) -> sqlite3.Connection:
    """Open the file; it and its directory are made where they are missing.

    Args:
        path: The SQLite file.
        check: Whether to read all of it first, to see whether it is damaged.

    Raises:
        StoreError: If it is not a trace store, is damaged, or has another schema version. It is
            left untouched.
    """
    deadline = time.monotonic() + BUSY_SECONDS
    with explained(path):
        while True:
            try:
                _check_existing(path)
                path.parent.mkdir(parents=True, exist_ok=True)
                return _open(path, check)
            except sqlite3.OperationalError as error:
                # Where several make the file at once, SQLite does not wait by itself.
                busy = error.sqlite_errorname.startswith("SQLITE_BUSY")
                if not busy or time.monotonic() > deadline:
                    raise
            time.sleep(RETRY_SECONDS)


def _open(path: Path, check: bool) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        _prepare(db, check)
    except BaseException:
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection, check: bool) -> None:
    if check:
        found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(" ".join(str(found).split()))
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute("BEGIN IMMEDIATE")
    if db.execute("PRAGMA application_id").fetchone()[0] == 0:
        for statement in SCHEMA.split(";"):
            db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    version = db.execute("PRAGMA user_version").fetchone()[0]
    for step in range(version, SCHEMA_VERSION):
        for statement in MIGRATIONS[step]:
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {step + 1}")
    db.execute(STATES)
    db.execute("COMMIT")


def _check_existing(path: Path) -> None:
    if not path.exists() or path.stat().st_size == 0:
        return
    # Only through SQLite: closing a file that was opened otherwise drops the locks that this
    # process's other connections hold on it, and then another process deletes the log under them.
    # Without a log the file is all there is, and looking at it shall not make one.
    logged = path.with_name(f"{path.name}-wal").exists()
    uri = f"{path.absolute().as_uri()}?mode=ro{'' if logged else '&immutable=1'}"
    with closing(sqlite3.connect(uri, timeout=BUSY_SECONDS, uri=True)) as probe:
        try:
            # In one transaction, since another process may be making the file right now.
            probe.execute("BEGIN")
            empty = probe.execute("SELECT 1 FROM sqlite_master").fetchone() is None
            application, version, page, pages = (
                probe.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("application_id", "user_version", "page_size", "page_count")
            )
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorname != "SQLITE_NOTADB":
                raise
            raise StoreError(f"{path} is not a trace store, nor SQLite at all. {ADVICE}.") from None
    if empty and application == version == 0:
        return
    if application != APPLICATION_ID:
        raise StoreError(
            f"{path} is a SQLite database of another program, not a trace store. {ADVICE}."
        )
    if version != SCHEMA_VERSION and version not in MIGRATIONS:
        age = "an older" if version < SCHEMA_VERSION else "a newer"
        raise StoreError(
            f"{path} was written by {age} version of pytest-tokenbudget (schema {version}, this "
            f"one reads {SCHEMA_VERSION}). {ADVICE}."
        )
    if not logged and path.stat().st_size < page * pages:
        raise damaged(path, "its end is missing")
