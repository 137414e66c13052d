"""Requests by messages on their way to a server."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from pytest_tokenbudget.core.engine import Decoding, Generated, Request
from pytest_tokenbudget.core.trace import StopReason
from pytest_tokenbudget.engines.server.chat import (
    Written,
    as_written,
    check_counts,
    check_surplus,
    hidden_tokens,
    mark_plain,
    stop_of,
)
from pytest_tokenbudget.engines.server.heard import End, Heard, MalformedError
from pytest_tokenbudget.engines.server.http import FaultKind, Server
from pytest_tokenbudget.engines.server.jobs import RequestJob
from pytest_tokenbudget.engines.server.pool import Pool
from pytest_tokenbudget.engines.server.tokens import (
    count_tokens,
    end_texts,
    put_in,
    template_of,
)
from pytest_tokenbudget.models.thinking_formats import GENERIC, builtin_formats

if TYPE_CHECKING:
    from pytest_tokenbudget.engines.server.engine import ServerEngine

# Text that is longer than this is counted while it comes.
CHARACTERS_A_TOKEN = 8


class ChatJob(RequestJob):
    """A request by messages: what came before a fault cannot be gone on from."""

    def __init__(
        self, engine: ServerEngine, pool: Pool, request: Request, decoding: Decoding
    ) -> None:
        super().__init__(engine, pool, request, decoding)
        if not request.messages:
            raise ValueError(
                f"request {request.key}: it has no messages, and {engine.facts.kind} servers "
                f"take nothing else here"
            )
        self.heard = Heard()
        self.prompt = engine.tokens.decode_prompt(request.prompt_ids)

    async def attempt(self, server: Server) -> Generated:
        self.start()
        engine, request = self.engine, self.request
        path, body = engine.dialect.chat_request(
            engine.facts,
            request.messages,
            self.wish(request.prompt_ids, request.cap),
            self._template(),
        )
        heard, pieces, counted_at = Heard(), 0, CHARACTERS_A_TOKEN * request.cap
        stream = server.stream(path, body, lambda: _length(heard))
        async with aclosing(stream) as events:
            async for event in events:
                before = _length(heard)
                try:
                    engine.dialect.read_chat(event, heard)
                except MalformedError as error:
                    raise server.fault(FaultKind.MALFORMED, str(error)) from None
                grown = int(_length(heard) > before)
                self.pool.tick(server, grown)
                pieces += grown
                if engine.tally is not None:
                    engine.tally(request, pieces)  # servers send about a token a piece
                self.heard = max(self.heard, heard, key=_length)
                if before + grown > counted_at:
                    counted_at = 2 * _length(heard)
                    self._check_limit(heard, server)
                watch = engine.watch
                if watch is not None and watch.follows(request):
                    watch.wrote_text(request, self._written(heard).text)
        if heard.end is None:
            raise server.fault(FaultKind.CUT, "ended its answer without an end")
        if heard.withheld:
            self.heard = heard
            raise server.fault(FaultKind.WITHHELD, heard.withheld)
        if heard.end is End.OTHER:
            raise server.fault(FaultKind.SERVER, f"ended an output with {heard.word!r}")
        self.heard = heard
        engine.note_prompt(request, heard, server)
        engine.note_odd_counts(heard, server)
        written = self._written(heard)
        wrong = check_counts(heard, self._count(written.text), request.cap)
        if wrong:
            kind = FaultKind.CONTEXT if heard.end is End.LENGTH else FaultKind.LIMIT
            raise server.fault(kind, wrong)
        text = "".join(message["content"] for message in request.messages)
        surplus = check_surplus(heard, written, len(request.prompt_ids), text, self._count)
        if surplus:
            raise server.fault(FaultKind.MALFORMED, surplus)
        return self._counted(written, stop_of(heard, written, request.cap))

    def _check_limit(self, heard: Heard, server: Server) -> None:
        """Stop reading where a server goes on beyond the limit that it was given.

        Raises:
            Fault: If it does.
        """
        written = self._written(heard)
        if wrong := check_counts(heard, self._count(written.text), self.request.cap):
            raise server.fault(FaultKind.LIMIT, f"{wrong}; the rest was not read")

    def _template(self) -> dict[str, Any]:
        """The variables for the chat template that give the prompt as it was rendered here."""
        spec, request, tokens = self.engine.spec, self.request, self.engine.tokens
        if request.thinking is not None or not self.engine.dialect.takes_template:
            return template_of(spec, request.thinking)
        # What the template does by itself is said, since servers have defaults of their own.
        for thinking in (True, False) if template_of(spec, True) else ():
            if tokens.render(request.messages, thinking).ids == request.prompt_ids:
                return template_of(spec, thinking)
        return {}

    def so_far(self, error: str) -> Generated | None:
        if not _length(self.heard):
            return None
        return self._counted(self._written(self.heard), StopReason.ERROR, error)

    def _written(self, heard: Heard) -> Written:
        ends = end_texts(self.engine.tokens)
        hidden = hidden_tokens(heard, self._count)
        return as_written(heard, self.engine.spec.thinking, self.prompt, ends, hidden)

    def _count(self, text: str) -> int:
        return len(self.engine.tokens.encode(text))

    def _counted(self, written: Written, reason: StopReason, error: str = "") -> Generated:
        cap = self.request.cap
        ended = reason is StopReason.EOS
        counted = count_tokens(written.text, self.engine.tokens, most=cap, ended=ended)
        counted = put_in(counted, written.hidden_at, hidden_tokens(self.heard, self._count), cap)
        if written.plain_from is not None:
            form = self.engine.spec.thinking or builtin_formats()[GENERIC]
            counted = mark_plain(counted, written.plain_from, form.tags)
        return Generated(
            request=self.request,
            output_ids=counted.ids,
            stop_reason=reason,
            engine_reason=self.heard.word or reason.value,
            seconds=self.seconds,
            error=error,
            text=counted.text,
            offsets=counted.offsets,
            counted=True,
            usage=self.heard.usage,
        )


def _length(heard: Heard) -> int:
    return len(heard.content) + len(heard.reasoning or "")
