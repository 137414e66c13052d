"""The metadata of a GGUF file, without its vocabulary, and the names of its tensors.

The gguf library makes an object of every token of the vocabulary, which takes seconds; here arrays
are stepped over, and only single values are read. Every reader raises ValueError if a file is not a
whole GGUF header of a known version, and OSError if it cannot be read.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_tokenbudget.common.outside_files import check_regular

if TYPE_CHECKING:
    from mmap import mmap

MAGIC = b"GGUF"
_VERSIONS = (2, 3)

# Type numbers of the format, with struct's codes for those of a fixed size.
_FIXED = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
_STRING = 8
_ARRAY = 9

_TOKENS = "tokenizer.ggml.tokens"
_TOKEN_TYPES = "tokenizer.ggml.token_type"
# Control tokens and those that a user defined; ordinary ones come from merging.
_WHOLE = (3, 4)

Value = str | int | float | bool
Part = TypeVar("Part")


def read_gguf_header(path: Path) -> dict[str, Value]:
    """Names and values of a GGUF file's metadata, arrays left out."""
    return _read(path, GgufReader.metadata)


def read_gguf_tokens(path: Path) -> dict[str, int]:
    """Texts and ids of the tokens that text never has in pieces."""
    return _read(path, GgufReader.whole_tokens)


def read_gguf_tensor_names(path: Path) -> tuple[str, ...]:
    """Names of the tensors, in the order of the file."""
    return _read(path, GgufReader.tensor_names)


def read_gguf_arrays(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """All metadata, with these arrays and no others."""
    if not path.stat().st_size:
        raise ValueError("it is empty")

    def metadata_with_arrays(reader: GgufReader) -> dict[str, Any]:
        values: dict[str, Any] = dict(reader.metadata())
        return values | {name: reader.array(name) for name in names if name in reader.arrays}

    return _read(path, metadata_with_arrays)


def _read(path: Path, part: Callable[[GgufReader], Part]) -> Part:
    from mmap import ACCESS_READ, mmap

    check_regular(path)
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise ValueError("it does not begin with the letters GGUF")
        with mmap(file.fileno(), 0, access=ACCESS_READ) as data:
            try:
                return part(GgufReader(data))
            # A length beyond all measure overflows instead of missing the end.
            except (struct.error, OverflowError) as error:
                raise ValueError("it ends in the middle of its metadata") from error


class GgufReader:
    """Reads the metadata of a GGUF file from memory, and of its arrays only what is asked for."""

    def __init__(self, data: mmap) -> None:
        self.data = data
        self.place = len(MAGIC)
        self.order = "<"
        self.arrays: dict[str, int] = {}
        self.tensors = 0

    def metadata(self) -> dict[str, Value]:
        version = self.number("I")
        if version not in _VERSIONS:
            # The magic is the same in both byte orders; only the version tells.
            self.order, self.place = ">", len(MAGIC)
            if self.number("I") not in _VERSIONS:
                raise ValueError(f"version {version} is not supported; {_VERSIONS} are")
        self.tensors = int(self.number("Q"))
        values: dict[str, Value] = {}
        for _ in range(int(self.number("Q"))):
            name = self.string()
            kind = int(self.number("I"))
            if kind == _ARRAY:
                self.arrays[name] = self.place
                self.skip_array()
            elif kind == _STRING:
                values[name] = self.string()
            else:
                values[name] = self.number(_struct_code(kind))
        return values

    def whole_tokens(self) -> dict[str, int]:
        """Of the vocabulary only what is a token of its own."""
        self.metadata()
        if not {_TOKENS, _TOKEN_TYPES} <= self.arrays.keys():
            return {}
        types = self.array(_TOKEN_TYPES)
        self.place = self.arrays[_TOKENS]
        kind, count = int(self.number("I")), int(self.number("Q"))
        if kind != _STRING:
            raise ValueError(f"its tokens are of the type {kind}, not texts")
        whole: dict[str, int] = {}
        length = struct.Struct(f"{self.order}Q")
        place = self.place
        for index in range(min(count, len(types))):
            if types[index] in _WHOLE:
                self.place = place
                whole[self.string()] = index
            place += length.size + length.unpack_from(self.data, place)[0]
        return whole

    def array(self, name: str) -> list[Any]:
        self.place = self.arrays[name]
        kind, count = int(self.number("I")), int(self.number("Q"))
        if kind == _STRING:
            return [self.string() for _ in range(count)]
        layout = f"{self.order}{count}{_struct_code(kind)}"
        return list(struct.unpack_from(layout, self.data, self.place))

    def tensor_names(self) -> tuple[str, ...]:
        """Their descriptions follow the metadata: name, dimensions, type and place of each."""
        self.metadata()
        names = []
        for _ in range(self.tensors):
            names.append(self.string())
            dimensions = int(self.number("I"))
            self.place += dimensions * struct.calcsize("Q") + struct.calcsize("=IQ")
        return tuple(names)

    def number(self, code: str) -> int | float | bool:
        value: int | float | bool = struct.unpack_from(self.order + code, self.data, self.place)[0]
        self.place += struct.calcsize(self.order + code)
        return value

    def string(self) -> str:
        length = int(self.number("Q"))
        # Read as one field, so that a length beyond the end fails as any other field does.
        raw: bytes = struct.unpack_from(f"{length}s", self.data, self.place)[0]
        self.place += length
        return raw.decode("utf-8", errors="replace")

    def skip_array(self) -> None:
        kind, count = int(self.number("I")), int(self.number("Q"))
        if kind in _FIXED:
            self.place += count * struct.calcsize(self.order + _FIXED[kind])
            return
        if kind != _STRING:
            raise ValueError(f"an array holds values of the unknown type {kind}")
        length = struct.Struct(f"{self.order}Q")
        place = self.place
        for _ in range(count):
            place += length.size + length.unpack_from(self.data, place)[0]
        self.place = place


def _struct_code(kind: int) -> str:
    if kind not in _FIXED:
        raise ValueError(f"a value has the unknown type {kind}")
    return _FIXED[kind]
