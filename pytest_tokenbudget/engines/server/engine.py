"""The engine that drives servers which speak the OpenAI protocol.

With servers that take and give token ids it sends exactly the ids that were rendered, and decides
from the ids that come why an output ended. With others it sends messages, puts reasoning that comes
apart back in its place, and counts the text's tokens; such results are marked as counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence

from pytest_tokenbudget.core.engine import Decoding, EngineError, Generated, Request
from pytest_tokenbudget.core.probes import Ask, Reply
from pytest_tokenbudget.engines.background import Background
from pytest_tokenbudget.engines.rows import impossible
from pytest_tokenbudget.engines.server.chat_job import ChatJob
from pytest_tokenbudget.engines.server.http import Fault, Key
from pytest_tokenbudget.engines.server.jobs import IdsJob, RequestJob
from pytest_tokenbudget.engines.server.pool import Pool
from pytest_tokenbudget.engines.server.probe_requests import ask_all
from pytest_tokenbudget.engines.server.served_model import ServedModel
from pytest_tokenbudget.engines.server.server_state import ServerTiming
from pytest_tokenbudget.engines.server.tokens import ServerText
from pytest_tokenbudget.models.spec import ModelSpec
from pytest_tokenbudget.settings.endpoints import Facts

# What is submitted at once; the pool bounds what is in flight.
MOST_AT_ONCE = 1024


class ServerEngine(ServedModel):
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
        super().__init__(spec, facts, timeout, say)
        self._in_flight = in_flight
        self._timing = timing
        self._background = Background("tokenbudget-servers")
        self._pool: Pool | None = None

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
            yield from self._background.stream(self._results(waiting, decoding))

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

    async def _results(
        self, requests: Sequence[Request], decoding: Decoding
    ) -> AsyncGenerator[Generated, None]:
        if self._pool is None:
            self._pool = Pool(
                self.urls,
                Key.from_environment(),
                timeout=self.timeout,
                in_flight=self._in_flight,
                say=self._say,
                timing=self._timing,
            )
        kind = IdsJob if self.continues else ChatJob
        jobs = [kind(self, self._pool, request, decoding) for request in requests]
        ended: asyncio.Queue[Generated | Exception] = asyncio.Queue()

        async def run(job: RequestJob) -> None:
            try:
                ended.put_nowait(await job.result())
            except Exception as error:
                ended.put_nowait(error)

        tasks = [asyncio.create_task(run(job)) for job in jobs]
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
            if (partial := job.so_far(str(fatal))) is not None:
                yield partial
        if isinstance(fatal, Fault):
            raise EngineError(f"model {self.spec.alias}: {fatal.message}") from None
        raise fatal
