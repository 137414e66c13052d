"""What the files of a model say: its context, how it thinks, and the hash that identifies it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Protocol

from pytest_tokenbudget.common.outside_files import (
    FileError,
    MissingFileError,
    read_bytes,
    read_json,
)
from pytest_tokenbudget.common.outside_text import PrintableError
from pytest_tokenbudget.models.thinking_formats import detect
from pytest_tokenbudget.texts.thinking_blocks import ThinkingFormat

CONFIG = "config.json"

# What changes the tokens that a model writes. Read-me files, licences and training logs do not;
# pickled weights are never loaded.
_RELEVANT = (
    f"{CONFIG} generation_config.json adapter_config.json *.safetensors *.safetensors.index.json "
    "*.gguf tokenizer* special_tokens_map.json added_tokens.json vocab.json vocab.txt merges.txt "
    "spiece.model chat_template* additional_chat_templates/*.jinja"
).split()
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length")
_CHUNK = 1 << 20
# More is a way of saying that there is no limit.
MOST_CONTEXT = 10**12


class ModelError(PrintableError):
    """A model that cannot be found or used as it is named; the message is for people."""


class HashCache(Protocol):
    """Remembers the hashes of files, so that big ones are not read again in every run."""

    def get(self, path: str, size: int, mtime_ns: int) -> str | None:
        """The hash of a file that has not changed since, or None."""

    def put(self, path: str, size: int, mtime_ns: int, digest: str) -> None:
        """Remember a hash."""


@dataclass(frozen=True)
class ModelDetails:
    """What the files of a model say of its context and its thinking.

    Prompt and output share the context. The tokens, with their ids, are those that its tokenizer
    never splits.
    """

    context: int | None
    thinking: ThinkingFormat | None
    tokens: Mapping[str, int]


def check_directory(directory: Path) -> None:
    """Refuse a directory that holds no model.

    Raises:
        ModelError: If there is no ``config.json``; the message says what else was found.
    """
    if not (directory / CONFIG).is_file():
        raise ModelError(f"{directory} is not a model: it holds no {CONFIG}{_what_else(directory)}")


def read_details(directory: Path) -> ModelDetails:
    """What the configuration, the template and the tokenizer in a directory say.

    Raises:
        ModelError: If there is no ``config.json``, or one of the files is not JSON.
    """
    check_directory(directory)
    config = _read_json(directory / CONFIG)
    text_config = config.get("text_config")
    tokenizer = _read_json(directory / "tokenizer_config.json")
    templates = _templates(directory, tokenizer)
    tokens = _added_tokens(directory, tokenizer)
    return ModelDetails(
        context=_context(config) or _context(text_config if isinstance(text_config, dict) else {}),
        thinking=detect("\n".join(templates), tokens),
        tokens=tokens,
    )


def read_chat_template(directory: Path) -> str:
    """The chat template in a directory, of several the first; empty where there is none.

    Raises:
        ModelError: If one of the files is not JSON.
    """
    templates = _templates(directory, _read_json(directory / "tokenizer_config.json"))
    return templates[0] if templates else ""


def read_gguf_details(path: Path) -> ModelDetails:
    """What the metadata of a GGUF file says.

    Raises:
        ModelError: If the file cannot be read as GGUF.
    """
    from pytest_tokenbudget.models.gguf_header import read_gguf_header, read_gguf_tokens

    try:
        header, tokens = read_gguf_header(path), read_gguf_tokens(path)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as GGUF: {error}") from error
    context = header.get(f"{header.get('general.architecture')}.context_length")
    return ModelDetails(
        context=context if type(context) is int and 0 < context <= MOST_CONTEXT else None,
        thinking=detect(str(header.get("tokenizer.chat_template", "")), tokens),
        tokens=tokens,
    )


def read_ref(hub_id: str, revision: str) -> str:
    """The commit that the hub's cache has for a branch or tag; empty where it has none."""
    try:
        ref = _cache_folder(hub_id) / "refs" / revision
        return ref.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""


def find_snapshot(hub_id: str, commit: str) -> Path | None:
    """The directory of a commit in the hub's cache, if configuration and tokenizer are in it."""
    directory = _cache_folder(hub_id) / "snapshots" / commit
    tokenizers = ("tokenizer_config.json", "tokenizer.json")
    if not (directory / CONFIG).is_file():
        return None
    return directory if any((directory / name).is_file() for name in tokenizers) else None


