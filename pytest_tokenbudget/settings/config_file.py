"""The user's configuration: ``tokenbudget.toml`` or, in ``pyproject.toml``, a table."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pytest_tokenbudget.common.messages import kind_of, nearest
from pytest_tokenbudget.common.outside_files import FileError, read_text
from pytest_tokenbudget.common.outside_text import PrintableError

FILE_NAME = "tokenbudget.toml"
PYPROJECT = "pyproject.toml"
TABLE = "[tool.tokenbudget]"
MODELS = "models"
FORMATS = "formats"
GATES = "gates"
GENERATION = "generation"  # a model's own settings, in its entry
TABLES = (MODELS, FORMATS, GATES)
INTEGERS = "allowed: integers of at most 64 bits"


class ConfigError(PrintableError):
    """A configuration file that cannot be used; the message is for people."""


@dataclass(frozen=True)
class UserConfig:
    """What a user's configuration says; names of options are checked, values and tables are not.

    For messages ``where`` is the path, with the name of the table where it is part of another file.
    """

    path: Path | None = None
    where: str = ""
    models: Mapping[str, object] = field(default_factory=dict)
    formats: Mapping[str, object] = field(default_factory=dict)
    gates: tuple[Mapping[str, object], ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)


def read_config(rootdir: Path, option_names: Collection[str] | None = None) -> UserConfig:
    """Read the configuration in pytest's root directory; no other one is searched.

    Beside the tables, the option names are allowed as keys; None leaves them unchecked.

    Raises:
        ConfigError: If both places are used, a file cannot be read, or a key is unknown.
    """
    own = rootdir / FILE_NAME
    pyproject = rootdir / PYPROJECT
    table = read_toml(own) if own.exists() else None
    tool = read_toml(pyproject).get("tool") if pyproject.is_file() else None
    part = tool.get("tokenbudget") if isinstance(tool, Mapping) else None
    if table is not None and part is not None:
        raise ConfigError(
            f"tokenbudget is configured twice, in {own} and in {TABLE} of {pyproject}: keep one"
        )
    if table is not None:
        return _checked(own, str(own), table, option_names)
    if part is not None:
        return _checked(pyproject, f"{TABLE} in {pyproject}", part, option_names)
    return UserConfig()


def read_toml(path: Path) -> dict[str, object]:
    """The contents of a TOML file.

    Raises:
        ConfigError: If it cannot be read or is not TOML; the message names the file and the line.
    """
    import tomllib

    try:
        # Editors on Windows put a byte order mark at the start, which TOML does not allow.
        text = read_text(path)
    except FileError as error:
        raise ConfigError(str(error)) from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"^(.*?)\s*\(at line (\d+), column (\d+)\)$", str(error), re.DOTALL)
        if found:
            what, line, column = found.groups()
            raise ConfigError(f"{path}, line {line}, column {column}: {what}") from error
        # At the end of the document the parser names no line.
        what = re.sub(r"\s*\(at end of document\)$", "", str(error))
        last = max(1, len(text.splitlines()))
        raise ConfigError(f"{path}, line {last} (its end): {what}") from error
    except RecursionError:
        raise ConfigError(
            f"{path}: brackets are nested too deeply; allowed: arrays of plain values"
        ) from None
    except ValueError:
        # The parser leaves the limit on decimal digits to Python, whose message names no line.
        number = re.search(r"\d(?:_?\d){4000,}", text)
        line = text.count("\n", 0, number.start()) + 1 if number else 1
        raise ConfigError(f"{path}, line {line}: an integer is too long; {INTEGERS}") from None


def _checked(
    path: Path, where: str, table: object, option_names: Collection[str] | None
) -> UserConfig:
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where} must be a table, not {kind_of(table)}")
    models, formats = table.get(MODELS, {}), table.get(FORMATS, {})
    for key, given, example in (
        (MODELS, models, 'aliases, such as [models.my-model] with id = "org/name"'),
        (FORMATS, formats, 'thinking formats, such as [formats.mine] with open = "<think>"'),
    ):
        if not isinstance(given, Mapping):
            raise ConfigError(f"{where}: {key} must be a table of {example}, not {kind_of(given)}")
    gates = table.get(GATES, [])
    if not isinstance(gates, list) or not all(isinstance(gate, Mapping) for gate in gates):
        header = "[[gates]]" if path.name == FILE_NAME else "[[tool.tokenbudget.gates]]"
        raise ConfigError(
            f"{where}: gates must be an array of tables, such as {header} with "
            f"min_accuracy = 0.6, not {kind_of(gates)}"
        )
    for key in table:
        if _has_long_integer(table[key]):
            raise ConfigError(f"{where}: {key} holds an integer that is too long; {INTEGERS}")
    options = {key: value for key, value in table.items() if key not in TABLES}
    if option_names is not None:
        unknown = [key for key in options if key not in option_names]
        if unknown:
            raise ConfigError(_unknown_keys(path, where, unknown, option_names))
    return UserConfig(path, where, models, formats, tuple(gates), options)


def _has_long_integer(value: object) -> bool:
    """Whether a value holds an integer beyond what TOML promises, written in hexadecimal even."""
    if isinstance(value, Mapping):
        return any(_has_long_integer(item) for item in value.values())
    if isinstance(value, list):
        return any(_has_long_integer(item) for item in value)
    return isinstance(value, int) and not -(2**63) <= value < 2**63


def _unknown_keys(path: Path, where: str, unknown: list[str], option_names: Collection[str]) -> str:
    allowed = sorted({*TABLES, *option_names})
    parts = []
    for key in unknown:
        close = nearest(key, allowed, count=1)
        if key == "tool" and path.name == FILE_NAME:
            hint = f" (in {FILE_NAME} keys stand at the top, without {TABLE})"
        elif close:
            hint = f" (did you mean {close[0]!r}?)"
        else:
            hint = ""
        parts.append(f"{key!r}{hint}")
    word = "unknown key" if len(unknown) == 1 else "unknown keys"
    return f"{where}: {word} {', '.join(parts)}; allowed are {', '.join(allowed)}"


def budgets_of_entries(models: Mapping[str, object]) -> set[int]:
    """Budgets that entries of a settings file name, before the entries are read."""
    found: set[int] = set()
    for entry in models.values():
        table = entry.get(GENERATION) if isinstance(entry, Mapping) else None
        for key in ("budgets", "thinking_budgets"):
            value = table.get(key) if isinstance(table, Mapping) else None
            if isinstance(value, list):
                found.update(each for each in value if type(each) is int)
    return found
