"""SGLang's server.

Written from SGLang's documentation and source; nobody has run this against one here. What it says:

- ``/generate`` takes ``input_ids`` and ``sampling_params``; ``output_ids`` are in each event of its
  stream: all so far or, with ``--stream-output`` and in some versions, those of the event only.
  ``meta_info.completion_tokens`` is the count so far and tells which.
- ``meta_info.finish_reason`` is ``{"type": "stop", "matched": id or text}``, ``{"type": "length"}``
  or ``{"type": "abort"}``, each with more beside it.
- ``/get_model_info`` (``/model_info``) names ``model_path``, ``/get_server_info`` the version.
- ``/tokenize`` and ``/detokenize`` exist; messages are not rendered.
- ``sampling_seed`` counts with ``--enable-deterministic-inference`` only.
"""

from __future__ import annotations

from collections.abc import Sequence

from pytest_tokenbudget.core.probes import Ask
from pytest_tokenbudget.engines.server.dialects_base import (
    NEUTRAL,
    Body,
    Dialect,
    Event,
    Models,
    OutputSettings,
    accepts,
    ask_body,
    chosen_model,
    optional_page,
    text_at,
    tokenized,
)
from pytest_tokenbudget.engines.server.http import Server
from pytest_tokenbudget.engines.server.output import (
    ServerOutput,
    mapping,
    number,
    output_ids,
    text_of,
)
from pytest_tokenbudget.settings.endpoints import Facts


class SGLang(Dialect):
    """SGLang."""

    kind = "sglang"
    takes_ids = True
    takes_template = True

    async def look(self, server: Server, models: Models, wanted: str | None) -> Facts | None:
        if not self.owns(models):
            return None
        model = chosen_model(models, wanted, server.url)
        info = await optional_page(server, "/get_model_info") or await optional_page(
            server, "/model_info"
        )
        said = await optional_page(server, "/get_server_info") or await optional_page(
            server, "/server_info"
        )
        path = text_of(info.get("model_path")) or text_of(model.get("root"))
        return self.facts(
            model,
            version=text_of(said.get("version")),
            fingerprint=path,
            root=text_of(info.get("tokenizer_path")) or path,
            tokenizes=await accepts(server, "/tokenize", {"model": model["id"], "prompt": "a"}),
        )

    def ids_request(
        self, facts: Facts, ids: Sequence[int], settings: OutputSettings
    ) -> tuple[str, Body]:
        wanted: Body = {
            "max_new_tokens": settings.tokens,
            **settings.fields(seed="sampling_seed"),
            **NEUTRAL,
            "skip_special_tokens": False,
            "stop_token_ids": sorted(settings.eos_ids),
        }
        return "/generate", {"input_ids": list(ids), "sampling_params": wanted, "stream": True}

    def read_ids(self, event: Event, output: ServerOutput) -> None:
        meta = mapping(event.get("meta_info"))
        text = text_of(event.get("text"))
        ids = output_ids(event.get("output_ids"), text)
        total = number(meta.get("completion_tokens"))
        # All so far, or new ones: the count says which, and so does what has come before.
        known = output.ids
        if total is not None and len(known) + len(ids) != total:
            whole = len(ids) >= len(known) and ids[: len(known)] == known
        else:
            whole = not known
        output.ids = list(ids or known) if whole else known + ids
        added = text
        if whole:
            added, output.content = text[len(output.content) :], text
        output.new_text = output.joined("added", added)
        if added or len(output.ids) > len(known):
            output.check_open()
        reason = mapping(meta.get("finish_reason"))
        output.finish(reason.get("type"), reason.get("matched"))
        end = number(reason.get("matched"))
        if end is not None and total == len(output.ids) + 1:
            # The server names the id that ended it and leaves it out of the list.
            output.ids.append(end)
        names = ("prompt_tokens", "completion_tokens", "reasoning_tokens")
        output.count({name: meta.get(name) for name in names})

    def ask_request(self, facts: Facts, ask: Ask, eos_ids: frozenset[int]) -> tuple[str, Body]:
        path = "completions" if ask.prompt_ids else "chat/completions"
        own: Body = {"top_k": -1, "repetition_penalty": 1.0, "skip_special_tokens": False}
        return path, own | ask_body(facts, ask)

    def read_choice(self, choice: Event, body: Event) -> ServerOutput:
        output = super().read_choice(choice, body)
        # It says under this name what stopped the output.
        output.finish(choice.get("finish_reason"), choice.get("matched_stop"))
        return output

    tokenize = staticmethod(tokenized)

    async def detokenize(self, server: Server, facts: Facts, ids: Sequence[int]) -> str:
        body = {"model": facts.served, "tokens": list(ids), "skip_special_tokens": False}
        return await text_at(server, "/detokenize", body, "text")
