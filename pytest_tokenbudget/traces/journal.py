"""What runs leave in the store's file beside traces: plans, lines, what servers and files are.

The trace store is a journal that also holds traces; this is its lower half.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_tokenbudget.traces.store_file import connect, explained

KEEP_PLANS = 30 * 86_400.0
STATE_SECONDS = 30.0


@dataclass(frozen=True)
class PlanRow:
    """A plan of this run and how far it is.

    Attributes:
        name: Distinguishes the plans of a run.
        plan: As it was put.
        to_generate: Traces that were missing when the run began.
        missing: Traces that are missing now.
        created: When it was put.
    """

    name: str
    plan: dict[str, object]
    to_generate: int
    missing: int
    created: float = 0.0


class Journal:
    """An open file of a trace store.

    Args:
        path: The SQLite file; made with its directory where it is missing.
        run: Identifier of this pytest session, shared by its workers.
        owner: Identifier of this process within the run.
        check: Whether to read the whole file first, to see whether it is damaged.

    Raises:
        StoreError: If the file is not a trace store, is damaged, or has another schema version. It
            is left untouched.
    """

    def __init__(self, path: Path, run: str = "", owner: str = "", *, check: bool = False) -> None:
        self.path, self.run, self.owner = path, run, owner
        self._thread = threading.get_ident()
        self._db = connect(path, check)

    def _errors(self) -> AbstractContextManager[None]:
        return explained(self.path)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._errors():
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # SQLite may have rolled back itself
                    self._db.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close the file; the store cannot be used afterwards."""
        self._db.close()

    # Runs

    def put_plan(self, name: str, plan: Mapping[str, object], missing: int) -> None:
        """Say what this run is about; the first worker's word counts.

        Args:
            name: Distinguishes the plans of a run.
            plan: JSON-compatible; the controller reads it for its reports.
            missing: Traces that are still to be generated.
        """
        with self._transaction() as db:
            db.execute(
                "INSERT OR IGNORE INTO plans VALUES (?, ?, ?, ?, ?, ?)",
                (self.run, name, json.dumps(plan), missing, missing, time.time()),
            )
            for table, age in (("plans", "created"), ("runs", "began")):
                db.execute(f"DELETE FROM {table} WHERE {age} < ?", (time.time() - KEEP_PLANS,))
            db.execute("DELETE FROM notes WHERE run NOT IN (SELECT run FROM runs)")
            db.execute("DELETE FROM states WHERE changed < ?", (time.time() - KEEP_PLANS,))

    def note_missing(self, name: str, missing: int) -> None:
        """Say how many traces of a plan are left, for whoever shows progress."""
        with self._transaction() as db:
            db.execute(
                "UPDATE plans SET missing = min(missing, ?) WHERE run = ? AND name = ?",
                (missing, self.run, name),
            )

    def plans(self) -> list[PlanRow]:
        """What this run planned so far, in the order in which it began."""
        with self._errors():
            rows = self._db.execute(
                "SELECT name, plan, to_generate, missing, created FROM plans WHERE run = ?"
                " ORDER BY created, name",
                (self.run,),
            ).fetchall()
        return [PlanRow(name, json.loads(plan), *counts) for name, plan, *counts in rows]

    def note(self, text: str) -> None:
        """Leave a line for whoever shows this run's progress; from any thread."""
        if threading.get_ident() != self._thread:
            # SQLite connections do not cross threads.
            with closing(Journal(self.path, self.run, self.owner)) as own:
                own.note(text)
            return
        with self._transaction() as db:
            db.execute("INSERT INTO notes (run, text) VALUES (?, ?)", (self.run, text))

    def notes(self, after: int = 0) -> list[tuple[int, str]]:
        """Lines left by this run's processes, with their numbers, those after ``after``."""
        with self._errors():
            return self._db.execute(
                "SELECT id, text FROM notes WHERE run = ? AND id > ? ORDER BY id",
                (self.run, after),
            ).fetchall()

    # What the processes of a run are doing

    def renew(self, lease: float) -> None:
        """Keep this process's claims for another ``lease`` seconds."""
        with self._transaction() as db:
            db.execute(
                "UPDATE claims SET deadline = ? WHERE owner = ?", (time.time() + lease, self.owner)
            )

    def put_state(self, name: str, state: object) -> None:
        """Publish what this process is doing, for other processes of the run.

        Args:
            name: What it is about; a process has one state of each name.
            state: JSON-compatible.
        """
        with self._transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO states VALUES (?, ?, ?, ?, ?)",
                (self.run, self.owner, name, json.dumps(state), time.time()),
            )

    def drop_state(self, name: str) -> None:
        """Withdraw a state of this process."""
        with self._transaction() as db:
            db.execute(
                "DELETE FROM states WHERE run = ? AND owner = ? AND name = ?",
                (self.run, self.owner, name),
            )

    def states(self, name: str, seconds: float = STATE_SECONDS) -> list[Any]:
        """States of that name of all processes of the run, those at most ``seconds`` old.

        A process that is killed does not withdraw its state.
        """
        with self._errors():
            rows = self._db.execute(
                "SELECT state FROM states WHERE run = ? AND name = ? AND changed >= ?",
                (self.run, name, time.time() - seconds),
            ).fetchall()
        return [json.loads(state) for (state,) in rows]

    # What servers said of themselves

    def server(self, urls: Sequence[str], served: str | None) -> dict[str, Any] | None:
        """What was noted of the model that servers serve, None where nothing was."""
        with self._errors():
            row = self._db.execute(
                "SELECT facts FROM servers WHERE urls = ? AND served = ?",
                (json.dumps(list(urls)), served or ""),
            ).fetchone()
        return json.loads(row[0]) if row else None

    def put_server(
        self, urls: Sequence[str], served: str | None, facts: Mapping[str, object]
    ) -> None:
        """Note what servers say of the model that they serve, for runs in which they are down."""
        with self._transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO servers VALUES (?, ?, ?)",
                (json.dumps(list(urls)), served or "", json.dumps(dict(facts))),
            )

    # Windows over conversations

    def windows(self, model: str, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """What was noted of windows, by key; those that are there."""
        with self._errors():
            rows = self._db.execute(
                "SELECT w.key, w.facts FROM json_each(?) j"
                " JOIN windows w ON w.model = ? AND w.key = j.value",
                (json.dumps(list(keys)), model),
            ).fetchall()
        return {key: json.loads(facts) for key, facts in rows}

    def put_windows(self, model: str, windows: Mapping[str, Mapping[str, object]]) -> None:
        """Note what windows are, so that later runs need no tokenizer to know it."""
        with self._transaction() as db:
            db.executemany(
                "INSERT OR REPLACE INTO windows VALUES (?, ?, ?)",
                [(model, key, json.dumps(dict(facts))) for key, facts in windows.items()],
            )

    # Hashes of model files

    def get(self, path: str, size: int, mtime_ns: int) -> str | None:
        """The SHA-256 of a file hashed before and not changed since."""
        with self._errors():
            row = self._db.execute(
                "SELECT sha256 FROM files WHERE path = ? AND size = ? AND mtime_ns = ?",
                (path, size, mtime_ns),
            ).fetchone()
        return str(row[0]) if row else None

    def put(self, path: str, size: int, mtime_ns: int, sha256: str) -> None:
        """Remember the SHA-256 of a file."""
        with self._transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", (path, size, mtime_ns, sha256)
            )
