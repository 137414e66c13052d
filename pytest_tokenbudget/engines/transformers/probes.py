"""Conformance probes of the Transformers engine: what an ask is there, and its reply."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytest_tokenbudget.core.engine import Decoding, EngineError, Generated, Prompt, Request
from pytest_tokenbudget.core.probes import Ask, ProbeOutput, Reply
from pytest_tokenbudget.core.trace import StopReason
from pytest_tokenbudget.engines.loading import first_line
from pytest_tokenbudget.engines.text import InProcessEngine
from pytest_tokenbudget.models.thinking_formats import GENERIC, builtin_formats

# What a server answers to a request that it does not take.
REFUSED = 400


def ask_batch(engine: InProcessEngine, asks: Sequence[Ask], first: int) -> list[Reply]:
    """Replies to asks that are generated side by side, those decoded alike in one batch.

    Ids come from ``generate``, switches are variables of the chat template. ``first`` is the number
    of the first ask.
    """
    replies: dict[int, Reply] = {}
    groups: dict[Decoding, list[tuple[int, Prompt]]] = {}
    for number, ask in enumerate(asks):
        prompt = _prompt(engine, ask)
        if isinstance(prompt, Reply):
            replies[number] = prompt
            continue
        decoding = Decoding(ask.temperature, ask.top_p, ask.seed or 0, ask.stop)
        groups.setdefault(decoding, []).append((number, prompt))
    for decoding, members in groups.items():
        requests = [
            Request(f"{first + number}/{sample}", prompt.ids, asks[number].max_tokens, sample)
            for number, prompt in members
            for sample in range(asks[number].n)
        ]
        done = {result.request.key: result for result in engine.generate(requests, decoding)}
        for number, prompt in members:
            ask = asks[number]
            results = [done[f"{first + number}/{sample}"] for sample in range(ask.n)]
            replies[number] = _reply(engine, ask, prompt, results)
    return [replies[number] for number in range(len(asks))]


def _prompt(engine: InProcessEngine, ask: Ask) -> Prompt | Reply:
    """The prompt of an ask; a reply where it is refused."""
    if ask.fields:
        names = ", ".join(ask.fields)
        return _refused(ask, f"the Transformers engine takes no such field: {names}")
    if ask.prompt_ids:
        prompt = Prompt(ask.prompt_ids, engine.decode_prompt(ask.prompt_ids))
    else:
        try:
            prompt = engine.render(ask.messages, variables=ask.template)
        except EngineError as error:
            reason = first_line(error.__cause__ or error)
            return _refused(ask, f"the chat template refuses it ({reason})")
    if ask.max_tokens < 1:
        return _refused(ask, f"max_tokens is at least 1, not {ask.max_tokens}")
    if len(prompt.ids) + ask.max_tokens > engine.context:
        return _refused(
            ask,
            f"a prompt of {len(prompt.ids)} tokens and max_tokens {ask.max_tokens} are more "
            f"than the context of {engine.context}",
            len(prompt.ids),
        )
    return prompt


def _reply(
    engine: InProcessEngine, ask: Ask, prompt: Prompt, results: Sequence[Generated]
) -> Reply:
    error = next((done.error for done in results if done.stop_reason is StopReason.ERROR), "")
    if error:
        return Reply(_sent(ask), error=error, prompt_tokens=len(prompt.ids))
    opened = (engine.spec.thinking or builtin_formats()[GENERIC]).left_open(prompt.text)
    outputs = []
    for done in results:
        text = engine.decode(done.output_ids)
        outputs.append(
            ProbeOutput(done.output_ids, text, done.engine_reason, text=text, opened=opened)
        )
    return Reply(_sent(ask), tuple(outputs), prompt_tokens=len(prompt.ids))


def _sent(ask: Ask) -> dict[str, Any]:
    """What an ask says, in the words of this engine."""
    sent: dict[str, Any] = {"max_tokens": ask.max_tokens, "temperature": ask.temperature}
    if ask.messages:
        sent["messages"] = [dict(message) for message in ask.messages]
    if ask.prompt_ids:
        sent["prompt_ids"] = list(ask.prompt_ids)
    if ask.template:
        sent["template"] = dict(ask.template)
    if ask.n > 1:
        sent["n"] = ask.n
    if ask.temperature:
        sent |= {"seed": ask.seed or 0, "top_p": ask.top_p}
    if ask.stop:
        sent["stop"] = list(ask.stop)
    return {**sent, **ask.fields}


def _refused(ask: Ask, why: str, prompt_tokens: int | None = None) -> Reply:
    return Reply(_sent(ask), error=why, status=REFUSED, prompt_tokens=prompt_tokens)
