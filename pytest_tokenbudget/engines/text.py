"""A model's own tokenizer and chat template, alone or in an engine that runs the model here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from pytest_tokenbudget.core.engine import Decoding, Engine, EngineError, Generated, Prompt, Request
from pytest_tokenbudget.engines import Config, Tokenizer, loading
from pytest_tokenbudget.engines.rows import BatchRow, generated, impossible
from pytest_tokenbudget.models.resolution import ModelSpec
from pytest_tokenbudget.texts.token_texts import Pieces


class ModelText:
    """A model's chat template, tokenizer and configuration; loaded on first use, no weights.

    Args:
        spec: The model.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec

    @cached_property
    def config(self) -> Config:
        """The model's configuration."""
        return loading.load_config(self.spec)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return loading.load_tokenizer(self.spec)

    @cached_property
    def context(self) -> int:
        """Tokens that prompt and output may have together."""
        if self.spec.context is not None:
            return self.spec.context
        length = getattr(self.config.get_text_config(), "max_position_embeddings", None)
        if length is None:
            raise EngineError(
                f"model {self.spec.alias}: its configuration names no context length; set "
                f"`context` for it in tokenbudget.toml"
            )
        return int(length)

    @cached_property
    def eos_ids(self) -> frozenset[int]:
        """Ids that end a sequence."""
        return loading.end_ids(self.spec, self.config, self.tokenizer)

    @property
    def bos_id(self) -> int | None:
        """The id that begins a sequence, where the tokenizer has one."""
        token_id: int | None = self.tokenizer.bos_token_id
        return token_id

    @cached_property
    def _unwritten(self) -> frozenset[int]:
        """Ids that are no part of the text."""
        pad = self.tokenizer.pad_token_id
        return self.eos_ids if pad is None else self.eos_ids | {pad}

    def render(
        self,
        messages: Sequence[Mapping[str, str]],
        thinking: bool | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> Prompt:
        """Render chat messages into a prompt that ends where the model begins to write.

        Args:
            messages: Chat messages with ``role`` and ``content``.
            thinking: Whether the model shall think; None leaves it to the chat template, as does
                a model whose template has no switch for it.
            variables: Further variables for the chat template.

        Raises:
            EngineError: If the model has no chat template, or its template refuses the messages.
        """
        if not self.tokenizer.chat_template:
            raise EngineError(
                f"model {self.spec.alias}: its tokenizer has no chat template, so chat messages "
                f"cannot be posed to it; use the instruction-tuned variant, or a local copy with a "
                f"chat_template.jinja"
            )
        options = {"add_generation_prompt": True, **thinking_variables(self.spec, thinking)}
        try:
            text = self.tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                tokenize=False,
                **{**options, **(variables or {})},
            )
        except Exception as error:
            raise EngineError(
                f"model {self.spec.alias}: its chat template refuses the messages "
                f"({loading.first_line(error)})"
            ) from error
        # The template has written the special tokens already. Whether the prompt fits is decided
        # by the engine, without the tokenizer's own warning.
        return Prompt(self.encode(text), text)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of output ids: thinking tags are kept, end-of-sequence and padding are not."""
        return self._decode([token_id for token_id in ids if token_id not in self._unwritten])

    def decode_prompt(self, ids: Sequence[int]) -> str:
        """Text of prompt ids, with all of their special tokens."""
        return self._decode(list(ids))

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a text that is put into a prompt; tags in it become their own tokens."""
        return tuple(self.tokenizer.encode(text, add_special_tokens=False, verbose=False))

    def _decode(self, ids: list[int]) -> str:
        text: str = self.tokenizer.decode(
            ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text


def thinking_variables(spec: ModelSpec, thinking: bool | None) -> dict[str, Any]:
    """The variables for the chat template that turn thinking on or off."""
    switch = spec.thinking.switch if spec.thinking else None
    return {switch: thinking} if switch and thinking is not None else {}


class InProcessEngine(ModelText, Engine):
    """An engine whose tokenizer and chat template are on this machine."""

    @cached_property
    def pieces(self) -> Pieces:
        return Pieces(self.decode)

    def count(self, text: str) -> int:
        return len(self.encode(text))

    def begin(
        self, requests: Sequence[Request], decoding: Decoding, rows: list[BatchRow]
    ) -> Iterator[Generated]:
        """Yield what is there without generating, and add the others to ``rows``.

        Raises:
            ValueError: If a cap reaches beyond the context.
        """
        for request in requests:
            result = impossible(request, self.spec.alias, self.context)
            if result is not None:
                yield result
                continue
            row = BatchRow(request, decoding, self.eos_ids, self.decode)
            if row.stop_reason is None:
                rows.append(row)
            else:
                yield generated(row, 0.0)
