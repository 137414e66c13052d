"""What runs leave in the store's file beside traces: plans, lines, what servers and files are.

The trace store is a journal that also holds traces; this is its lower half.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pytest_tokenbudget.core.store_file import StoreError, connect, explained, identity
from pytest_tokenbudget.core.store_tables import (
    FILES,
    SERVERS,
    WINDOWS,
    ChecksummedTable,
    Value,
    has_checksum,
    keep_damaged,
    write_checksums,
)

MOST_NAMED = 10
KEEP_PLANS = 30 * 86_400.0
STATE_SECONDS = 30.0


@dataclass(frozen=True)
class PlanRow:
    """A plan of this run, as it was put, and how far it is.

    ``to_generate`` were missing when the run began, ``missing`` are now.
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

    Attributes:
        damage: Damaged rows that were found so far, in words. They are left out.

    Raises:
        StoreError: If the file is not a trace store, is damaged, or has another schema version. It
            is left untouched.
    """

    def __init__(self, path: Path, run: str = "", owner: str = "", *, check: bool = False) -> None:
        self.path, self.run, self.owner = path, run, owner
        self._thread = threading.get_ident()
        self.damage: list[str] = []
        self._reported = 0
        self._db, self._repaired = connect(path, check)
        self._file = identity(path)

    def second_connection(self) -> Self:
        """Open another connection to the same file, for another thread.

        Raises:
            StoreError: If the file is not there any more, or another one is in its place.
        """
        self.check_place()
        try:
            own = type(self)(self.path, self.run, self.owner)
        except StoreError:
            self.check_place()
            raise
        if own._file != self._file:
            own.close()
            self.check_place()
        return own

    def check_place(self) -> None:
        """Check that the file is still where it was opened; from any thread.

        Raises:
            StoreError: If it was deleted or replaced: what is written to it would be lost.
        """
        if (found := identity(self.path)) != self._file:
            what = "another file is in its place" if found else "it was deleted or moved away"
            raise StoreError(
                f"trace store {self.path}: {what} since this run opened it. What the run generates "
                "would be lost. Put the file back, or run the same command again to begin anew."
            )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with explained(self.path):
                yield
        except StoreError:
            # SQLite calls a file that was taken away many things.
            self.check_place()
            raise

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

    def _write(self, kind: ChecksummedTable, rows: Sequence[Sequence[Value]]) -> None:
        """Write rows with their checksums; damaged ones whose place they take are kept."""
        keys = [row[: len(kind.key)] for row in rows]
        marks = ", ".join("?" for _ in kind.columns)
        with self._transaction() as db:
            keep_damaged(db, kind, keys)
            db.executemany(f"INSERT OR REPLACE INTO {kind.table} VALUES ({marks})", rows)
            write_checksums(db, kind, keys)

    def _read(
        self, kind: ChecksummedTable, keys: Sequence[Sequence[Value]], name: str
    ) -> dict[tuple[Value, ...], tuple[Any, ...]]:
        """What the rows with these keys hold beside them; damaged ones are noted and left out."""
        columns = ", ".join(f"r.{column}" for column in kind.value_columns)
        rows = f"FROM {kind.table} r WHERE {kind.key_condition('r')}"
        found: dict[tuple[Value, ...], tuple[Any, ...]] = {}
        with self._errors():
            for key in keys:
                row = self._db.execute(f"SELECT {kind.intact('r')} {rows}", key).fetchone()
                gone = row is None and has_checksum(self._db, kind, key)
                if gone or (row is not None and not row[0]):
                    self._note_damage(f"{name} {key[-1]!s}")
                elif row is not None:
                    found[tuple(key)] = self._db.execute(f"SELECT {columns} {rows}", key).fetchone()
        return found

    def _note_damage(self, row: str) -> None:
        if row not in self.damage:
            self.damage.append(row)

    def damage_report(self) -> str:
        """What was found to be damaged since this was last asked for; empty if nothing was."""
        rows, self._reported = self.damage[self._reported :], len(self.damage)
        sentences, self._repaired = [self._repaired] if self._repaired else [], ""
        if rows:
            named = ", ".join(rows[:MOST_NAMED])
            more = f" and {len(rows) - MOST_NAMED:,} more" if len(rows) > MOST_NAMED else ""
            sentences.append(
                f"trace store {self.path}: damaged and left out: {named}{more}. What is damaged "
                "counts as missing: the same command generates it again, and keeps the damaged "
                f"{'row' if len(rows) == 1 else 'rows'} in the table 'damaged'"
            )
        return ". ".join(sentences)

    def close(self) -> None:
        self._db.close()

    # Runs

    def put_plan(self, name: str, plan: Mapping[str, object], missing: int) -> None:
        """Store what this run is about, for reports; the first worker's word counts.

        Args:
            name: Distinguishes the plans of a run.
            plan: JSON-compatible.
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
            for table, age in (("states", "changed"), ("processes", "seen")):
                db.execute(f"DELETE FROM {table} WHERE {age} < ?", (time.time() - KEEP_PLANS,))

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
            with closing(self.second_connection()) as own:
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
                "UPDATE claims SET deadline = ?, lease = ? WHERE owner = ?",
                (time.time() + lease, lease, self.owner),
            )
            db.execute("UPDATE processes SET seen = ? WHERE owner = ?", (time.time(), self.owner))

    def put_state(self, name: str, state: object) -> None:
        """Publish what this process is doing to others of the run: one state of each name."""
        with self._transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO states VALUES (?, ?, ?, ?, ?)",
                (self.run, self.owner, name, json.dumps(state), time.time()),
            )

    def drop_state(self, name: str) -> None:
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
        key = (json.dumps(list(urls)), served or "")
        for (facts,) in self._read(SERVERS, [key], "what is noted of the server").values():
            noted: dict[str, Any] = json.loads(facts)
            return noted
        return None

    def put_server(
        self, urls: Sequence[str], served: str | None, facts: Mapping[str, object]
    ) -> None:
        """Note what servers say of the model that they serve, for runs in which they are down."""
        row = (json.dumps(list(urls)), served or "", json.dumps(dict(facts)))
        self._write(SERVERS, [row])

    # Windows over conversations

    def windows(self, model: str, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """What was noted of windows, by key; those that are there."""
        found = self._read(WINDOWS, [(model, key) for key in keys], "the conversation window")
        return {str(key): json.loads(facts) for (_, key), (facts,) in found.items()}

    def put_windows(self, model: str, windows: Mapping[str, Mapping[str, object]]) -> None:
        """Note what windows are, so that later runs need no tokenizer to know it."""
        self._write(
            WINDOWS, [(model, key, json.dumps(dict(facts))) for key, facts in windows.items()]
        )

    # Hashes of model files

    def get(self, path: str, size: int, mtime_ns: int) -> str | None:
        """The SHA-256 of a file hashed before and not changed since."""
        found = self._read(FILES, [(path, size, mtime_ns)], "the hash of a model file")
        return next((str(sha256) for (sha256,) in found.values()), None)

    def put(self, path: str, size: int, mtime_ns: int, sha256: str) -> None:
        self._write(FILES, [(path, size, mtime_ns, sha256)])
