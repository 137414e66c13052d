"""The YAML form of generation settings, read and written here only.

It has ``llm: generation_config: {max_new_tokens, enable_thinking, temperature, top_p, do_sample}``,
``data: {batch_size}``, and limits of their own: ``emotions: {NAME: {max_new_tokens}}``, and
``categories`` the same. What other systems keep beside it, such as ``llm.model_name``, is ignored
and named; a key that looks like a misspelt one is refused.
"""

from __future__ import annotations

import difflib
import importlib
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from pytest_tokenbudget.common.messages import kind_of, nearest
from pytest_tokenbudget.common.outside_files import FileError, read_text
from pytest_tokenbudget.common.outside_text import printable
from pytest_tokenbudget.settings.config_file import ConfigError

# Framings of the games that the scenarios hold; the file may have a limit for each.
FRAMINGS = ("neutral", "anger", "happiness", "sadness", "fear", "disgust", "surprise")

GENERATION = "llm.generation_config"
LIMIT = "max_new_tokens"
# Sections with limits of their own, and what a problem has of which they are the names.
SPLITS = {"emotions": "framing", "categories": "category"}
# What Transformers samples at where nothing is said.
SAMPLED = "1.0"
# What may be there several times: files of others list the choices for short and long limits below
# each other. It changes no output, and their YAML loaders take the last one.
REPEATABLE = "data.batch_size"
# From how like a known key an unknown one is taken for a misspelling of it.
MISSPELT = 0.85

# PyYAML has no types.
_Yaml: TypeAlias = Any

_KEYS: Mapping[str, tuple[str, ...]] = {
    "": ("llm", "data", *SPLITS),
    "llm": ("generation_config",),
    GENERATION: (LIMIT, "enable_thinking", "temperature", "top_p", "do_sample"),
    "data": ("batch_size",),
}


class GivenOption(NamedTuple):
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
        remarks: What of the file is ignored or used in a way of its own, in sentences.
    """

    path: Path
    max_new_tokens: int | None = None
    limits: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    options: Mapping[str, GivenOption] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def largest(self) -> int | None:
        """The largest limit, which is what is generated with; None without one for all."""
        if self.max_new_tokens is None:
            return None
        own = [limit for by_name in self.limits.values() for limit in by_name.values()]
        return max([self.max_new_tokens, *own])

    def limit_of(self, names: Mapping[str, str]) -> int | None:
        """The limit of a problem by its ``framing`` and ``category``, the larger of both."""
        own = [by_name.get(names.get(split, "")) for split, by_name in self.limits.items()]
        return max((limit for limit in own if limit is not None), default=self.max_new_tokens)

    def budgets(self, others: Collection[int]) -> tuple[int, ...]:
        """Budgets of a run under the file's limits: those of ``others`` that are smaller, too."""
        if self.max_new_tokens is None or self.largest is None:
            return tuple(others)
        smaller = {budget for budget in others if budget < self.largest}
        return tuple(sorted({*smaller, self.max_new_tokens, self.largest}))


