"""The trace store: one SQLite file that every worker and every run shares.

It holds rendered prompts, traces, claims on traces being generated, and what each run planned. All
that several processes do to it at once goes through short ``BEGIN IMMEDIATE`` transactions, so that
scheduling needs no other coordination.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from pytest_tokenbudget.core.engine import Generated, Request
from pytest_tokenbudget.core.journal import PlanRow
from pytest_tokenbudget.core.shares import STALE, Shares, trace_name
from pytest_tokenbudget.core.store_file import StoreError
from pytest_tokenbudget.core.store_tables import (
    PROMPTS,
    TRACES,
    StoredPrompt,
    delete_rows,
    keep_damaged,
    pack,
    row_checksum,
    trace_of,
    unpack,
    write_checksums,
)
from pytest_tokenbudget.core.trace import StopReason, Trace

__all__ = ["EndedTrace", "PlanRow", "StoreError", "StoredPrompt", "TraceStore"]


class EndedTrace(NamedTuple):
    """A trace that has ended, its text and, for each output id, the characters up to its end."""

    result: Generated
    text: str
    offsets: Sequence[int]


class TraceStore(Shares):
    """An open trace store: shares of the work, with the prompts and traces that runs have made.

    Where ``fresh``, traces of earlier runs are left out of what is loaded. None is earlier before
    the run has said what it wants.
    """

    fresh: bool = False

    # Prompts

    def prompts(self, model: str, renders: Sequence[str]) -> dict[str, StoredPrompt]:
        """The prompts of ``model`` among ``renders`` that were rendered before."""
        found = self._read(PROMPTS, [(model, render) for render in renders], "the prompt")
        return {str(r): StoredPrompt(unpack(ids), bool(o)) for (_, r), (ids, o) in found.items()}

    def put_prompts(self, model: str, prompts: Mapping[str, StoredPrompt]) -> None:
        """Keep rendered prompts, so that later runs need no tokenizer."""
        self._write(
            PROMPTS, [(model, r, pack(p.ids), p.opens_thinking) for r, p in prompts.items()]
        )

    # Traces

    def make_durable(self) -> None:
        """Let what this connection commits outlive a power failure, which takes longer."""
        with self._errors():
            self._db.execute("PRAGMA synchronous = FULL")

    def commit_all(
        self, model: str, ended: Sequence[EndedTrace], fresh: bool = False, plan: str = ""
    ) -> None:
        """Keep traces of a model and give up the claims on them, in one transaction.

        Where two processes generated the same one (a lease ran out), the first stays, unless the
        second reaches further. An error never takes the place of what was generated: it is noted
        beside a trace that could not be gone on from, which stays what it is up to its cap. A trace
        that a fresh start supersedes is moved to the table ``replaced``. ``plan``, if it is not
        empty, names the plan of this run that lacks fewer traces now.
        """
        with self._transaction() as db:
            kept = sum(self._keep(db, model, one, fresh) for one in ended)
            db.execute(
                "UPDATE plans SET missing = max(missing - ?, 0) WHERE run = ? AND name = ?",
                (kept, self.run, plan),
            )

    def _keep(self, db: sqlite3.Connection, model: str, ended: EndedTrace, fresh: bool) -> bool:
        """Keep one trace; whether anything was changed."""
        result, text, offsets = ended
        request: Request = result.request
        damaged = db.execute(
            f"SELECT key FROM traces t WHERE key = ? AND NOT {TRACES.intact('t')}", (request.key,)
        ).fetchall()
        keep_damaged(db, TRACES, damaged)
        delete_rows(db, TRACES, damaged)
        superseded = db.execute(
            f"SELECT 1 FROM traces t WHERE key = :key AND {STALE}",
            {"key": request.key, "run": self.run, "fresh": fresh},
        ).fetchone()
        if superseded:
            db.execute(
                "INSERT INTO replaced SELECT * FROM traces"
                " WHERE key = ? AND stop_reason != 'error'",
                (request.key,),
            )
            delete_rows(db, TRACES, [(request.key,)])
        db.execute("DELETE FROM claims WHERE key = ? AND owner = ?", (request.key, self.owner))
        if self._noted(db, result, text, offsets):
            write_checksums(db, TRACES, [(request.key,)])
            return True
        changed = db.execute(
            "INSERT INTO traces VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (key) DO UPDATE SET model = excluded.model,"
            " output_ids = excluded.output_ids, offsets = excluded.offsets,"
            " text = excluded.text, stop_reason = excluded.stop_reason,"
            " engine_reason = excluded.engine_reason, error = excluded.error,"
            " cap = excluded.cap, new_tokens = excluded.new_tokens"
            " + CASE WHEN run = excluded.run THEN new_tokens ELSE 0 END,"
            # What was generated in this run so far took its time, too.
            " seconds = excluded.seconds + CASE WHEN run = excluded.run AND new_tokens > 0"
            " THEN seconds ELSE 0 END, created = excluded.created,"
            " run = excluded.run, owner = excluded.owner,"
            " counted = excluded.counted, usage = excluded.usage"
            " WHERE traces.stop_reason = 'error'"
            " OR (traces.stop_reason = 'length' AND traces.cap < excluded.cap)",
            (
                request.key,
                model,
                pack(result.output_ids),
                pack(offsets),
                text,
                result.stop_reason.value,
                result.engine_reason,
                result.error,
                request.cap,
                len(result.output_ids) - len(request.prefix_ids),
                result.seconds,
                time.time(),
                self.run,
                self.owner,
                result.counted,
                json.dumps(dict(result.usage)) if result.usage else "",
            ),
        ).rowcount
        if changed:
            write_checksums(db, TRACES, [(request.key,)])
        return bool(changed)

    def _noted(
        self, db: sqlite3.Connection, result: Generated, text: str, offsets: Sequence[int]
    ) -> bool:
        """Note an error beside the capped trace that was to be gone on from, if that is what it is.

        Ids that came before the error are kept: the trace then has a higher cap.
        """
        if result.stop_reason is not StopReason.ERROR:
            return False
        key, ids = result.request.key, result.output_ids
        found = db.execute(
            "SELECT cap FROM traces WHERE key = ? AND stop_reason = 'length' AND cap < ?",
            (key, result.request.cap),
        ).fetchone()
        if found is None:
            return False
        longer = len(ids) > found[0] and not result.counted
        db.execute(
            "UPDATE traces SET error = :error, run = :run, owner = :owner, new_tokens = :new"
            " + CASE WHEN run = :run THEN new_tokens ELSE 0 END WHERE key = :key",
            {
                "error": result.error,
                "run": self.run,
                "owner": self.owner,
                "new": len(ids) - len(result.request.prefix_ids) if longer else 0,
                "key": key,
            },
        )
        if longer:
            db.execute(
                "UPDATE traces SET output_ids = ?, offsets = ?, text = ?, cap = ? WHERE key = ?",
                (pack(ids), pack(offsets), text, len(ids), key),
            )
        return True

    def load(
        self,
        names: Mapping[str, tuple[str, int]],
        prompts: Mapping[str, StoredPrompt],
        reach: int = 0,
    ) -> dict[tuple[str, int], Trace]:
        """Traces that are there; for a fresh start, those of this run.

        Args:
            names: For each key, the problem id and sample that it stands for.
            prompts: For each problem id, its rendered prompt.
            reach: Output tokens that are to be judged; a trace that could not be gone on from as
                far as that counts as one that ended in an error.

        Returns:
            Traces by problem id and sample. Damaged ones are left out and noted in ``damage``.
        """
        with self._errors():
            rows = self._db.execute(
                f"SELECT j.value, k.checksum, {TRACES.raw('t')} FROM json_each(:keys) j"
                " LEFT JOIN traces t ON t.key = j.value"
                " LEFT JOIN checksums k ON k.kind = 'traces' AND k.key = j.value"
                f" WHERE coalesce(t.key, k.key) IS NOT NULL AND {STALE} IS NOT 1",
                {"keys": json.dumps(list(names)), "run": self.run, "fresh": self.fresh},
            )
            traces = {}
            for key, checksum, types, *values in rows:
                name = names[key]
                if row_checksum(types, *values) == checksum:
                    traces[name] = trace_of(values, name, prompts[name[0]], reach)
                else:
                    self._note_damage(trace_name(*name))
        return traces

    def holds(self, model: str) -> bool:
        """Whether there is any trace of a model, complete or not."""
        with self._errors():
            found = self._db.execute("SELECT 1 FROM traces WHERE model = ? LIMIT 1", (model,))
            return found.fetchone() is not None

    def lengths(self, model: str, after: float) -> tuple[dict[str, tuple[int, int, bool]], float]:
        """Lengths of a model's traces that this run committed after a time, to estimate others.

        Returns:
            By key the output tokens that a trace began with, those that it has now, and whether it
            ended by itself; and the time of the latest commit.
        """
        with self._errors():
            rows = self._db.execute(
                "SELECT key, length(output_ids) / 4, new_tokens, stop_reason, created FROM traces"
                " WHERE run = ? AND model = ? AND created > ?",
                (self.run, model, after),
            ).fetchall()
        found = {
            key: (max(length - new, 0), length, stop in ("eos", "stop"))
            for key, length, new, stop, _ in rows
        }
        return found, max((created for *_, created in rows), default=after)

    def generated(self, model: str, keys: Collection[str] | None = None) -> tuple[int, int]:
        """Traces and output tokens that this run generated with ``model``, of ``keys`` or all."""
        some = "" if keys is None else " AND key IN (SELECT value FROM json_each(?))"
        given = () if keys is None else (json.dumps(list(keys)),)
        with self._errors():
            row = self._db.execute(
                "SELECT count(*), coalesce(sum(new_tokens), 0) FROM traces"
                f" WHERE run = ? AND model = ?{some}",
                (self.run, model, *given),
            ).fetchone()
        return int(row[0]), int(row[1])
