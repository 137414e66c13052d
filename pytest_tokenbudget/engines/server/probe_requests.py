"""Probes of a server: asks go out as they are, and replies come back unmended."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pytest_tokenbudget.core.engine import EngineError
from pytest_tokenbudget.core.probes import Ask, ProbeOutput, Reply
from pytest_tokenbudget.engines.server.chat import as_written
from pytest_tokenbudget.engines.server.dialects import DIALECTS
from pytest_tokenbudget.engines.server.dialects_base import Body
from pytest_tokenbudget.engines.server.heard import Heard, read_usage
from pytest_tokenbudget.engines.server.http import Fault, Key, Server
from pytest_tokenbudget.engines.server.tokens import ServerText, end_texts

if TYPE_CHECKING:
    from pytest_tokenbudget.engines.background import Background
    from pytest_tokenbudget.engines.server.engine import ServerEngine

IDS_SHOWN = 8
SIGNS_SHOWN = 300
TRIES = 3
PAUSE = 1.0

Answer = Mapping[str, Any] | Fault | ValueError


def ask_all(
    engine: ServerEngine,
    asks: Sequence[Ask],
    at_once: int,
    background: Background,
) -> list[Reply]:
    """Ask all, ``at_once`` at a time, and give the replies in the order of the asks."""
    try:
        eos_ids = engine.eos_ids
    except EngineError:
        eos_ids = frozenset()
    dialect = DIALECTS[engine.facts.kind]
    requests: list[tuple[str, Body] | ValueError] = []
    for ask in asks:
        try:
            requests.append(dialect.ask_request(engine.facts, ask, eos_ids))
        except ValueError as error:
            requests.append(error)
    answers = background.run(_post_all(requests, at_once, engine))
    own = _own_text(engine)
    try:
        return [
            _reply(engine, own, ask, request, answer)
            for ask, request, answer in zip(asks, requests, answers, strict=True)
        ]
    finally:
        if own is not None:
            own.close()


def _own_text(engine: ServerEngine) -> ServerText | None:
    """What renders chat messages as the server does, whose template may be another than here."""
    if engine.spec.kind == "server" or not engine.facts.tokenizes:
        return None
    return ServerText(engine.spec, engine.facts, engine.timeout)


async def _post_all(
    requests: Sequence[tuple[str, Body] | ValueError],
    at_once: int,
    engine: ServerEngine,
) -> list[Answer]:
    key = Key.from_environment()
    servers = [Server(url, key, engine.timeout) for url in engine.urls]
    gate = asyncio.Semaphore(max(at_once, 1))
    try:
        server = servers[0]
        for candidate in servers[1:]:
            if await server.ready() is None:
                break
            server = candidate

        async def one(request: tuple[str, Body] | ValueError) -> Answer:
            if isinstance(request, ValueError):
                return request
            async with gate:
                return await _post(server, *request)

        return list(await asyncio.gather(*map(one, requests)))
    finally:
        for each in servers:
            await each.close()


async def _post(server: Server, path: str, body: Body) -> Answer:
    for number in range(TRIES):
        try:
            found = await server.post(path, body)
            return found if isinstance(found, Mapping) else {}
        except Fault as error:
            fault = error
            if not fault.retryable or number == TRIES - 1:
                break
            await asyncio.sleep(PAUSE * 2**number)
    return fault


def _reply(
    engine: ServerEngine,
    own: ServerText | None,
    ask: Ask,
    request: tuple[str, Body] | ValueError,
    answer: Answer,
) -> Reply:
    if isinstance(request, ValueError):
        return Reply({}, error=str(request))
    sent = shown(request[1])
    known = len(ask.prompt_ids) or None
    if isinstance(answer, Fault):
        return Reply(sent, error=answer.message, status=answer.status, prompt_tokens=known)
    if isinstance(answer, ValueError):
        return Reply(sent, error=str(answer), prompt_tokens=known)
    outputs = DIALECTS[engine.facts.kind].read_reply(answer)
    prompt_ids = next((heard.prompt_ids for heard in outputs if heard.prompt_ids), None)
    prompt = _prompt(engine, own, ask, prompt_ids)
    return Reply(
        sent,
        tuple(_choice(engine, heard, prompt) for heard in outputs),
        usage=read_usage(answer.get("usage")),
        error="" if outputs else "the answer holds no output",
        prompt_tokens=known if prompt_ids is None else len(prompt_ids),
    )


def _prompt(
    engine: ServerEngine, own: ServerText | None, ask: Ask, prompt_ids: Sequence[int] | None
) -> str:
    """Text of the rendered prompt; empty where it cannot be known."""
    try:
        if ids := prompt_ids or ask.prompt_ids:
            return engine.tokens.decode_prompt(ids)
        if own is not None:
            with suppress(EngineError):
                return own.render(ask.messages, variables=ask.template).text
        return engine.tokens.render(ask.messages, variables=ask.template).text
    except EngineError:
        return ""


def _choice(engine: ServerEngine, heard: Heard, prompt: str) -> ProbeOutput:
    thinking = engine.spec.thinking
    text = as_written(heard, thinking, prompt).text
    with suppress(EngineError):
        if heard.ids:
            text = engine.decode(heard.ids)
        else:
            ends = end_texts(engine.tokens)
            text = as_written(heard, thinking, prompt, ends).text
    return ProbeOutput(
        ids=tuple(heard.ids) if heard.ids else None,
        content=heard.content,
        finish_reason=heard.word,
        reasoning=heard.reasoning,
        text=text,
        opened=thinking is not None and thinking.left_open(prompt),
    )


def shown(body: Mapping[str, Any]) -> dict[str, Any]:
    """A body for evidence: long prompts are shortened."""
    return {name: _short(value) for name, value in body.items()}


def _short(value: object) -> object:
    if isinstance(value, str):
        return value if len(value) <= SIGNS_SHOWN else f"{value[:SIGNS_SHOWN]}..."
    if isinstance(value, Mapping):
        return {name: _short(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        if len(value) > 2 * IDS_SHOWN and all(isinstance(each, int) for each in value):
            first = ", ".join(map(str, value[:IDS_SHOWN]))
            return f"[{first}, ... {value[-1]}] ({len(value)} ids)"
        return [_short(each) for each in value]
    return value
