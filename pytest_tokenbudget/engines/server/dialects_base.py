"""How kinds of servers differ: what is sent to each, and how its answers are read.

Reading is pure: events and bodies go in, and what was heard comes out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_tokenbudget.core.engine import Decoding
from pytest_tokenbudget.core.probes import Ask
from pytest_tokenbudget.engines.server.heard import (
    Heard,
    MalformedError,
    ids_of,
    mapping,
    number,
    size_of,
)
from pytest_tokenbudget.engines.server.http import Fault, FaultKind
from pytest_tokenbudget.engines.server.listed_models import choose_served
from pytest_tokenbudget.engines.server.retry import persistently
from pytest_tokenbudget.settings.endpoints import Facts

if TYPE_CHECKING:
    from pytest_tokenbudget.engines.server.http import Server

Body = dict[str, Any]
Event = Mapping[str, Any]
Texts = tuple[str, ...]

# Kinds of faults of a server that does not answer.
GONE = (
    *(FaultKind.CONNECTION, FaultKind.TIMEOUT, FaultKind.OVERLOADED),
    *(FaultKind.CUT, FaultKind.TOO_LONG),
)
# By which name a prompt with or without the head of an answer is asked for.
ASKED_FOR = "add_generation_prompt"
# What vLLM and SGLang would else take from the model's files, switched off.
NEUTRAL: Mapping[str, Any] = {
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}


class Wish(NamedTuple):
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

    @property
    def top_p(self) -> float:
        """Share of probability kept; all of it where the likeliest is taken anyway."""
        return 1.0 if self.decoding.greedy else self.decoding.top_p


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

    # Recognition

    def owns(self, models: Sequence[Mapping[str, Any]]) -> bool:
        """Whether a list of models names servers of this kind as their owner."""
        return any(model.get("owned_by") == self.kind for model in models)

    async def look(
        self, server: Server, models: Sequence[Mapping[str, Any]], wanted: str | None
    ) -> Facts | None:
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
            return self.facts(chosen(models, wanted, server))
        body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
        # Some hosted servers list nothing.
        if wanted and await answers(server, "chat/completions", {"model": wanted, **body}):
            return self.facts({"id": wanted}, fingerprint=wanted)
        return None

    def facts(
        self, model: Mapping[str, Any], context: int | None = None, **said: str | bool | Texts
    ) -> Facts:
        """The facts from an entry of ``/v1/models`` and whatever else is known."""
        names = ("max_model_len", "context_length", "context_window", "max_context_length")
        counts = [count for name in names if (count := size_of(model.get(name))) is not None]
        root = model.get("root")
        values: dict[str, Any] = {
            "version": "",
            "fingerprint": "",
            "tokenizes": False,
            "root": root if isinstance(root, str) else "",
            **said,
        }
        return Facts(
            kind=self.kind,
            served=str(model["id"]),
            context=context or (counts[0] if counts else None),
            ids=self.takes_ids,
            **values,
        )

    # Generating by ids

    def ids_request(self, facts: Facts, ids: Sequence[int], wish: Wish) -> tuple[str, Body]:
        """Path and body of a streamed request that goes on from token ids.

        Args:
            facts: What is known of the server.
            ids: Prompt, and what of the output is there already.
            wish: How to go on. What the model's files recommend beside it is switched off, as
                other engines do not have it.
        """
        raise NotImplementedError(f"{self.kind} takes no token ids")

    def read_ids(self, event: Event, heard: Heard) -> None:
        """Take one event of the answer to :meth:`ids_request`.

        Raises:
            NoIdsError: If text came without ids.
        """
        raise NotImplementedError(f"{self.kind} gives no token ids")

    async def whole_ids(self, server: Server, path: str, body: Body, count: int) -> list[int]:
        """The first ids of an answer in whose stream some are missing.

        Args:
            server: The server.
            path: Of the request.
            body: Of the request.
            count: How many ids.

        Raises:
            Fault: If it does not answer.
        """
        raise NotImplementedError(f"{self.kind} gives all ids in its stream")

    # Generating by chat messages

    def chat_request(
        self,
        facts: Facts,
        messages: Sequence[Mapping[str, str]],
        wish: Wish,
        template: Mapping[str, Any],
    ) -> tuple[str, Body]:
        """Path and body of a streamed chat request.

        Args:
            facts: What is known of the server.
            messages: The chat messages.
            wish: How to answer.
            template: Variables for the chat template.
        """
        body: Body = {
            "model": facts.served,
            "messages": [dict(message) for message in messages],
            "max_tokens": wish.tokens,
            "temperature": wish.decoding.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if not wish.decoding.greedy:
            body |= {"top_p": wish.decoding.top_p, "seed": wish.seed}
        if wish.decoding.stop:
            body["stop"] = list(wish.decoding.stop)
        if template:
            body["chat_template_kwargs"] = dict(template)
        return "chat/completions", body

    def read_chat(self, event: Event, heard: Heard) -> None:
        """Take one event of the answer to :meth:`chat_request`, or its whole body."""
        heard.count(event.get("usage"))
        for choice in only_choice(event):
            # A server that does not stream answers with a whole message. Some send it beside the
            # deltas, where it repeats them.
            delta = choice.get("delta")
            heard.add(delta if isinstance(delta, Mapping) else mapping(choice.get("message")))
            heard.finish(choice.get("finish_reason"), choice.get("stop_reason"))

    # Probing

    def ask_request(self, facts: Facts, ask: Ask, eos_ids: frozenset[int]) -> tuple[str, Body]:
        """Path and body of a probe's request; its own fields come last and win.

        Raises:
            ValueError: If this kind of server cannot be asked that; the message says why.
        """
        if ask.prompt_ids:
            raise ValueError(f"{self.kind} servers take no prompts as token ids")
        return "chat/completions", asked(facts, ask)

    def read_reply(self, body: Event) -> list[Heard]:
        """The outputs of the answer to :meth:`ask_request`, in the order of their index."""
        outputs = sorted(choices_of(body), key=lambda choice: number(choice.get("index")) or 0)
        return [self.read_choice(choice, body) for choice in outputs]

    def read_choice(self, choice: Event, body: Event) -> Heard:
        """One output of a whole answer, of chat or of completions."""
        heard = Heard()
        message = choice.get("message")
        heard.add(message if isinstance(message, Mapping) else {"content": choice.get("text")})
        heard.finish(choice.get("finish_reason"), choice.get("stop_reason"))
        return heard

    # Tokenizing

    async def tokenize(self, server: Server, facts: Facts, text: str) -> list[int]:
        """Ids of a text, with no special tokens added and those in it read as such."""
        raise NotImplementedError(f"{self.kind} does not tokenize")

    async def detokenize(self, server: Server, facts: Facts, ids: Sequence[int]) -> str:
        """Text of ids, special tokens included."""
        raise NotImplementedError(f"{self.kind} does not tokenize")

    async def render(
        self,
        server: Server,
        facts: Facts,
        messages: Sequence[Mapping[str, str]],
        template: Mapping[str, Any],
    ) -> tuple[list[int], str]:
        """Ids and text of rendered messages."""
        raise NotImplementedError(f"{self.kind} does not render messages")


def asked(facts: Facts, ask: Ask) -> Body:
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


def chosen(
    models: Sequence[Mapping[str, Any]], wanted: str | None, server: Server
) -> Mapping[str, Any]:
    """The entry of ``/v1/models`` that is meant.

    Raises:
        EngineError: If it is not there, or there are several and none was chosen.
    """
    name = choose_served([str(model["id"]) for model in models], wanted, server.url)
    return next(model for model in models if model["id"] == name)


def rendering(messages: Sequence[Mapping[str, str]], template: Mapping[str, Any]) -> Body:
    """The body that asks llama.cpp or vLLM to render messages.

    Whether an answer is asked for is a field of its own to them, and no variable.
    """
    body: Body = {"messages": [dict(message) for message in messages]}
    variables = dict(template)
    if ASKED_FOR in variables:
        body[ASKED_FOR] = variables.pop(ASKED_FOR)
    if variables:
        body["chat_template_kwargs"] = variables
    return body


async def tokenized(server: Server, facts: Facts, text: str) -> list[int]:
    """Ids of a text by ``/tokenize`` as vLLM and SGLang have it.

    Raises:
        Fault: If the server does not answer.
    """
    body = {"model": facts.served, "prompt": text, "add_special_tokens": False}
    return await ids_at(server, "/tokenize", body, "tokens")


async def ids_at(server: Server, path: str, body: Body, name: str) -> list[int]:
    """The token ids in a field of an answer.

    Raises:
        Fault: If the server does not answer, or without them.
    """
    ids = ids_of((await server.post(path, body)).get(name))
    if ids is None or any(token_id < 0 for token_id in ids):
        raise server.fault(FaultKind.MALFORMED, f"answered {path} without token ids in {name!r}")
    return ids


async def text_at(server: Server, path: str, body: Body, name: str) -> str:
    """The text in a field of an answer.

    Raises:
        Fault: If the server does not answer, or without it.
    """
    text = (await server.post(path, body)).get(name)
    if not isinstance(text, str):
        raise server.fault(FaultKind.MALFORMED, f"answered {path} without a text in {name!r}")
    return text


async def maybe(server: Server, path: str) -> Mapping[str, Any]:
    """What a path says that not every server has; empty where it says nothing.

    Raises:
        Fault: If the server does not answer at all.
    """
    try:
        return mapping(await persistently(lambda: server.get(path)))
    except Fault as fault:
        if fault.kind in GONE:
            raise
        return {}


async def answers(server: Server, path: str, body: Mapping[str, Any]) -> bool:
    """Whether a path takes a body.

    Raises:
        Fault: If the server does not answer at all.
    """
    try:
        await persistently(lambda: server.post(path, body, adapt=True))
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
