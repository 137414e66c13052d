"""The file of a trace store: what is checked before anything is read from it or written to it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from pytest_tokenbudget.common.outside_text import PrintableError
from pytest_tokenbudget.core.store_tables import (
    SCHEMA_VERSION,
    STATES,
    migrate,
    register,
    unexpected,
)

APPLICATION_ID = 0x544B4247  # "TKBG" in SQLite's header tells our files from other people's
BUSY_SECONDS = 60.0
RETRY_SECONDS = 0.02
ADVICE = "Name another file with --trace-store, or move this one away"

# Findings of SQLite's check that concern an index, which can be built again from its rows, ...
IN_INDEX = ("row ", "wrong # of entries in index ", "non-unique entry in index ")
# ... and those that concern single values, which the checksums of rows find.
IN_ROW = ("NULL value in ", "TEXT value in ", "NUMERIC value in ", "non-")
MOST_FINDINGS = 1000


class StoreError(PrintableError):
    """The trace store cannot be used; the message is for people."""


def damage_error(path: Path, finding: object) -> StoreError:
    return StoreError(f"trace store {path} is damaged ({finding}). {ADVICE}.")


def identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from another one at the same path; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what SQLite and the file system raise into a :class:`StoreError`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise StoreError(f"trace store {path}: {reason}. {ADVICE}.") from error
    except sqlite3.OperationalError as error:
        if not _name(error):  # Python's own, of a text that is not UTF-8
            raise damage_error(path, " ".join(str(error).split())) from error
        raise StoreError(f"trace store {path}: {_reason(error)}.") from error
    except sqlite3.DatabaseError as error:
        raise damage_error(path, error) from error
    except UnicodeDecodeError as error:  # of a name in the schema, or of SQLite's own message
        raise damage_error(path, "a text in it is not UTF-8") from error


def _name(error: sqlite3.Error) -> str:
    """SQLite's name of an error; empty where it is not SQLite's."""
    return getattr(error, "sqlite_errorname", "")


def _reason(error: sqlite3.OperationalError) -> str:
    name = _name(error)
    if name.startswith("SQLITE_BUSY"):
        return (
            f"another process has been writing to it for {BUSY_SECONDS:.0f} s. If that process is "
            "stopped (Ctrl-Z), let it go on or end it, and run the same command again"
        )
    if name == "SQLITE_FULL" or name.startswith("SQLITE_IOERR"):
        return (
            f"{error}. What was stored is kept: make room on the disk, or check it, and run the "
            "same command again"
        )
    return f"{error}. {ADVICE}"


def connect(path: Path, check: bool) -> tuple[sqlite3.Connection, str]:
    """Open the file; it and its directory are made where they are missing.

    Args:
        path: The SQLite file.
        check: Whether to read all of it first, to see whether it is damaged.

    Returns:
        The connection, and in a sentence what was repaired.

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
                busy = _name(error).startswith("SQLITE_BUSY")
                if not busy or time.monotonic() > deadline:
                    raise
            time.sleep(RETRY_SECONDS)


def _open(path: Path, check: bool) -> tuple[sqlite3.Connection, str]:
    db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        return db, _prepare(db, path, check)
    except BaseException:
        db.close()
        raise


def _prepare(db: sqlite3.Connection, path: Path, check: bool) -> str:
    register(db)
    db.execute("PRAGMA trusted_schema = OFF")
    version = db.execute("PRAGMA user_version").fetchone()[0]
    # What is damaged must not get a checksum.
    repaired = _checked(db, path) if check or 0 < version < SCHEMA_VERSION else ""
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute("BEGIN IMMEDIATE")
    if db.execute("PRAGMA application_id").fetchone()[0] == 0:
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    migrate(db, db.execute("PRAGMA user_version").fetchone()[0])
    db.execute(STATES)
    db.execute("COMMIT")
    return repaired


def _checked(db: sqlite3.Connection, path: Path) -> str:
    """Have SQLite check the file, and build indexes that do not fit their rows again.

    Raises:
        sqlite3.DatabaseError: If more than indexes and single values is damaged.
    """
    found = _findings(db)
    if any(not line.startswith((*IN_INDEX, *IN_ROW)) for line in found):
        raise sqlite3.DatabaseError(found[0])
    if not any(line.startswith(IN_INDEX) for line in found):
        return ""
    db.execute("REINDEX")
    if left := [line for line in _findings(db) if not line.startswith(IN_ROW)]:
        raise sqlite3.DatabaseError(left[0])
    return f"an index of trace store {path} was damaged and was built again from the stored rows"


def _findings(db: sqlite3.Connection) -> list[str]:
    rows = db.execute(f"PRAGMA integrity_check({MOST_FINDINGS})").fetchall()
    found = [" ".join(str(line).split()) for (line,) in rows]
    if len(found) >= MOST_FINDINGS:
        raise sqlite3.DatabaseError(found[0])
    return [] if found == ["ok"] else found


def _check_existing(path: Path) -> None:
    if not path.exists():
        above = next(parent for parent in path.absolute().parents if parent.exists())
        if not above.is_dir():
            raise StoreError(f"trace store {path}: {above} is a file, not a directory. {ADVICE}.")
        return
    if path.is_dir():
        raise StoreError(f"trace store {path} is a directory. Name a file with --trace-store.")
    if not path.is_file():
        raise StoreError(f"trace store {path} is not a regular file. {ADVICE}.")
    if path.stat().st_size == 0:
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
            ours = application == APPLICATION_ID and 0 < version <= SCHEMA_VERSION
            other = unexpected(probe, version) if ours else ""
        except sqlite3.DatabaseError as error:
            if _name(error) != "SQLITE_NOTADB":
                raise
            raise StoreError(f"{path} is not a trace store, nor SQLite at all. {ADVICE}.") from None
    if empty and application == version == 0:
        return
    if application != APPLICATION_ID:
        raise StoreError(
            f"{path} is a SQLite database of another program, not a trace store. {ADVICE}."
        )
    if not ours:
        age = "an older" if version < SCHEMA_VERSION else "a newer"
        raise StoreError(
            f"{path} was written by {age} version of pytest-tokenbudget (schema {version}, this "
            f"one reads {SCHEMA_VERSION}). {ADVICE}."
        )
    if other:
        raise StoreError(
            f"{path} was changed by another program: it has {other}, which no trace store of "
            f"schema {version} has. {ADVICE}."
        )
    if not logged and path.stat().st_size < page * pages:
        raise damage_error(path, "its end is missing")
