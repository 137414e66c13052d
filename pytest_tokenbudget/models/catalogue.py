"""The catalogue of models: the aliases of this package and the user's, as specs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast, get_args

from pytest_tokenbudget.common.messages import kind_of, nearest
from pytest_tokenbudget.common.package_files import package_folder
from pytest_tokenbudget.models.files import ModelError
from pytest_tokenbudget.models.prices import Price, PriceError, read_price
from pytest_tokenbudget.models.spec import DType, Kind, ModelSpec, Quantization
from pytest_tokenbudget.models.thinking_formats import (
    Formats,
    builtin_formats,
    models_file,
    read_formats,
    read_thinking,
)
from pytest_tokenbudget.settings.config_file import ConfigError, UserConfig, read_config
from pytest_tokenbudget.settings.endpoints import Endpoint, read_addresses
from pytest_tokenbudget.settings.option_values import APIS
from pytest_tokenbudget.texts.thinking_blocks import ThinkingFormat

DEFAULT_REVISION = "main"
HUB_ID = r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*"
_SOURCES = ("id", "path", "embedded")
_SERVER_KEYS = ("base_url", "served", "server_api")
_KEYS = (
    *(*_SOURCES, "base", "revision", "quantization", "dtype", "context", "thinking", "price"),
    *(*_SERVER_KEYS, "generation"),
)


def load_catalogue(
    rootdir: Path | None = None, config: UserConfig | None = None
) -> Mapping[str, ModelSpec]:
    """All aliases: those of this package, and the user's, which may override them.

    Nothing is looked up on disk or on the hub: an entry that nobody asks for cannot fail for
    what it points to.

    Args:
        rootdir: pytest's root directory, searched for the user's configuration; None: no search.
        config: The user's configuration, where it was read already.

    Raises:
        ModelError: If an entry is not usable; the message names the file and the entry.
        ConfigError: If the configuration file is not usable.
    """
    own = Path(__file__).with_name("models.toml")
    formats = builtin_formats()
    tables = cast(Mapping[str, object], models_file()["models"])
    catalogue = _entries(tables, {}, formats, own, own.name)
    if config is None and rootdir is not None:
        config = read_config(rootdir)
    if config is not None and config.path is not None:
        formats = {**formats, **own_formats(config)}
        catalogue |= _entries(config.models, catalogue, formats, config.path, config.where)
    return catalogue


def own_formats(config: UserConfig) -> Formats:
    """The thinking formats that the user's configuration declares.

    Raises:
        ConfigError: If one is not usable.
    """
    return read_formats(config.formats, builtin_formats(), config.where)


def did_you_mean(name: str, allowed: Sequence[str]) -> str:
    close = [repr(known) for known in nearest(name, allowed)]
    return f", did you mean {' or '.join(close)}?" if close else ""


def not_among(what: str, value: str, allowed: Sequence[str]) -> str:
    return f"unknown {what} {value!r}; allowed are {', '.join(allowed)}"


def _entries(
    tables: Mapping[str, object],
    known: Mapping[str, ModelSpec],
    formats: Formats,
    file: Path,
    where: str,
) -> dict[str, ModelSpec]:
    """The specs of a table of aliases, whose bases may stand in any order."""
    done: dict[str, ModelSpec] = {}

    def build(alias: str, asked_by: tuple[str, ...]) -> ModelSpec:
        if alias not in done:
            table = _checked_table(alias, tables[alias], where)
            base = base_of(alias, table, asked_by)
            place = f"{where}: models.{alias}"
            done[alias] = _entry(alias, table, base, formats=formats, file=file, where=place)
        return done[alias]

    def base_of(
        alias: str, table: Mapping[str, object], asked_by: tuple[str, ...]
    ) -> ModelSpec | None:
        name = table.get("base")
        if name is None or name == alias:
            own = any(key in table for key in (*_SOURCES, "base_url"))
            if alias not in known and (name or not own):
                raise ModelError(
                    f'{where}: models.{alias} needs id = "org/name", path = "DIRECTORY or .gguf '
                    f'file", base_url = "http://HOST:PORT/v1", or base = "ANOTHER ALIAS"'
                )
            # An own source and no base named: another model, which takes nothing over.
            return None if name is None and own else known[alias]
        if not isinstance(name, str) or (name not in tables and name not in known):
            text = str(name)
            raise ModelError(
                f"{where}: models.{alias} has the base {text!r}, which is no alias"
                + did_you_mean(text, [*known, *tables])
            )
        if name in asked_by:
            circle = " -> ".join([*asked_by, alias, name])
            raise ModelError(f"{where}: the bases of models go in a circle: {circle}")
        return build(name, (*asked_by, alias)) if name in tables else known[name]

    return {alias: build(alias, ()) for alias in tables}


def _checked_table(alias: str, table: object, where: str) -> Mapping[str, object]:
    if not re.fullmatch(r"[\w.+-]+", alias):
        raise ModelError(
            f"{where}: {alias!r} cannot be an alias: letters, digits, '.', '_', '+' and '-' can"
        )
    if not isinstance(table, Mapping):
        raise ModelError(f"{where}: models.{alias} must be a table, not {kind_of(table)}")
    for key, value in table.items():
        if key in _KEYS:
            continue
        # [models.my-0.5b] is read as the table 5b in my-0.
        if isinstance(value, Mapping):
            raise ModelError(
                f"{where}: models.{alias} holds the table {key!r}; an alias with a dot in it is "
                f'written in quotes: [models."{alias}.{key}"]'
            )
        raise ModelError(
            f"{where}: models.{alias} has the unknown key {key!r}{did_you_mean(key, _KEYS)}; "
            f"allowed are {', '.join(_KEYS)}"
        )
    named = [key for key in _SOURCES if key in table]
    if len(named) > 1:
        raise ModelError(f"{where}: models.{alias} has {' and '.join(named)}: keep one")
    return table


def _entry(
    alias: str,
    table: Mapping[str, object],
    base: ModelSpec | None,
    *,
    formats: Formats,
    file: Path,
    where: str,
) -> ModelSpec:
    spec = replace(base, alias=alias) if base else ModelSpec(alias, "", detect=True)
    endpoint = _endpoint(table, spec.endpoint, where)
    source, kind = _source(table, file, where) or (spec.source, spec.kind)
    if endpoint is not None and not source:
        source, kind = endpoint.urls[0], "server"
    revision = _text(table, "revision", where)
    if revision is not None and kind != "hub":
        raise ModelError(f"{where} lies on disk and has no revision")
    if kind == "hub" and revision is None:
        # A commit of one repository means nothing in another.
        revision = spec.revision if source == spec.source else DEFAULT_REVISION
    quantization = _choice(table, "quantization", get_args(Quantization), where)
    if quantization is None and kind != "gguf":
        quantization = spec.quantization
    context = table.get("context", spec.context)
    if context is not None and (type(context) is not int or context < 1):
        raise ModelError(
            f"{where}: context must be a whole number of tokens, at least 1, not {kind_of(context)}"
        )
    generation = spec.generation
    if "generation" in table:
        from pytest_tokenbudget.models.own_settings import read_own_settings

        generation = read_own_settings(table["generation"], generation, where)
    return replace(
        spec,
        source=source,
        kind=kind,
        generation=generation,
        revision=revision,
        quantization=cast(Quantization, quantization or "none"),
        dtype=cast(DType, _choice(table, "dtype", get_args(DType), where) or spec.dtype),
        context=context,
        thinking=_thinking(table["thinking"], spec.thinking, formats, where)
        if "thinking" in table
        else spec.thinking,
        endpoint=endpoint,
        # What one model costs says nothing of another one.
        price=_price(table, spec.price if source == spec.source else None, where),
        detect=spec.detect and "thinking" not in table,
    )


def _endpoint(
    table: Mapping[str, object], inherited: Endpoint | None, where: str
) -> Endpoint | None:
    if not any(key in table for key in _SERVER_KEYS):
        return inherited
    given = table.get("base_url", list(inherited.urls) if inherited else None)
    urls = given if isinstance(given, list) else [given]
    if not urls or not all(isinstance(url, str) for url in urls):
        raise ModelError(f'{where}: base_url must be "http://HOST:PORT/v1", or a list of such')
    try:
        addresses = read_addresses([str(url) for url in urls])
    except ValueError as error:
        raise ModelError(f"{where}: base_url cannot be used; {error}") from None
    served = _text(table, "served", where) or (inherited.served if inherited else None)
    api = _choice(table, "server_api", APIS, where) or (inherited.api if inherited else "auto")
    return Endpoint(addresses, served, api)


def _price(table: Mapping[str, object], inherited: Price | None, where: str) -> Price | None:
    if "price" not in table:
        return inherited
    try:
        return read_price(table["price"])
    except PriceError as error:
        raise ModelError(f"{where}: {error}") from None


def _source(table: Mapping[str, object], file: Path, where: str) -> tuple[str, Kind] | None:
    if embedded := _text(table, "embedded", where):
        return str(_embedded_directory(embedded)), "directory"
    if given := _text(table, "path", where):
        path = (file.parent / Path(given).expanduser()).resolve()
        return str(path), "gguf" if path.suffix.lower() == ".gguf" else "directory"
    hub_id = _text(table, "id", where)
    if hub_id is None:
        return None
    if not re.fullmatch(HUB_ID, hub_id):
        raise ModelError(f"{where}: id must be a hub id such as org/name, not {hub_id!r}")
    return hub_id, "hub"


def _thinking(
    value: object, inherited: ThinkingFormat | None, formats: Formats, where: str
) -> ThinkingFormat | None:
    try:
        return read_thinking(value, inherited, formats, where)
    except ConfigError as error:
        raise ModelError(str(error)) from error


def _text(table: Mapping[str, object], key: str, where: str) -> str | None:
    value = table.get(key)
    if value is not None and (not isinstance(value, str) or not value):
        raise ModelError(f"{where}: {key} must be a text that is not empty, not {kind_of(value)}")
    return value


def _choice(
    table: Mapping[str, object], key: str, allowed: Sequence[str], where: str
) -> str | None:
    value = table.get(key)
    if value is not None and value not in allowed:
        raise ModelError(f"{where}: {not_among(key, str(value), allowed)}")
    return cast("str | None", value)


def _embedded_directory(name: str) -> Path:
    return package_folder("embedded") / "models" / name
