"""Probes of a server: asks go out as they are, and replies come back unmended."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from pytest_tokenbudget.core.engine import EngineError
from pytest_tokenbudget.core.probes import Ask, ProbeOutput, Reply
from pytest_tokenbudget.engines.background import Background
from pytest_tokenbudget.engines.server.chat import restore_output
from pytest_tokenbudget.engines.server.dialects_base import Body
from pytest_tokenbudget.engines.server.http import Fault, Key, Server
from pytest_tokenbudget.engines.server.output import ServerOutput, read_usage
from pytest_tokenbudget.engines.server.served_model import ServedModel
from pytest_tokenbudget.engines.server.tokens import ServerText, end_texts

IDS_SHOWN = 8
SIGNS_SHOWN = 300
TRIES = 3
PAUSE = 1.0

# Path and body of a request; or why this kind of server cannot be asked that.
ProbeRequest = tuple[str, Body] | ValueError
Answer = Mapping[str, Any] | Fault


def ask_all(
    engine: ServedModel, asks: Sequence[Ask], at_once: int, background: Background
) -> list[Reply]:
    """Ask all, ``at_once`` at a time, and give the replies in the order of the asks."""
    try:
        eos_ids = engine.eos_ids
    except EngineError:
        eos_ids = frozenset()
    requests: list[ProbeRequest] = []
    for ask in asks:
        try:
            requests.append(engine.dialect.ask_request(engine.facts, ask, eos_ids))
        except ValueError as error:
            requests.append(error)
    answers = background.run(_post_all(requests, at_once, engine))
    own: ServerText | None = None
    if engine.spec.kind != "server" and engine.facts.tokenizes:
        # Its template may be another than the one here.
        own = ServerText(engine.spec, engine.facts, engine.timeout)
    try:
        return [
            _reply(engine, own, ask, request, answer)
            for ask, request, answer in zip(asks, requests, answers, strict=True)
        ]
    finally:
        if own is not None:
            own.close()


async def _post_all(
    requests: Sequence[ProbeRequest], at_once: int, engine: ServedModel
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

        async def one(request: ProbeRequest) -> Answer:
            if isinstance(request, ValueError):
                return {}
            async with gate:
                return await _post(server, *request)

        return list(await asyncio.gather(*map(one, requests)))
    finally:
        await asyncio.gather(*(opened.close() for opened in servers))


async def _post(server: Server, path: str, body: Body) -> Answer:
    for number in range(TRIES):
        try:
            return await server.post(path, body)
        except Fault as error:
            fault = error
            if not fault.retryable or number == TRIES - 1:
                break
            await asyncio.sleep(PAUSE * 2**number)
    return fault


def _reply(
    engine: ServedModel, own: ServerText | None, ask: Ask, request: ProbeRequest, answer: Answer
) -> Reply:
    if isinstance(request, ValueError):
        return Reply({}, error=str(request))
    sent: dict[str, Any] = _short(request[1])
    known = len(ask.prompt_ids) or None
    if isinstance(answer, Fault):
        return Reply(sent, error=answer.message, status=answer.status, prompt_tokens=known)
    outputs = engine.dialect.read_reply(answer)
    prompt_ids = next((output.prompt_ids for output in outputs if output.prompt_ids), None)
    prompt = _prompt(engine, own, ask, prompt_ids)
    return Reply(
        sent,
        tuple(_choice(engine, output, prompt) for output in outputs),
        usage=read_usage(answer.get("usage")),
        error="" if outputs else "the answer holds no output",
        prompt_tokens=known if prompt_ids is None else len(prompt_ids),
    )


def _prompt(
    engine: ServedModel, own: ServerText | None, ask: Ask, prompt_ids: Sequence[int] | None
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


def _choice(engine: ServedModel, output: ServerOutput, prompt: str) -> ProbeOutput:
    thinking = engine.spec.thinking
    text = restore_output(output, thinking, prompt).text
    with suppress(EngineError):
        if output.ids:
            text = engine.decode(output.ids)
        else:
            ends = end_texts(engine.tokens)
            text = restore_output(output, thinking, prompt, ends).text
    return ProbeOutput(
        ids=tuple(output.ids) if output.ids else None,
        content=output.content,
        finish_reason=output.finish_reason,
        reasoning=output.reasoning,
        text=text,
        opened=thinking is not None and thinking.left_open(prompt),
    )


def _short(value: object) -> Any:  # noqa: ANN401
    """A body, or a value in it, for evidence: long prompts are shortened."""
    if isinstance(value, str):
        return value if len(value) <= SIGNS_SHOWN else f"{value[:SIGNS_SHOWN]}..."
    if isinstance(value, Mapping):
        return {name: _short(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        if len(value) > 2 * IDS_SHOWN and all(isinstance(item, int) for item in value):
            first = ", ".join(map(str, value[:IDS_SHOWN]))
            return f"[{first}, ... {value[-1]}] ({len(value)} ids)"
        return [_short(item) for item in value]
    return value
