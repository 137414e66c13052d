"""What engines that run a model in this process share: its text, and how requests begin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

from pytest_tokenbudget.core.engine import Decoding, Engine, Generated, Prompt, Request
from pytest_tokenbudget.engines import Tokenizer
from pytest_tokenbudget.engines.rows import BatchRow, generated, impossible
from pytest_tokenbudget.engines.text import ModelText
from pytest_tokenbudget.models.resolution import ModelSpec
from pytest_tokenbudget.texts.token_texts import Pieces


class InProcessEngine(Engine):
    """An engine whose tokenizer and chat template lie here.

    Args:
        spec: The model.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self._text = ModelText(spec)

    @property
    def context(self) -> int:
        """Tokens that prompt and output may have together."""
        return self._text.context

    @property
    def eos_ids(self) -> frozenset[int]:
        """Ids that end a sequence."""
        return self._text.eos_ids

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer, loaded on first use."""
        return self._text.tokenizer

    @property
    def bos_id(self) -> int | None:
        """The id that begins a sequence, where the tokenizer has one."""
        return self._text.bos_id

    def render(self, messages: Sequence[Mapping[str, str]], thinking: bool | None = None) -> Prompt:
        """Render chat messages into a prompt that ends where the model begins to write.

        Args:
            messages: Chat messages with ``role`` and ``content``.
            thinking: Whether the model shall think; None leaves it to the chat template, as does
                a model whose template has no switch for it.

        Raises:
            EngineError: If the model has no chat template, or its template refuses the messages.
        """
        return self._text.render(messages, thinking)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of output ids: thinking tags are kept, end-of-sequence and padding are not."""
        return self._text.decode(ids)

    def decode_prompt(self, ids: Sequence[int]) -> str:
        """Text of prompt ids, with all of their special tokens."""
        return self._text.decode_prompt(ids)

    @cached_property
    def pieces(self) -> Pieces:
        """``decode`` with what is learned of it."""
        return Pieces(self.decode)

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a text that is put into a prompt; tags in it become their own tokens."""
        return self._text.encode(text)

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
