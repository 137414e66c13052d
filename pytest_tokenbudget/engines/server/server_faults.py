"""The faults of one server in words: which server, what it said, what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

from pytest_tokenbudget.engines.server.address import Key
from pytest_tokenbudget.engines.server.faults import (
    Fault,
    FaultKind,
    error_text,
    is_loading,
    kind_of,
    refused_parameter,
    without_queries,
)
from pytest_tokenbudget.engines.server.reading import Allowance, TooMuchError
from pytest_tokenbudget.engines.server.request_parameters import SETTERS
from pytest_tokenbudget.settings.endpoints import KEY_NAMES

_LONGEST_ADDRESS = 2000


@dataclass
class Exchange:
    """One request and its answer.

    Attributes:
        method: Its HTTP method.
        path: Where it goes.
        allowed: What its answer may take.
        timeout: Seconds without a byte after which it has failed.
        began: Whether the answer has begun.
        silent: Whether it ran out of time for want of output.
    """

    method: str
    path: str
    allowed: Allowance
    timeout: float
    began: bool = False
    silent: bool = False


class ServerFaults:
    """Makes the faults of one server.

    Args:
        url: Its base URL.
        key: Hidden in all that it says.
    """

    def __init__(self, url: str, key: Key) -> None:
        self._url = url
        self._key = key

    def fault(self, kind: FaultKind, what: str) -> Fault:
        """A fault of a kind; ``what`` follows the URL: "ended the stream before its last event"."""
        return Fault(kind, f"{self._url} {self._key.hide(what)}")

    def no_object(self, text: str, path: str) -> Fault:
        """An answer that is no JSON object."""
        words = error_text(self._key.hide(text)) if text.strip() else "nothing"
        hint = "; is this the base URL of an OpenAI-compatible server, such as .../v1?"
        fault = self.fault(
            FaultKind.MALFORMED,
            f"answered {path} with something that is no JSON object: {words}"
            + (hint if "<html" in text.lower() else ""),
        )
        fault.body = words
        return fault

    def redirect(self, status: int, location: str, path: str) -> Fault:
        """An answer that sends a request elsewhere."""
        place = self._key.hide(location[:_LONGEST_ADDRESS])
        place = re.split("[?#;]", without_queries(place))[0] or "somewhere else"
        return Fault(
            FaultKind.REFUSED,
            f"{self._url} sends {path} on to {place}: give the URL that it is to be asked at",
            status=status,
        )

    def error(
        self, status: int | None, text: str, path: str, sent: Mapping[str, Any] | None = None
    ) -> Fault:
        """The fault that a status or code and its body are; ``sent`` is the request's body."""
        url, kind = self._url, kind_of(status, text)
        words = error_text(self._key.hide(text))
        hint = ""
        loading = kind is FaultKind.OVERLOADED and is_loading(text)
        head = {
            FaultKind.KEY: f"{url} refuses the key"
            if self._key
            else f"{url} wants a key: set {KEY_NAMES[0]} in the environment",
            FaultKind.OVERLOADED: f"{url} is overloaded",
            FaultKind.TIMEOUT: f"{url} says that {path} took too long",
            FaultKind.CONTEXT: f"{url} says that prompt and output do not fit its context",
            FaultKind.NO_MODEL: f"{url} does not have the model",
            FaultKind.SERVER: f"{url} failed at {path}",
            FaultKind.WITHHELD: f"{url} withholds its answer: a filter stopped the request",
        }.get(kind, f"{url} refuses {path}")
        if status in (404, 405) and kind is FaultKind.REFUSED:
            head = f"{url} has no {path}"
        elif kind is FaultKind.REFUSED and sent and (name := refused_parameter(text, sent)):
            head = f"{url} refuses the parameter {name!r} as it was sent, {sent[name]!r:.40}"
            hint = f"; {SETTERS[name]} sets it" if name in SETTERS else ""
            words = words.rstrip(".") if hint else words
        if loading:
            head = f"{url} is still loading its model"
        number = f" ({status})" if status else ""
        return Fault(
            kind,
            (f"{head}{number}: {words}" if words else f"{head}{number}") + hint,
            status=status,
            body=words,
            loading=loading,
            answer=self._key.hide(text),
        )

    def broken(self, error: Exception, exchange: Exchange) -> Fault:
        """The fault in an exchange that did not come to its end."""
        path, allowed = exchange.path, exchange.allowed
        if isinstance(error, TooMuchError):
            what = f" to a request for {allowed.tokens:,} tokens" if allowed.tokens else ""
            return self.fault(
                FaultKind.TOO_MUCH,
                f"sent more than the {allowed.size / 2**20:,.0f} MiB that an answer of {path}{what}"
                " may have after decompression; the rest was not read",
            )
        if isinstance(error, TimeoutError):
            what = f" for {allowed.tokens:,} tokens" if allowed.tokens else ""
            words = (
                f"sent no output for {_seconds(allowed.silence)} ({path}), only pings or empty"
                " events"
                if exchange.silent
                else f"did not finish {path} within {_seconds(allowed.seconds)}, the longest time"
                f" for a request{what}"
            )
            return self.fault(FaultKind.TOO_LONG, f"{words}; --request-timeout allows more")
        if isinstance(error, httpx2.SSEError):
            return self.fault(
                FaultKind.MALFORMED,
                f"answered {path} with something that is no event stream; is it the base URL of an"
                " OpenAI-compatible server?",
            )
        return self._lost(error, exchange)

    def _lost(self, error: Exception, exchange: Exchange) -> Fault:
        """The fault in a connection that failed, or fell silent."""
        url, path, began = self._url, exchange.path, exchange.began
        unreachable = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
        kind = FaultKind.CUT if began else FaultKind.CONNECTION
        what = self._key.hide(" ".join(str(error).split())) or type(error).__name__
        if unreachable:
            message = f"nothing answers at {url}: {what} (is the server started?)"
        elif isinstance(error, httpx2.TimeoutException):
            kind = FaultKind.TIMEOUT
            message = (
                f"{url} sent nothing for {exchange.timeout:g} s ({exchange.method} {path});"
                " --request-timeout allows more"
            )
        elif isinstance(error, httpx2.DecodingError):
            kind = FaultKind.MALFORMED
            message = f"what {url} answered to {path} cannot be decompressed: {what}"
        elif isinstance(error, httpx2.ProxyError):
            message = f"the proxy that the environment names for {url} failed: {what}"
        elif isinstance(error, httpx2.InvalidURL | httpx2.UnsupportedProtocol):
            kind = FaultKind.REFUSED
            message = f"{url} cannot be asked for {path}: {what}"
        elif began:
            message = f"{url} broke off its answer to {path}: {what}"
        else:
            message = f"{url} dropped the connection before it answered {path}: {what}"
        fault = Fault(kind, message)
        fault.unreachable = unreachable
        fault.dropped = isinstance(error, httpx2.NetworkError | httpx2.RemoteProtocolError)
        return fault


def _seconds(count: float) -> str:
    return f"{count:,.0f} s" if count >= 10 else f"{count:.2g} s"
