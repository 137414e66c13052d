"""The kinds of servers that are known, one dialect each."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_tokenbudget.engines.server.dialects_base import Dialect
from pytest_tokenbudget.engines.server.dialects_llamacpp import LlamaCpp
from pytest_tokenbudget.engines.server.dialects_serve import TransformersServe
from pytest_tokenbudget.engines.server.dialects_sglang import SGLang
from pytest_tokenbudget.engines.server.dialects_vllm import Vllm

_KINDS: tuple[Dialect, ...] = (Vllm(), LlamaCpp(), SGLang(), TransformersServe(), Dialect())

# In the order in which they are tried, the general one last.
DIALECTS: Mapping[str, Dialect] = {dialect.kind: dialect for dialect in _KINDS}
