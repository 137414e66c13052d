"""What servers say of themselves and of their model, remembered for runs in which they are down."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_tokenbudget.core.engine import EngineError
from pytest_tokenbudget.engines.background import Background
from pytest_tokenbudget.engines.server.dialects import DIALECTS
from pytest_tokenbudget.engines.server.dialects_base import GONE
from pytest_tokenbudget.engines.server.http import Fault, FaultKind, Key, Server
from pytest_tokenbudget.engines.server.retry import retry_lost_answers, retry_while_busy
from pytest_tokenbudget.engines.server.tokens import ServerText, find_thinking
from pytest_tokenbudget.models.catalogue import HUB_ID
from pytest_tokenbudget.models.files import find_snapshot, hash_files, read_ref, relevant_files
from pytest_tokenbudget.models.resolution import complete, resolve_commit
from pytest_tokenbudget.models.spec import Kind as ModelKind
from pytest_tokenbudget.models.spec import ModelSpec
from pytest_tokenbudget.models.thinking_formats import detect
from pytest_tokenbudget.settings.endpoints import Endpoint, Facts, identity_of, place_of

if TYPE_CHECKING:
    from pytest_tokenbudget.core.store import TraceStore
    from pytest_tokenbudget.texts.thinking_blocks import ThinkingFormat

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")


class SilentServersError(EngineError):
    """Servers that say nothing of themselves: they do not answer, or not without the right key."""


def ask_servers(endpoint: Endpoint, store: TraceStore, timeout: float) -> Facts:
    """What the servers say of themselves and of the model, noted in the store.

    Where none answers, what they said before counts, so that stored traces can be judged again
    without them. A server is silent after ``timeout`` seconds without a byte.

    Raises:
        EngineError: If they cannot be used, and were not before.
    """
    # Servers that have another model by now are not taken at their former word: they would
    # generate what is missing.
    try:
        facts = probe(endpoint, timeout)
    except SilentServersError as error:
        known = store.server(endpoint.urls, endpoint.served)
        if known is None:
            raise
        store.note(f"{str(error).rstrip('.')}. What was stored of it can be judged all the same.")
        return Facts.from_json(known)
    store.put_server(endpoint.urls, endpoint.served, facts.to_json())
    return facts


def probe(endpoint: Endpoint, timeout: float = 10.0) -> Facts:
    """Ask every server what it is and what it serves. Those that do not answer are passed over.

    Raises:
        SilentServersError: If no server answers, or one refuses the key.
        EngineError: If one is no OpenAI-compatible server, the model is not among those served,
            which one is meant is not said, or they serve different models.
    """
    with Background("tokenbudget-probe") as background:
        answers = background.run(_probe_all(endpoint, timeout))
    known: list[tuple[str, Facts]] = []
    silent: list[Fault] = []
    for url, answer in zip(endpoint.urls, answers, strict=True):
        if isinstance(answer, Facts):
            known.append((url, answer))
        elif not isinstance(answer, Fault):
            raise answer
        elif answer.kind in GONE:
            silent.append(answer)
        else:
            error = SilentServersError if answer.kind is FaultKind.KEY else EngineError
            raise error(answer.message)
    if not known:
        raise SilentServersError("; ".join(fault.message for fault in silent))
    return agreed(known)


async def _probe_all(endpoint: Endpoint, timeout: float) -> list[Facts | BaseException]:
    key = Key.from_environment()

    async def one(url: str) -> Facts:
        server = Server(url, key, timeout)
        try:
            return await retry_while_busy(lambda: look(server, endpoint.served))
        finally:
            await server.close()

    return await asyncio.gather(*map(one, endpoint.urls), return_exceptions=True)


async def look(server: Server, wanted: str | None) -> Facts:
    """What one server says of itself.

    Raises:
        Fault: If it does not answer, or refuses the key.
        EngineError: If it is no OpenAI-compatible server, or does not serve what is wanted.
    """
    listing: Fault | None = None
    models: list[Mapping[str, Any]] = []
    try:
        models = _read_models(await retry_lost_answers(lambda: server.get("models")))
    except Fault as fault:
        if fault.kind not in (FaultKind.SERVER, FaultKind.REFUSED, FaultKind.MALFORMED):
            raise
        listing = fault
    for dialect in DIALECTS.values():
        facts = await dialect.look(server, models, wanted)
        if facts is not None:
            return facts
    none = f"{server.url} lists no model; name the one that is meant with --served-model"
    message = listing.message if listing else none
    raise EngineError(
        f"{message}; is it the base URL of an OpenAI-compatible server, such as "
        f"http://localhost:8000/v1?"
    )


def _read_models(body: object) -> list[Mapping[str, Any]]:
    """The models of an answer to ``/v1/models``; those without a name are left out."""
    data = body.get("data") if isinstance(body, Mapping) else body
    entries = data if isinstance(data, list) else []
    return [m for m in entries if isinstance(m, Mapping) and isinstance(m.get("id"), str)]


def agreed(known: Sequence[tuple[str, Facts]]) -> Facts:
    """The facts that servers have in common, by URL, with the smallest of their contexts.

    Raises:
        EngineError: If they serve different models.
    """
    (first_url, first), *others = known
    for url, facts in others:
        for what, one, other in (
            ("the kind", first.kind, facts.kind),
            ("the model", first.served, facts.served),
            ("the weights", first.fingerprint, facts.fingerprint),
        ):
            if one != other:
                raise EngineError(
                    f"the servers must serve the same model, but they differ in {what}: "
                    f"{first_url} says {one!r}, {url} says {other!r}; name only servers that "
                    f"agree, or start them with one name for it (vLLM: --served-model-name, "
                    f"llama.cpp: --alias)"
                )
    contexts = [facts.context for _, facts in known if facts.context is not None]
    return replace(
        first,
        context=min(contexts, default=None),
        ids=all(facts.ids for _, facts in known),
        tokenizes=all(facts.tokenizes for _, facts in known),
    )


def with_facts(spec: ModelSpec, facts: Facts) -> ModelSpec:
    """The spec with what its servers say: context, and where the tokenizer is if nobody said it."""
    assert spec.endpoint is not None
    spec = replace(spec, endpoint=replace(spec.endpoint, facts=facts))
    if spec.kind == "server" and (files := _files(facts)):
        kind, source = files
        detected = complete(replace(spec, kind=kind, source=source, context=None))
        spec = replace(detected, context=spec.context)
    if spec.kind == "server" and spec.detect and facts.template:
        spec = replace(spec, thinking=_thinking(spec, facts))
    if facts.context is not None:
        spec = replace(spec, context=min(spec.context or facts.context, facts.context))
    return spec


def _files(facts: Facts) -> tuple[ModelKind, str] | None:
    """Where the files of the served model are, as far as this machine has them.

    A GGUF file is left to its server: what Transformers rebuilds of its tokenizer may split
    otherwise.
    """
    root = facts.root
    if root and os.path.isdir(root) and (Path(root) / "config.json").is_file():
        return "directory", os.path.abspath(root)
    if re.fullmatch(HUB_ID, root):
        commit = read_ref(root, "main")
        if commit and find_snapshot(root, commit) is not None:
            return "hub", root
    return None


def _thinking(spec: ModelSpec, facts: Facts) -> ThinkingFormat | None:
    """How the model marks its thinking; without the ids of its tags where its server is down."""
    if not facts.tokenizes:
        return detect(facts.template, {})
    tokens = ServerText(spec, facts)
    try:
        return find_thinking(facts, tokens)
    except EngineError:
        return detect(facts.template, {})
    finally:
        tokens.close()


def describe(spec: ModelSpec, store: TraceStore) -> tuple[dict[str, str], str]:
    """What identifies a served model's outputs, and where it runs, for people.

    ``store`` remembers hashes of files.
    """
    assert spec.endpoint is not None
    which = identity_of(spec.endpoint, _tokenizer(spec, store))
    return which, f"{which['model']} at {place_of(spec.endpoint)}"


def _tokenizer(spec: ModelSpec, store: TraceStore) -> str:
    """A name for what renders prompts: it decides what the model is asked."""
    if spec.kind == "hub":
        return f"{spec.source}@{resolve_commit(spec) or spec.revision or 'main'}"
    path = Path(spec.source)
    if spec.kind == "gguf":
        return hash_files((path,), None, store)
    if spec.kind == "directory":
        files = [file for file in relevant_files(path) if file.suffix not in WEIGHTS]
        return hash_files(files, path, store)
    return "server"
