"""Between text and token ids: what every engine that has the model's own tokenizer does alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from pytest_tokenbudget.core.engine import EngineError, Prompt
from pytest_tokenbudget.engines import Config, Tokenizer, loading
from pytest_tokenbudget.models.resolution import ModelSpec


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
        found: int | None = self.tokenizer.bos_token_id
        return found

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
        switch = self.spec.thinking.switch if self.spec.thinking else None
        options: dict[str, Any] = {"add_generation_prompt": True}
        if switch and thinking is not None:
            options[switch] = thinking
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
