"""Files of a report: safe names, plain values, and writing whole or not at all."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
import secrets
import unicodedata
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import Path

from pytest_tokenbudget.common.outside_text import HARMFUL

MAX_NAME = 80
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LOOKS_HASHED = re.compile(r"-[0-9a-f]{8}\Z")


def safe_name(name: str) -> str:
    """A file name for ``name`` that every file system takes, the same in every run.

    Letters lose their accents, what is left beyond ``A-Z a-z 0-9 . _ -`` becomes ``_``. A name
    that had to change gets eight hexadecimal digits of its SHA-256, so that different names never
    share a file; so does one that ends as if it had been changed.
    """
    letters = unicodedata.normalize("NFKD", name)
    letters = "".join(c for c in letters if not unicodedata.combining(c))
    plain = _UNSAFE.sub("_", letters).strip("_").lstrip(".-")[:MAX_NAME]
    if plain == name and plain and not _LOOKS_HASHED.search(name):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{plain or 'name'}-{digest}"


def write_bytes(path: Path, data: bytes) -> Path:
    """Write ``data`` to ``path`` whole or not at all; a former file stands until then.

    Missing folders are made. The temporary file lies beside the target, since a rename is atomic
    within one file system only.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile: its files are readable by their owner alone, whatever the umask says.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path


def write_text(path: Path, text: str) -> Path:
    """Write ``text`` as UTF-8, whole or not at all."""
    return write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: object) -> Path:
    """Write ``value`` as JSON of plain values, whole or not at all."""
    return write_text(path, json_text(to_plain(value), indent=1) + "\n")


def json_text(value: object, indent: int | None = None) -> str:
    """``value`` as JSON: letters of all scripts as they are, what acts on a terminal escaped."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    # JSON has escapes for all of these, halves of surrogate pairs among them.
    return HARMFUL.sub(lambda found: json.dumps(found[0])[1:-1], text)


def to_plain(value: object) -> object:
    """``value`` in the types that JSON knows.

    Dataclasses and named tuples become objects, enums their values, exact numbers integers where
    they are whole and strings where not (a float would change them), NaN and infinities null,
    numpy scalars and arrays what they hold; anything else raises.

    Raises:
        TypeError: If a value has no plain form.
    """
    match value:
        case None | bool():
            return value
        case Enum():
            return to_plain(value.value)
        case str():
            return str(value)
        case int():
            return int(value)
        case float():
            return float(value) if math.isfinite(value) else None
        case Decimal() | Fraction():
            return _plain_exact(value)
        case os.PathLike():
            return os.fspath(value)
    return _plain_container(value)


def _plain_container(value: object) -> object:
    if isinstance(value, Mapping):
        return {_plain_key(key): to_plain(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {name: to_plain(item) for name, item in zip(value._fields, value, strict=True)}
    if isinstance(value, AbstractSet):
        return sorted((to_plain(item) for item in value), key=repr)
    if hasattr(value, "tolist"):  # numpy, without importing it
        return to_plain(value.tolist())
    if isinstance(value, Iterable) and not isinstance(value, bytes | bytearray):
        return [to_plain(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no plain form for a report: {value!r:.80}")


def _plain_exact(value: Decimal | Fraction) -> int | str | None:
    if isinstance(value, Decimal):
        if not value.is_finite():
            return None
        if abs(value.adjusted()) > 20:  # writing out 10^1000 would take its digits
            return str(value)
        exact = Fraction(value)
    else:
        exact = value
    # Beyond what a double holds, readers of JSON would change it.
    if exact.denominator == 1 and abs(exact.numerator) < 2**53:
        return exact.numerator
    return str(value)


def _plain_key(key: object) -> str:
    plain = to_plain(key)
    if isinstance(plain, bool | float) or not isinstance(plain, str | int):
        raise TypeError(f"{key!r:.80} cannot be a key in a report")
    return str(plain)


def to_record(value: object, taker: str = "a record") -> dict[str, object]:
    """A dataclass or mapping as a JSON object.

    Raises:
        TypeError: If it is neither.
    """
    plain = to_plain(value)
    if not isinstance(plain, dict):
        raise TypeError(f"{taker} takes a dataclass or a mapping, not {type(value).__name__}")
    return plain
