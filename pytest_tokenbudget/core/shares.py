"""Which traces are wanted, missing and claimed, and which processes hold the claims."""

from __future__ import annotations

import os
import platform
import sqlite3
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from pytest_tokenbudget.core.engine import Request
from pytest_tokenbudget.core.journal import Journal
from pytest_tokenbudget.core.store_tables import TRACES, delete_rows, keep_damaged, unpack


class Process(NamedTuple):
    """A process, so that no other process is ever taken for it.

    Attributes:
        host: Name of the host, its boot and the namespace of process ids: containers on one host
            see different processes.
        pid: Its number, which another process may have later.
        started: When it started.
    """

    host: str
    pid: int
    started: str

    @property
    def host_name(self) -> str:
        return self.host.partition(" ")[0]


def this_process() -> Process:
    return _process(os.getpid())  # a fork has another number


@cache
def _process(pid: int) -> Process:
    return Process(_host(), pid, _started(pid))


def is_dead(process: Process) -> bool:
    """Whether a process has ended for certain; False where that cannot be known."""
    if process.host != this_process().host or not process.started:
        return False
    if sys.platform != "linux":
        import psutil

        return not psutil.pid_exists(process.pid) or _started(process.pid) != process.started
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # a process of another user
        pass
    # Processes of other users may be hidden: then nothing is known.
    return _started(process.pid) not in ("", process.started)


ENDED = "ended"


def _started(pid: int) -> str:
    """When a process started, on a clock that nobody sets; empty where that is not known."""
    if sys.platform != "linux":
        import psutil

        with suppress(psutil.Error):
            found = psutil.Process(pid)
            ended = found.status() == psutil.STATUS_ZOMBIE
            return ENDED if ended else repr(found.create_time())
        return ""
    with suppress(OSError):
        # After the name, which may hold anything: the state is field 3, the start field 22.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return ENDED if fields[0] in "ZX" else fields[19]
    return ""


@cache
def _host() -> str:
    parts = [platform.node() or "unknown"]
    if sys.platform == "linux":
        with suppress(OSError):
            parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
            parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


SEEN_SECONDS = 120.0

# For a fresh start: a trace that was there before the run began. What another run beside it makes
# is fresh enough; if each wanted its own, two of them would replace each other's for ever.
STALE = """
    (:fresh AND t.run != :run AND t.created < (SELECT began FROM runs WHERE run = :run))
"""

# What still has to be generated: nothing there, an error of an earlier run, a trace whose cap was
# too low and that this run has not failed to go on from, or, for a fresh start, one of an earlier
# run.
MISSING = f"""
    (t.key IS NULL
     OR (t.stop_reason = 'error' AND t.run != :run)
     OR (t.stop_reason = 'length' AND t.cap < w.cap AND (t.error = '' OR t.run != :run))
     OR {STALE})
"""
# Nobody works on it. No deadline lies more than a lease ahead, unless the clock was put back; a
# second is for clocks that are corrected a little.
FREE = "(c.key IS NULL OR c.deadline < :now OR c.deadline > :now + c.lease + 1)"


WANTED = "(place INTEGER PRIMARY KEY, key TEXT UNIQUE NOT NULL, cap INTEGER NOT NULL)"


class ClaimedShare(NamedTuple):
    """What another process has claimed of what is wanted.

    Attributes:
        process: The process; None where an older version of this package has claimed it.
        run: Its run.
        traces: How many traces.
        until: When the claim ends, unless it is renewed, as Unix time.
    """

    process: Process | None
    run: str
    traces: int
    until: float


