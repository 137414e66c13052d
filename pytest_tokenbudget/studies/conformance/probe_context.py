"""What probes work with: an engine, prompts that make its model think long, and its tags."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any

from pytest_tokenbudget.core.engine import EngineError, Request
from pytest_tokenbudget.core.probes import Ask, NoAnswerError, Probed, ProbeOutput, Reply
from pytest_tokenbudget.models.spec import ModelSpec
from pytest_tokenbudget.models.thinking_formats import GENERIC, builtin_formats
from pytest_tokenbudget.studies.conformance.analysis import LimitFinding, LimitResult, Observation
from pytest_tokenbudget.tasks.problem import SOLVE_INSTRUCTION
from pytest_tokenbudget.tasks.word_problems import held_out
from pytest_tokenbudget.texts.detokenizer import text_and_offsets
from pytest_tokenbudget.texts.thinking_blocks import Blocks, OutputPart, answer_tokens, parse

Messages = tuple[Mapping[str, str], ...]

PROMPTS = 10
CAP = 1024
AT_ONCE = 10
# Words of engines for an output that the cap ended, and for one that ended by itself.
LENGTH_WORDS = frozenset({"length", "max_tokens", "limit"})
STOP_WORDS = frozenset({"stop", "eos", "end_turn", "stop_sequence", "eos_token"})

PUZZLES = (
    "Five people sit in a row. Ann is not at an end. Bob sits directly to the left of Cid. Dee is "
    "at the left end. Eve does not sit next to Dee. Who sits in the middle? Check every order.",
    "Find all whole numbers from 1 to 60 that leave 2 when divided by 3, 3 when divided by 5 and "
    "1 when divided by 4, and say what they add up to.",
    "A ferry takes at most two people at a time and needs one to row back. Four people need 1, 2, "
    "5 and 10 minutes, a pair as long as its slower one. What is the shortest time for all four?",
    "In how many ways can 50 cents be paid with coins of 5, 10 and 20 cents? List them in order.",
    "Each letter stands for another digit: AB + BA = CAC. Which digits are A, B and C? Try all.",
    "One of three boxes holds a coin. The first says: it is here. The second: it is not here. The "
    "third: it is not in the first. Exactly one of them tells the truth. Which box holds it?",
)


@dataclass(frozen=True)
class ReadOutput:
    """A choice, read.

    Attributes:
        observation: What it amounts to.
        tokens: What tells it from others: its ids, else its text.
    """

    observation: Observation
    tokens: tuple[int, ...] | str


def silent(line: str) -> None:
    """Say nothing."""


class TokenCount:
    """Counts answers and output tokens for whoever shows progress."""

    def __init__(self) -> None:
        self.answers = self._tokens = 0
        self._going_on: dict[str, int] = {}

    @property
    def tokens(self) -> int:
        """Output tokens so far, those of unfinished answers among them."""
        return self._tokens + sum(self._going_on.copy().values())

    def __call__(self, request: Request, tokens: int) -> None:
        """Take the output tokens that an unfinished answer has now."""
        self._going_on[request.key] = tokens

    def take(self, replies: Sequence[Reply]) -> None:
        """Take finished answers, in the place of unfinished ones."""
        self._going_on.clear()
        for reply in replies:
            self.answers += len(reply.choices)
            ids = [len(choice.ids) for choice in reply.choices if choice.ids is not None]
            self._tokens += sum(ids) or reply.usage.get("completion_tokens", 0)


class ProbeContext:
    """What the probes of one engine share. Prompts are chosen with the first thinking probe.

    Args:
        engine: The engine.
        spec: Its model.
        size: Prompts of the thinking probes.
        cap: Output tokens allowed where nothing is said about them.
        say: Takes lines for the terminal.
    """

    def __init__(
        self,
        engine: Probed,
        spec: ModelSpec,
        *,
        size: int = PROMPTS,
        cap: int = CAP,
        say: Callable[[str], None] = silent,
    ) -> None:
        self.engine = engine
        self.spec = spec
        self.form = spec.thinking or builtin_formats()[GENERIC]
        self.generations = 0
        self.tokens = TokenCount()
        self._size = size
        self._cap = cap
        self._say = say
        self._known: dict[str, list[list[Reply]]] = {}

    def ask(self, asks: Sequence[Ask], at_once: int = 1) -> list[Reply]:
        """Ask the engine, and count what it generates."""
        self.generations += sum(ask.n for ask in asks)
        self.engine.tally = self.tokens
        try:
            replies = self.engine.ask(asks, at_once)
        finally:
            self.engine.tally = None
        self.tokens.take(replies)
        return replies

    def ask_again(self, asks: Sequence[Ask], times: int) -> list[list[Reply]]:
        """The replies to asks that several probes need, as often as that; asked once."""
        key = repr(asks)
        known = self._known.setdefault(key, [])
        while len(known) < times:
            known.append(self.ask(asks, AT_ONCE))
        return known[:times]

    @property
    def takes_ids(self) -> bool:
        """Whether the engine takes prompts as token ids."""
        return bool(getattr(self.engine, "continues", True))

    @cached_property
    def slack(self) -> int:
        """Tokens above a budget that count as kept: both tags with their line ends, and one."""
        names = [closer.name for closer in self.form.closers]
        close = self.form.closer("bare" if "bare" in names else None).text
        if len(close) > 4 * len(self.form.close) and not self.form.answer:
            close = f"\n{self.form.close}\n\n"
        counts = [self.engine.count(text) for text in (f"{self.form.open}\n", close)]
        return sum(8 if count is None else count for count in counts) + 1

    @cached_property
    def candidates(self) -> tuple[Messages, ...]:
        """Prompts that may make a model think long: the longest word problems, and puzzles."""
        problems = sorted(islice(held_out(), 200), key=lambda p: -int(str(p.metadata["steps"])))
        puzzles = [
            ({"role": "system", "content": SOLVE_INSTRUCTION}, {"role": "user", "content": text})
            for text in PUZZLES
        ]
        stories = [problem.messages for problem in problems[: max(self._size + 2, 8)]]
        return tuple(each for each in (*stories, *puzzles) if self.room(each) >= 64)

    @cached_property
    def easy(self) -> tuple[Messages, ...]:
        """Prompts whose outputs end early, for what must be seen to its end."""
        problems = sorted(islice(held_out(), 200), key=lambda p: int(str(p.metadata["steps"])))
        return tuple(problem.messages for problem in problems[: self._size])

    @cached_property
    def _chosen(self) -> tuple[tuple[Messages, ...], int]:
        """The candidates that think longest, and the cap that does not cut them."""
        asks = [Ask(min(self._cap, self.room(each)), each) for each in self.candidates]
        replies = self.ask(asks, AT_ONCE)
        found = []
        for place, reply in enumerate(replies):
            if reply.choices:
                seen = self.read(place, reply.choices[0], None, asks[place].max_tokens).observation
                found.append((seen.thinking, seen.thinking + seen.answer, place))
        if not found:
            failed = [reply for reply in replies if reply.error]
            error = failed[0].error if failed else "no output"
            lost = failed and not any(reply.refused for reply in failed)
            kind = NoAnswerError if lost else EngineError
            raise kind(f"no prompt could be asked for the thinking probes: {error}")
        best = sorted(found, key=lambda each: (-each[0], each[2]))[: self._size]
        longest = max(total for _, total, _ in best)
        self._say(
            f"{len(best)} of {len(self.candidates)} prompts chosen: thinking for "
            f"{best[-1][0]} to {best[0][0]} tokens"
        )
        prompts = tuple(self.candidates[place] for _, _, place in best)
        room = min(self.room(each) for each in prompts)
        # Above the largest budget, so that keeping it is the engine's doing and not the cap's.
        return prompts, min(self._cap, room, max(longest, 256 + self.slack) + 128)

    @property
    def prompts(self) -> tuple[Messages, ...]:
        """The prompts that make this model think longest."""
        return self._chosen[0]

    @property
    def cap(self) -> int:
        """Output tokens allowed for each of the prompts."""
        return self._chosen[1]

    def room(self, messages: Messages) -> int:
        """Output tokens that fit behind a prompt, tags that may be added to it allowed for."""
        try:
            used = len(self.engine.render(messages).ids)
        except EngineError:
            text = " ".join(message["content"] for message in messages)
            used = (self.engine.count(text) or len(text)) + 64
        return self.engine.context - used - 32

    def opened_ids(self, messages: Messages) -> tuple[int, ...]:
        """A prompt that ends inside an open thinking block."""
        prompt = self.engine.render(messages)
        if self.form.left_open(prompt.text):
            return prompt.ids
        return self.engine.encode(f"{prompt.text}{self.form.open}\n")

    def plain(self, messages: Messages, max_tokens: int) -> Ask:
        """An ask as the limits need it: by ids where the engine takes them."""
        if self.takes_ids:
            return Ask(max_tokens, prompt_ids=self.engine.render(messages).ids)
        return Ask(max_tokens, messages)

    def length(self, choice: ProbeOutput, reply: Reply) -> int:
        """Output tokens, the end-of-sequence one included if the engine gives or counts it."""
        if choice.ids is not None:
            return len(choice.ids)
        counted = reply.usage.get("completion_tokens")
        if counted is not None and len(reply.choices) == 1:
            return counted
        return self.engine.count(choice.text) or 0

    def key(self, choice: ProbeOutput) -> tuple[int, ...] | str:
        """What tells an output from another: ids without end-of-sequence, else text."""
        if choice.ids is None:
            return choice.text
        ids = list(choice.ids)
        while ids and ids[-1] in self.engine.eos_ids:
            ids.pop()
        return tuple(ids)

    def read(
        self, prompt: int, choice: ProbeOutput, opened: bool | None, cap: int, apart: bool = False
    ) -> ReadOutput:
        """What an output amounts to.

        Args:
            prompt: Number of its prompt.
            choice: The output.
            opened: Whether the prompt opened thinking; None takes the engine's word.
            cap: Output tokens that it was allowed.
            apart: Whether the engine sets reasoning apart in such replies.
        """
        opened = choice.opened if opened is None else opened
        key = self.key(choice)
        if isinstance(key, str):
            text = key
            blocks = parse(text, self.form, opened)
            parts = [text[s.start : s.end] for s in blocks.spans if s.part is OutputPart.ANSWER]
            answer = sum(self.engine.count(part) or 0 for part in parts)
            total = self.engine.count(text) or 0
            spill = sum(self.engine.count(text[start:end]) or 0 for start, end in spilled(blocks))
        else:
            text, offsets = text_and_offsets(self.engine.decode, key)
            blocks = parse(text, self.form, opened, ids=key, offsets=offsets)
            answer, total = answer_tokens(blocks, len(text), offsets), len(key)
            spill = sum(
                bisect_left(offsets, end) - bisect_left(offsets, start)
                for start, end in spilled(blocks)
            )
        thinking = max(total - answer - spill - self._forced(text, blocks), 0)
        observation = Observation(
            prompt=prompt,
            thinking=thinking,
            answer=answer,
            opened=blocks.opened,
            closed=blocks.closed,
            reopened=blocks.reopened,
            spilled=blocks.spilled,
            capped=choice.finish_reason in LENGTH_WORDS or total >= cap,
            finish_reason=choice.finish_reason,
            in_content=apart and self._leaks(choice.content, text, blocks),
            excerpt=_excerpt(text, self.form.close),
            spill=spill,
        )
        return ReadOutput(observation, key)

    def _forced(self, text: str, blocks: Blocks) -> int:
        """Tokens of a known closing sentence, which the engine has put there."""
        before, closes, _ = text.partition(self.form.close)
        if not closes or not blocks.closed:
            return 0
        for closer in self.form.closers:
            sentence = closer.text.partition(self.form.close)[0].strip()
            if sentence and before.rstrip().endswith(sentence):
                return self.engine.count(sentence) or 0
        return 0

    def _leaks(self, content: str, text: str, blocks: Blocks) -> bool:
        """Whether content holds a tag, or its rest, or thinking."""
        rests = [tag.lstrip("<|/[") for tag in (self.form.open, self.form.close)]
        if any(rest in content for rest in rests if len(rest) > 3):
            return True
        answer = text[blocks.answer_start : blocks.answer_end] if blocks.answer_start else ""
        wholly_answer = blocks.answer_start == 0
        return bool(content.strip()) and not wholly_answer and not answer.strip()


def spilled(blocks: Blocks) -> list[tuple[int, int]]:
    """Where a text is thinking that went on after its close: from, to below, in rising order."""
    if not blocks.closed or not blocks.open_at:
        return []
    first = min(end for _, end in blocks.open_at)
    return [
        (span.start, span.end)
        for span in blocks.spans
        if span.part is not OutputPart.ANSWER
        and span.start >= first
        and not any(start <= span.start < end or span.end == start for start, end in blocks.open_at)
        and blocks.spilled | blocks.reopened
    ]


def with_suffix(messages: Messages, suffix: str) -> Messages:
    """Messages whose last one of the user ends with a text."""
    for place in range(len(messages) - 1, -1, -1):
        if messages[place]["role"] == "user":
            changed = {**messages[place], "content": messages[place]["content"] + suffix}
            return (*messages[:place], changed, *messages[place + 1 :])
    return messages


def with_fields(ask: Ask, fields: Mapping[str, object], template: Mapping[str, object]) -> Ask:
    """An ask with more fields."""
    return replace(ask, fields={**ask.fields, **fields}, template={**ask.template, **template})


def _excerpt(text: str, close: str, reach: int = 60) -> str:
    place = text.find(close)
    if place < 0:
        return text[-2 * reach :]
    return text[max(0, place - reach) : place + len(close) + reach]


def shortened_request(sent: Mapping[str, Any], limit: int = 400) -> dict[str, Any]:
    """A request as sent, its long texts and lists shortened."""

    def cut(value: object) -> object:
        if isinstance(value, str) and len(value) > limit:
            return f"{value[:limit]} ... ({len(value)} characters)"
        if isinstance(value, Mapping):
            return {str(key): cut(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            parts = [cut(item) for item in value[:16]]
            return [*parts, f"... ({len(value)} in all)"] if len(value) > 16 else parts
        return value

    return {str(key): cut(value) for key, value in sent.items()}


def shown(reply: Reply, **more: object) -> dict[str, Any]:
    """A reply as evidence: the request as sent, and what came of it."""
    found: dict[str, Any] = {"request": shortened_request(reply.sent)}
    if reply.error:
        found |= {"error": reply.error[:400], "status": reply.status}
    if reply.choices:
        found["finish_reasons"] = [choice.finish_reason for choice in reply.choices[:8]]
        found["tokens"] = [
            None if choice.ids is None else len(choice.ids) for choice in reply.choices[:8]
        ]
        found["text_end"] = reply.choices[0].text[-80:]
    if reply.usage:
        found["usage"] = dict(reply.usage)
    return found | more


def not_possible(probe: str, reason: str, reply: Reply | None = None) -> LimitResult:
    """A probe that this engine cannot be asked.

    Raises:
        NoAnswerError: If the engine did not refuse it, but failed or did not answer.
    """
    if reply is not None and reply.error and not reply.refused:
        raise NoAnswerError(f"{probe}: {reason if reply.error in reason else reply.error}")
    evidence = () if reply is None else (shown(reply),)
    return LimitResult(probe, LimitFinding.NOT_POSSIBLE, reason, evidence=evidence)
