"""Where a server is, and the key that it is asked with."""

from __future__ import annotations

import base64
import ipaddress
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import quote, urlsplit

from pytest_tokenbudget.core.engine import EngineError
from pytest_tokenbudget.settings.endpoints import KEY_NAMES, read_address, shown_address


class Key:
    """A key that is sent and never shown.

    Args:
        secret: The key; None or an empty text: no key is sent.
    """

    __slots__ = ("__secret",)

    def __init__(self, secret: str | None = None) -> None:
        self.__secret, secret = (secret or "").strip(), None
        # Checked here, because the library's message about a header that is not legal quotes it.
        if not all(33 <= ord(sign) <= 126 for sign in self.__secret):
            self.__secret = ""
            raise EngineError(
                "the key holds signs that cannot be sent (blanks, line ends, letters outside"
                f" ASCII): look at {' or '.join(KEY_NAMES)} in the environment"
            )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Key:
        """The key in TOKENBUDGET_API_KEY, else in OPENAI_API_KEY, else none."""
        # No variable here may hold the key, or a traceback would show it.
        return cls(_first_key(os.environ if environ is None else environ))

    def __bool__(self) -> bool:
        return bool(self.__secret)

    def __repr__(self) -> str:
        return "***" if self.__secret else "no key"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key is not written down; read it from the environment again")

    def header(self) -> dict[str, str]:
        """The header that carries it; empty without a key."""
        return {"Authorization": f"Bearer {self.__secret}"} if self.__secret else {}

    def hide(self, text: str) -> str:
        """The text with *** for the key, for usual encodings of it, and for pieces of it."""
        secret = self.__secret
        if not secret:
            return text
        if len(secret) < 8:
            return re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text)
        forms = {secret, quote(secret, safe=""), json.dumps(secret)[1:-1]}
        forms.add(base64.b64encode(secret.encode()).decode().rstrip("="))
        for form in sorted(forms, key=len, reverse=True):
            text = text.replace(form, "***")
        # Servers echo keys shortened: "sk-ab...yz", "sk-ab****yz".
        return re.sub(rf"{re.escape(secret[:5])}[^\s\"'<>,;)]*", "***", text)


def _first_key(environ: Mapping[str, str]) -> str | None:
    return next((environ[name] for name in KEY_NAMES if environ.get(name, "").strip()), None)


@dataclass(frozen=True)
class Address:
    """A base URL in its parts.

    Attributes:
        base: What paths like ``completions`` lie under; shown to people, so without a query.
        root: What paths like ``/tokenize`` lie under: the base without its ``/v1``.
        query: What follows every path, with its question mark; or empty.
        loopback: Whether the host is this machine.
    """

    base: str
    root: str
    query: str
    loopback: bool

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read a URL; one without any path gets ``/v1``.

        Raises:
            EngineError: It is no URL of a server, or it holds a credential.
        """
        try:
            parts = urlsplit(read_address(url))
        except ValueError as error:
            raise EngineError(
                f"{shown_address(url)!r} is no address of a server; {error}"
            ) from None
        origin = f"{parts.scheme}://{parts.netloc}"
        return cls(
            base=origin + parts.path,
            root=origin + re.sub(r"/v\d+\w*$", "", parts.path),
            query=f"?{parts.query}" if parts.query else "",
            loopback=_is_loopback(parts.hostname or ""),
        )

    def url_of(self, path: str) -> str:
        """The URL of a path: at the root with a leading slash, under the base without."""
        return (self.root + path if path.startswith("/") else f"{self.base}/{path}") + self.query


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    with suppress(ValueError):
        address = ipaddress.ip_address(host.partition("%")[0])
        return address.is_loopback or address.is_unspecified
    return False
