"""How kinds of servers differ: what is sent to each, and how its answers are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pytest_tokenbudget.common.messages import nearest
from pytest_tokenbudget.core.engine import Decoding, EngineError
from pytest_tokenbudget.core.probes import Ask
from pytest_tokenbudget.engines.server.http import Fault, FaultKind, Server
from pytest_tokenbudget.engines.server.output import (
    MalformedError,
    ServerOutput,
    ids_of,
    mapping,
    number,
    size_of,
)
from pytest_tokenbudget.engines.server.retry import retry_lost_answers
from pytest_tokenbudget.settings.endpoints import Facts

Body = dict[str, Any]
Event = Mapping[str, Any]
Models = Sequence[Mapping[str, Any]]
Messages = Sequence[Mapping[str, str]]

# Names of models that are shown where one is not there.
MOST_SHOWN = 10
# Kinds of faults of a server that does not answer.
GONE = (
    *(FaultKind.CONNECTION, FaultKind.TIMEOUT, FaultKind.OVERLOADED),
    *(FaultKind.CUT, FaultKind.TOO_LONG),
)
# By which name a prompt with or without the head of an answer is asked for.
GENERATION_PROMPT = "add_generation_prompt"
# What vLLM and SGLang would else take from the model's files, switched off.
NEUTRAL: Mapping[str, Any] = {
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}


class OutputSettings(NamedTuple):
    """What is wanted of one request.

    Attributes:
        tokens: Output tokens allowed.
        decoding: How they are chosen.
        seed: Seed of the noise of this request.
        eos_ids: Ids that end a sequence.
    """

    tokens: int
    decoding: Decoding
    seed: int
    eos_ids: frozenset[int]

    def fields(self, seed: str = "seed") -> Body:
        """How tokens are chosen, in OpenAI's names but for that of the seed."""
        decoding = self.decoding
        # Without noise the likeliest token is taken, whatever the nucleus.
        fields: Body = {"temperature": decoding.temperature, "top_p": 1.0}
        if not decoding.greedy:
            fields |= {"top_p": decoding.top_p, seed: self.seed}
        if decoding.stop:
            fields["stop"] = list(decoding.stop)
        return fields


