"""A model behind servers: its text and token ids, and what is told once of its servers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

from pytest_tokenbudget.core.engine import Engine, EngineError, Prompt, Request
from pytest_tokenbudget.engines import Tokenizer
from pytest_tokenbudget.engines.server.dialects import DIALECTS
from pytest_tokenbudget.engines.server.http import Server
from pytest_tokenbudget.engines.server.output import ServerOutput
from pytest_tokenbudget.engines.server.tokens import PromptTokens, ServerText, choose_tokens
from pytest_tokenbudget.engines.text import ModelText
from pytest_tokenbudget.models.spec import ModelSpec
from pytest_tokenbudget.settings.endpoints import Facts
from pytest_tokenbudget.texts.token_texts import Pieces


class ServedModel(Engine):
    """What requests of every kind need to know of a served model.

    Attributes:
        spec: The model; its ``endpoint`` names the servers.
        facts: What the servers say of themselves.
        timeout: Seconds without a byte after which a request has failed.
        ids_came: Whether any answer had token ids.
        without_ids: How many answers had text and none.
    """

    def __init__(
        self, spec: ModelSpec, facts: Facts, timeout: float, say: Callable[[str], None]
    ) -> None:
        if spec.endpoint is None:
            raise EngineError(f"model {spec.alias}: no server is named for it")
        if spec.endpoint.api == "ids" and not facts.ids:
            raise EngineError(
                f"model {spec.alias}: {spec.endpoint.urls[0]} ({facts.kind}) neither takes nor "
                f"gives token ids; use --server-api chat or auto"
            )
        self.spec = spec
        self.facts = facts
        self.timeout = timeout
        self.continues = facts.ids and spec.endpoint.api != "chat"
        self.urls = spec.endpoint.urls
        self.dialect = DIALECTS[facts.kind]
        self.ids_came = False
        self.without_ids = 0
        self._say = say
        self._noted_prompt = False
        self._noted_counts = False

    @property
    def engine_name(self) -> str:
        return self.facts.kind

    @cached_property
    def tokens(self) -> PromptTokens:
        """What renders prompts and stands between text and ids.

        Raises:
            EngineError: If there is no tokenizer.
        """
        return choose_tokens(self.spec, self.facts, self.timeout)

    @cached_property
    def context(self) -> int:
        """Tokens that prompt and output may have together: the model's, or less by the server."""
        known = [size for size in (self.spec.context, self.facts.context) if size is not None]
        return min(known) if known else self.tokens.context

    @property
    def eos_ids(self) -> frozenset[int]:
        return self.tokens.eos_ids

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The model's tokenizer; None where only its server has it."""
        return self.tokens.tokenizer if isinstance(self.tokens, ModelText) else None

    @property
    def bos_id(self) -> int | None:
        """The id that begins a sequence, where a tokenizer of its own says so."""
        return self.tokens.bos_id if isinstance(self.tokens, ModelText) else None

    @cached_property
    def vocabulary(self) -> int:
        """A bound on token ids: the model's vocabulary, where it is known here."""
        if not isinstance(self.tokens, ModelText):
            return 1 << 31
        rows = getattr(self.tokens.config.get_text_config(), "vocab_size", None) or 0
        return max(rows, len(self.tokens.tokenizer))

    @cached_property
    def pieces(self) -> Pieces | None:
        """``decode`` with what is learned of it; None where each decoding is a request."""
        return None if isinstance(self.tokens, ServerText) else Pieces(self.decode)

    def render(self, messages: Sequence[Mapping[str, str]], thinking: bool | None = None) -> Prompt:
        return self.tokens.render(messages, thinking)

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokens.decode(ids)

    def decode_prompt(self, ids: Sequence[int]) -> str:
        return self.tokens.decode_prompt(ids)

    def encode(self, text: str) -> tuple[int, ...]:
        return self.tokens.encode(text)

    def count(self, text: str) -> int | None:
        try:
            return len(self.tokens.encode(text))
        except EngineError:
            return None

    def note_implausible_counts(self, output: ServerOutput, server: Server) -> None:
        """Tell once that a server gives counts that cannot be true, which are ignored."""
        if not output.implausible_counts or self._noted_counts:
            return
        self._noted_counts = True
        shown = ", ".join(f"{name} {value}" for name, value in output.implausible_counts.items())
        self._say(f"{server.url} gives counts that cannot be true, which are ignored: {shown}")

    def note_prompt(self, request: Request, output: ServerOutput, server: Server) -> None:
        """Tell once if the server counts a prompt's tokens otherwise than the tokenizer here."""
        count = output.usage.get("prompt_tokens")
        if count is None or count == len(request.prompt_ids) or self._noted_prompt:
            return
        self._noted_prompt = True
        self._say(
            f"{server.url} counts {count} tokens for a prompt that has {len(request.prompt_ids)} "
            f"with the tokenizer here: its chat template or its tokenizer is another one"
        )
