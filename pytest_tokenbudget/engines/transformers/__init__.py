"""What of Transformers is typed: how far its own types go differs from version to version."""

from __future__ import annotations

from typing import Any, TypeAlias

Config: TypeAlias = Any
Tokenizer: TypeAlias = Any
Model: TypeAlias = Any
Factory: TypeAlias = Any
