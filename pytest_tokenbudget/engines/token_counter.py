"""Counting tokens before anything is sent: exactly those of the prompt that an engine sends.

Messages are rendered and encoded by the code that the engines use, so that a count is the length of
the prompt and no estimate. No weights are loaded. Outside of pytest:

    from pytest_tokenbudget.engines.token_counter import count_tokens

    count_tokens([{"role": "user", "content": "Hello"}], "qwen3-0.6b", thinking=False)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar

from pytest_tokenbudget.core.engine import EngineError, Prompt
from pytest_tokenbudget.engines.server.tokens import PromptTokens, ServerText, choose_tokens
from pytest_tokenbudget.engines.text import ModelText
from pytest_tokenbudget.models.resolution import (
    DEFAULT_MODEL,
    ModelError,
    ModelSpec,
    complete,
    load_catalogue,
    resolve_model,
)
from pytest_tokenbudget.settings.endpoints import Endpoint, is_address, read_address

Message = Mapping[str, str]
A = TypeVar("A")
B = TypeVar("B")

# Requests to a server that tokenizes, on their way at the same time.
AT_ONCE = 8


class NoTokenizerError(EngineError):
    """There is nothing that could count: neither a tokenizer here nor a server that tokenizes."""


class _AsChosen:
    """The type of `AS_CHOSEN`."""

    def __repr__(self) -> str:
        return "AS_CHOSEN"


# What the counter was made with decides about thinking.
AS_CHOSEN: Final = _AsChosen()


class TokenCounter:
    """Counts the tokens of prompts for one model. Calling it is `count`.

    Where a method takes ``thinking``, it is whether the model shall think; None leaves that to the
    chat template. All methods raise an `EngineError` where the template refuses the messages, or
    the server does not answer.

    Args:
        spec: The model, its servers asked already if it has some.
        thinking: What is asked of the chat template unless a call says otherwise.
        timeout: Seconds without a byte after which a server counts as silent.

    Raises:
        NoTokenizerError: If there is neither a tokenizer here nor a server that tokenizes.
        EngineError: If the tokenizer cannot be loaded.
    """

    def __init__(
        self, spec: ModelSpec, thinking: bool | None = None, timeout: float = 120.0
    ) -> None:
        if spec.kind == "recorded":
            raise NoTokenizerError(
                f"model {spec.alias}: what was recorded has no tokenizer here; name the model "
                "itself"
            )
        self.spec = spec
        self.thinking = thinking
        facts = spec.endpoint.facts if spec.endpoint else None
        try:
            self.tokens: PromptTokens = (
                ModelText(spec) if facts is None else choose_tokens(spec, facts, timeout)
            )
        except EngineError as error:
            raise NoTokenizerError(str(error)) from None
        # A tokenizer here is loaded now: what is wrong with it shall not come to light in a count.
        self.tokens.encode("")

    @property
    def remote(self) -> bool:
        """Whether a server renders and encodes."""
        return isinstance(self.tokens, ServerText)

    @property
    def context(self) -> int:
        """Tokens that prompt and output may have together."""
        return self.spec.context or self.tokens.context

    def render(
        self,
        messages: Sequence[Message],
        thinking: bool | _AsChosen | None = AS_CHOSEN,
        variables: Mapping[str, Any] | None = None,
    ) -> Prompt:
        """The prompt of messages (``role``, ``content``) as an engine would send it.

        ``variables`` are further ones for the chat template.
        """
        chosen = self.thinking if isinstance(thinking, _AsChosen) else thinking
        return self.tokens.render(messages, chosen, variables)

    def count(
        self, messages: Sequence[Message], thinking: bool | _AsChosen | None = AS_CHOSEN
    ) -> int:
        """Tokens of the prompt of messages, special tokens and generation prompt included."""
        return len(self.render(messages, thinking).ids)

    __call__ = count

    def room(
        self, messages: Sequence[Message], thinking: bool | _AsChosen | None = AS_CHOSEN
    ) -> int:
        """Tokens that the context leaves for the answer; below 0 where the prompt is too long."""
        return self.context - self.count(messages, thinking)

    def count_text(self, text: str) -> int:
        """Tokens of a text that is put into a prompt, without any of the chat template."""
        return len(self.tokens.encode(text))

    def encode_all(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Ids of several texts; a server is asked for some of them at the same time."""
        return self._map(self.tokens.encode, texts)

    def decode_all(self, sequences: Sequence[Sequence[int]]) -> list[str]:
        """Texts of several sequences of ids, with the text of special tokens."""
        return self._map(self.tokens.decode_prompt, sequences)

    def _map(self, function: Callable[[A], B], items: Iterable[A]) -> list[B]:
        if not self.remote:
            return list(map(function, items))
        with ThreadPoolExecutor(AT_ONCE) as threads:
            return list(threads.map(function, items))

    def close(self) -> None:
        """End the thread that talks to a server, where there is one."""
        if isinstance(self.tokens, ServerText):
            self.tokens.close()

    def __enter__(self) -> TokenCounter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def count_tokens(
    messages: Sequence[Message], model: str = DEFAULT_MODEL, *, thinking: bool | None = None
) -> int:
    """Tokens of the prompt that messages make, special tokens and generation prompt included.

    Args:
        messages: Chat messages with ``role`` and ``content``.
        model: An alias, a hub id, a directory, a ``.gguf`` file, or the address of a server that
            tokenizes or whose model lies here. Its tokenizer is loaded once.
        thinking: Whether the model shall think; None leaves it to the chat template.

    Raises:
        ModelError: If the name means nothing.
        EngineError: If there is no tokenizer, or the template refuses the messages.
    """
    return _cached_counter(model).count(messages, thinking)


@lru_cache(8)
def _cached_counter(model: str) -> TokenCounter:
    return open_counter(model)


def open_counter(
    model: str = DEFAULT_MODEL, *, thinking: bool | None = None, rootdir: Path | None = None
) -> TokenCounter:
    """A counter for a model by its name, for use outside of pytest.

    Args:
        model: An alias, a hub id, a directory, a ``.gguf`` file, or the address of a server.
        thinking: What is asked of the chat template; None leaves it to the template.
        rootdir: Where a settings file with further aliases is looked for; None: nowhere.

    Raises:
        ModelError: If the name means nothing.
        EngineError: If there is no tokenizer, or no server answers.
    """
    if is_address(model.strip()):
        try:
            endpoint = Endpoint((read_address(model),))
        except ValueError as error:
            raise ModelError(f"an address cannot be used; {error}") from None
        spec = ModelSpec(
            endpoint.alias, endpoint.urls[0], kind="server", endpoint=endpoint, detect=True
        )
    else:
        spec = resolve_model(model, load_catalogue(rootdir))
    if spec.endpoint is not None:
        from pytest_tokenbudget.engines.server.server_facts import probe, with_facts

        return TokenCounter(with_facts(spec, probe(spec.endpoint)), thinking)
    if spec.kind == "hub":
        # Whether it thinks, and how that is switched, is read from files that this downloads.
        _ = ModelText(spec).tokenizer
        spec = complete(spec)
    return TokenCounter(spec, thinking)