class Shares(Journal):
    """An open store: what is wanted of it, and the shares of it that processes have claimed."""

    def want(self, wants: Sequence[Request]) -> None:
        """Say which traces the following calls are about; their order is the order of claims.

        Damaged ones among them are moved to the table ``damaged``, noted in ``damage``, and missing
        from then on.
        """
        with self._errors():
            for table in ("wanted", "todo"):
                self._db.execute(f"CREATE TEMP TABLE IF NOT EXISTS {table} {WANTED}")
            with self._transaction() as db:
                db.execute("INSERT OR IGNORE INTO runs VALUES (?, ?)", (self.run, time.time()))
                db.execute("DELETE FROM wanted")
                db.executemany(
                    "INSERT OR IGNORE INTO wanted VALUES (?, ?, ?)",
                    [(place, w.key, w.cap) for place, w in enumerate(wants)],
                )
                self._set_aside(db, {w.key: (w.problem_id or w.key, w.sample) for w in wants})
        self._todo_for = None

    def _set_aside(self, db: sqlite3.Connection, names: Mapping[str, tuple[str, int]]) -> None:
        """Move damaged traces among those that are wanted out of the way."""
        damaged = db.execute(
            "SELECT w.key FROM wanted w LEFT JOIN traces t ON t.key = w.key"
            " LEFT JOIN checksums k ON k.kind = 'traces' AND k.key = w.key"
            " WHERE coalesce(t.key, k.key) IS NOT NULL"
            f" AND (t.key IS NULL OR {TRACES.checksum('t')} IS NOT k.checksum)"
        ).fetchall()
        keep_damaged(db, TRACES, damaged)
        delete_rows(db, TRACES, damaged)
        for (key,) in damaged:
            self._note_damage(trace_name(*names[key]))

    # What is missing

    # The table ``todo`` has what was missing at the last look for this ``fresh``, without
    # what this process claimed since. So a share is found without going through everything.
    _todo_for: bool | None = None

    def missing(self, fresh: bool = False) -> int:
        """How many wanted traces still have to be generated, by anyone; looks at all of them."""
        with self._errors():
            self._db.execute("DELETE FROM todo")
            found = self._db.execute(
                "INSERT INTO todo SELECT w.* FROM wanted w LEFT JOIN traces t ON t.key = w.key"
                f" WHERE {MISSING}",
                {"run": self.run, "fresh": fresh},
            ).rowcount
        self._todo_for = fresh
        return found

    def remaining(self, fresh: bool = False) -> int:
        """How many of those are still missing that were at the last look, beside what was claimed.

        This is quicker than :meth:`missing`, and it sees what other processes have generated.
        """
        if self._todo_for is not fresh:
            return self.missing(fresh)
        with self._errors():
            self._db.execute(
                "DELETE FROM todo WHERE place IN (SELECT w.place FROM todo w"
                f" JOIN traces t ON t.key = w.key WHERE NOT {MISSING})",
                {"run": self.run, "fresh": fresh},
            )
            return int(self._db.execute("SELECT count(*) FROM todo").fetchone()[0])

    def failed(self) -> int:
        """How many wanted traces this run has failed on: it does not try them again."""
        with self._errors():
            row = self._db.execute(
                "SELECT count(*) FROM wanted w JOIN traces t ON t.key = w.key"
                " WHERE t.run = :run"
                " AND (t.stop_reason = 'error' OR (t.error != '' AND t.cap < w.cap))",
                {"run": self.run},
            ).fetchone()
        return int(row[0])

    def unclaimed(self, fresh: bool = False, most: int = -1) -> int:
        """How many of the missing ones nobody is working on, as far as ``most``; -1 counts all."""
        if self._todo_for is not fresh:
            self.missing(fresh)
        with self._errors():
            row = self._db.execute(
                "SELECT count(*) FROM (SELECT 1 FROM todo w LEFT JOIN traces t ON t.key = w.key"
                f" LEFT JOIN claims c ON c.key = w.key WHERE {MISSING} AND {FREE} LIMIT :most)",
                {"run": self.run, "fresh": fresh, "now": time.time(), "most": most},
            ).fetchone()
        return int(row[0])

    # Shares

    def claim(self, limit: int, lease: float, fresh: bool = False) -> dict[str, tuple[int, ...]]:
        """Take at most ``limit`` of what is missing and nobody else is working on.

        Others may take the share over after ``lease`` seconds, unless it is renewed.

        Returns:
            For each claimed key, the output ids to continue from; empty where there are none.
        """
        if self._todo_for is not fresh:
            self.missing(fresh)
        with self._transaction() as db:
            now = time.time()
            rows = db.execute(
                # An error's ids are what stood before it; they may be more than are wanted now.
                "SELECT w.key, CASE WHEN t.stop_reason IN ('length', 'error')"
                f" AND NOT {STALE} AND {TRACES.intact('t')}"
                " THEN substr(t.output_ids, 1, 4 * w.cap) END"
                " FROM todo w LEFT JOIN traces t ON t.key = w.key"
                " LEFT JOIN claims c ON c.key = w.key"
                f" WHERE {MISSING} AND {FREE} ORDER BY w.place LIMIT :limit",
                {"run": self.run, "fresh": fresh, "now": now, "limit": limit},
            ).fetchall()
            db.executemany(
                "INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?)",
                [(key, self.owner, now + lease, lease) for key, _ in rows],
            )
            db.executemany("DELETE FROM todo WHERE key = ?", [(key,) for key, _ in rows])
            self._register_process(db)
        return {key: unpack(blob) if blob else () for key, blob in rows}

    def release(self) -> None:
        """Give up this process's claims, so that nobody has to wait for their deadline."""
        with self._transaction() as db:
            given_up = db.execute("DELETE FROM claims WHERE owner = ?", (self.owner,)).rowcount
        if given_up:
            self._todo_for = None

    def claims(self) -> list[ClaimedShare]:
        """What other processes have claimed of what is wanted, the largest claim first."""
        with self._errors():
            rows = self._db.execute(
                "SELECT p.host, p.pid, p.started, coalesce(p.run, ''), count(*), max(c.deadline)"
                " FROM claims c JOIN wanted w ON w.key = c.key"
                " LEFT JOIN processes p ON p.owner = c.owner"
                f" WHERE NOT {FREE} AND c.owner != :owner GROUP BY c.owner ORDER BY 5 DESC",
                {"now": time.time(), "owner": self.owner},
            ).fetchall()
        return [
            ClaimedShare(Process(host, pid, started) if host else None, run, traces, until)
            for host, pid, started, run, traces, until in rows
        ]

    # Processes

    def join_plan(self, plan: str) -> None:
        """Say that this process will help with a plan, so that others leave it a share."""
        with self._transaction() as db:
            self._register_process(db)
            db.execute("UPDATE processes SET plan = ? WHERE owner = ?", (plan, self.owner))

    def leave_plan(self) -> None:
        with self._transaction() as db:
            db.execute("UPDATE processes SET plan = '' WHERE owner = ?", (self.owner,))

    def _register_process(self, db: sqlite3.Connection) -> None:
        process = this_process()
        db.execute(
            "INSERT INTO processes VALUES (?, ?, ?, ?, ?, '', ?)"
            " ON CONFLICT (owner) DO UPDATE SET seen = excluded.seen",
            (self.owner, self.run, *process, time.time()),
        )

    def helpers(self, plan: str) -> tuple[int, int]:
        """How many other processes help with a plan: those of this run, those of other runs."""
        with self._errors():
            rows = self._db.execute(
                "SELECT run = ?, host, seen FROM processes WHERE plan = ? AND owner != ?",
                (self.run, plan, self.owner),
            ).fetchall()
        # Of a process on another host or in another container it is not known whether it lives.
        here, since = this_process().host, time.time() - SEEN_SECONDS
        own = [bool(own) for own, host, seen in rows if host == here or seen > since]
        return sum(own), len(own) - sum(own)

    def forget_dead(self) -> None:
        """Free what processes have claimed that are dead for certain."""
        with self._errors():
            rows = self._db.execute(
                "SELECT owner, host, pid, started FROM processes WHERE owner != ?"
                " AND (plan != '' OR owner IN (SELECT owner FROM claims))",
                (self.owner,),
            ).fetchall()
        dead = [(owner,) for owner, *process in rows if is_dead(Process(*process))]
        if dead:
            with self._transaction() as db:
                db.executemany("DELETE FROM claims WHERE owner = ?", dead)
                db.executemany("DELETE FROM processes WHERE owner = ?", dead)


def trace_name(problem_id: str, sample: int) -> str:
    return f"the trace of {problem_id}" + (f" (sample {sample})" if sample else "")
