"""An engine that fits on a screen, whose failings can be chosen: for the conformance probes."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from pytest_tokenbudget.core.engine import Decoding, Engine, Generated, Prompt, Request
from pytest_tokenbudget.core.probes import Ask, ProbeOutput, Reply
from pytest_tokenbudget.models.spec import ModelSpec
from pytest_tokenbudget.studies.conformance.probe_context import ProbeContext
from pytest_tokenbudget.texts.thinking_blocks import Closer, ThinkingFormat

OPEN, CLOSE, EOS = "<think>", "</think>", "<eos>"
FORMAT = ThinkingFormat(closers=(Closer("bare", "\n</think>\n\n"),))
SPEC = ModelSpec("fake", "fake", thinking=FORMAT, context=4096)

Tokens = list[str]


@dataclass(frozen=True)
class Thought:
    """What the model would write: numbers of thinking and answer tokens, and what was asked."""

    ask: Ask
    opened: bool
    thinking: int
    answer: int
    noise: int = 0

    def budget(self, name: str = "thinking_token_budget") -> Any:
        return self.ask.fields.get(name)


Mind = Callable[[Thought], "Thought | Tokens"]


class Fate(NamedTuple):
    """What becomes of a request that does not fit.

    Attributes:
        seen: What the model sees of the prompt.
        cap: Output tokens that it may write.
        word: What an output is called that the cap ended.
        counted: Tokens of the prompt as the engine counts them; all that were sent if None.
    """

    seen: tuple[int, ...]
    cap: int
    word: str = "length"
    counted: int | None = None


# Of prompt, output tokens asked for, and context; None refuses.
Beyond = Callable[[tuple[int, ...], int, int], "Fate | None"]


def words(thought: Thought) -> Tokens:
    """The tokens of a thought, one block and its answer."""
    seed = f"{thought.ask.messages or thought.ask.prompt_ids}/{thought.noise}"
    mark = zlib.crc32(seed.encode()) % 9973
    head = [] if thought.opened else [OPEN, "\n"]
    thinking = [f"t{mark + i} " for i in range(thought.thinking)]
    answer = [f"a{mark + i} " for i in range(thought.answer)]
    return [*head, *thinking, CLOSE, *answer]


class FakeEngine(Engine):
    """A model that thinks for a length that the prompt decides.

    Args:
        mind: Changes what is written; the thought as it is by default.
        reply: Changes each reply after it was made.
        apart: Whether reasoning is set apart, as a server with a reasoning parser does.
        ids: Whether ids are given.
        base: Thinking tokens of the shortest thought.
        refuses: Fields that are refused; None refuses none.
        context: Tokens of prompt and output.
        beyond: What becomes of what does not fit; it is refused by default.
    """

    def __init__(
        self,
        mind: Mind = lambda thought: thought,
        *,
        reply: Callable[[Ask, Reply], Reply] = lambda ask, reply: reply,
        apart: bool = False,
        ids: bool = True,
        base: int = 100,
        refuses: Callable[[Ask], str] = lambda ask: "",
        context: int = 4096,
        beyond: Beyond = lambda prompt, max_tokens, context: None,
    ) -> None:
        self._beyond = beyond
        self._mind, self._reply, self._apart, self._ids = mind, reply, apart, ids
        self._base, self._refuses, self._context = base, refuses, context
        self._vocabulary: dict[str, int] = {EOS: 0}
        self._texts: list[str] = [EOS]
        self.calls = 0
        self.continues = ids
        self.engine_name = "fake"
        self.eos_ids = frozenset({0})

    @property
    def context(self) -> int:
        return self._context

    def render(self, messages: Sequence[Mapping[str, str]], thinking: bool | None = None) -> Prompt:
        text = "".join(f"[{each['role']}] {each['content']}\n" for each in messages)
        return Prompt(self.encode(text), text)

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(map(self._id, re.findall(r"</?think>|<eos>|\n|\s+|[^\s<]+\s?|<", text)))

    def _id(self, piece: str) -> int:
        if piece not in self._vocabulary:
            self._vocabulary[piece] = len(self._texts)
            self._texts.append(piece)
        return self._vocabulary[piece]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self._texts[each] for each in ids if each)

    def rows(self, prompt: int, total: int) -> int:
        return 8

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> Iterator[Generated]:
        raise NotImplementedError

    def close(self) -> None:
        """Nothing to free."""

    def count(self, text: str) -> int:
        return len(self.encode(text))

    def ask(self, asks: Sequence[Ask], at_once: int = 1) -> list[Reply]:
        return [self._reply(ask, self._one(ask, at_once)) for ask in asks]

    def _one(self, ask: Ask, at_once: int) -> Reply:
        sent = {"max_tokens": ask.max_tokens, **ask.fields}
        if ask.template:
            sent["chat_template_kwargs"] = dict(ask.template)
        if refusal := self._refuses(ask):
            return Reply(sent, error=refusal, status=400)
        prompt = ask.prompt_ids or self.render(ask.messages).ids
        fate = Fate(prompt, ask.max_tokens)
        if len(prompt) + ask.max_tokens > self._context:
            own = self._beyond(prompt, ask.max_tokens, self._context)
            if own is None:
                return Reply(sent, error="too long", status=400)
            fate = own
            ask = replace(ask, prompt_ids=fate.seen, messages=(), max_tokens=fate.cap)
        choices = tuple(self._choice(ask, sample, at_once, fate.word) for sample in range(ask.n))
        usage = {
            "prompt_tokens": len(prompt) if fate.counted is None else fate.counted,
            "completion_tokens": sum(len(choice.ids or ()) for choice in choices),
        }
        if not self._ids:
            choices = tuple(replace(choice, ids=None) for choice in choices)
        return Reply(sent, choices, usage, prompt_tokens=len(prompt))

    def _choice(self, ask: Ask, sample: int, at_once: int, cut: str) -> ProbeOutput:
        self.calls += 1
        text = self.decode(ask.prompt_ids)
        opened = text.rfind(OPEN) > text.rfind(CLOSE)
        content = text or ask.messages[-1]["content"]
        length = self._base + zlib.crc32(content.encode()) % 40
        noise = (ask.seed or 0) * 10 + sample + 1 if ask.temperature else 0
        written = self._mind(Thought(ask, opened, length, 12, noise))
        tokens = [*(words(written) if isinstance(written, Thought) else written), EOS]
        reason = "stop"
        for stop in ask.stop:
            whole = "".join(tokens)
            if stop in whole:
                while stop in "".join(tokens[:-1]):
                    tokens.pop()
        if len(tokens) > ask.max_tokens:
            tokens, reason = tokens[: ask.max_tokens], cut
        ids = tuple(map(self._id, tokens))
        text = self.decode(ids)
        before, _, after = text.partition(CLOSE)
        if self._apart and (opened or text.startswith(OPEN)):
            thought = before.removeprefix(OPEN)
            return ProbeOutput(ids, after, reason, thought, text, opened)
        return ProbeOutput(ids, text, reason, None, text, opened)


def bench(engine: FakeEngine, **options: Any) -> ProbeContext:
    """A bench for a fake engine."""
    return ProbeContext(engine, SPEC, **options)
