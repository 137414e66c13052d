"""Which models a run is about, and which engine runs each: from options to specs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from pytest_tokenbudget.models.resolution import (
    ModelError,
    ModelSpec,
    resolve_model,
    unique_aliases,
)
from pytest_tokenbudget.settings.config_file import ConfigError
from pytest_tokenbudget.settings.endpoints import Endpoint, is_address, read_address
from pytest_tokenbudget.settings.options import Settings


def choose_models(settings: Settings, catalogue: Mapping[str, ModelSpec]) -> tuple[ModelSpec, ...]:
    """The models that were asked for, in order, each once.

    Raises:
        pytest.UsageError: If a name means nothing, or options contradict each other.
    """
    found = unique_aliases(_all(settings, catalogue))
    for spec in found:
        try:
            (spec.alias + spec.source).encode()
        except UnicodeEncodeError:
            raise pytest.UsageError(
                f"--model: {spec.source!r} cannot be used; allowed: names in UTF-8"
            ) from None
    if not any(spec.endpoint for spec in found):
        _refuse_server_options(settings)
    return found


def engine_of(settings: Settings, spec: ModelSpec) -> str:
    if spec.endpoint is not None:
        return "server"
    return "transformers" if settings.engine == "auto" else settings.engine


def _all(settings: Settings, catalogue: Mapping[str, ModelSpec]) -> list[ModelSpec]:
    if settings.base_url:
        return [_at_base_url(settings, catalogue)]
    specs = []
    for name in settings.models:
        if is_address(name.strip()):
            try:
                address = read_address(name)
            except ValueError as error:
                raise pytest.UsageError(f"--model: an address cannot be used; {error}") from None
            served = _served(settings, (address,), _tokenizer(settings, catalogue))
            spec = _as_entered(served, catalogue)
        else:
            spec = _resolved("--model", name, catalogue)
            if spec.endpoint is not None:
                spec = _with_options(settings, spec, catalogue)
        _check_engine(settings, spec, name)
        specs.append(spec)
    return specs


def _at_base_url(settings: Settings, catalogue: Mapping[str, ModelSpec]) -> ModelSpec:
    named = settings.models if "model" in settings.explicit else ()
    if any(is_address(name) for name in named):
        raise pytest.UsageError(
            "--base-url: --model is an address already; allowed: one of the two, or --model with "
            "the name of the model that the servers serve"
        )
    if len(named) > 1:
        raise pytest.UsageError(
            f"--base-url: the servers serve one model, and --model names {len(named)}; allowed: "
            "one of them, or an address for each with --model"
        )
    spec = _resolved("--model", named[0], catalogue) if named else None
    served = _served(settings, settings.base_url, spec or _tokenizer(settings, catalogue))
    _check_engine(settings, served, settings.base_url[0])
    # A name that was given is how people want to see it.
    if spec is not None:
        return replace(served, alias=spec.alias)
    return _as_entered(served, catalogue)


def _as_entered(spec: ModelSpec, catalogue: Mapping[str, ModelSpec]) -> ModelSpec:
    """The spec with price and settings of the entry that names the same servers.

    Those of the entry that its tokenizer comes from are not theirs.
    """
    endpoint = spec.endpoint
    assert endpoint is not None
    for entry in catalogue.values():
        there = entry.endpoint
        if there is None or not set(endpoint.urls) <= set(there.urls):
            continue
        if None in (endpoint.served, there.served) or endpoint.served == there.served:
            return replace(spec, price=entry.price, generation=entry.generation)
    return replace(spec, price=None, generation=())


def _served(settings: Settings, urls: tuple[str, ...], tokenizer: ModelSpec | None) -> ModelSpec:
    endpoint = Endpoint(urls, settings.served_model, settings.server_api)
    if tokenizer is None:
        return ModelSpec(endpoint.alias, urls[0], kind="server", endpoint=endpoint, detect=True)
    return replace(tokenizer, alias=endpoint.alias, endpoint=endpoint)


def _with_options(
    settings: Settings, spec: ModelSpec, catalogue: Mapping[str, ModelSpec]
) -> ModelSpec:
    """A served model of the catalogue, with what the command line says of servers."""
    assert spec.endpoint is not None
    endpoint = replace(
        spec.endpoint,
        served=settings.served_model or spec.endpoint.served,
        api=settings.server_api if "server_api" in settings.explicit else spec.endpoint.api,
    )
    tokenizer = _tokenizer(settings, catalogue)
    if tokenizer is not None:
        spec = replace(spec, source=tokenizer.source, kind=tokenizer.kind)
    return replace(spec, endpoint=endpoint)


def _tokenizer(settings: Settings, catalogue: Mapping[str, ModelSpec]) -> ModelSpec | None:
    if not settings.tokenizer:
        return None
    return _resolved("--tokenizer", settings.tokenizer, catalogue)


def _resolved(option: str, name: str, catalogue: Mapping[str, ModelSpec]) -> ModelSpec:
    try:
        return resolve_model(name, catalogue)
    except (ModelError, ConfigError) as error:
        raise pytest.UsageError(f"{option}: {error}") from None


def _check_engine(settings: Settings, spec: ModelSpec, name: str) -> None:
    if settings.engine == "server" and spec.endpoint is None:
        raise pytest.UsageError(
            f"--engine: server cannot be used with {name!r}, which is no address; allowed: "
            "--model http://HOST:PORT/v1, or --base-url beside --model"
        )
    if settings.engine not in ("auto", "server") and spec.endpoint is not None:
        raise pytest.UsageError(
            f"--engine: {settings.engine} runs models in this process and cannot be used with the "
            f"server at {spec.endpoint.urls[0]}; allowed: auto, server"
        )


def _refuse_server_options(settings: Settings) -> None:
    """Options that only mean something with a server are not taken and ignored."""
    for name, flag in (
        ("served_model", "--served-model"),
        ("server_api", "--server-api"),
        ("tokenizer", "--tokenizer"),
    ):
        if name in settings.explicit:
            raise pytest.UsageError(
                f"{flag}: no server is named; allowed: with --base-url or --model "
                "http://HOST:PORT/v1" + (", or with --recorded" if name == "tokenizer" else "")
            )
