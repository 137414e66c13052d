"""Models by name: from an alias, a hub id or a path to everything an engine must know."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast, get_args

from pytest_tokenbudget.common.messages import did_you_mean
from pytest_tokenbudget.common.outside_text import printable
from pytest_tokenbudget.models.catalogue import (
    DEFAULT_REVISION,
    HUB_ID,
    load_catalogue,
    not_among,
)
from pytest_tokenbudget.models.files import (
    HashCache,
    ModelError,
    check_directory,
    find_snapshot,
    hash_files,
    read_details,
    read_gguf_details,
    read_ref,
    relevant_files,
)
from pytest_tokenbudget.models.spec import DType, Kind, ModelSpec, Quantization
from pytest_tokenbudget.settings.endpoints import is_address, shown_address

__all__ = [
    "DEFAULT_MODEL",
    "DType",
    "HashCache",
    "Kind",
    "ModelError",
    "ModelSpec",
    "Quantization",
    "choose_quantization",
    "complete",
    "identity",
    "identity_hash",
    "load_catalogue",
    "resolve_commit",
    "resolve_model",
    "unique_aliases",
]

DEFAULT_MODEL = "nano-reasoner"

# Patterns are texts, compiled on first use: importing this module costs every pytest run.
_COMMIT = r"[0-9a-f]{40}"


def choose_quantization(spec: ModelSpec, device: str, explicit: str | None = None) -> Quantization:
    """The quantisation to load with: an explicit one anywhere, the catalogue's only on CUDA.

    Raises:
        ModelError: If the explicit one is unknown.
    """
    if explicit is not None:
        if explicit not in get_args(Quantization):
            raise ModelError(not_among("quantization", explicit, get_args(Quantization)))
        return cast(Quantization, explicit)
    return spec.quantization if device.startswith("cuda") else "none"


def resolve_model(name: str, catalogue: Mapping[str, ModelSpec]) -> ModelSpec:
    """The model that a name means: an alias, a directory, a ``.gguf`` file or a hub id.

    Relative paths start at the current directory. ``@REVISION`` after an alias or a hub id
    chooses a branch, tag or commit.

    Raises:
        ModelError: If the name leads nowhere; the message says what would.
    """
    name = name.strip()
    if not name:
        raise ModelError(f"the model's name is empty; {_ways(catalogue)}")
    if name in catalogue:
        return complete(catalogue[name])
    if is_address(name):
        raise ModelError(
            f"{shown_address(name)!r} is a server's address, which is no tokenizer and no model's "
            f"files; {_ways(catalogue)}"
        )
    path = Path(name).expanduser()
    if name.lower().endswith(".gguf") or os.path.isfile(path):
        return complete(ModelSpec(path.stem, os.path.abspath(path), kind="gguf", detect=True))
    written_as_path = name.startswith((".", "~")) or "\\" in name or name.endswith("/")
    if os.path.isdir(path) or os.path.isabs(name) or written_as_path:
        # Not resolved: a link is named as its owner named it.
        whole = Path(os.path.abspath(path))
        return complete(ModelSpec(whole.name, str(whole), kind="directory", detect=True))
    before, at, revision = name.partition("@")
    if at and not revision:
        raise ModelError(
            f"{name!r} names no revision after the @: write {before}@main, or {before}"
        )
    if at and before in catalogue:
        spec = catalogue[before]
        if spec.kind != "hub":
            raise ModelError(f"{before!r} has no revisions: it lies on disk, at {spec.source}")
        return complete(replace(spec, revision=revision))
    if re.fullmatch(HUB_ID, before):
        return complete(_hub_model(before, revision or DEFAULT_REVISION, catalogue))
    shown = printable(repr(name), 200)
    if "/" in name:
        raise ModelError(f"{shown} is neither a directory that exists nor a hub id (org/name)")
    raise ModelError(
        f"unknown model {shown}{did_you_mean(before, catalogue, 3)}; {_ways(catalogue)}"
    )


def complete(spec: ModelSpec) -> ModelSpec:
    """The spec with what the model's files say where nobody has said it; without network.

    That is its context, how it thinks, and the ids of its thinking tags. A hub model that was
    never downloaded stays as it is: call this again once its configuration and tokenizer are in
    the cache.

    Raises:
        ModelError: If files on disk are missing or broken.
    """
    if spec.kind in ("server", "recorded"):
        return spec
    path = Path(spec.source)
    if spec.kind == "gguf":
        if not os.path.isfile(path):
            raise ModelError(f"model {spec.alias!r}: there is no file {path}")
        if path.suffix.lower() != ".gguf":
            raise ModelError(
                f"{path} is a file: a model is a directory with config.json, or a .gguf file"
            )
    elif spec.kind == "directory":
        if not os.path.isdir(path):
            raise ModelError(f"model {spec.alias!r}: there is no directory {path}")
        check_directory(path)
    known = spec.thinking is None or spec.thinking.ids is not None
    if spec.context is not None and not spec.detect and known:
        return spec
    if spec.kind == "hub":
        commit = resolve_commit(spec)
        snapshot = find_snapshot(spec.source, commit) if commit else None
        if snapshot is None:
            return spec
        path = snapshot
    details = read_gguf_details(path) if spec.kind == "gguf" else read_details(path)
    thinking = details.thinking if spec.detect else spec.thinking
    return replace(
        spec,
        context=spec.context or details.context,
        thinking=thinking and thinking.resolved(details.tokens),
        detect=False,
    )


def resolve_commit(spec: ModelSpec) -> str | None:
    """The commit of a hub model as the local cache knows it, without network.

    None for files on disk and for a branch or tag that is not in the cache.
    """
    if spec.kind != "hub":
        return None
    revision = spec.revision or DEFAULT_REVISION
    if re.fullmatch(_COMMIT, revision):
        return revision
    commit = read_ref(spec.source, revision)
    return commit if re.fullmatch(_COMMIT, commit) else None


def identity(
    spec: ModelSpec,
    dtype: str,
    quantization: str,
    hashes: HashCache | None = None,
    *,
    engine: str = "transformers",
) -> dict[str, str]:
    """What distinguishes a model's outputs from another model's; part of every trace's key.

    The alias is no part of it, nor is the path. For a hub model given by branch or tag, take it
    after the tokenizer was loaded: before, the cache may not know the commit. The dtype is the one
    that the weights run in.

    Raises:
        ValueError: If the dtype is ``auto``, which is another one on another device.
        ModelError: If the files are missing.
    """
    if dtype == "auto":
        raise ValueError("a model's identity needs the dtype that 'auto' became")
    if spec.kind == "hub":
        revision = spec.revision or DEFAULT_REVISION
        which = {"model": spec.source, "revision": resolve_commit(spec) or revision}
    else:
        path = Path(spec.source)
        # The files of a directory have their names for a reason; a GGUF file may be renamed.
        base = path if spec.kind == "directory" else None
        files = relevant_files(path) if spec.kind == "directory" else (path,)
        if not files or not files[0].is_file():
            raise ModelError(f"model {spec.alias!r}: no files of a model at {path}")
        which = {"files": hash_files(files, base, hashes)}
    how = {"dtype": dtype, "engine": engine, "quantization": quantization}
    return dict(sorted({**which, **how}.items()))


def identity_hash(identity: Mapping[str, str]) -> str:
    """A short name for an identity: equal identities, equal names, whatever their order."""
    import hashlib
    import json

    text = json.dumps(dict(identity), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def unique_aliases(specs: Sequence[ModelSpec]) -> tuple[ModelSpec, ...]:
    """The models of one run, each once, different ones under different aliases."""
    distinct = list(dict.fromkeys(specs))
    for name in (_with_owner, _with_revision):
        groups: dict[str, list[int]] = {}
        for place, spec in enumerate(distinct):
            # Case does not count: aliases become names of files.
            groups.setdefault(spec.alias.casefold(), []).append(place)
        for group in groups.values():
            longer = [name(distinct[place]) for place in group]
            # What is the same for all of them tells nobody apart.
            if len(set(longer)) > 1:
                for place, alias in zip(group, longer, strict=True):
                    distinct[place] = replace(distinct[place], alias=alias)
    taken: set[str] = set()
    for place, spec in enumerate(distinct):
        alias, number = spec.alias, 1
        while alias.casefold() in taken:
            number += 1
            alias = f"{spec.alias}-{number}"
        taken.add(alias.casefold())
        distinct[place] = replace(spec, alias=alias)
    return tuple(distinct)


def _with_owner(spec: ModelSpec) -> str:
    owner = spec.source.split("/")[0] if spec.kind == "hub" else Path(spec.source).parent.name
    return f"{owner}-{spec.alias}" if owner else spec.alias


def _with_revision(spec: ModelSpec) -> str:
    revision = spec.revision or ""
    if re.fullmatch(_COMMIT, revision):
        revision = revision[:7]
    return f"{spec.alias}@{revision.replace('/', '-')}" if revision else spec.alias


def _hub_model(hub_id: str, revision: str, catalogue: Mapping[str, ModelSpec]) -> ModelSpec:
    spec = ModelSpec(hub_id.split("/")[1], hub_id, revision, detect=True)
    for known in catalogue.values():
        # What the catalogue knows of a model holds however it is called; what it prefers does not.
        if known.kind == "hub" and known.source == hub_id:
            return replace(
                spec, context=known.context, thinking=known.thinking, detect=known.detect
            )
    return spec


def _ways(catalogue: Mapping[str, ModelSpec]) -> str:
    return (
        f"name an alias ({', '.join(catalogue)}), a directory that holds config.json (./PATH), "
        f"a .gguf file, or a hub id (org/name, org/name@REVISION)"
    )
