"""vLLM's server.

As vLLM 0.32 was seen to do:

- ``/v1/models`` names ``owned_by: vllm``, ``root`` (what was given as ``--model``) and
  ``max_model_len``; ``/version`` and ``/tokenize`` want no key even where ``/v1`` does.
- ``return_token_ids`` gives ids in ``choices[].token_ids``, the end-of-sequence id and those that
  complete a stop string included. In a stream each event has the ids of its own; the first has the
  prompt's, too. The chat endpoint does the same, with or without a reasoning parser.
- The end of the sequence exactly at the cap is ``stop``. ``stop_reason`` is None for the model's
  own end, the id for a further one, the text for a stop string.
- ``max_tokens`` beyond what the prompt leaves of the context is clipped without a word as long as
  it is not above the context itself; above, and for a prompt that does not fit, it is a 400.
- Fields that do not exist are dropped without a word. A seed above 2**63 - 1 is refused, and so is
  a temperature above 2.
- Unless told otherwise it takes ``top_k``, ``repetition_penalty`` and the like from the model's
  ``generation_config.json``; so all are sent.
- With a reasoning parser, reasoning is called ``reasoning`` (older versions: ``reasoning_content``)
  and ``content`` is null while it has not been closed. The parser of DeepSeek-R1's format calls all
  reasoning where no close tag comes, also after a prompt that has closed it. Its ids tell.
- ``thinking_token_budget`` without reasoning parser or configuration is refused with 400.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_tokenbudget.core.probes import Ask
from pytest_tokenbudget.engines.server.dialects_base import (
    NEUTRAL,
    Body,
    Dialect,
    Event,
    Messages,
    Models,
    OutputSettings,
    accepts,
    ask_body,
    chosen_model,
    ids_at,
    only_choice,
    optional_page,
    rendering,
    text_at,
    tokenized,
)
from pytest_tokenbudget.engines.server.http import Server
from pytest_tokenbudget.engines.server.output import ServerOutput, ids_of, output_ids, text_of
from pytest_tokenbudget.settings.endpoints import Facts


class Vllm(Dialect):
    """vLLM."""

    kind = "vllm"
    takes_ids = True
    takes_template = True

    async def look(self, server: Server, models: Models, wanted: str | None) -> Facts | None:
        if not self.owns(models):
            return None
        model = chosen_model(models, wanted, server.url)
        version = await optional_page(server, "/version")
        return self.facts(
            model,
            version=text_of(version.get("version")),
            fingerprint=text_of(model.get("root")),
            tokenizes=await accepts(server, "/tokenize", {"model": model["id"], "prompt": "a"}),
        )

    def ids_request(
        self, facts: Facts, ids: Sequence[int], settings: OutputSettings
    ) -> tuple[str, Body]:
        return "completions", {
            "model": facts.served,
            "prompt": list(ids),
            "max_tokens": settings.tokens,
            **settings.fields(),
            **NEUTRAL,
            # Stop strings are looked for in the text with its special tokens, as elsewhere.
            "skip_special_tokens": False,
            "stop_token_ids": sorted(settings.eos_ids),
            "return_token_ids": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    def read_ids(self, event: Event, output: ServerOutput) -> None:
        output.count(event.get("usage"))
        output.new_text = ""
        for choice in only_choice(event):
            text = text_of(choice.get("text"))
            ids = output_ids(choice.get("token_ids"), text)
            if ids or text:
                output.check_open()
            output.ids += ids
            output.new_text = output.joined("added", text)
            output.finish(choice.get("finish_reason"), choice.get("stop_reason"))

    def chat_request(
        self,
        facts: Facts,
        messages: Messages,
        settings: OutputSettings,
        template: Mapping[str, Any],
    ) -> tuple[str, Body]:
        path, body = super().chat_request(facts, messages, settings, template)
        return path, body | {"top_p": body.get("top_p", 1.0), **NEUTRAL}

    def ask_request(self, facts: Facts, ask: Ask, eos_ids: frozenset[int]) -> tuple[str, Body]:
        own: Body = {**NEUTRAL, "return_token_ids": True, "skip_special_tokens": False}
        if eos_ids:
            own["stop_token_ids"] = sorted(eos_ids)
        path = "completions" if ask.prompt_ids else "chat/completions"
        return path, own | {"top_p": 1.0} | ask_body(facts, ask)

    def read_choice(self, choice: Event, body: Event) -> ServerOutput:
        output = super().read_choice(choice, body)
        output.ids = ids_of(choice.get("token_ids")) or []
        # Of chat it stands beside the choices, of completions in each.
        prompt = ids_of(choice.get("prompt_token_ids")) or ids_of(body.get("prompt_token_ids"))
        output.prompt_ids = None if prompt is None else tuple(prompt)
        return output

    tokenize = staticmethod(tokenized)

    async def detokenize(self, server: Server, facts: Facts, ids: Sequence[int]) -> str:
        body = {"model": facts.served, "tokens": list(ids)}
        return await text_at(server, "/detokenize", body, "prompt")

    async def render(
        self, server: Server, facts: Facts, messages: Messages, template: Mapping[str, Any]
    ) -> tuple[list[int], str]:
        body = {"model": facts.served, **rendering(messages, template)}
        ids = await ids_at(server, "/tokenize", body, "tokens")
        return ids, await self.detokenize(server, facts, ids)
