"""What the tests of models share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_tokenbudget.models.resolution import ModelError, load_catalogue, resolve_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"
THINKING_TEMPLATE = "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
ASKED_FOR = [
    "qwen-0.5b",
    "qwen-1.5b",
    "qwen-3b",
    "qwen-7b",
    "qwen3-0.6b",
    "qwen3-1.7b",
    "qwen3-4b",
    "qwen3-8b",
    "llama-3.2-1b",
    "llama-3.2-3b",
    "llama-3.1-8b",
    "llama-3.3-70b",
    "gemma-3-1b",
    "gemma-4-31b",
    "deepseek-r1-1.5b",
    "smollm2-135m",
    "nano-reasoner",
]


def make_model(directory: Path, *, context=512, template="{{ messages }}", weights=b"weights"):
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps({"max_position_embeddings": context}))
    (directory / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    (directory / "tokenizer.json").write_text('{"added_tokens": []}')
    (directory / "model.safetensors").write_bytes(weights)
    return directory


def cached(cache: Path, hub_id: str, commit: str = COMMIT, ref: str = "main", **files) -> Path:
    folder = cache / f"models--{hub_id.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / ref).write_text(commit)
    return make_model(folder / "snapshots" / commit, **files)


def user_catalogue(rootdir: Path, text: str):
    (rootdir / "tokenbudget.toml").write_text(text, encoding="utf-8")
    return load_catalogue(rootdir)


def catalogue_error(rootdir: Path, text: str) -> str:
    with pytest.raises(ModelError) as caught:
        user_catalogue(rootdir, text)
    assert "tokenbudget.toml" in str(caught.value)
    return str(caught.value)


def resolve_error(name: str, catalogue) -> str:
    with pytest.raises(ModelError) as caught:
        resolve_model(name, catalogue)
    return str(caught.value)
