"""Requests by messages on their way to a server."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

from pytest_tokenbudget.core.engine import Decoding, Generated, Request
from pytest_tokenbudget.core.trace import StopReason
from pytest_tokenbudget.engines.server.chat import (
    Written,
    check_counts,
    check_surplus,
    escape_tags,
    hidden_tokens,
    restore_output,
    stop_reason_of,
)
from pytest_tokenbudget.engines.server.http import FaultKind, Server
from pytest_tokenbudget.engines.server.jobs import RequestJob
from pytest_tokenbudget.engines.server.output import End, MalformedError, ServerOutput
from pytest_tokenbudget.engines.server.pool import Pool
from pytest_tokenbudget.engines.server.served_model import ServedModel
from pytest_tokenbudget.engines.server.tokens import count_tokens, end_texts, insert_hidden
from pytest_tokenbudget.engines.text import thinking_variables
from pytest_tokenbudget.models.thinking_formats import GENERIC, builtin_formats

# Text that is longer than this is counted while it comes.
CHARACTERS_A_TOKEN = 8


class ChatJob(RequestJob):
    """A request by messages: what came before a fault cannot be gone on from."""

    def __init__(
        self, engine: ServedModel, pool: Pool, request: Request, decoding: Decoding
    ) -> None:
        super().__init__(engine, pool, request, decoding)
        if not request.messages:
            raise ValueError(
                f"request {request.key}: it has no messages, and {engine.facts.kind} servers "
                f"take nothing else here"
            )
        self.output = ServerOutput()
        self.prompt = engine.tokens.decode_prompt(request.prompt_ids)

    async def attempt(self, server: Server) -> Generated:
        engine, request, cap = self.engine, self.request, self.request.cap
        path, body = engine.dialect.chat_request(
            engine.facts, request.messages, self.settings(request.prompt_ids, cap), self._template()
        )
        output, pieces, counted_at = ServerOutput(), 0, CHARACTERS_A_TOKEN * cap
        stream = server.stream(path, body, lambda: _length(output))
        async with aclosing(stream) as events:
            async for event in events:
                before = _length(output)
                try:
                    engine.dialect.read_chat(event, output)
                except MalformedError as error:
                    raise server.fault(FaultKind.MALFORMED, str(error)) from None
                grown = int(_length(output) > before)
                self.pool.tick(server, grown)
                pieces += grown
                if engine.tally is not None:
                    engine.tally(request, pieces)  # servers send about a token a piece
                self.output = max(self.output, output, key=_length)
                if before + grown > counted_at:
                    counted_at = 2 * _length(output)
                    wrong = check_counts(output, self._count(self._written(output).text), cap)
                    if wrong:
                        # It goes on beyond the limit that it was given.
                        raise server.fault(FaultKind.LIMIT, f"{wrong}; the rest was not read")
                watch = engine.watch
                if watch is not None and watch.follows(request):
                    watch.wrote_text(request, self._written(output).text)
        if output.end is None:
            raise server.fault(FaultKind.CUT, "ended its answer without an end")
        if output.withheld:
            self.output = output
            raise server.fault(FaultKind.WITHHELD, output.withheld)
        if output.end is End.OTHER:
            raise server.fault(FaultKind.SERVER, f"ended an output with {output.finish_reason!r}")
        self.output = output
        engine.note_prompt(request, output, server)
        engine.note_implausible_counts(output, server)
        written = self._written(output)
        wrong = check_counts(output, self._count(written.text), cap)
        if wrong:
            kind = FaultKind.CONTEXT if output.end is End.LENGTH else FaultKind.LIMIT
            raise server.fault(kind, wrong)
        text = "".join(message["content"] for message in request.messages)
        surplus = check_surplus(output, written, len(request.prompt_ids), text, self._count)
        if surplus:
            raise server.fault(FaultKind.MALFORMED, surplus)
        return self._counted(written, stop_reason_of(output, written, cap))

    def _template(self) -> dict[str, Any]:
        """The variables for the chat template that give the prompt as it was rendered here."""
        spec, request, tokens = self.engine.spec, self.request, self.engine.tokens
        if request.thinking is not None or not self.engine.dialect.takes_template:
            return thinking_variables(spec, request.thinking)
        # What the template does by itself is said, since servers have defaults of their own.
        for thinking in (True, False) if thinking_variables(spec, True) else ():
            if tokens.render(request.messages, thinking).ids == request.prompt_ids:
                return thinking_variables(spec, thinking)
        return {}

    def so_far(self, error: str) -> Generated | None:
        if not _length(self.output):
            return None
        return self._counted(self._written(self.output), StopReason.ERROR, error)

    def _written(self, output: ServerOutput) -> Written:
        ends = end_texts(self.engine.tokens)
        hidden = hidden_tokens(output, self._count)
        return restore_output(output, self.engine.spec.thinking, self.prompt, ends, hidden)

    def _count(self, text: str) -> int:
        return len(self.engine.tokens.encode(text))

    def _counted(self, written: Written, reason: StopReason, error: str = "") -> Generated:
        cap = self.request.cap
        ended = reason is StopReason.EOS
        counted = count_tokens(written.text, self.engine.tokens, most=cap, ended=ended)
        counted = insert_hidden(
            counted, written.hidden_at, hidden_tokens(self.output, self._count), cap
        )
        if written.plain_from is not None:
            form = self.engine.spec.thinking or builtin_formats()[GENERIC]
            counted = escape_tags(counted, written.plain_from, form.tags)
        return Generated(
            request=self.request,
            output_ids=counted.ids,
            stop_reason=reason,
            engine_reason=self.output.finish_reason or reason.value,
            seconds=self.seconds,
            error=error,
            text=counted.text,
            offsets=counted.offsets,
            counted=True,
            usage=self.output.usage,
        )


def _length(output: ServerOutput) -> int:
    return len(output.content) + len(output.reasoning or "")
