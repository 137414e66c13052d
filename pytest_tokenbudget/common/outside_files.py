"""Files from outside, read so that any content ends in a sentence: one reader for all of them."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_tokenbudget.common.outside_text import PrintableError

DEEPEST = 200
"""Levels that JSON may be nested: what comes after reading it recurses, too."""
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_KINDS: dict[str, Callable[[int], bool]] = {
    "a directory": stat.S_ISDIR,
    "a named pipe": stat.S_ISFIFO,
    "a socket": stat.S_ISSOCK,
    "a device": lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode),
}


class FileError(PrintableError, ValueError):
    """A file that cannot be used; the message names it, the line where known, and what is wrong."""


class MissingFileError(FileError):
    """There is no such file."""


class JsonError(PrintableError, ValueError):
    """A text that is no JSON; ``line`` is the line of the text on which the fault is, from 1."""

    def __init__(self, message: str, line: int = 1) -> None:
        super().__init__(f"not valid JSON: {message}")
        self.line = line


def check_regular(path: Path) -> None:
    """Raise a FileError for what is no regular file: reading a pipe or a device may never end."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    for kind, is_kind in _KINDS.items():
        if is_kind(mode):
            raise FileError(f"{path} cannot be read: it is {kind}, and a file is needed")


def read_bytes(path: Path) -> bytes:
    """The content of a regular file; a FileError if it cannot be read."""
    check_regular(path)
    try:
        return path.read_bytes()
    except (OSError, MemoryError) as error:
        raise _unreadable(path, error) from None


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark.

    Raises:
        FileError: If it cannot be read, or is not UTF-8.
    """
    return decode(path, read_bytes(path))


def decode(path: Path, raw: bytes) -> str:
    """The text of a file's bytes; see :func:`read_text`."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if raw.startswith(_UTF16):
            raise FileError(f"{path}: not UTF-8, but UTF-16; save the file as UTF-8") from None
        line = raw.count(b"\n", 0, error.start) + 1
        raise FileError(f"{path}, line {line}: not UTF-8; save the file as UTF-8") from None


def read_json(path: Path) -> Any:  # noqa: ANN401
    """The value in a JSON file.

    Raises:
        FileError: If it cannot be read, or is no JSON.
    """
    text = read_text(path)
    try:
        return parse_json(text)
    except JsonError as error:
        raise FileError(f"{path}, line {error.line}: {error}") from None


def parse_json(text: str, **options: Any) -> Any:  # noqa: ANN401
    """The value of a JSON text; ``options`` are passed on to ``json.loads``.

    Raises:
        JsonError: If it is none, is nested too deeply or has a number of too many digits.
    """
    try:
        found = json.loads(text, **options)
    except json.JSONDecodeError as error:
        what = "the text is empty" if not text.strip() else f"{error.msg} at column {error.colno}"
        raise JsonError(what, error.lineno) from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        number = re.search(r"\d{1000,}", text)
        if number is None or "digits" not in str(error):
            raise JsonError(str(error)) from None
        line = text.count("\n", 0, number.start()) + 1
        raise JsonError("a number with too many digits", line) from None
    _check_depth(found)
    return found


def _check_depth(found: object) -> None:
    level = [found] if isinstance(found, dict | list) else []
    for _ in range(DEEPEST):
        level = [
            inner
            for value in level
            for inner in (value.values() if isinstance(value, dict) else value)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise _too_deep()


def _too_deep() -> JsonError:
    return JsonError(f"nested too deeply; at most {DEEPEST} levels are allowed")


def _unreadable(path: Path, error: BaseException) -> FileError:
    if isinstance(error, FileNotFoundError):
        return MissingFileError(f"{path} cannot be read: there is no such file")
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return FileError(f"{path} cannot be read: {reason}")