class Dialect:
    """A server that speaks the OpenAI protocol and no more; others change what they do otherwise.

    Attributes:
        kind: Name of the kind.
        takes_ids: Whether prompts go and outputs come as token ids.
        takes_template: Whether variables for the chat template may be sent without being asked for.
    """

    kind = "openai"
    takes_ids = False
    takes_template = False

    def owns(self, models: Models) -> bool:
        """Whether a list of models names servers of this kind as their owner."""
        return any(model.get("owned_by") == self.kind for model in models)

    async def look(self, server: Server, models: Models, wanted: str | None) -> Facts | None:
        """What the server says of itself, None where it is of another kind.

        Args:
            server: The server.
            models: What it lists under ``/v1/models``; empty where it lists nothing.
            wanted: The name of the model that is meant; None where none was named.

        Raises:
            Fault: If it stops answering.
            EngineError: If the model is not there.
        """
        if models:
            return self.facts(chosen_model(models, wanted, server.url))
        body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
        # Some hosted servers list nothing.
        if wanted and await accepts(server, "chat/completions", {"model": wanted, **body}):
            return self.facts({"id": wanted}, fingerprint=wanted)
        return None

    def facts(
        self,
        model: Mapping[str, Any],
        context: int | None = None,
        **known: str | bool | tuple[str, ...],
    ) -> Facts:
        """Facts from an entry of ``/v1/models`` and whatever else is known."""
        names = ("max_model_len", "context_length", "context_window", "max_context_length")
        counts = [count for name in names if (count := size_of(model.get(name))) is not None]
        root = model.get("root")
        values: dict[str, Any] = {
            "version": "",
            "fingerprint": "",
            "tokenizes": False,
            "root": root if isinstance(root, str) else "",
            **known,
        }
        return Facts(
            kind=self.kind,
            served=str(model["id"]),
            context=context or (counts[0] if counts else None),
            ids=self.takes_ids,
            **values,
        )

    def ids_request(
        self, facts: Facts, ids: Sequence[int], settings: OutputSettings
    ) -> tuple[str, Body]:
        """Path and body of a streamed request that goes on from token ids.

        What the model's files recommend beside ``settings`` is switched off, as other engines do
        not have it.
        """
        raise NotImplementedError(f"{self.kind} takes no token ids")

    def read_ids(self, event: Event, output: ServerOutput) -> None:
        """Take one event of the answer to :meth:`ids_request`.

        Raises:
            NoIdsError: If text came without ids.
        """
        raise NotImplementedError(f"{self.kind} gives no token ids")

    async def whole_ids(self, server: Server, path: str, body: Body, count: int) -> list[int]:
        """The first ``count`` ids of an answer in whose stream some are missing."""
        raise NotImplementedError(f"{self.kind} gives all ids in its stream")

    def chat_request(
        self,
        facts: Facts,
        messages: Messages,
        settings: OutputSettings,
        template: Mapping[str, Any],
    ) -> tuple[str, Body]:
        """Path and body of a streamed chat request; ``template`` has the template's variables."""
        body: Body = {
            "model": facts.served,
            "messages": [dict(message) for message in messages],
            "max_tokens": settings.tokens,
            **settings.fields(),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if settings.decoding.greedy:
            del body["top_p"]
        if template:
            body["chat_template_kwargs"] = dict(template)
        return "chat/completions", body

    def read_chat(self, event: Event, output: ServerOutput) -> None:
        """Take one event of the answer to :meth:`chat_request`, or its whole body."""
        output.count(event.get("usage"))
        for choice in only_choice(event):
            # A server that does not stream answers with a whole message. Some send it beside the
            # deltas, where it repeats them.
            delta = choice.get("delta")
            output.add(delta if isinstance(delta, Mapping) else mapping(choice.get("message")))
            output.finish(choice.get("finish_reason"), choice.get("stop_reason"))

    def ask_request(self, facts: Facts, ask: Ask, eos_ids: frozenset[int]) -> tuple[str, Body]:
        """Path and body of a probe's request; its own fields come last and win.

        Raises:
            ValueError: If this kind of server cannot be asked that; the message says why.
        """
        if ask.prompt_ids:
            raise ValueError(f"{self.kind} servers take no prompts as token ids")
        return "chat/completions", ask_body(facts, ask)

    def read_reply(self, body: Event) -> list[ServerOutput]:
        """The outputs of the answer to :meth:`ask_request`, in the order of their index."""
        outputs = sorted(choices_of(body), key=lambda choice: number(choice.get("index")) or 0)
        return [self.read_choice(choice, body) for choice in outputs]

    def read_choice(self, choice: Event, body: Event) -> ServerOutput:
        """One output of a whole answer, of chat or of completions."""
        output = ServerOutput()
        message = choice.get("message")
        output.add(message if isinstance(message, Mapping) else {"content": choice.get("text")})
        output.finish(choice.get("finish_reason"), choice.get("stop_reason"))
        return output

    async def tokenize(self, server: Server, facts: Facts, text: str) -> list[int]:
        """Ids of a text, with no special tokens added and those in it read as such."""
        raise NotImplementedError(f"{self.kind} does not tokenize")

    async def detokenize(self, server: Server, facts: Facts, ids: Sequence[int]) -> str:
        """Text of ids, special tokens included."""
        raise NotImplementedError(f"{self.kind} does not tokenize")

    async def render(
        self, server: Server, facts: Facts, messages: Messages, template: Mapping[str, Any]
    ) -> tuple[list[int], str]:
        """Ids and text of rendered messages."""
        raise NotImplementedError(f"{self.kind} does not render messages")


def ask_body(facts: Facts, ask: Ask) -> Body:
    """The body that an ask is in OpenAI's names."""
    body: Body = {
        "model": facts.served,
        "max_tokens": ask.max_tokens,
        "temperature": ask.temperature,
    }
    if ask.prompt_ids:
        body["prompt"] = list(ask.prompt_ids)
    else:
        body["messages"] = [dict(message) for message in ask.messages]
        if ask.template:
            body["chat_template_kwargs"] = dict(ask.template)
    if ask.n != 1:
        body["n"] = ask.n
    if ask.top_p != 1:
        body["top_p"] = ask.top_p
    if ask.seed is not None:
        body["seed"] = ask.seed
    if ask.stop:
        body["stop"] = list(ask.stop)
    return body | dict(ask.fields)


def chosen_model(models: Models, wanted: str | None, url: str) -> Mapping[str, Any]:
    """The entry of ``/v1/models`` that is meant.

    Raises:
        EngineError: If it is not there, or there are several and none was chosen.
    """
    names = [str(model["id"]) for model in models]
    shown = ", ".join(map(repr, names[:MOST_SHOWN]))
    if len(names) > MOST_SHOWN:
        shown += f" and {len(names) - MOST_SHOWN} more"
    if wanted is not None:
        if wanted not in names:
            close = nearest(wanted, names, count=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            served = f"it serves {shown}" if names else "it lists no model at all"
            raise EngineError(f"{url} does not serve {wanted!r}: {served}{hint}")
        return models[names.index(wanted)]
    if not names:
        raise EngineError(f"{url} lists no model; name the one that is meant with --served-model")
    if len(names) > 1:
        raise EngineError(
            f"{url} serves {len(names)} models; choose one with --served-model: {shown}"
        )
    return models[0]


def rendering(messages: Messages, template: Mapping[str, Any]) -> Body:
    """The body that asks llama.cpp or vLLM to render messages.

    Whether an answer is asked for is a field of its own to them, and no variable.
    """
    body: Body = {"messages": [dict(message) for message in messages]}
    variables = dict(template)
    if GENERATION_PROMPT in variables:
        body[GENERATION_PROMPT] = variables.pop(GENERATION_PROMPT)
    if variables:
        body["chat_template_kwargs"] = variables
    return body


async def tokenized(server: Server, facts: Facts, text: str) -> list[int]:
    """Ids of a text by ``/tokenize`` as vLLM and SGLang have it."""
    body = {"model": facts.served, "prompt": text, "add_special_tokens": False}
    return await ids_at(server, "/tokenize", body, "tokens")


async def ids_at(server: Server, path: str, body: Body, name: str) -> list[int]:
    """The token ids in a field of an answer; a Fault where it has none."""
    ids = ids_of((await server.post(path, body)).get(name))
    if ids is None or any(token_id < 0 for token_id in ids):
        raise server.fault(FaultKind.MALFORMED, f"answered {path} without token ids in {name!r}")
    return ids


async def text_at(server: Server, path: str, body: Body, name: str) -> str:
    """The text in a field of an answer; a Fault where it has none."""
    text = (await server.post(path, body)).get(name)
    if not isinstance(text, str):
        raise server.fault(FaultKind.MALFORMED, f"answered {path} without a text in {name!r}")
    return text


async def optional_page(server: Server, path: str) -> Mapping[str, Any]:
    """What a path says that not every server has; empty where it says nothing."""
    try:
        return mapping(await retry_lost_answers(lambda: server.get(path)))
    except Fault as fault:
        if fault.kind in GONE:
            raise
        return {}


async def accepts(server: Server, path: str, body: Mapping[str, Any]) -> bool:
    """Whether a path takes a body."""
    try:
        await retry_lost_answers(lambda: server.post(path, body, adapt=True))
    except Fault as fault:
        if fault.kind in GONE:
            raise
        return False
    return True


def choices_of(event: Event) -> list[Mapping[str, Any]]:
    """The choices of an answer; none where it holds none."""
    found = event.get("choices")
    return [each for each in found if isinstance(each, Mapping)] if isinstance(found, list) else []


def only_choice(event: Event) -> list[Mapping[str, Any]]:
    """The choice of an answer of which one was asked for; none where it holds none.

    Raises:
        MalformedError: If it is part of another output.
    """
    found = choices_of(event)
    indices = {number(choice.get("index")) or 0 for choice in found}
    if indices - {0} or len(found) > 1:
        raise MalformedError(
            f"sent {len(found)} outputs with the index {', '.join(map(str, sorted(indices)))} "
            "where one was asked for"
        )
    return found
