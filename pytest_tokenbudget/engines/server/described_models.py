"""A model behind servers: what they say of it, remembered for runs in which they are down."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_tokenbudget.models.catalogue import HUB_ID
from pytest_tokenbudget.models.spec import Kind as ModelKind
from pytest_tokenbudget.models.spec import ModelSpec
from pytest_tokenbudget.models.thinking_formats import detect
from pytest_tokenbudget.settings.endpoints import Endpoint, identity_of, place_of

if TYPE_CHECKING:
    from pytest_tokenbudget.core.store import TraceStore
    from pytest_tokenbudget.settings.endpoints import Facts
    from pytest_tokenbudget.texts.thinking_blocks import ThinkingFormat

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")


def ask_servers(endpoint: Endpoint, store: TraceStore, timeout: float) -> Facts:
    """What the servers say of themselves and of the model, noted in the store.

    Where none answers, what they said before counts, so that stored traces can be judged again
    without them.

    Args:
        endpoint: The servers.
        store: Keeps what they said.
        timeout: Seconds without a byte after which one counts as silent.

    Raises:
        EngineError: If they cannot be used, and were not before.
    """
    from pytest_tokenbudget.engines.server.server_facts import NoWordError, probe
    from pytest_tokenbudget.settings.endpoints import Facts

    # Servers that have another model by now are not taken at their former word: they would
    # generate what is missing.
    try:
        facts = probe(endpoint, timeout)
    except NoWordError as error:
        known = store.server(endpoint.urls, endpoint.served)
        if known is None:
            raise
        store.note(f"{str(error).rstrip('.')}. What was stored of it can be judged all the same.")
        return Facts.from_json(known)
    store.put_server(endpoint.urls, endpoint.served, facts.to_json())
    return facts


def with_facts(spec: ModelSpec, facts: Facts) -> ModelSpec:
    """The spec with what its servers say: context, and where the tokenizer is if nobody said it."""
    from pytest_tokenbudget.models.resolution import complete

    assert spec.endpoint is not None
    spec = replace(spec, endpoint=replace(spec.endpoint, facts=facts))
    if spec.kind == "server" and (found := _files_of(facts)):
        kind, source = found
        detected = complete(replace(spec, kind=kind, source=source, context=None))
        spec = replace(detected, context=spec.context)
    if spec.kind == "server" and spec.detect and facts.template:
        spec = replace(spec, thinking=_thinking(spec, facts))
    if facts.context is not None:
        spec = replace(spec, context=min(spec.context or facts.context, facts.context))
    return spec


def _files_of(facts: Facts) -> tuple[ModelKind, str] | None:
    """Where the files of the served model are, as far as this machine has them.

    A GGUF file is left to its server: what Transformers rebuilds of its tokenizer may split
    otherwise.
    """
    from pytest_tokenbudget.models.files import find_snapshot, read_ref

    root = facts.root
    if not root:
        return None
    if os.path.isdir(root) and (Path(root) / "config.json").is_file():
        return "directory", os.path.abspath(root)
    if re.fullmatch(HUB_ID, root):
        commit = read_ref(root, "main")
        if commit and find_snapshot(root, commit) is not None:
            return "hub", root
    return None


def _thinking(spec: ModelSpec, facts: Facts) -> ThinkingFormat | None:
    """How the model marks its thinking; without the ids of its tags where its server is down."""
    from pytest_tokenbudget.core.engine import EngineError
    from pytest_tokenbudget.engines.server.tokens import ServerText, find_thinking

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

    Args:
        spec: The model, its servers asked already.
        store: Remembers hashes of files.
    """
    assert spec.endpoint is not None
    which = identity_of(spec.endpoint, _tokenizer(spec, store))
    return which, f"{which['model']} at {place_of(spec.endpoint)}"


def _tokenizer(spec: ModelSpec, store: TraceStore) -> str:
    """A name for what renders prompts: it decides what the model is asked."""
    from pytest_tokenbudget.models.files import hash_files, relevant_files
    from pytest_tokenbudget.models.resolution import resolve_commit

    if spec.kind == "hub":
        return f"{spec.source}@{resolve_commit(spec) or spec.revision or 'main'}"
    path = Path(spec.source)
    if spec.kind == "gguf":
        return hash_files((path,), None, store)
    if spec.kind == "directory":
        files = [file for file in relevant_files(path) if file.suffix not in WEIGHTS]
        return hash_files(files, path, store)
    return "server"
