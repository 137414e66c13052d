"""Servers as models: their addresses, and what identifies the model behind them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

KEY_NAMES = ("TOKENBUDGET_API_KEY", "OPENAI_API_KEY")
KEYS = ", or ".join(KEY_NAMES)
VERSION = "(api[-_]?)?version"


@dataclass(frozen=True)
class Endpoint:
    """Where a model is served.

    Attributes:
        urls: Base addresses of servers that serve the same model, as an OpenAI client takes them:
            they end where ``/chat/completions`` would follow. No credentials are in them.
        served: The model's name among those that the servers list; None where they list one only.
        api: ``ids`` sends and takes token ids, ``chat`` messages and text; ``auto`` is ids where
            the servers know them.
        facts: What the servers say of themselves, once they were asked.
    """

    urls: tuple[str, ...]
    served: str | None = None
    api: str = "auto"
    facts: Facts | None = field(default=None, compare=False)

    @property
    def alias(self) -> str:
        """A name for people and files that needs no question to the server."""
        served = (self.served or "").rstrip("/").split("/")[-1]
        name = served or urlsplit(self.urls[0]).netloc
        return re.sub(r"[^\w.+-]+", "-", name).strip("-.") or "server"


def is_address(text: str) -> bool:
    return re.match(r"https?://", text, re.IGNORECASE) is not None


def read_address(text: str) -> str:
    """The base address of a server in its one form: no slash at its end, ``/v1`` for no path.

    Of what may follow the path only a version stays (``?api-version=...``), which some gateways
    want: anything else may be a key.

    Raises:
        ValueError: With what is allowed, and without what may be a key.
    """
    allowed = "allowed: http://HOST:PORT/v1 or https://HOST/v1"
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError:
        raise ValueError(allowed) from None
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
        raise ValueError(allowed)
    if "@" in parts.netloc:
        raise ValueError(f"{allowed}; a key is not written into the address: set {KEYS}")
    names = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    if parts.fragment or not all(re.fullmatch(VERSION, name, re.IGNORECASE) for name in names):
        raise ValueError(f"{allowed}, with at most ?api-version=... after it; for a key set {KEYS}")
    host = parts.hostname.lower()
    host = f"[{host}]" if ":" in host else host
    place = host if port is None else f"{host}:{port}"
    path = parts.path.rstrip("/") or "/v1"
    return urlunsplit((parts.scheme.lower(), place, path, parts.query, ""))


def shown_address(text: str) -> str:
    """Text with addresses in it as it may be shown: without what may be a key."""
    return re.sub(r"[?#].*", "", re.sub(r"//[^/@]*@", "//", text)) if "://" in text else text


def identity_of(endpoint: Endpoint, tokenizer: str) -> dict[str, str]:
    """What distinguishes the outputs of a served model from another's; part of every trace's key.

    Addresses are no part of it where the server tells what it serves: servers move, and another one
    that serves the same can go on. Nor is anything secret. The servers were asked already; the
    tokenizer, a hash or a name, renders prompts.
    """
    facts = endpoint.facts
    assert facts is not None
    known = facts.fingerprint or " ".join(sorted(endpoint.urls))
    return {
        "api": "ids" if speaks_ids(endpoint) else "chat",
        "engine": facts.kind,
        "model": facts.served,
        "tokenizer": tokenizer,
        "weights": known,
    }


def speaks_ids(endpoint: Endpoint) -> bool:
    """Whether prompts and outputs travel as token ids."""
    return endpoint.api != "chat" and endpoint.facts is not None and endpoint.facts.ids


def place_of(endpoint: Endpoint) -> str:
    first, *others = endpoint.urls
    more = f" and {len(others)} more" if others else ""
    facts = endpoint.facts
    by = f" ({facts.kind}{' ' + facts.version if facts.version else ''})" if facts else ""
    return f"{first}{more}{by}"


def read_addresses(texts: Sequence[str]) -> tuple[str, ...]:
    """Several addresses, each once, in their order.

    Raises:
        ValueError: If one cannot be used.
    """
    return tuple(dict.fromkeys(read_address(text) for text in texts))


@dataclass(frozen=True)
class Facts:
    """What one or several servers say of the one model that they serve.

    Attributes:
        kind: ``vllm``, ``sglang``, ``llamacpp``, ``serve`` or ``openai``.
        version: The server's own version; empty where it tells none.
        served: The model's name in requests.
        context: Tokens that prompt and output may have together; None where the server is silent.
        fingerprint: What the server says about the weights; empty where it says nothing.
        ids: Whether it takes prompts and gives outputs as token ids.
        tokenizes: Whether it encodes and decodes on request.
        root: Where the server has the model from, a directory or a hub id, as it says.
        template: The chat template that it names; empty where it names none.
        ends: Texts of tokens that it says to end sequences.
    """

    kind: str
    version: str
    served: str
    context: int | None
    fingerprint: str
    ids: bool
    tokenizes: bool
    root: str = ""
    template: str = ""
    ends: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A JSON-compatible form, read back by :meth:`from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Facts:
        """The facts again; what a later version has added is left out."""
        known = {field.name for field in fields(cls)}
        values = {name: value for name, value in data.items() if name in known}
        return cls(**{**values, "ends": tuple(values.get("ends", ()))})
