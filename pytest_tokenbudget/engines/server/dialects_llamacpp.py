"""llama.cpp's server.

As build 11434 was seen to do:

- ``/v1/models`` names ``owned_by: llamacpp`` and, in ``meta``, counts of the weights and ``n_ctx``,
  the context of one slot. It answers for any model name in a request; so the name is checked here.
- ``/completion`` takes a list of ids as its prompt. ``return_tokens`` gives ids, the
  end-of-sequence id and those that complete a stop string included. In a stream each event has its
  own, and the last one (``stop: true``) has none, but the word for the end and the counts; no
  ``[DONE]`` follows, and the connection is closed after a stream.
- A stream leaves out the ids of tokens whose text ends inside a character; ``tokens_predicted``,
  which counts on, shows it. A whole body has them all.
- ``stop_type`` is ``eos``, ``word`` or ``limit``; the end of the sequence exactly at the cap is
  ``eos``. A cap beyond the context is clipped: ``limit`` with ``truncated: true``. A prompt that
  does not fit is a 400. ``n_predict: 0`` gives one token.
- Unknown fields are dropped without a word, and so are negative temperatures.
- Its own defaults are ``top_k`` 40, ``top_p`` 0.95, ``min_p`` 0.05; so the chain of samplers is
  named. The seed 4294967295 stands for a random one.
- The OpenAI endpoints give no ids as such, but with ``logprobs`` they do, in
  ``logprobs.content[].id``, the end-of-sequence id included, those of a stop string not. With ``n``
  above 1 ``usage`` counts one output.
- Unless a request or the server's command line says otherwise, it renders prompts with
  ``enable_thinking`` false where its look at the template finds no reasoning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_tokenbudget.core.probes import Ask
from pytest_tokenbudget.engines.server.dialects_base import (
    Body,
    Dialect,
    Event,
    Messages,
    Models,
    OutputSettings,
    ask_body,
    chosen_model,
    ids_at,
    optional_page,
    rendering,
    text_at,
)
from pytest_tokenbudget.engines.server.http import Server
from pytest_tokenbudget.engines.server.output import (
    End,
    NoIdsError,
    ServerOutput,
    ids_of,
    mapping,
    number,
    output_ids,
    read_usage,
    size_of,
    text_of,
)
from pytest_tokenbudget.settings.endpoints import Facts

# Only what was asked for, in the order in which other engines do it.
SAMPLERS: Mapping[str, Any] = {"samplers": ["temperature", "top_p"], "repeat_penalty": 1.0}
ENDS = {"eos": End.EOS, "word": End.STOP, "limit": End.LENGTH}
# What identifies the weights, as far as the server tells.
WEIGHTS = ("n_params", "size", "n_vocab", "n_embd", "ftype")


class LlamaCpp(Dialect):
    """llama.cpp."""

    kind = "llamacpp"
    takes_ids = True
    takes_template = True

    async def look(self, server: Server, models: Models, wanted: str | None) -> Facts | None:
        if not self.owns(models):
            return None
        model = chosen_model(models, wanted, server.url)
        said = await optional_page(server, "/props")
        meta = mapping(model.get("meta"))
        slot = mapping(said.get("default_generation_settings")).get("n_ctx")
        weights = [f"{name} {meta[name]}" for name in WEIGHTS if name in meta]
        return self.facts(
            model,
            version=text_of(said.get("build_info")),
            context=size_of(slot) or size_of(meta.get("n_ctx")),
            fingerprint=", ".join(weights),
            tokenizes=True,
            template=text_of(said.get("chat_template")),
            ends=tuple(filter(None, [text_of(said.get("eos_token"))])),
        )

    def ids_request(
        self, facts: Facts, ids: Sequence[int], settings: OutputSettings
    ) -> tuple[str, Body]:
        # Which ids end a sequence is in the GGUF file and cannot be said here.
        return "/completion", {
            "prompt": list(ids),
            "n_predict": settings.tokens,
            **settings.fields(),
            **SAMPLERS,
            "return_tokens": True,
            "cache_prompt": True,
            "stream": True,
            # The last event would else repeat the prompt and all settings.
            "response_fields": [
                *("stop", "stop_type", "tokens", "truncated"),
                *("tokens_predicted", "tokens_evaluated"),
            ],
        }

    def read_ids(self, event: Event, output: ServerOutput) -> None:
        ids = output_ids(event.get("tokens"), "")
        text = text_of(event.get("content"))
        output.new_text = output.joined("added", text)
        if not ids and text and not event.get("stop"):
            raise NoIdsError
        if ids or text:
            output.check_open()
        output.ids += ids
        output.id_count = number(event.get("tokens_predicted"))
        if event.get("stop") is True:
            output.finish_reason = text_of(event.get("stop_type"))
            output.end = ENDS.get(output.finish_reason, End.OTHER)
            names = {"prompt_tokens": "tokens_evaluated", "completion_tokens": "tokens_predicted"}
            output.count({name: event.get(own) for name, own in names.items()})

    async def whole_ids(self, server: Server, path: str, body: Body, count: int) -> list[int]:
        # The same seed draws the same tokens; so no output is favoured by being asked for twice.
        found = await server.post(path, body | {"stream": False, "n_predict": count})
        return ids_of(mapping(found).get("tokens")) or []

    def chat_request(
        self,
        facts: Facts,
        messages: Messages,
        settings: OutputSettings,
        template: Mapping[str, Any],
    ) -> tuple[str, Body]:
        path, body = super().chat_request(facts, messages, settings, template)
        return path, body | {"top_p": body.get("top_p", 1.0), **SAMPLERS}

    def ask_request(self, facts: Facts, ask: Ask, eos_ids: frozenset[int]) -> tuple[str, Body]:
        own: Body = {**SAMPLERS, "top_p": 1.0}
        if ask.prompt_ids:
            return "completions", own | {"logprobs": 1} | ask_body(facts, ask)
        return "chat/completions", own | {"logprobs": True, "top_logprobs": 1} | ask_body(
            facts, ask
        )

    def read_reply(self, body: Event) -> list[ServerOutput]:
        outputs = super().read_reply(body)
        total = read_usage(body.get("usage")).get("completion_tokens")
        if len(outputs) == 1 and total != len(outputs[0].ids):
            # What completes a stop string is missing there.
            outputs[0].ids = []
        return outputs

    def read_choice(self, choice: Event, body: Event) -> ServerOutput:
        output = super().read_choice(choice, body)
        tokens = mapping(choice.get("logprobs")).get("content")
        if isinstance(tokens, list):
            output.ids = ids_of([mapping(token).get("id") for token in tokens]) or []
        return output

    async def tokenize(self, server: Server, facts: Facts, text: str) -> list[int]:
        body = {"content": text, "add_special": False, "parse_special": True}
        return await ids_at(server, "/tokenize", body, "tokens")

    async def detokenize(self, server: Server, facts: Facts, ids: Sequence[int]) -> str:
        return await text_at(server, "/detokenize", {"tokens": list(ids)}, "content")

    async def render(
        self, server: Server, facts: Facts, messages: Messages, template: Mapping[str, Any]
    ) -> tuple[list[int], str]:
        body = rendering(messages, template)
        text = await text_at(server, "/apply-template", body, "prompt")
        return await self.tokenize(server, facts, text), text
