"""Engines. Of Transformers little is typed: its own types differ from version to version."""

from __future__ import annotations

from typing import Any, TypeAlias

Config: TypeAlias = Any
Tokenizer: TypeAlias = Any
Model: TypeAlias = Any
