"""Thinking formats by name: those of this package, and the user's, as data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import cast

from pytest_tokenbudget.common.messages import did_you_mean, kind_of, unknown_key
from pytest_tokenbudget.settings.config_file import ConfigError, read_toml
from pytest_tokenbudget.texts.thinking_blocks import Closer, ThinkingFormat

GENERIC = "think"

_KEYS = (
    "open", "close", "switch", "closers", "prompt_opens", "repeats", "nests", "answer", "hints",
)  # fmt: skip
# Texts that are all in the chat template of a model with this format.
_SIGNS = "signs"
# A variable that a template reads. One that it sets from the words of a message ("/no_think") is no
# switch: what is passed in changes nothing.
_SWITCHES = {
    "enable_thinking": r"(?<![\w.])enable_thinking\b(?!\s*=[^=])",
    # "thinking" is an ordinary word, so only a place where it must be a variable counts.
    "thinking": r"\{%-?\s*(?:el)?if\s+(?:not\s+)?thinking\b",
    "reasoning": r"\breasoning\s+is\s+(?:not\s+)?(?:defined|false|true)\b",
}
_SET = r"\{%-?\s*set\s+enable_thinking\s*="
_GUARDED = r"\benable_thinking\s+is\s+(?:not\s+)?(?:defined|none)\b"

Formats = Mapping[str, ThinkingFormat]


@cache
def builtin_formats() -> Formats:
    return {name: form for name, (form, _) in _builtin().items()}


@cache
def _builtin() -> Mapping[str, tuple[ThinkingFormat, tuple[str, ...]]]:
    """The formats of this package, each with the signs that it is known by."""
    tables = cast(Mapping[str, Mapping[str, object]], models_file()["formats"])
    plain = {
        name: {key: value for key, value in table.items() if key != _SIGNS}
        for name, table in tables.items()
    }
    formats = read_formats(plain, {}, "models.toml")
    return {
        name: (formats[name], tuple(cast(Sequence[str], table.get(_SIGNS, ()))))
        for name, table in tables.items()
    }


@cache
def models_file() -> Mapping[str, object]:
    return read_toml(Path(__file__).with_name("models.toml"))


def read_formats(tables: Mapping[str, object], known: Formats, where: str) -> Formats:
    """The formats of a table of named ones, whose bases may stand in it in any order, or be known.

    Raises:
        ConfigError: If one is not usable; the message names the file and the entry.
    """
    done: dict[str, ThinkingFormat] = {}

    def build(name: str, asked_by: tuple[str, ...]) -> ThinkingFormat:
        table, place = tables[name], f"{where}: formats.{name}"
        if not isinstance(table, Mapping):
            raise ConfigError(f"{place} must be a table, not {kind_of(table)}")
        base = table.get("base")
        inherited: ThinkingFormat | None = None
        if base == name and name in known:
            inherited = known[name]
        elif base is not None:
            if not isinstance(base, str) or (base not in tables and base not in known):
                raise ConfigError(f"{place}: {_unknown('base', base, [*known, *tables])}")
            if base in (*asked_by, name):
                circle = " -> ".join([*asked_by, name, base])
                raise ConfigError(f"{where}: the bases of formats go in a circle: {circle}")
            inherited = build(base, (*asked_by, name)) if base in tables else known[base]
        elif name in known:
            inherited = known[name]
        own = {key: value for key, value in table.items() if key != "base"}
        if name not in done:
            done[name] = _read(own, inherited or ThinkingFormat(), place, ("base", *_KEYS))
        return done[name]

    return {name: build(name, ()) for name in tables}


def read_thinking(
    value: object, inherited: ThinkingFormat | None, formats: Formats, where: str
) -> ThinkingFormat | None:
    """What a model's entry says of its thinking: false, true, the name of a format, or a table.

    A table may name a format and changes it, or the inherited one.

    Raises:
        ConfigError: If the value is not usable.
    """
    if isinstance(value, bool):
        return (inherited or formats[GENERIC]) if value else None
    if isinstance(value, str):
        return _named(value, formats, f"{where}: thinking")
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"{where}: thinking must be true, false, the name of a format or a table, "
            f"not {kind_of(value)}"
        )
    where = f"{where}.thinking"
    base = inherited or formats[GENERIC]
    if "format" in value:
        base = _named(value["format"], formats, where)
    own = {key: item for key, item in value.items() if key != "format"}
    return _read(own, base, where, ("format", *_KEYS))


def detect(template: str, tokens: Iterable[str]) -> ThinkingFormat | None:
    """The format that a chat template and a tokenizer's added tokens point to."""
    # What a template says of itself is not what it does.
    template = re.sub(r"\{#.*?#\}", "", template, flags=re.DOTALL)
    named = (f for f, signs in _builtin().values() if signs and all(s in template for s in signs))
    form = next(named, None)
    if form is None:
        form = builtin_formats()[GENERIC]
        # A template may hold the close tag alone: it opens blocks nowhere, and closes an empty one.
        tags = {form.open, form.close}
        if not any(tag in template for tag in tags) and not tags & set(tokens):
            return None
    switch = next((n for n, pattern in _SWITCHES.items() if re.search(pattern, template)), None)
    if re.search(_SET, template) and not re.search(_GUARDED, template):
        switch = None if switch == "enable_thinking" else switch
    return replace(form, switch=switch, prompt_opens=_opens(template, form, switch))


