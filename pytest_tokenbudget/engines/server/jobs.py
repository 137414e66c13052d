"""Requests on their way to a server, those by ids among them."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import cached_property
from typing import Any

from pytest_tokenbudget.core.engine import Decoding, EngineError, Generated, Request
from pytest_tokenbudget.core.trace import StopReason
from pytest_tokenbudget.engines.rows import BatchRow, failed, generated
from pytest_tokenbudget.engines.sampling import request_seed
from pytest_tokenbudget.engines.server.dialects_base import OutputSettings
from pytest_tokenbudget.engines.server.http import Fault, FaultKind, Server
from pytest_tokenbudget.engines.server.output import End, MalformedError, NoIdsError, ServerOutput
from pytest_tokenbudget.engines.server.pool import Pool
from pytest_tokenbudget.engines.server.served_model import ServedModel
from pytest_tokenbudget.texts.token_texts import REPLACEMENT

# The form of tokens that are no text: <|eot|>, [EOS], </s>.
_MARKER = re.compile(r"<[^<>]*>|\[[A-Z_/]+\]")
# Answers with text and without ids, before any with ids, by which a server is known to give none.
MOST_WITHOUT_IDS = 2


class RequestJob:
    """One request on its way; what has come survives a fault."""

    def __init__(
        self, engine: ServedModel, pool: Pool, request: Request, decoding: Decoding
    ) -> None:
        self.engine = engine
        self.pool = pool
        self.request = request
        self.decoding = decoding
        self.started: float | None = None

    async def result(self) -> Generated:
        """Its result, an error result where only this request has failed.

        Raises:
            Fault: If the others cannot fare better.
            EngineError: If the server is not what it was taken for.
        """
        try:
            return await self.pool.run(
                self.guarded, sticky=self.request.problem_id or self.request.prompt_ids
            )
        except Fault as fault:
            if fault.fatal:
                raise
            return self.so_far(fault.message) or failed(self.request, fault.message)

    async def guarded(self, server: Server) -> Generated:
        """One try on one server; an answer that nothing here can read is a fault of this try."""
        if self.started is None:
            self.started = time.monotonic()
        try:
            return await self.attempt(server)
        except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
            what = f"{type(error).__name__}: {str(error)[:200]}"
        raise server.fault(FaultKind.MALFORMED, f"gave an answer that cannot be read ({what})")

    async def attempt(self, server: Server) -> Generated:
        """One try on one server."""
        raise NotImplementedError

    def so_far(self, error: str) -> Generated | None:
        """An error result with what has come; None where nothing has."""
        raise NotImplementedError

    def settings(self, ids: Sequence[int], tokens: int) -> OutputSettings:
        """What is wanted of one try that goes on from ids, with ``tokens`` more."""
        seed = request_seed(self.decoding.seed, ids, self.request.sample)
        return OutputSettings(tokens, self.decoding, seed, self.engine.eos_ids)

    @property
    def seconds(self) -> float:
        """Time since the first try began."""
        return 0.0 if self.started is None else time.monotonic() - self.started


class IdsJob(RequestJob):
    """A request by ids: goes on from those that have come when it is tried again."""

    def __init__(
        self, engine: ServedModel, pool: Pool, request: Request, decoding: Decoding
    ) -> None:
        super().__init__(engine, pool, request, decoding)
        self.row = BatchRow(request, decoding, engine.eos_ids, engine.decode)
        # What each id after the prefix added to the text, where somebody watches who cannot decode;
        # and whether the stream has left out some of it.
        self.texts: list[str] = []
        self.gap = False

    @cached_property
    def prefix_texts(self) -> list[str]:
        """The same for the ids of the prefix, all of it with the first one."""
        ids = self.request.prefix_ids
        return [self._decoded(ids), *[""] * (len(ids) - 1)] if ids else []

    async def attempt(self, server: Server) -> Generated:
        row = self.row
        in_one_go = not row.output
        output = ServerOutput()
        while row.stop_reason is None:
            before = len(row.output)
            output = ServerOutput()
            if not await self._stream(server, output, before):
                in_one_go = False
                continue
            self._judge(output, server)
        # A server counts what it made; of an output in several pieces it knows the last one only.
        usage = output.usage if in_one_go else {}
        return replace(generated(row, self.seconds, output.finish_reason), usage=usage)

    async def _stream(self, server: Server, output: ServerOutput, before: int) -> bool:
        """Take what one request gives; False where its stream had left out ids and was stopped."""
        row, dialect = self.row, self.engine.dialect
        settings = self.settings(row.ids, self.request.cap - before)
        path, body = dialect.ids_request(self.engine.facts, row.ids, settings)
        stream = server.stream(path, body, lambda: len(output.ids))
        async with aclosing(stream) as events:
            async for event in events:
                self._read(event, output, server, before)
                if output.id_count is not None and output.id_count > len(output.ids):
                    break
                goes_on = self._take(output.ids[len(row.output) - before :], server)
                self._show(output.new_text)
                # More ids than allowed: its count says whether some came twice.
                doubtful = row.stop_reason is StopReason.LENGTH
                if not goes_on and not (doubtful and len(output.ids) < 2 * settings.tokens + 64):
                    return True
            else:
                self._check_total(output, server, before)
                return True
        ids = await dialect.whole_ids(server, path, body, output.id_count)
        had = len(row.output) - before
        if len(ids) <= had:
            raise server.fault(
                FaultKind.MALFORMED,
                f"counts {output.id_count} tokens where its stream has {len(output.ids)} ids, and "
                f"gives {len(ids)} when asked again",
            )
        # Where it does not repeat itself to the letter, this is the output.
        if ids[:had] != row.output[before:]:
            del self.texts[before - len(self.request.prefix_ids) :]
        del row.output[before:]
        self._take(ids, server)
        self.gap = True
        self._show("")
        return False

    def _read(
        self, event: Mapping[str, Any], output: ServerOutput, server: Server, before: int
    ) -> None:
        """Take one event; an EngineError if the server gives no ids at all."""
        engine, known = self.engine, len(output.ids)
        try:
            engine.dialect.read_ids(event, output)
            for token_id in output.ids[known:]:
                if not 0 <= token_id < engine.vocabulary:
                    raise MalformedError(f"gave the token id {token_id}")
            if output.id_count is not None and not 0 <= output.id_count <= self.request.cap:
                raise MalformedError(
                    f"counts {output.id_count} tokens where {self.request.cap} were allowed"
                )
        except NoIdsError:
            engine.without_ids += 1
            if not engine.ids_came and engine.without_ids > MOST_WITHOUT_IDS:
                raise EngineError(
                    f"{server.url} ({engine.facts.kind} {engine.facts.version}) gives text without "
                    "token ids; use a later version of it, ask it directly and not through a "
                    "gateway, or use --server-api chat"
                ) from None
            self._reset(before)
            raise server.fault(FaultKind.MALFORMED, "gave text without token ids") from None
        except MalformedError as error:
            self._reset(before)
            raise server.fault(FaultKind.MALFORMED, str(error)) from None
        engine.ids_came |= bool(output.ids)

    def _check_total(self, output: ServerOutput, server: Server, before: int) -> None:
        """Compare the ids that came with the server's own count: one may be lost, or doubled."""
        self.engine.note_implausible_counts(output, server)
        total = output.usage.get("completion_tokens")
        if total and total != len(output.ids):
            self._reset(before)
            raise server.fault(
                FaultKind.MALFORMED,
                f"counts {total:,} tokens and gave {len(output.ids):,} token ids",
            )

    def _reset(self, before: int) -> None:
        """Forget what the last request gave."""
        del self.texts[max(before - len(self.request.prefix_ids), 0) :]
        del self.row.output[before:]
        self.row.stop_reason = None

    def _take(self, ids: Sequence[int], server: Server) -> bool:
        """Take the ids that came; False where a server goes on beyond the end."""
        self.pool.tick(server, len(ids))
        for token_id in ids:
            if self.row.stop_reason is not None:
                return False
            self.row.append(token_id)
        if self.engine.tally is not None:
            self.engine.tally(self.request, len(self.row.output))
        return True

    def _show(self, added: str) -> None:
        """Show the watch what there is, with the text that came last."""
        watch, row, request = self.engine.watch, self.row, self.request
        if watch is None:
            return
        if self.engine.pieces is not None:
            watch.wrote(request, row.output)
            return
        new = len(row.output) - len(request.prefix_ids) - len(self.texts)
        if new > 0:
            self.texts += [self._added() if self.gap else added, *[""] * (new - 1)]
        if watch.follows(request):
            watch.wrote(request, row.output, [*self.prefix_texts, *self.texts])

    def _added(self) -> str:
        """The text that is known now and was not before, by asking for all of it."""
        known = "".join(self.texts)
        text = self._decoded(self.row.output[len(self.request.prefix_ids) :])
        settled = text.rstrip(REPLACEMENT)
        self.gap = settled != text
        return settled.removeprefix(known) if settled.startswith(known) else ""

    def _decoded(self, ids: Sequence[int]) -> str:
        """Text of ids; nothing where it cannot be had, as it is for show only."""
        with suppress(EngineError):
            return self.engine.decode(ids)
        return ""

    def _judge(self, output: ServerOutput, server: Server) -> None:
        """What the server's word for the end means where the ids do not tell."""
        row = self.row
        if row.stop_reason is not None:
            return
        if output.end is None:
            raise server.fault(
                FaultKind.CUT, f"ended its answer after {len(row.output)} tokens without an end"
            )
        if output.end is End.LENGTH:
            raise server.fault(
                FaultKind.CONTEXT,
                f"stopped after {len(row.output)} of {self.request.cap} tokens and says "
                f"{output.finish_reason!r}: its own limit is lower (its context, or a setting of "
                "it)",
            )
        if output.withheld:
            raise server.fault(FaultKind.WITHHELD, output.withheld)
        if output.end is End.OTHER:
            raise server.fault(
                FaultKind.SERVER,
                f"ended an output after {len(row.output)} tokens: {output.finish_reason!r}",
            )
        if output.end is End.EOS and not self._has_ended(output):
            raise server.fault(
                FaultKind.MALFORMED,
                f"says {output.finish_reason!r} after {len(row.output)} tokens, of which the last "
                "ends no output",
            )
        row.stop_reason = StopReason.EOS if output.end is End.EOS else StopReason.STOP

    def _has_ended(self, output: ServerOutput) -> bool:
        """Whether the last id is a token that can end an output, though none that is known to."""
        last = self.row.output[-1] if self.row.output else None
        if last is None or last == output.matched:
            return last is not None
        try:
            text = self.engine.tokens.decode_prompt([last])
        except EngineError:
            return True  # nothing here can tell
        return not text or bool(_MARKER.fullmatch(text))

    def so_far(self, error: str) -> Generated | None:
        if len(self.row.output) == len(self.request.prefix_ids):
            return None
        # It may have ended in full and lost its last event only.
        return generated(self.row, self.seconds, error=error)