def read_generation_config(path: Path) -> GenerationConfig:
    """Read a file of this form.

    Raises:
        ConfigError: If it cannot be read, or has a value that cannot be used, a key twice or a key
            that looks misspelt; the message names the file and the key.
    """
    found = _Reader(path)
    top = found.part(_load(path), "")
    llm = found.part(top.get("llm"), "llm")
    generation = found.part(llm.get("generation_config"), GENERATION)
    data = found.part(top.get("data"), "data")
    options: dict[str, GivenOption] = {}

    def give(option: str, table: Mapping[str, object], section: str, key: str, kind: _Kind) -> None:
        if key in table:
            text = found.value(table[key], f"{section}.{key}", kind)
            options[option] = GivenOption(text, f"{section}.{key}")

    limit = found.limit(generation, GENERATION)
    give("thinking", generation, GENERATION, "enable_thinking", _SWITCH)
    give("temperature", generation, GENERATION, "temperature", _NUMBER)
    give("top_p", generation, GENERATION, "top_p", _NUMBER)
    if "do_sample" in generation:
        key = f"{GENERATION}.do_sample"
        sampled = found.value(generation["do_sample"], key, _SWITCH) == "on"
        asked = options.get("temperature", GivenOption(SAMPLED, key))
        if sampled and float(asked.text) == 0:
            raise found.error(f"{asked.key}: 0 cannot be used with do_sample: true; allowed: above")
        options["temperature"] = asked if sampled else GivenOption("0", key)
    give("batch_size", data, "data", "batch_size", _ROWS)
    limits = {split: found.limits(top[s], s) for s, split in SPLITS.items() if s in top}
    return GenerationConfig(path, limit, limits, options, found.remarks())


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
        self._ignored: list[str] = []
        self._repeated: list[str] = []

    def remarks(self) -> tuple[str, ...]:
        if not self._ignored:
            return tuple(self._repeated)
        names = ", ".join(self._ignored)
        also = "; --model says which model runs" if "llm.model_name" in self._ignored else ""
        return (f"ignored, since nothing here reads it: {names}{also}", *self._repeated)

    def error(self, what: str) -> ConfigError:
        return ConfigError(f"{self.path}: {what}")

    def unknown(self, key: str, hint: str, allowed: Collection[str]) -> ConfigError:
        return self.error(f"unknown key {key}{hint}; allowed are {', '.join(allowed)}")

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
        """The known keys of a part. Of the others, those that look misspelt are refused."""
        allowed = _KEYS[key] if keys is None else keys
        table = self.mapping(value, key, ", ".join(allowed))
        # A file of which nothing at all is known is not of this form.
        foreign = not key and table and not any(name in allowed for name in table)
        for name in table:
            whole = f"{key}.{name}" if key else name
            if name in allowed:
                self._check_repeated(value, name, whole)
            elif (hint := _hint(name, key, allowed)) or foreign:
                raise self.unknown(whole, hint or _near(name, allowed), allowed)
            else:
                self._ignored.append(whole)
        return {name: item for name, item in table.items() if name in allowed}

    def _check_repeated(self, value: object, name: str, whole: str) -> None:
        """Refuse a key that is there twice, unless it may be."""
        places = value.places.get(name, ()) if isinstance(value, _Table) else ()
        if len(places) < 2:
            return
        if whole != REPEATABLE:
            line, column = places[1]
            raise ConfigError(
                f"{self.path}, line {line}, column {column}: the key {name!r} is there twice"
            )
        lines = ", ".join(str(line) for line, _ in places)
        assert isinstance(value, dict)
        self._repeated.append(
            f"{whole} is there {len(places)} times (lines {lines}): the last one is used, "
            f"{value[name]}"
        )

    def value(self, value: object, key: str, kind: _Kind) -> str:
        if not kind.fits(value):
            raise self.error(f"{key} must be {kind.words}, not {_words(value)}")
        return ("on" if value else "off") if isinstance(value, bool) else str(value)

    def limit(self, table: Mapping[str, object], key: str) -> int | None:
        if LIMIT not in table:
            return None
        return int(self.value(table[LIMIT], f"{key}.{LIMIT}", _TOKENS))

    def limits(self, value: object, section: str) -> dict[str, int]:
        table = self.mapping(value, section, f"names with {LIMIT}")
        if SPLITS[section] == "framing":
            for name in table:
                if name not in FRAMINGS:
                    raise self.unknown(f"{section}.{name}", _near(name, FRAMINGS), FRAMINGS)
        found = {}
        for name, entry in table.items():
            self._check_repeated(value, name, f"{section}.{name}")
            key = f"{section}.{name}"
            limit = self.limit(self.part(entry, key, (LIMIT,)), key)
            if limit is None:
                raise self.error(f"{key}: {LIMIT} is missing")
            found[name] = limit
        return found


def _near(name: str, allowed: Collection[str]) -> str:
    close = nearest(name, allowed, count=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _hint(name: str, key: str, allowed: Collection[str]) -> str:
    homes = [where or "the top" for where, keys in _KEYS.items() if name in keys and where != key]
    if homes:
        return f" (its place is {homes[0]})"
    close = difflib.get_close_matches(name.lower(), allowed, n=1, cutoff=MISSPELT)
    return f" (did you mean {close[0]}?)" if close else ""


class _Table(dict[object, object]):
    """A mapping of the file, with the line and column of each time that a key is there."""

    def __init__(self) -> None:
        super().__init__()
        self.places: dict[str, list[tuple[int, int]]] = {}


def _words(value: object) -> str:
    return "nothing" if value is None else kind_of(value).replace("an array", "a list")


def _load(path: Path) -> object:
    yaml: _Yaml = importlib.import_module("yaml")

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """Remembers which keys are there twice: YAML silently keeps the last one."""

    def construct(loader: _Yaml, node: _Yaml) -> Iterator[_Table]:
        table = _Table()
        yield table
        for key, _ in node.value:
            mark = key.start_mark
            table.places.setdefault(str(key.value), []).append((mark.line + 1, mark.column + 1))
        table.update(loader.construct_mapping(node))

    Loader.add_constructor("tag:yaml.org,2002:map", construct)
    try:
        text = read_text(path)
    except FileError as error:
        raise ConfigError(str(error)) from None
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
class WrittenLimit:
    """A limit to write, and what is known of it."""

    tokens: int
    because: str = ""


def generation_config_text(
    generation: Mapping[str, object],
    *,
    data: Mapping[str, object] | None = None,
    limits: Mapping[str, Mapping[str, WrittenLimit]] | None = None,
    about: Collection[str] = (),
) -> str:
    """Settings in this form: what stands in ``llm.generation_config`` and in ``data``.

    Limits are by section (``emotions``, ``categories``), then by name; ``about`` has lines of
    comment for the beginning.
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
    yaml: _Yaml = importlib.import_module("yaml")
    return str(yaml.safe_dump(value, sort_keys=False, width=10_000))


def _comment(text: str) -> str:
    line = " ".join(text.split())
    # YAML takes no control characters, not even in comments.
    return f"# {printable(line)}\n"