def relevant_files(directory: Path) -> tuple[Path, ...]:
    """The files that decide what the model in a directory writes, in the order of their names."""
    found = {path for pattern in _RELEVANT for path in directory.glob(pattern) if path.is_file()}
    return tuple(sorted(found, key=lambda path: path.relative_to(directory).as_posix()))


def hash_files(files: Iterable[Path], base: Path | None, cache: HashCache | None = None) -> str:
    """SHA-256 over names and contents of files, wherever they lie and whenever they were made.

    The files come in an order that does not change. Names are relative to ``base``; without one
    they do not matter.
    """
    import hashlib

    whole = hashlib.sha256()
    for path in files:
        name = path.relative_to(base).as_posix() if base else ""
        whole.update(f"{name}\0{_file_hash(path, cache)}\n".encode())
    return whole.hexdigest()


def _file_hash(path: Path, cache: HashCache | None) -> str:
    import hashlib

    # Resolved, so that a directory of links (as the hub's cache is) shares its entries.
    real = path.resolve()
    stat = real.stat()
    key = (str(real), stat.st_size, stat.st_mtime_ns)
    known = cache.get(*key) if cache is not None else None
    if known is not None:
        return known
    digest = hashlib.sha256()
    try:
        with real.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from None
    if cache is not None:
        cache.put(*key, digest.hexdigest())
    return digest.hexdigest()


def _cache_folder(hub_id: str) -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE) / f"models--{hub_id.replace('/', '--')}"


def _read_json(path: Path) -> dict[str, object]:
    try:
        value = read_json(path)
    except MissingFileError:
        return {}
    except FileError as error:
        raise ModelError(str(error)) from None
    if not isinstance(value, dict):
        raise ModelError(f"{path} must hold a JSON object")
    return value


def _context(config: Mapping[str, object]) -> int | None:
    for key in _CONTEXT_KEYS:
        value = config.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MOST_CONTEXT:
            return value
    return None


def _templates(directory: Path, tokenizer: Mapping[str, object]) -> list[str]:
    """All chat templates, wherever they are kept; a file of its own replaces the tokenizer's."""
    file = directory / "chat_template.jinja"
    if file.is_file():
        try:
            return [read_bytes(file).decode("utf-8", errors="replace")]
        except FileError as error:
            raise ModelError(str(error)) from None
    value = tokenizer.get("chat_template")
    value = value or _read_json(directory / "chat_template.json").get("chat_template")
    if isinstance(value, str):
        return [value]
    named = value if isinstance(value, list) else []
    return [str(entry.get("template", "")) for entry in named if isinstance(entry, dict)]


def _added_tokens(directory: Path, tokenizer: Mapping[str, object]) -> dict[str, int]:
    """Texts and ids of the tokens that were added to the vocabulary: text has them whole."""
    decoder = tokenizer.get("added_tokens_decoder")
    entries: list[tuple[object, object]]
    if isinstance(decoder, dict) and decoder:
        entries = [(e.get("content"), i) for i, e in decoder.items() if isinstance(e, dict)]
    else:
        # Megabytes of vocabulary: read only where the small file does not say.
        added = _read_json(directory / "tokenizer.json").get("added_tokens")
        listed = added if isinstance(added, list) else []
        entries = [(e.get("content"), e.get("id")) for e in listed if isinstance(e, dict)]
    entries += _read_json(directory / "added_tokens.json").items()
    # A configuration names ids as texts.
    numbers = ((str(text), str(i)) for text, i in entries if isinstance(i, int | str))
    return {text: int(i) for text, i in numbers if re.fullmatch("[0-9]{1,9}", i)}


def _what_else(directory: Path) -> str:
    names = sorted(path.name for path in directory.iterdir())
    gguf = next((name for name in names if fnmatch(name.lower(), "*.gguf")), None)
    if gguf:
        return f". To use {gguf}, name the file itself: {directory / gguf}"
    if "adapter_config.json" in names:
        return ", only an adapter: merge it into its base model first"
    return ""
