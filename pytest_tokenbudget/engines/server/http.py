"""One server that speaks HTTP: parsed answers, server-sent events, and faults in kinds.

Whatever goes wrong comes out as a ``Fault``. The HTTP library's own exceptions hold the request and
with it the key; so they end here, and no fault has one as its cause or context.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, suppress
from functools import cache
from typing import Any

import httpx2

from pytest_tokenbudget.engines.server.address import Address, Key
from pytest_tokenbudget.engines.server.faults import Fault, FaultKind, error_in, retry_after
from pytest_tokenbudget.engines.server.payload import parsed
from pytest_tokenbudget.engines.server.reading import (
    TooMuchError,
    allowance,
    event_data,
    media_type,
    parts,
    read,
)
from pytest_tokenbudget.engines.server.request_parameters import RequestParameters
from pytest_tokenbudget.engines.server.server_faults import Exchange, ServerFaults

__all__ = ["Fault", "FaultKind", "Key", "Server"]

_CONNECT = 10.0
_LONGEST_ERROR = 64 * 2**10
# Seconds for the body of an error: what has come until then says enough.
_ERROR_PATIENCE = 10.0
# An idle connection is given up before usual servers close it (5 s), not at the same moment.
_KEEP_ALIVE = 2.0
_SILENT = frozenset({FaultKind.CONNECTION, FaultKind.TIMEOUT, FaultKind.CUT})
# What a request may end with in place of an answer; asyncio's timeouts are an OSError.
_BROKEN = (TooMuchError, httpx2.HTTPError, httpx2.InvalidURL, OSError)


class Server:
    """One server behind one base URL.

    Paths without a leading slash lie under the base URL (``completions``), others at the server's
    root (``/tokenize``), which is the base without its ``/v1``.

    Args:
        url: Base URL; without any path, ``/v1`` is added.
        key: Sent with every request.
        timeout: Seconds without a byte after which a request has failed.

    Raises:
        EngineError: The URL is none, or holds a credential.
    """

    def __init__(self, url: str, key: Key | None = None, timeout: float = 120.0) -> None:
        self._key = key or Key()
        self._timeout = timeout
        self._address = Address.parse(url)
        self.url = self._address.base
        self._faults = ServerFaults(self.url, self._key)
        self.fault = self._faults.fault
        self._parameters = RequestParameters()
        self._client = self._new_client()

    def _new_client(self) -> httpx2.AsyncClient:
        limits = httpx2.Limits(keepalive_expiry=_KEEP_ALIVE)
        timeout = self._timeout
        return httpx2.AsyncClient(
            headers={"User-Agent": "pytest-tokenbudget", **self._key.header()},
            timeout=httpx2.Timeout(timeout, connect=min(_CONNECT, timeout), pool=None),
            limits=limits,
            # Proxies named in the environment are for other hosts than this one.
            transport=httpx2.AsyncHTTPTransport(verify=_certificates(), limits=limits)
            if self._address.loopback
            else None,
            verify=_certificates(),
        )

    def __repr__(self) -> str:
        return f"<server {self.url}>"

    async def get(self, path: str, *, timeout: float | None = None) -> dict[str, Any]:
        """Ask for a path and give its parsed JSON.

        Raises:
            Fault: Anything that is not that.
        """
        return self._parsed(await self._whole("GET", path, None, timeout), path)

    async def post(
        self,
        path: str,
        body: Mapping[str, Any],
        *,
        timeout: float | None = None,
        adapt: bool = False,
    ) -> dict[str, Any]:
        """Send JSON and give the parsed JSON that is answered.

        With ``adapt``, parameters that the server wants otherwise are sent as it wants them.

        Raises:
            Fault: Anything that is not that.
        """
        while True:
            sent = self._parameters.applied(body) if adapt else body
            try:
                return self._parsed(await self._whole("POST", path, sent, timeout), path)
            except Fault as error:
                fault = error
            if not adapt or not self._wants_otherwise(body, sent, fault):
                raise fault

    async def stream(
        self, path: str, body: Mapping[str, Any], output: Callable[[], int] | None = None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Send JSON and give the objects of the event stream that is answered.

        It ends at ``[DONE]`` or where the body ends: whether it was whole is for the caller to
        know, since servers end in different ways. A server that answers with one JSON object
        instead gives that one. Leave it early inside ``contextlib.aclosing``: that closes the
        connection, and the server stops generating.

        Parameters that the server wants under another name, or does not know and no answer depends
        on, are sent as it wants them, now and in later requests.

        ``output`` tells how much output has come in the events so far. Events that add none do not
        keep a request alive; without it every event counts.

        Raises:
            Fault: After the objects that came before it.
        """
        while True:
            sent = self._parameters.applied(body)
            came, fault = False, None
            async with aclosing(self._events(path, sent, output)) as events:
                try:
                    async for event in events:
                        came = True
                        yield event
                except Fault as error:
                    fault = error
            if fault is None:
                return
            if came or not self._wants_otherwise(body, sent, fault):
                raise fault

    async def _events(
        self, path: str, body: Mapping[str, Any], output: Callable[[], int] | None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The objects of one event stream."""
        content = _encoded(body)
        allowed = allowance(body, len(content), self._timeout)
        exchange = Exchange("POST", path, allowed, self._timeout)
        now = asyncio.get_running_loop().time
        end = now() + allowed.seconds
        fault: Fault | None = None
        try:
            async with AsyncExitStack() as stack:
                async with asyncio.timeout_at(end):
                    response = await stack.enter_async_context(
                        self._request(self._client, "POST", path, content, None)
                    )
                exchange.began = True
                if not response.is_success:
                    fault = await self._refusal(response, path, body)
                elif media_type(response) in ("application/json", "text/json"):
                    async with asyncio.timeout_at(end):
                        whole = await read(response, allowed.size)
                    yield self._parsed(whole, path, in_pieces=True)
                else:
                    async with aclosing(event_data(response, allowed, end, output)) as events:
                        async for data in events:
                            yield self._parsed(data, path, in_pieces=True)
        except _BROKEN as error:
            exchange.silent = now() < end
            fault = self._faults.broken(error, exchange)
        if fault:
            raise fault

    def _wants_otherwise(
        self, body: Mapping[str, Any], sent: Mapping[str, Any], fault: Fault
    ) -> bool:
        """Whether a refusal says how the server wants the same request."""
        refused = fault.kind is FaultKind.REFUSED
        return refused and self._parameters.learn(body, sent, fault.answer)

    async def ready(self, timeout: float = _CONNECT) -> Fault | None:
        """Whether the server answers and has its model: None, or what stands against it."""
        last: Fault | None = None
        for path in ("/health", "models"):
            try:
                await self._whole("GET", path, None, timeout)
            except Fault as fault:
                waits = fault.kind is FaultKind.OVERLOADED and fault.status != 429
                if fault.kind in _SILENT or waits:
                    return fault
                last = fault
                # Not every server has /health, or tells it to everybody.
                if fault.kind in (FaultKind.SERVER, FaultKind.REFUSED, FaultKind.NO_MODEL):
                    continue
            return None
        return last if last and last.kind is FaultKind.SERVER else None

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()

    def _request(
        self,
        client: httpx2.AsyncClient,
        method: str,
        path: str,
        content: bytes,
        timeout: float | None,
    ) -> AbstractAsyncContextManager[httpx2.Response]:
        """The library's context manager for one request and its answer."""
        more: dict[str, Any] = {}
        if content:
            more["content"] = content
            more["headers"] = {"Content-Type": "application/json"}
        if timeout is not None:
            more["timeout"] = httpx2.Timeout(timeout, pool=None)
        return client.stream(method, self._address.url_of(path), **more)

    async def _whole(
        self, method: str, path: str, body: Mapping[str, Any] | None, timeout: float | None
    ) -> bytes:
        """The body of an answer that is a success."""
        answer = await self._exchange(self._client, method, path, body, timeout)
        if isinstance(answer, Fault) and answer.dropped and method == "GET":
            # The server may have closed the connection just before it was used again.
            async with self._new_client() as fresh:
                answer = await self._exchange(fresh, method, path, body, timeout)
        if isinstance(answer, Fault):
            raise answer
        return answer

    async def _exchange(
        self,
        client: httpx2.AsyncClient,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        timeout: float | None,
    ) -> bytes | Fault:
        """One request: the body of its answer if that is a success, else its fault.

        The fault is not raised here: the library's error would become its context.
        """
        content = b"" if body is None else _encoded(body)
        seconds = self._timeout if timeout is None else timeout
        allowed = allowance(body, len(content), seconds)
        exchange = Exchange(method, path, allowed, seconds)
        try:
            async with (
                asyncio.timeout(allowed.seconds),
                self._request(client, method, path, content, timeout) as response,
            ):
                exchange.began = True
                if response.is_success:
                    return await read(response, allowed.size)
                return await self._refusal(response, path, body or {})
        except _BROKEN as error:
            return self._faults.broken(error, exchange)

    def _parsed(
        self, content: bytes | str, path: str, *, in_pieces: bool = False
    ) -> dict[str, Any]:
        """The JSON object of an answer or of an event; or the fault that it is."""
        text = content if isinstance(content, str) else content.decode("utf-8", "replace")
        value = parsed(text, in_pieces=in_pieces)
        if (error := error_in(value)) is not None:
            raise self._faults.error(*error, path)
        if isinstance(value, dict):
            return value
        raise self._faults.no_object(text, path)

    async def _refusal(
        self, response: httpx2.Response, path: str, sent: Mapping[str, Any]
    ) -> Fault:
        """The fault in an answer that is no success."""
        if response.is_redirect:
            location = response.headers.get("location", "")
            return self._faults.redirect(response.status_code, location, path)
        content = b""
        with suppress(httpx2.HTTPError, OSError, TooMuchError):
            async with asyncio.timeout(min(self._timeout, _ERROR_PATIENCE)):
                async for part in parts(response, _LONGEST_ERROR):
                    content += part
        text = content.decode("utf-8", "replace")
        fault = self._faults.error(response.status_code, text, path, sent)
        fault.retry_after = retry_after(response.headers)
        return fault


def _encoded(body: Mapping[str, Any]) -> bytes:
    # Not the library's encoder: it fails at lone surrogates, which models do write.
    return json.dumps(body).encode("ascii")


@cache
def _certificates() -> ssl.SSLContext:
    """Read once: it takes longer than a request does."""
    return httpx2.create_ssl_context()
