"""One server that speaks HTTP: parsed answers, server-sent events, and faults in kinds.

Whatever goes wrong comes out as a ``Fault``. The HTTP library's own exceptions hold the request and
with it the key; so they end here, and no fault has one as its cause or context.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from functools import cache
from typing import Any

import httpx2

from pytest_tokenbudget.endpoints import KEY_NAMES
from pytest_tokenbudget.engines.server.address import Address, Key
from pytest_tokenbudget.engines.server.faults import (
    Fault,
    FaultKind,
    error_in,
    is_loading,
    kind_of,
    parsed,
    retry_after,
    said,
)

__all__ = ["Fault", "FaultKind", "Key", "Server"]

_CONNECT = 10.0
_LONGEST_EVENT = 64 * 2**20
_LONGEST_ERROR = 64 * 2**10
# An idle connection is given up before usual servers close it (5 s), not at the same moment.
_KEEP_ALIVE = 2.0
# After [DONE] the rest of the body is read, so that the connection can be used again.
_DRAIN = 0.5
_SILENT = frozenset({FaultKind.CONNECTION, FaultKind.TIMEOUT, FaultKind.CUT})


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
        self._address = Address.of(url)
        self.url = self._address.base
        limits = httpx2.Limits(keepalive_expiry=_KEEP_ALIVE)
        self._client = httpx2.AsyncClient(
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
        self, path: str, body: Mapping[str, Any], *, timeout: float | None = None
    ) -> dict[str, Any]:
        """Send JSON and give the parsed JSON that is answered.

        Raises:
            Fault: Anything that is not that.
        """
        return self._parsed(await self._whole("POST", path, body, timeout), path)

    async def stream(
        self, path: str, body: Mapping[str, Any]
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Send JSON and give the objects of the event stream that is answered.

        It ends at ``[DONE]`` or where the body ends: whether it was whole is for the caller to
        know, since servers end in different ways. A server that answers with one JSON object
        instead gives that one. Leave it early inside ``contextlib.aclosing``: that closes the
        connection, and the server stops generating.

        Raises:
            Fault: After the objects that came before it.
        """
        fault: Fault | None = None
        began = False
        try:
            async with self._request("POST", path, body, None) as response:
                began = True
                if not response.is_success:
                    fault = await self._refusal(response, path)
                elif _is_json(response):
                    yield self._parsed(await response.aread(), path)
                else:
                    events = httpx2.EventSource(response, max_event_size=_LONGEST_EVENT)
                    iterator = aiter(events)
                    async for event in iterator:
                        data = event.data.strip()
                        if data == "[DONE]":
                            await _drain(iterator)
                            break
                        if data and event.event != "ping":
                            yield self._parsed(data, path)
        except httpx2.SSEError:
            fault = self._no_stream(path)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            fault = self._broken(error, "POST", path, began)
        if fault:
            raise fault

    def fault(self, kind: FaultKind, what: str) -> Fault:
        """A fault that the caller found, such as a stream without its end.

        Args:
            kind: What it is.
            what: Words that follow the server's URL: "ended the stream before its last event".
        """
        return Fault(kind, f"{self.url} {self._key.hide(what)}")

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
        self, method: str, path: str, body: Mapping[str, Any] | None, timeout: float | None
    ) -> AbstractAsyncContextManager[httpx2.Response]:
        """The library's context manager for one request and its answer."""
        more: dict[str, Any] = {}
        if body is not None:
            # Not the library's encoder: it fails at lone surrogates, which models do write.
            more["content"] = json.dumps(body).encode("ascii")
            more["headers"] = {"Content-Type": "application/json"}
        if timeout is not None:
            more["timeout"] = httpx2.Timeout(timeout, pool=None)
        return self._client.stream(method, self._address.of_path(path), **more)

    async def _whole(
        self, method: str, path: str, body: Mapping[str, Any] | None, timeout: float | None
    ) -> bytes:
        """The body of an answer that is a success."""
        began = False
        try:
            async with self._request(method, path, body, timeout) as response:
                began = True
                if response.is_success:
                    content: bytes = await response.aread()
                    return content
                fault = await self._refusal(response, path)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            fault = self._broken(error, method, path, began, timeout)
        # Raised here and not above: there the library's error would become its context.
        raise fault

    def _parsed(self, content: bytes | str, path: str) -> dict[str, Any]:
        """The JSON object of an answer or of an event; or the fault that it is."""
        text = content if isinstance(content, str) else content.decode("utf-8", "replace")
        found = parsed(text)
        if (error := error_in(found)) is not None:
            raise self._judged(*error, path)
        if isinstance(found, dict):
            return found
        words = said(self._key.hide(text)) if text.strip() else "nothing"
        page = "<html" in text.lower()
        hint = "; is this the base URL of an OpenAI-compatible server, such as .../v1?"
        fault = self.fault(
            FaultKind.MALFORMED,
            f"answered {path} with something that is no JSON object: {words}{hint if page else ''}",
        )
        fault.body = words
        raise fault

    async def _refusal(self, response: httpx2.Response, path: str) -> Fault:
        """The fault in an answer that is no success."""
        content = b""
        with suppress(httpx2.HTTPError, OSError):
            async for part in response.aiter_bytes():
                content += part
                if len(content) > _LONGEST_ERROR:
                    break
        text = content.decode("utf-8", "replace")
        if response.is_redirect:
            where = self._key.hide(response.headers.get("location", "somewhere else"))
            return Fault(
                FaultKind.REFUSED,
                f"{self.url} sends {path} on to {where}: give the URL that it is to be asked at",
                status=response.status_code,
            )
        fault = self._judged(response.status_code, text, path)
        fault.retry_after = retry_after(response.headers)
        return fault

    def _judged(self, status: int | None, text: str, path: str) -> Fault:
        """The fault that a status or code and its body are."""
        kind = kind_of(status, text)
        words = said(self._key.hide(text))
        loading = kind is FaultKind.OVERLOADED and is_loading(text)
        head = {
            FaultKind.KEY: f"{self.url} refuses the key"
            if self._key
            else f"{self.url} wants a key: set {KEY_NAMES[0]} in the environment",
            FaultKind.OVERLOADED: f"{self.url} is overloaded",
            FaultKind.TIMEOUT: f"{self.url} says that {path} took too long",
            FaultKind.CONTEXT: f"{self.url} says that prompt and output do not fit its context",
            FaultKind.NO_MODEL: f"{self.url} does not have the model",
            FaultKind.SERVER: f"{self.url} failed at {path}",
        }.get(kind, f"{self.url} refuses {path}")
        if status in (404, 405) and kind is FaultKind.REFUSED:
            head = f"{self.url} has no {path}"
        if loading:
            head = f"{self.url} is still loading its model"
        number = f" ({status})" if status else ""
        return Fault(
            kind,
            f"{head}{number}: {words}" if words else f"{head}{number}",
            status=status,
            body=words,
            loading=loading,
        )

    def _no_stream(self, path: str) -> Fault:
        return self.fault(
            FaultKind.MALFORMED,
            f"answered {path} with something that is no event stream (or with an event above"
            f" {_LONGEST_EVENT >> 20} MiB); is it the base URL of an OpenAI-compatible server?",
        )

    def _broken(
        self, error: Exception, method: str, path: str, began: bool, timeout: float | None = None
    ) -> Fault:
        """The fault in an exchange that did not come to its end."""
        kind = FaultKind.CUT if began else FaultKind.CONNECTION
        what = self._key.hide(" ".join(str(error).split())) or type(error).__name__
        if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
            message = f"nothing answers at {self.url}: {what} (is the server started?)"
        elif isinstance(error, httpx2.TimeoutException):
            kind = FaultKind.TIMEOUT
            seconds = self._timeout if timeout is None else timeout
            message = (
                f"{self.url} sent nothing for {seconds:g} s ({method} {path});"
                " --request-timeout allows more"
            )
        elif isinstance(error, httpx2.DecodingError):
            kind = FaultKind.MALFORMED
            message = f"what {self.url} answered to {path} cannot be decompressed: {what}"
        elif isinstance(error, httpx2.ProxyError):
            message = f"the proxy that the environment names for {self.url} failed: {what}"
        elif isinstance(error, httpx2.InvalidURL | httpx2.UnsupportedProtocol):
            kind = FaultKind.REFUSED
            message = f"{self.url} cannot be asked for {path}: {what}"
        elif began:
            message = f"{self.url} broke off its answer to {path}: {what}"
        else:
            message = f"{self.url} dropped the connection before it answered {path}: {what}"
        return Fault(kind, message)


@cache
def _certificates() -> ssl.SSLContext:
    """Read once: it takes longer than a request does."""
    return httpx2.create_ssl_context()


def _is_json(response: httpx2.Response) -> bool:
    return response.headers.get("content-type", "").partition(";")[0].strip().lower() in (
        "application/json",
        "text/json",
    )


async def _drain(events: AsyncIterator[httpx2.ServerSentEvent]) -> None:
    """Read a body to its end after its last event; what happens there no longer matters."""
    with suppress(httpx2.HTTPError, OSError, TimeoutError):
        async with asyncio.timeout(_DRAIN):
            async for _ in events:
                pass
