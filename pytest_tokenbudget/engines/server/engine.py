"""The engine that drives servers which speak the OpenAI protocol.

With servers that take and give token ids it sends exactly the ids that were rendered, and decides
from the ids that come why an output ended. With others it sends messages, puts reasoning that comes
apart back in its place, and counts the text's tokens; such results are marked as counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from pytest_tokenbudget.core.engine import (
    Decoding,
    Engine,
    EngineError,
    Generated,
    Prompt,
    Request,
)
from pytest_tokenbudget.engines.background import Background
from pytest_tokenbudget.engines.rows import impossible
from pytest_tokenbudget.engines.server.chat_job import ChatJob
from pytest_tokenbudget.engines.server.dialects import DIALECTS
from pytest_tokenbudget.engines.server.heard import Heard
from pytest_tokenbudget.engines.server.http import Fault, Key, Server
from pytest_tokenbudget.engines.server.jobs import IdsJob, RequestJob
from pytest_tokenbudget.engines.server.pool import Pool, ServerTiming
from pytest_tokenbudget.engines.server.probe_requests import ask_all
from pytest_tokenbudget.engines.server.tokens import (
    PromptTokens,
    ServerText,
    choose_tokens,
)
from pytest_tokenbudget.engines.text import ModelText
from pytest_tokenbudget.models.spec import ModelSpec
from pytest_tokenbudget.settings.endpoints import Facts
from pytest_tokenbudget.texts.token_texts import Pieces

if TYPE_CHECKING:
    from pytest_tokenbudget.core.probes import Ask, Reply
    from pytest_tokenbudget.engines import Tokenizer

# What is submitted at once; the pool bounds what is in flight.
MOST_AT_ONCE = 1024


class ServerEngine(Engine):
    """Drives one or several servers that serve one model.

    Args:
        spec: The model; its ``endpoint`` names the servers.
        facts: What the servers say of themselves.
        in_flight: Requests that each server is given at once; None finds out what it sustains.
        timeout: Seconds without a byte after which a request has failed.
        say: Takes lines for the terminal.
        timing: Pauses between tries.

    Raises:
        EngineError: If ids are demanded of a server that knows none.
    """

    def __init__(
        self,
        spec: ModelSpec,
        facts: Facts,
        *,
        in_flight: int | None = None,
        timeout: float = 120.0,
        say: Callable[[str], None] = lambda line: None,
        timing: ServerTiming | None = None,
    ) -> None:
        if spec.endpoint is None:
            raise EngineError(f"model {spec.alias}: no server is named for it")
        if spec.endpoint.api == "ids" and not facts.ids:
            raise EngineError(
                f"model {spec.alias}: {spec.endpoint.urls[0]} ({facts.kind}) neither takes nor "
                f"gives token ids; use --server-api chat or auto"
            )
        self.spec = spec
        self.facts = facts
        self.continues = facts.ids and spec.endpoint.api != "chat"
        self.urls = spec.endpoint.urls
        self._in_flight = in_flight
        self.timeout = timeout
        self._say = say
        self._timing = timing
        self.dialect = DIALECTS[facts.kind]
        self._background = Background("tokenbudget-servers")
        self._pool: Pool | None = None
        self._told = False
        self._told_odd = False
        self.ids_came = False  # whether any answer had token ids
        self.without_ids = 0  # how many had text and none

    @property
    def engine_name(self) -> str:
        """Short name, fit for file names."""
        return self.facts.kind

    @cached_property
    def tokens(self) -> PromptTokens:
        """What renders prompts and stands between text and ids.

        Raises:
            EngineError: If there is no tokenizer.
        """
        return choose_tokens(self.spec, self.facts, self.timeout)

    @cached_property
    def context(self) -> int:
        """Tokens that prompt and output may have together: the model's, or less by the server."""
        known = [each for each in (self.spec.context, self.facts.context) if each is not None]
        return min(known) if known else self.tokens.context

    @property
    def eos_ids(self) -> frozenset[int]:
        """Ids that end a sequence."""
        return self.tokens.eos_ids

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The model's tokenizer; None where only its server has it.

        Raises:
            EngineError: If there is none.
        """
        return self.tokens.tokenizer if isinstance(self.tokens, ModelText) else None

    @cached_property
    def vocabulary(self) -> int:
        """A bound on token ids: the model's vocabulary, where it is known here."""
        if not isinstance(self.tokens, ModelText):
            return 1 << 31
        rows = getattr(self.tokens.config.get_text_config(), "vocab_size", None) or 0
        return max(rows, len(self.tokens.tokenizer))

    @property
    def bos_id(self) -> int | None:
        """The id that begins a sequence, where a tokenizer of its own says so."""
        return getattr(self.tokens, "bos_id", None)

    def render(self, messages: Sequence[Mapping[str, str]], thinking: bool | None = None) -> Prompt:
        """Render chat messages into a prompt that ends where the model begins to write.

        Raises:
            EngineError: If there is no tokenizer, or the template refuses the messages.
        """
        return self.tokens.render(messages, thinking)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of output ids: thinking tags are kept, end-of-sequence and padding are not."""
        return self.tokens.decode(ids)

    def decode_prompt(self, ids: Sequence[int]) -> str:
        """Text of prompt ids, with all of their special tokens."""
        return self.tokens.decode_prompt(ids)

    @cached_property
    def pieces(self) -> Pieces | None:
        """``decode`` with what is learned of it; None where each decoding is a request."""
        return None if isinstance(self.tokens, ServerText) else Pieces(self.decode)

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a text that is put into a prompt; tags in it become their own tokens."""
        return self.tokens.encode(text)

    def count(self, text: str) -> int | None:
        """Tokens of a text by the model's tokenizer; None where none is known."""
        try:
            return len(self.tokens.encode(text))
        except EngineError:
            return None

    def rows(self, prompt: int, total: int) -> int:
        """How many sequences it likes to be given at once: many, since servers schedule."""
        return MOST_AT_ONCE

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> Iterator[Generated]:
        """Generate all at once, and yield each result as it ends.

        What goes wrong with one request for good ends in an error result, with the ids that came.

        Raises:
            ValueError: If a cap reaches beyond the context, or a request without messages is put to
                a server that takes nothing else.
            EngineError: If no request can fare better: no server is left, the key is refused, the
                model is gone. What had come is yielded first.
        """
        waiting: list[Request] = []
        for request in requests:
            result = impossible(request, self.spec.alias, self.context)
            if result is not None:
                yield result
            else:
                waiting.append(request)
        if waiting:
            yield from self._background.stream(self._all(waiting, decoding))

    def ask(self, asks: Sequence[Ask], at_once: int = 1) -> list[Reply]:
        """Ask all, ``at_once`` at a time, and give the replies in the order of the asks.

        All go to one server, the first that answers. Fields of an ask stand at the top level of the
        body. What a server refuses is in the reply.
        """
        return ask_all(self, asks, at_once, self._background)

    def close(self) -> None:
        """Close all connections and end the thread that reads from them."""
        pool, self._pool = self._pool, None
        try:
            if pool is not None:
                self._background.run(pool.close())
        finally:
            self._background.close()
            tokens = self.__dict__.get("tokens")
            if isinstance(tokens, ServerText):
                tokens.close()

    async def _all(
        self, requests: Sequence[Request], decoding: Decoding
    ) -> AsyncIterator[Generated]:
        if self._pool is None:
            self._pool = Pool(
                self.urls,
                Key.from_environment(),
                timeout=self.timeout,
                in_flight=self._in_flight,
                say=self._say,
                timing=self._timing,
            )
            await self._pool.start()
        kind = IdsJob if self.continues else ChatJob
        jobs = [kind(self, self._pool, request, decoding) for request in requests]
        ended: asyncio.Queue[Generated | Exception] = asyncio.Queue()

        async def one(job: RequestJob) -> None:
            try:
                ended.put_nowait(await job.result())
            except Exception as error:
                ended.put_nowait(error)

        tasks = [asyncio.create_task(one(job)) for job in jobs]
        fatal: Exception | None = None
        left = {job.request.key: job for job in jobs}
        try:
            while left:
                result = await ended.get()
                if isinstance(result, Exception):
                    fatal = result
                    break
                left.pop(result.request.key, None)
                yield result
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if fatal is None:
            return
        while not ended.empty():
            late = ended.get_nowait()
            if isinstance(late, Generated):
                left.pop(late.request.key, None)
                yield late
        # What had come of the others is kept: a later run goes on from there.
        for job in left.values():
            if (kept := job.so_far(str(fatal))) is not None:
                yield kept
        if isinstance(fatal, Fault):
            raise EngineError(f"model {self.spec.alias}: {fatal.message}") from None
        raise fatal

    def note_odd_counts(self, heard: Heard, server: Server) -> None:
        """Tell once that a server gives counts that cannot be true, which are ignored."""
        if not heard.odd_counts or self._told_odd:
            return
        self._told_odd = True
        shown = ", ".join(f"{name} {value}" for name, value in heard.odd_counts.items())
        self._say(f"{server.url} gives counts that cannot be true, which are ignored: {shown}")

    def note_prompt(self, request: Request, heard: Heard, server: Server) -> None:
        """Tell once if the server counts a prompt's tokens otherwise than the tokenizer here."""
        said = heard.usage.get("prompt_tokens")
        if said is None or said == len(request.prompt_ids) or self._told:
            return
        self._told = True
        self._say(
            f"{server.url} counts {said} tokens for a prompt that has {len(request.prompt_ids)} "
            f"with the tokenizer here: its chat template or its tokenizer is another one"
        )
