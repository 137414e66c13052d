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

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_tokenbudget.core.probes import Ask
from pytest_tokenbudget.engines.server.dialects_base import (
    NEUTRAL,
    Body,
    Dialect,
    Event,
    Wish,
    answers,
    asked,
    chosen,
    maybe,
    text_at,
    tokenized,
)
from pytest_tokenbudget.engines.server.heard import Heard, mapping, number, output_ids, text_of
from pytest_tokenbudget.settings.endpoints import Facts

if TYPE_CHECKING:
    from pytest_tokenbudget.engines.server.http import Server


class SGLang(Dialect):
    """SGLang."""

    kind = "sglang"
    takes_ids = True
    takes_template = True

    async def look(
        self, server: Server, models: Sequence[Mapping[str, Any]], wanted: str | None
    ) -> Facts | None:
        """What the server says of itself, None where it is of another kind."""
        if not self.owns(models):
            return None
        model = chosen(models, wanted, server)
        info = await maybe(server, "/get_model_info") or await maybe(server, "/model_info")
        said = await maybe(server, "/get_server_info") or await maybe(server, "/server_info")
        path = text_of(info.get("model_path")) or text_of(model.get("root"))
        return self.facts(
            model,
            version=text_of(said.get("version")),
            fingerprint=path,
            root=text_of(info.get("tokenizer_path")) or path,
            tokenizes=await answers(server, "/tokenize", {"model": model["id"], "prompt": "a"}),
        )

    def ids_request(self, facts: Facts, ids: Sequence[int], wish: Wish) -> tuple[str, Body]:
        """Path and body of a streamed request that goes on from token ids."""
        wanted: Body = {
            "max_new_tokens": wish.tokens,
            "temperature": wish.decoding.temperature,
            "top_p": wish.top_p,
            **NEUTRAL,
            "skip_special_tokens": False,
            "stop_token_ids": sorted(wish.eos_ids),
        }
        if not wish.decoding.greedy:
            wanted["sampling_seed"] = wish.seed
        if wish.decoding.stop:
            wanted["stop"] = list(wish.decoding.stop)
        return "/generate", {"input_ids": list(ids), "sampling_params": wanted, "stream": True}

    def read_ids(self, event: Event, heard: Heard) -> None:
        """Take one event of the answer to :meth:`ids_request`."""
        meta = mapping(event.get("meta_info"))
        text = text_of(event.get("text"))
        ids = output_ids(event.get("output_ids"), text)
        total = number(meta.get("completion_tokens"))
        # All so far, or new ones: the count says which, and so does what has come before.
        known = heard.ids
        if total is not None and len(known) + len(ids) != total:
            whole = len(ids) >= len(known) and ids[: len(known)] == known
        else:
            whole = not known
        heard.ids = list(ids or known) if whole else known + ids
        added = text
        if whole:
            added, heard.content = text[len(heard.content) :], text
        heard.added = heard.joined("added", added)
        if added or len(heard.ids) > len(known):
            heard.check_open()
        reason = mapping(meta.get("finish_reason"))
        matched = reason.get("matched")
        heard.finish(reason.get("type"), matched)
        end = number(matched)
        if end is not None and total == len(heard.ids) + 1:
            # The server names the id that ended it and leaves it out of the list.
            heard.ids.append(end)
        names = ("prompt_tokens", "completion_tokens", "reasoning_tokens")
        heard.count({name: meta.get(name) for name in names})

    def ask_request(self, facts: Facts, ask: Ask, eos_ids: frozenset[int]) -> tuple[str, Body]:
        """Path and body of a probe's request; its own fields come last and win."""
        path = "completions" if ask.prompt_ids else "chat/completions"
        own: Body = {"top_k": -1, "repetition_penalty": 1.0, "skip_special_tokens": False}
        return path, own | asked(facts, ask)

    def read_choice(self, choice: Event, body: Event) -> Heard:
        """One output of a whole answer, of chat or of completions."""
        heard = super().read_choice(choice, body)
        # It says under this name what stopped the output.
        heard.finish(choice.get("finish_reason"), choice.get("matched_stop"))
        return heard

    async def tokenize(self, server: Server, facts: Facts, text: str) -> list[int]:
        """Ids of a text, with no special tokens added and those in it read as such."""
        return await tokenized(server, facts, text)

    async def detokenize(self, server: Server, facts: Facts, ids: Sequence[int]) -> str:
        """Text of ids, special tokens included."""
        body = {"model": facts.served, "tokens": list(ids), "skip_special_tokens": False}
        return await text_at(server, "/detokenize", body, "text")
