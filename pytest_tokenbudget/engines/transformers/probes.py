"""The in-process Transformers engine, as a thing that can be probed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pytest_tokenbudget.core.engine import (
    Decoding,
    Engine,
    EngineError,
    Generated,
    Prompt,
    Request,
)
from pytest_tokenbudget.core.probes import Ask, Askable, ProbeOutput, Reply
from pytest_tokenbudget.core.trace import StopReason
from pytest_tokenbudget.engines import Tokenizer, loading
from pytest_tokenbudget.engines.transformers.engine import TransformersEngine
from pytest_tokenbudget.models.thinking_formats import GENERIC, builtin_formats

if TYPE_CHECKING:
    from pytest_tokenbudget.core.probes import Probed

# What a server answers to a request that it does not take.
REFUSED = 400


class InProcess(Engine):
    """A Transformers engine that takes asks: ids from ``generate``, switches from the template.

    Args:
        engine: The engine.
    """

    def __init__(self, engine: TransformersEngine) -> None:
        self._engine = engine
        self._form = engine.spec.thinking or builtin_formats()[GENERIC]

    @property
    def engine_name(self) -> str:
        """Short name, fit for file names."""
        return "transformers"

    @property
    def eos_ids(self) -> frozenset[int]:
        """Ids that end a sequence."""
        return self._engine.eos_ids

    @property
    def context(self) -> int:
        """Tokens that prompt and output may have together."""
        return self._engine.context

    def render(self, messages: Sequence[Mapping[str, str]], thinking: bool | None = None) -> Prompt:
        """Render chat messages into a prompt."""
        return self._engine.render(messages, thinking)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of output ids."""
        return self._engine.decode(ids)

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a text."""
        return self._engine.encode(text)

    def rows(self, prompt: int, total: int) -> int:
        """How many sequences it likes to do at once."""
        return self._engine.rows(prompt, total)

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> Iterator[Generated]:
        """Generate, and yield each result as it ends."""
        return self._engine.generate(requests, decoding)

    def close(self) -> None:
        """Free the model."""
        self._engine.close()

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return len(self._engine.encode(text))

    def ask(self, asks: Sequence[Ask], at_once: int = 1) -> list[Reply]:
        """Ask all, ``at_once`` in one batch, and give the replies in the order of the asks."""
        replies: list[Reply] = []
        for start in range(0, len(asks), at_once):
            replies += self._batch(asks[start : start + at_once], start)
        return replies

    def _batch(self, asks: Sequence[Ask], first: int) -> list[Reply]:
        """One batch for each way of decoding; ``first`` is the place of the first ask."""
        self._engine.tally = self.tally
        replies: dict[int, Reply] = {}
        groups: dict[Decoding, list[tuple[int, Prompt]]] = {}
        for place, ask in enumerate(asks):
            prompt = self._prompt(ask)
            if isinstance(prompt, Reply):
                replies[place] = prompt
                continue
            decoding = Decoding(ask.temperature, ask.top_p, ask.seed or 0, ask.stop)
            groups.setdefault(decoding, []).append((place, prompt))
        for decoding, members in groups.items():
            requests = [
                Request(f"{first + place}/{sample}", prompt.ids, asks[place].max_tokens, sample)
                for place, prompt in members
                for sample in range(asks[place].n)
            ]
            done = {each.request.key: each for each in self._engine.generate(requests, decoding)}
            for place, prompt in members:
                results = [done[f"{first + place}/{sample}"] for sample in range(asks[place].n)]
                replies[place] = self._reply(asks[place], prompt, results)
        return [replies[place] for place in range(len(asks))]

    def _prompt(self, ask: Ask) -> Prompt | Reply:
        """The prompt of an ask; a reply where it is refused."""
        if ask.fields:
            names = ", ".join(ask.fields)
            return _refused(ask, f"the Transformers engine takes no such field: {names}")
        if ask.prompt_ids:
            prompt = Prompt(ask.prompt_ids, self._tokenizer_text(ask.prompt_ids))
        else:
            try:
                text: str = self._tokenizer.apply_chat_template(
                    [dict(message) for message in ask.messages],
                    tokenize=False,
                    add_generation_prompt=True,
                    **ask.template,
                )
            except Exception as error:
                return _refused(ask, f"the chat template refuses it ({loading.first_line(error)})")
            prompt = Prompt(self._engine.encode(text), text)
        if ask.max_tokens < 1:
            return _refused(ask, f"max_tokens is at least 1, not {ask.max_tokens}")
        if len(prompt.ids) + ask.max_tokens > self.context:
            return _refused(
                ask,
                f"a prompt of {len(prompt.ids)} tokens and max_tokens {ask.max_tokens} are more "
                f"than the context of {self.context}",
                len(prompt.ids),
            )
        return prompt

    def _reply(self, ask: Ask, prompt: Prompt, results: Sequence[Generated]) -> Reply:
        opened = self._form.left_open(prompt.text)
        error = next((each.error for each in results if each.stop_reason is StopReason.ERROR), "")
        if error:
            return Reply(_sent(ask), error=error, prompt_tokens=len(prompt.ids))
        choices = []
        for each in results:
            text = self._engine.decode(each.output_ids)
            choices.append(
                ProbeOutput(
                    ids=each.output_ids,
                    content=text,
                    finish_reason=each.engine_reason,
                    text=text,
                    opened=opened,
                )
            )
        return Reply(_sent(ask), tuple(choices), prompt_tokens=len(prompt.ids))

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        tokenizer = loading.load_tokenizer(self._engine.spec)
        if not tokenizer.chat_template:
            raise EngineError(
                f"model {self._engine.spec.alias}: its tokenizer has no chat template, so it "
                f"cannot be probed with chat messages"
            )
        return tokenizer

    def _tokenizer_text(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=False)
        return text


def _sent(ask: Ask) -> dict[str, Any]:
    """What an ask says, in the words of this engine."""
    sent: dict[str, Any] = {"max_tokens": ask.max_tokens, "temperature": ask.temperature}
    if ask.messages:
        sent["messages"] = [dict(message) for message in ask.messages]
    if ask.prompt_ids:
        sent["prompt_ids"] = list(ask.prompt_ids)
    if ask.template:
        sent["template"] = dict(ask.template)
    if ask.n > 1:
        sent["n"] = ask.n
    if ask.temperature:
        sent |= {"seed": ask.seed or 0, "top_p": ask.top_p}
    if ask.stop:
        sent["stop"] = list(ask.stop)
    return {**sent, **ask.fields}


def _refused(ask: Ask, why: str, prompt_tokens: int | None = None) -> Reply:
    return Reply(_sent(ask), error=why, status=REFUSED, prompt_tokens=prompt_tokens)


def probed(engine: Engine) -> Probed:
    """An engine as one that can be probed.

    Raises:
        EngineError: If it cannot be.
    """
    if isinstance(engine, TransformersEngine):
        return InProcess(engine)
    if not isinstance(engine, Askable):
        raise EngineError(
            f"the engine {type(engine).__name__} cannot be asked for conformance; serve the model "
            "and give the server's address as --model"
        )
    found: Any = engine
    probed: Probed = found
    return probed
