"""The catalogue of models: the aliases of this package and the user's, as specs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

from pytest_tokenbudget.common.messages import did_you_mean, kind_of, unknown_key
from pytest_tokenbudget.common.package_files import package_folder
from pytest_tokenbudget.models.files import ModelError
from pytest_tokenbudget.models.prices import PriceError, read_price
from pytest_tokenbudget.models.spec import DType, Kind, ModelSpec, OwnSettings, Quantization
from pytest_tokenbudget.models.thinking_formats import (
    Formats,
    builtin_formats,
    models_file,
    read_formats,
    read_thinking,
)
from pytest_tokenbudget.settings.config_file import GENERATION, ConfigError, UserConfig, read_config
from pytest_tokenbudget.settings.endpoints import Endpoint, read_addresses
from pytest_tokenbudget.settings.option_fields import Option, options_of
from pytest_tokenbudget.settings.option_values import APIS, toml_text
from pytest_tokenbudget.settings.options import Settings

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

    Nothing is looked up on disk or on the hub: an entry that nobody asks for cannot fail for what
    it points to. The configuration is read from pytest's root directory, if given, where it was not
    read already.

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
                + did_you_mean(text, [*known, *tables], 3)
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
        raise ModelError(f"{where}: models.{alias} has {unknown_key(key, _KEYS, 3)}")
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
    # What one model costs says nothing of another one.
    price = spec.price if source == spec.source else None
    thinking = spec.thinking
    try:
        if "price" in table:
            price = read_price(table["price"])
        if "thinking" in table:
            thinking = read_thinking(table["thinking"], thinking, formats, where)
    except PriceError as error:
        raise ModelError(f"{where}: {error}") from None
    except ConfigError as error:
        raise ModelError(str(error)) from error
    generation = spec.generation
    if "generation" in table:
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
        thinking=thinking,
        endpoint=endpoint,
        price=price,
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


def _source(table: Mapping[str, object], file: Path, where: str) -> tuple[str, Kind] | None:
    if embedded := _text(table, "embedded", where):
        return str(package_folder("embedded") / "models" / embedded), "directory"
    if given := _text(table, "path", where):
        path = (file.parent / Path(given).expanduser()).resolve()
        return str(path), "gguf" if path.suffix.lower() == ".gguf" else "directory"
    hub_id = _text(table, "id", where)
    if hub_id is None:
        return None
    if not re.fullmatch(HUB_ID, hub_id):
        raise ModelError(f"{where}: id must be a hub id such as org/name, not {hub_id!r}")
    return hub_id, "hub"


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


# Keys of the table, and the options that they set.
MODEL_OPTIONS = {
    key: each for each in options_of(Settings) if each.model for key in (each.name, *each.former)
}


def read_own_settings(table: object, inherited: OwnSettings, where: str) -> OwnSettings:
    """Names and parsed values of the settings in a table of a model's entry, called ``where``.

    Those inherited from the base of the entry hold where the table has no other value.

    Raises:
        ModelError: If it is no table, or a key or value cannot be used.
    """
    if not isinstance(table, Mapping):
        raise ModelError(
            f"{where}: {GENERATION} must be a table, such as [models.NAME.{GENERATION}] with "
            f"budgets = [64, 128], not {kind_of(table)}"
        )
    found = dict(inherited)
    for key, value in table.items():
        if key not in MODEL_OPTIONS:
            raise ModelError(f"{where}: {GENERATION} has {unknown_key(key, MODEL_OPTIONS)}")
        option = MODEL_OPTIONS[key]
        if same := [name for name in table if name != key and MODEL_OPTIONS.get(name) == option]:
            raise ModelError(
                f"{where}: {GENERATION}: {key} and {same[0]} are one setting: keep one"
            )
        try:
            if isinstance(value, list) and not option.many:
                option.parse("")  # No option can be empty: the error says what is allowed.
            parsed = option.parse(toml_text(value))
        except ValueError as error:
            raise ModelError(
                f"{where}: {GENERATION}.{key} {_wrong(value, option, error)}"
            ) from None
        if key == "cliff_budgets" and len(parsed) < 2:
            raise ModelError(f"{where}: {GENERATION}.{key}: {parsed[0]} alone has no step")
        found[option.name] = parsed
    return tuple(found.items())


def _wrong(value: object, option: Option, error: ValueError) -> str:
    """What of a value cannot be used, and what is allowed: of a list, the items that cannot."""
    if not option.many or not isinstance(value, list | str):
        return f"cannot be {kind_of(value)}; {error}"
    wrong = {}
    for item in value if isinstance(value, list) else value.split(","):
        try:
            option.parse(str(item))
        except ValueError as own:
            wrong[kind_of(item.strip() if isinstance(item, str) else item)] = own
    if not value or not wrong:
        return f"cannot be {'an empty array' if value == [] else kind_of(value)}; {error}"
    named, first = " and ".join(list(wrong)[:3]), next(iter(wrong.values()))
    return f"cannot {'hold' if isinstance(value, list) else 'be'} {named}; {first}"


def settings_of(settings: Settings, spec: ModelSpec) -> Settings:
    """The settings as they apply to one model: its own where the user chose nothing else."""
    own: dict[str, Any] = dict(spec.generation)
    own = {name: value for name, value in own.items() if name not in settings.explicit}
    if not own:
        return settings
    explicit = settings.explicit | own.keys()
    return replace(settings, **own, explicit=explicit, from_model_entry=tuple(own))