def left_open(prompt: str) -> bool:
    """Whether a rendered prompt ends inside a thinking block of any format of this package."""
    return any(form.left_open(prompt) for form in builtin_formats().values())


def detect_in_outputs(texts: Iterable[str], own: Formats) -> ThinkingFormat | None:
    """The format whose tags stand in most of the outputs; None where no output has any.

    Of formats that share their tags, the user's own come first, then the generic one.
    """
    formats = {**builtin_formats(), **own}
    counts: dict[str, int] = {}
    for text in texts:
        for name, form in formats.items():
            if form.open in text or form.close in text:
                counts[name] = counts.get(name, 0) + 1
    order = sorted(counts, key=lambda name: (-counts[name], name not in own, name != GENERIC))
    return formats[order[0]] if order else None


def _opens(template: str, form: ThinkingFormat, switch: str | None) -> bool:
    """Whether a template opens a thinking block at the end of its prompts."""
    from pytest_tokenbudget.models.template_switches import TemplateError, renderer
    from pytest_tokenbudget.models.thinking_off import opens_thinking

    try:
        render = renderer(template)
    except TemplateError:
        return False
    return opens_thinking(render, form.open, form.close, {switch: True} if switch else {})


def _named(name: object, formats: Formats, where: str) -> ThinkingFormat:
    if not isinstance(name, str) or name not in formats:
        raise ConfigError(f"{where}: {_unknown('format', name, list(formats))}")
    return formats[name]


def _unknown(what: str, name: object, known: Sequence[str]) -> str:
    hint = did_you_mean(str(name), known, 3)
    return f"unknown {what} {str(name)!r}{hint}; formats are {', '.join(known)}"


def _read(
    table: Mapping[str, object], base: ThinkingFormat, where: str, keys: Sequence[str]
) -> ThinkingFormat:
    for key in table:
        if key not in keys:
            raise ConfigError(f"{where} has {unknown_key(key, keys)}")
    opening = _text(table, "open", where) or base.open
    closing = _text(table, "close", where) or base.close
    same = (opening, closing) == (base.open, base.close)
    headers, hints = _texts(table, "answer", where), _texts(table, "hints", where)
    # Headers and closers hold the tags that they were written for.
    answer = headers if headers is not None else base.answer if same else ()
    inherited = base.closers if closing == base.close and answer == base.answer else ()
    off = table.get("switch") is False
    try:
        return ThinkingFormat(
            open=opening,
            close=closing,
            switch=None if off else _text(table, "switch", where) or base.switch,
            closers=_closers(table, inherited, closing, where),
            answer=answer,
            hints=base.hints if hints is None else hints,
            prompt_opens=_flag(table, "prompt_opens", base.prompt_opens, where),
            repeats=_flag(table, "repeats", base.repeats, where),
            nests=_flag(table, "nests", base.nests, where),
        )
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error


def _closers(
    table: Mapping[str, object], inherited: Sequence[Closer], closing: str, where: str
) -> tuple[Closer, ...]:
    """One's own first, since the first is the default, then the inherited ones."""
    own = table.get("closers", {})
    if not isinstance(own, Mapping) or not all(isinstance(text, str) for text in own.values()):
        raise ConfigError(
            f"{where}: closers must be a table of texts by name, such as "
            f'{{ mine = "\\n{closing}\\n\\n" }}, not {kind_of(own)}'
        )
    for name, text in own.items():
        if closing not in text:
            raise ConfigError(f"{where}: the closer {name!r} must have {closing!r} in it")
    mine = [Closer(name, text) for name, text in own.items()]
    return (*mine, *(closer for closer in inherited if closer.name not in own))


def _text(table: Mapping[str, object], key: str, where: str) -> str | None:
    value = table.get(key)
    if value is None or (key == "switch" and value is False):
        return None
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{where}: {key} must be a text that is not empty, not {kind_of(value)}")
    return value


def _texts(table: Mapping[str, object], key: str, where: str) -> tuple[str, ...] | None:
    value = table.get(key)
    if value is None:
        return None
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(text, str) and text for text in value):
        raise ConfigError(
            f"{where}: {key} must be a text or an array of texts, not {kind_of(value)}"
        )
    return tuple(value)


def _flag(table: Mapping[str, object], key: str, inherited: bool, where: str) -> bool:
    value = table.get(key, inherited)
    if not isinstance(value, bool):
        raise ConfigError(f"{where}: {key} must be true or false, not {kind_of(value)}")
    return value
