"""Text and token ids of a served model: by its own tokenizer here, else by its server's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pytest_tokenbudget.core.engine import EngineError, Prompt
from pytest_tokenbudget.engines.background import Background
from pytest_tokenbudget.engines.server.dialects import DIALECTS
from pytest_tokenbudget.engines.server.dialects_base import GONE, Dialect
from pytest_tokenbudget.engines.server.http import Fault, Key, Server
from pytest_tokenbudget.engines.server.retry import retry_lost_answers, retry_while_busy
from pytest_tokenbudget.engines.text import ModelText, thinking_variables
from pytest_tokenbudget.models.spec import ModelSpec
from pytest_tokenbudget.models.thinking_formats import detect
from pytest_tokenbudget.settings.endpoints import Facts
from pytest_tokenbudget.texts.detokenizer import text_and_offsets
from pytest_tokenbudget.texts.end_tokens import END_OF_TURN

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from pytest_tokenbudget.texts.thinking_blocks import ThinkingFormat

T = TypeVar("T")

# Stands where a token is known to be but not which.
UNKNOWN_ID = -1
_ENDS = (*END_OF_TURN, "</s>")
_NAME_ONE = "name a tokenizer with --tokenizer NAME|PATH"


class ServerText:
    """Asks the servers to render, encode and decode as ``ModelText`` does. Each call is a request.

    Args:
        spec: The model.
        facts: What is known of its servers.
        timeout: Seconds without a byte after which a request has failed.
    """

    def __init__(self, spec: ModelSpec, facts: Facts, timeout: float = 120.0) -> None:
        assert spec.endpoint is not None
        self.spec = spec
        self.facts = facts
        self._urls = spec.endpoint.urls
        self._timeout = timeout
        self._dialect = DIALECTS[facts.kind]
        # A loop of its own: the engine's may be what asks.
        self._background = Background("tokenbudget-tokens")
        self._pieces: dict[int, str] = {}
        self._ids: dict[str, tuple[int, ...]] = {}

    @property
    def renders(self) -> bool:
        """Whether its kind of server renders messages."""
        return type(self._dialect).render is not Dialect.render

    @property
    def context(self) -> int:
        context = self.spec.context or self.facts.context
        if context is None:
            raise EngineError(
                f"model {self.spec.alias}: its server names no context length; set `context` for "
                f"it in tokenbudget.toml"
            )
        return context

    @cached_property
    def eos_ids(self) -> frozenset[int]:
        """Ids that end a sequence: those of known texts that are one token each."""
        sequences = map(self.encode, dict.fromkeys((*self.facts.ends, *_ENDS)))
        return frozenset(ids[0] for ids in sequences if len(ids) == 1)

    def render(
        self,
        messages: Sequence[Mapping[str, str]],
        thinking: bool | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> Prompt:
        template = {**thinking_variables(self.spec, thinking), **(variables or {})}
        ids, text = self._ask(
            lambda server: self._dialect.render(server, self.facts, messages, template)
        )
        return Prompt(tuple(ids), text)

    def encode(self, text: str) -> tuple[int, ...]:
        if not text:
            return ()
        if text not in self._ids:
            ids = self._ask(lambda server: self._dialect.tokenize(server, self.facts, text))
            if len(text) > 256:
                return tuple(ids)
            self._ids[text] = tuple(ids)
        return self._ids[text]

    def decode(self, ids: Sequence[int]) -> str:
        return self.decode_prompt([token_id for token_id in ids if token_id not in self.eos_ids])

    def decode_prompt(self, ids: Sequence[int]) -> str:
        if not ids:
            return ""
        if len(ids) == 1 and ids[0] in self._pieces:
            return self._pieces[ids[0]]
        text = self._ask(lambda server: self._dialect.detokenize(server, self.facts, ids))
        if len(ids) == 1:
            self._pieces[ids[0]] = text
        return text

    def close(self) -> None:
        """End its thread."""
        self._background.close()

    def _ask(self, question: Callable[[Server], Coroutine[Any, Any, T]]) -> T:
        try:
            return self._background.run(self._first_answer(question))
        except Fault as fault:
            raise EngineError(f"model {self.spec.alias}: {fault.message}") from None
        except NotImplementedError as error:
            raise EngineError(f"model {self.spec.alias}: {error}; {_NAME_ONE}") from None

    async def _first_answer(self, question: Callable[[Server], Coroutine[Any, Any, T]]) -> T:
        last: Fault | None = None
        for url in self._urls:
            server = Server(url, Key.from_environment(), self._timeout)
            try:
                return await retry_while_busy(
                    partial(retry_lost_answers, partial(question, server))
                )
            except Fault as fault:
                if fault.kind not in GONE:
                    raise
                last = fault
            finally:
                await server.close()
        assert last is not None
        raise last


# What renders prompts and stands between text and ids.
PromptTokens = ModelText | ServerText


def choose_tokens(spec: ModelSpec, facts: Facts, timeout: float = 120.0) -> PromptTokens:
    """The tokenizer here, where there is one, else the server's own.

    Raises:
        EngineError: If there is none of them.
    """
    if spec.kind != "server":
        return ModelText(spec)
    if facts.tokenizes:
        return ServerText(spec, facts, timeout)
    raise EngineError(
        f"model {spec.alias}: its server ({facts.kind}) does not tokenize, and what it serves "
        f"({facts.root or facts.served}) is not here; {_NAME_ONE}"
    )


def end_texts(tokens: PromptTokens) -> list[str]:
    """Texts of the tokens that end sequences."""
    return [tokens.decode_prompt([token_id]) for token_id in sorted(tokens.eos_ids)]


def find_thinking(facts: Facts, tokens: PromptTokens) -> ThinkingFormat | None:
    """How a served model marks its thinking, by its chat template; None where that says nothing.

    Raises:
        EngineError: If the server is asked and does not answer.
    """
    form = detect(facts.template, {})
    if form is None:
        return None
    pieces = {tag: tokens.encode(tag) for tag in form.tags}
    return form.resolved({tag: ids[0] for tag, ids in pieces.items() if len(ids) == 1})


class Counted(NamedTuple):
    """A text's tokens as a tokenizer counts them.

    Attributes:
        text: The text.
        ids: Their ids; ``UNKNOWN_ID`` where it is known that there was one but not which.
        offsets: For each, how many characters of the text stand after it.
    """

    text: str
    ids: tuple[int, ...]
    offsets: tuple[int, ...]


def count_tokens(text: str, tokens: PromptTokens, *, most: int, ended: bool) -> Counted:
    """Count the tokens of a text that came without ids.

    There can have been ``most`` at the most. Text that is encoded again may have a few more than
    were generated; their ends are then stretched. If it ``ended``, one more token did that: the
    end-of-sequence.
    """
    ids = tokens.encode(text)
    decoded, offsets = text_and_offsets(tokens.decode_prompt, ids)
    if decoded != text:
        offsets = tuple(len(text) * k // len(ids) for k in range(1, len(ids) + 1))
    last = int(ended)
    room = max(most - last, 0)
    if len(ids) > room:
        count = len(ids)
        offsets = tuple(offsets[-(-(k * count) // room) - 1] for k in range(1, room + 1))
        ids = (UNKNOWN_ID,) * room
    return Counted(text, (*ids, *(UNKNOWN_ID,) * last), (*offsets, *(len(text),) * last))


def insert_hidden(counted: Counted, place: int, hidden: int, most: int) -> Counted:
    """Put tokens that are known to be, but not shown, after the character at ``place``."""
    before = sum(offset <= place for offset in counted.offsets) if place else 0
    unseen = max(min(hidden, most - len(counted.ids)), 0)
    return Counted(
        counted.text,
        (*counted.ids[:before], *(UNKNOWN_ID,) * unseen, *counted.ids[before:]),
        (*counted.offsets[:before], *(place,) * unseen, *counted.offsets[before:]),
    )
