"""The YAML form of generation settings, read and written here only.

It has ``llm: generation_config: {max_new_tokens, enable_thinking, temperature, top_p, do_sample}``,
``data: {batch_size}``, and limits of their own: ``emotions: {NAME: {max_new_tokens}}``, and
``categories`` the same.
"""

from __future__ import annotations

import importlib
import textwrap
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pytest_tokenbudget.config_file import ConfigError, kind_of, nearest

GENERATION = "llm.generation_config"
LIMIT = "max_new_tokens"
# Sections with limits of their own, and what a problem has of which they are the names.
SPLITS = {"emotions": "framing", "categories": "category"}
# What Transformers samples at where nothing is said.
SAMPLED = "1.0"

_KEYS: Mapping[str, tuple[str, ...]] = {
    "": ("llm", "data", *SPLITS),
    "llm": ("generation_config",),
    GENERATION: (LIMIT, "enable_thinking", "temperature", "top_p", "do_sample"),
    "data": ("batch_size",),
}


class Given(NamedTuple):
    """What a file says of an option: its text, and the key that it stands at."""

    text: str
    key: str


@dataclass(frozen=True)
class GenerationConfig:
    """What a file says.

    Attributes:
        path: The file.
        max_new_tokens: The limit of all that have none of their own; None if there is none.
        limits: Limits by what they are of (``framing``, ``category``), then by its name.
        options: What it says of options, by their names.
    """

    path: Path
    max_new_tokens: int | None = None
    limits: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    options: Mapping[str, Given] = field(default_factory=dict)

    @property
    def largest(self) -> int | None:
        """The largest limit, which is what is generated with; None without one for all."""
        if self.max_new_tokens is None:
            return None
        own = [limit for by_name in self.limits.values() for limit in by_name.values()]
        return max([self.max_new_tokens, *own])

    def limit_of(self, names: Mapping[str, str]) -> int | None:
        """The limit of a problem, the larger one where both its names have one.

        Args:
            names: Its ``framing`` and its ``category``.
        """
        own = [by_name.get(names.get(split, "")) for split, by_name in self.limits.items()]
        return max((limit for limit in own if limit is not None), default=self.max_new_tokens)

    def budgets(self, others: Collection[int]) -> tuple[int, ...]:
        """Budgets of a run under the file's limits: those of ``others`` that are smaller, too."""
        if self.max_new_tokens is None or self.largest is None:
            return tuple(others)
        smaller = {budget for budget in others if budget < self.largest}
        return tuple(sorted({*smaller, self.max_new_tokens, self.largest}))


def read_generation_config(path: Path, framings: Collection[str]) -> GenerationConfig:
    """Read a file of this form.

    Args:
        path: The file.
        framings: Names that ``emotions`` may have.

    Raises:
        ConfigError: If it cannot be read, or has a key or value that does not belong; the message
            names the file and the key.
    """
    found = _Reader(path)
    top = found.part(_load(path), "")
    llm = found.part(top.get("llm"), "llm")
    generation = found.part(llm.get("generation_config"), GENERATION)
    data = found.part(top.get("data"), "data")
    options: dict[str, Given] = {}

    def give(option: str, table: Mapping[str, object], section: str, key: str, kind: _Kind) -> None:
        if key in table:
            text = found.value(table[key], f"{section}.{key}", kind)
            options[option] = Given(text, f"{section}.{key}")

    limit = found.limit(generation, GENERATION)
    give("thinking", generation, GENERATION, "enable_thinking", _SWITCH)
    give("temperature", generation, GENERATION, "temperature", _NUMBER)
    give("top_p", generation, GENERATION, "top_p", _NUMBER)
    if "do_sample" in generation:
        key = f"{GENERATION}.do_sample"
        sampled = found.value(generation["do_sample"], key, _SWITCH) == "on"
        asked = options.get("temperature", Given(SAMPLED, key))
        if sampled and float(asked.text) == 0:
            raise found.error(f"{asked.key}: 0 cannot be used with do_sample: true; allowed: above")
        options["temperature"] = asked if sampled else Given("0", key)
    give("batch_size", data, "data", "batch_size", _ROWS)
    limits = {}
    for section, split in SPLITS.items():
        if section in top:
            allowed = framings if split == "framing" else None
            limits[split] = found.limits(top[section], section, allowed)
    return GenerationConfig(path, limit, limits, options)


class _Kind(NamedTuple):
    """What a value may be, in words, and a way to tell."""

    words: str
    fits: Callable[[Any], bool]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_SWITCH = _Kind("true or false", lambda value: isinstance(value, bool))
_NUMBER = _Kind("a number", _is_number)
_TOKENS = _Kind("a whole number of at least 1", lambda v: type(v) is int and v >= 1)
_ROWS = _Kind("auto, or a whole number", lambda v: v == "auto" or type(v) is int)


