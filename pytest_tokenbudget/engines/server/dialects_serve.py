"""``transformers serve``.

As Transformers 5.23 was seen to do:

- It takes no ids and gives none; ``/v1/completions`` takes text only. Unknown fields are refused
  (422), ``n`` and ``logprobs`` are taken and ignored. There is no check against the context: a
  prompt of 9,008 tokens is answered by a model that has 2,048.
- ``/v1/models`` lists the hub's cache and fails with 500 where there is none. The model that it was
  started with is what answers a request that names none, and its name stands in the answer with
  ``@revision`` added. Another name is then refused with 400 ("pinned").
- A stream ends with the body and without ``[DONE]``; its last event has ``finish_reason`` and
  ``usage``.
- Thinking comes apart as ``reasoning_content``, without its tags. Where it is not closed, the text
  of the end-of-sequence token stays at the end of it. In a stream its white space is whole, in one
  body it is stripped. An output that is the open tag alone is empty.
- A stream after a prompt that ends with closed thinking begins with that thinking, and its content
  with the white space that follows it in the prompt; a whole body has neither.
- The end of the sequence exactly at the cap is called ``length``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_tokenbudget.engines.server.dialects_base import (
    GONE,
    Dialect,
    Models,
    chosen_model,
    optional_page,
)
from pytest_tokenbudget.engines.server.http import Fault, FaultKind, Server
from pytest_tokenbudget.engines.server.output import mapping, text_of
from pytest_tokenbudget.engines.server.retry import retry_lost_answers
from pytest_tokenbudget.settings.endpoints import Facts

# A path that no other kind of server has.
OWN_PATH = "/load_model"
LOADING = 120.0


class TransformersServe(Dialect):
    """``transformers serve``."""

    kind = "serve"
    takes_template = True

    async def look(self, server: Server, models: Models, wanted: str | None) -> Facts | None:
        paths = mapping((await optional_page(server, "/openapi.json")).get("paths"))
        if OWN_PATH not in paths:
            return None
        pinned = await self._pinned(server)
        if pinned is not None:
            name = pinned.rpartition("@")[0] or pinned
            model: Mapping[str, Any] = {"id": wanted or name}
            if wanted not in (None, name, pinned):
                model = chosen_model([{"id": name}], wanted, server.url)
            return self.facts(model, fingerprint=pinned, root=name)
        if wanted is not None and not any(each["id"] == wanted for each in models):
            # It loads what a request names, from the hub or from disk.
            return self.facts({"id": wanted}, fingerprint=wanted, root=wanted.partition("@")[0])
        model = chosen_model(models, wanted, server.url)
        name = str(model["id"])
        return self.facts(model, fingerprint=name, root=name.partition("@")[0])

    async def _pinned(self, server: Server) -> str | None:
        """The model that it was started with, None where requests choose."""
        body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
        try:
            # It may have to load the model first.
            reply = await retry_lost_answers(
                lambda: server.post("chat/completions", body, timeout=LOADING)
            )
        except Fault as fault:
            if fault.kind in (*GONE, FaultKind.KEY):
                raise
            return None
        return text_of(mapping(reply).get("model")) or None
