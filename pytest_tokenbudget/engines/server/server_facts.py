"""What servers say of themselves: which kind they are, what they serve, what they can do."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_tokenbudget.core.engine import EngineError
from pytest_tokenbudget.engines.server.listed_models import read_models
from pytest_tokenbudget.settings.endpoints import Facts

if TYPE_CHECKING:
    from pytest_tokenbudget.engines.server.http import Fault, Server
    from pytest_tokenbudget.settings.endpoints import Endpoint


class NoWordError(EngineError):
    """Servers that say nothing of themselves: they do not answer, or not without the right key."""


def probe(endpoint: Endpoint, timeout: float = 10.0) -> Facts:
    """Ask every server what it is and what it serves. Those that do not answer are passed over.

    Args:
        endpoint: The servers, and which of their models is meant.
        timeout: Seconds that each answer may take.

    Raises:
        NoWordError: If no server answers, or one refuses the key.
        EngineError: If one is no OpenAI-compatible server, the model is not among those served,
            which one is meant is not said, or they serve different models.
    """
    from pytest_tokenbudget.engines.background import Background
    from pytest_tokenbudget.engines.server.dialects_base import GONE
    from pytest_tokenbudget.engines.server.http import Fault, FaultKind

    with Background("tokenbudget-probe") as background:
        answers = background.run(_ask_all(endpoint, timeout))
    found: list[tuple[str, Facts]] = []
    silent: list[Fault] = []
    for url, answer in zip(endpoint.urls, answers, strict=True):
        if isinstance(answer, Facts):
            found.append((url, answer))
        elif isinstance(answer, Fault) and answer.kind in GONE:
            silent.append(answer)
        elif isinstance(answer, EngineError):
            raise answer
        elif isinstance(answer, Fault):
            error = NoWordError if answer.kind is FaultKind.KEY else EngineError
            raise error(answer.message)
        else:
            raise answer
    if not found:
        raise NoWordError("; ".join(fault.message for fault in silent))
    return agreed(found)


def agreed(found: Sequence[tuple[str, Facts]]) -> Facts:
    """The facts that several servers have in common, with the smallest of their contexts.

    Raises:
        EngineError: If they serve different models.
    """
    (first_url, first), *others = found
    for url, facts in others:
        for what, one, other in (
            ("the kind", first.kind, facts.kind),
            ("the model", first.served, facts.served),
            ("the weights", first.fingerprint, facts.fingerprint),
        ):
            if one != other:
                raise EngineError(
                    f"the servers must serve the same model, but they differ in {what}: "
                    f"{first_url} says {one!r}, {url} says {other!r}; name only servers that "
                    f"agree, or start them with one name for it (vLLM: --served-model-name, "
                    f"llama.cpp: --alias)"
                )
    contexts = [facts.context for _, facts in found if facts.context is not None]
    return replace(
        first,
        context=min(contexts, default=None),
        ids=all(facts.ids for _, facts in found),
        tokenizes=all(facts.tokenizes for _, facts in found),
    )


async def _ask_all(endpoint: Endpoint, timeout: float) -> list[Facts | BaseException]:
    return await asyncio.gather(
        *(_ask(url, endpoint.served, timeout) for url in endpoint.urls), return_exceptions=True
    )


async def _ask(url: str, wanted: str | None, timeout: float) -> Facts:
    from pytest_tokenbudget.engines.server.http import Key, Server
    from pytest_tokenbudget.engines.server.retry import patiently

    server = Server(url, Key.from_environment(), timeout)
    try:
        return await patiently(lambda: look(server, wanted))
    finally:
        await server.close()


async def look(server: Server, wanted: str | None) -> Facts:
    """What one server says of itself.

    Raises:
        Fault: If it does not answer, or refuses the key.
        EngineError: If it is no OpenAI-compatible server, or does not serve what is wanted.
    """
    from pytest_tokenbudget.engines.server.dialects import DIALECTS
    from pytest_tokenbudget.engines.server.http import Fault, FaultKind
    from pytest_tokenbudget.engines.server.retry import persistently

    listing: Fault | None = None
    models: list[Mapping[str, Any]] = []
    try:
        models = read_models(await persistently(lambda: server.get("models")))
    except Fault as fault:
        if fault.kind not in (FaultKind.SERVER, FaultKind.REFUSED, FaultKind.MALFORMED):
            raise
        listing = fault
    for dialect in DIALECTS.values():
        facts = await dialect.look(server, models, wanted)
        if facts is not None:
            return facts
    none = f"{server.url} lists no model; name the one that is meant with --served-model"
    message = listing.message if listing else none
    raise EngineError(
        f"{message}; is it the base URL of an OpenAI-compatible server, such as "
        f"http://localhost:8000/v1?"
    )