class _Reader:
    """Checks the parts of a file; what goes wrong names the file and the key."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def error(self, what: str) -> ConfigError:
        return ConfigError(f"{self.path}: {what}")

    def mapping(self, value: object, key: str, allowed: str) -> dict[str, object]:
        if value is None:
            return {}
        if not isinstance(value, dict):
            where = f"{key} must be" if key else "the file must hold"
            raise self.error(f"{where} a mapping of {allowed}, not {_words(value)}")
        for name in value:
            if isinstance(name, bool) or not isinstance(name, str | int):
                raise self.error(f"{key}: the key {_words(name)} is no name; write it in quotes")
        return {str(name): item for name, item in value.items()}

    def part(self, value: object, key: str, keys: Collection[str] | None = None) -> dict[str, Any]:
        allowed = _KEYS[key] if keys is None else keys
        table = self.mapping(value, key, ", ".join(allowed))
        for name in table:
            if name not in allowed:
                raise self.error(
                    f"unknown key {f'{key}.{name}' if key else name!s}{_hint(name, key, allowed)}; "
                    f"allowed are {', '.join(allowed)}"
                )
        return table

    def value(self, value: object, key: str, kind: _Kind) -> str:
        if not kind.fits(value):
            raise self.error(f"{key} must be {kind.words}, not {_words(value)}")
        return ("on" if value else "off") if isinstance(value, bool) else str(value)

    def limit(self, table: Mapping[str, object], key: str) -> int | None:
        if LIMIT not in table:
            return None
        return int(self.value(table[LIMIT], f"{key}.{LIMIT}", _TOKENS))

    def limits(
        self, value: object, section: str, allowed: Collection[str] | None
    ) -> dict[str, int]:
        table = self.mapping(value, section, f"names with {LIMIT}")
        if allowed is not None:
            self.part(value, section, allowed)
        found = {}
        for name, entry in table.items():
            key = f"{section}.{name}"
            limit = self.limit(self.part(entry, key, (LIMIT,)), key)
            if limit is None:
                raise self.error(f"{key}: {LIMIT} is missing")
            found[name] = limit
        return found


def _hint(name: str, key: str, allowed: Collection[str]) -> str:
    homes = [where or "the top" for where, keys in _KEYS.items() if name in keys and where != key]
    if homes:
        return f" (its place is {homes[0]})"
    close = nearest(name, allowed, count=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _words(value: object) -> str:
    return "nothing" if value is None else kind_of(value).replace("an array", "a list")


def _load(path: Path) -> object:
    yaml: Any = importlib.import_module("yaml")

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """Takes no key twice: YAML would silently keep the last one."""

        def construct_mapping(self, node: object, deep: bool = False) -> dict[object, object]:
            seen: set[str] = set()
            for key, _ in getattr(node, "value", ()):
                name = str(getattr(key, "value", ""))
                if name in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {name!r} is there twice", problem_mark=key.start_mark
                    )
                seen.add(name)
            found: dict[object, object] = super().construct_mapping(node, deep)
            return found

    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8; save the file as UTF-8") from error
    try:
        found: object = yaml.load(text, Loader)
        return found
    except yaml.MarkedYAMLError as error:
        mark, what = error.problem_mark, error.problem or "not YAML"
        where = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
        raise ConfigError(f"{path}{where}: {what}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not YAML: {str(error).splitlines()[0]}") from error


@dataclass(frozen=True)
class Limit:
    """A limit to write, and what is known of it."""

    tokens: int
    because: str = ""


def generation_config_text(
    generation: Mapping[str, object],
    *,
    data: Mapping[str, object] | None = None,
    limits: Mapping[str, Mapping[str, Limit]] | None = None,
    about: Collection[str] = (),
) -> str:
    """Settings in this form.

    Args:
        generation: What stands in ``llm.generation_config``.
        data: What stands in ``data``.
        limits: Limits by section (``emotions``, ``categories``), then by name.
        about: Lines of comment for the beginning.
    """
    parts: dict[str, object] = {"llm": {"generation_config": dict(generation)}}
    if data:
        parts["data"] = dict(data)
    lines = [_comment(line) for line in about]
    lines.append(_dump(parts))
    for section, by_name in (limits or {}).items():
        if by_name:
            lines.append(f"{section}:\n")
        for name, limit in by_name.items():
            entry = _dump({name: {LIMIT: limit.tokens}})
            if limit.because:
                entry = _comment(limit.because) + entry
            lines.append(textwrap.indent(entry, "  "))
    return "".join(lines)


def _dump(value: object) -> str:
    yaml: Any = importlib.import_module("yaml")
    return str(yaml.safe_dump(value, sort_keys=False, width=10_000))


def _comment(text: str) -> str:
    line = " ".join(text.split())
    # YAML takes no control characters, not even in comments.
    return f"# {''.join(c if c.isprintable() else '?' for c in line)}\n"
