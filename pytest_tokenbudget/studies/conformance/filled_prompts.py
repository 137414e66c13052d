"""Prompts of a wished length, with a fact at the beginning, in the middle and at the end."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

from pytest_tokenbudget.core.engine import EngineError
from pytest_tokenbudget.core.probes import Ask
from pytest_tokenbudget.studies.conformance.probe_context import Messages, ProbeContext
from pytest_tokenbudget.tasks.recall import (
    ACKNOWLEDGEMENTS,
    GOODS,
    RECALL_INSTRUCTION,
    filler,
)
from pytest_tokenbudget.tasks.word_problems import NAMES

BEGINNING, MIDDLE, END = "beginning", "middle", "end"
PLACES = (BEGINNING, MIDDLE, END)
# Of the filler turns, those before the fact in the middle. Whoever keeps one half of a prompt that
# is twice too long, either half, or a quarter at both ends, is told by it.
_BEFORE_MIDDLE = 0.4
# Where ids are left out to hit a length: between the facts.
_GAP = 0.2
# What tags and line ends of a message take, where no template is known.
_MESSAGE = 6
_WORD = " very"


class FilledPrompt(NamedTuple):
    """A prompt as it is sent.

    Attributes:
        ask: The request.
        tokens: Tokens of its prompt; None where nobody here can count them.
    """

    ask: Ask
    tokens: int | None


class Told(NamedTuple):
    """What is told about one person.

    Attributes:
        name: The person.
        values: Two things that it may be, of as many tokens.
    """

    name: str
    values: tuple[str, str]

    def statement(self, other: bool) -> str:
        """The sentence with the one value or with the other."""
        return f"I sold {self.name} {self.values[other]}."

    @property
    def question(self) -> str:
        """What asks for the value."""
        return f"What did I sell {self.name}?"


class Filling:
    """Makes the prompts for one engine.

    Args:
        bench: The engine.
    """

    def __init__(self, bench: ProbeContext) -> None:
        self._bench = bench

    @cached_property
    def facts(self) -> dict[str, Told]:
        """What is told at each place. Names and values are as short as this tokenizer has them."""
        count = self._bench.engine.count
        names = sorted(NAMES, key=lambda name: (count(f" {name}") or len(name), name))
        alike: defaultdict[int, list[str]] = defaultdict(list)
        for good in sorted(GOODS):
            alike[count(f" {good}") or 0].append(good)
        enough = [alike[size] for size in sorted(alike) if len(alike[size]) >= 2 * len(PLACES)]
        goods = enough[0] if enough else sorted(GOODS)
        return {
            place: Told(names[number], (goods[2 * number], goods[2 * number + 1]))
            for number, place in enumerate(PLACES)
        }

    @cached_property
    def least(self) -> int:
        """Tokens from the start up to where the fact at the beginning ends."""
        return self._size(
            ({"role": "system", "content": RECALL_INSTRUCTION}, *self._messages(0, ())[:2])
        )

    def question(
        self, place: str, tokens: int, max_tokens: int, changed: bool = False
    ) -> FilledPrompt:
        """A prompt that ends in the question for the fact at a place.

        Args:
            place: One of :data:`PLACES`.
            tokens: How long it shall be.
            max_tokens: Output tokens asked for.
            changed: Whether that fact is another one. All else is the same.
        """
        fact = self.facts[place]
        asked = (
            {"role": "system", "content": RECALL_INSTRUCTION},
            {"role": "user", "content": fact.question},
        )
        return self._posed(asked, tokens, max_tokens, place if changed else "")

    def problem(self, number: int, tokens: int, max_tokens: int) -> FilledPrompt:
        """A prompt that ends in a problem which is thought about for long."""
        candidates = self._bench.candidates
        posed = candidates[number % len(candidates)] if candidates else ()
        return self._posed(posed, tokens, max_tokens)

    def _posed(
        self, asked: Messages, tokens: int, max_tokens: int, changed: str = ""
    ) -> FilledPrompt:
        turns = self._turns(asked, tokens)
        if not self._bench.takes_ids:
            messages = self._fitted(turns, asked, tokens, changed)
            ask = self._bench.plain(messages, max_tokens)
            return FilledPrompt(ask, self._counted(messages))
        ask = self._bench.plain(self._messages(turns, asked, changed), max_tokens)
        spare = len(ask.prompt_ids) - tokens
        if spare > 0:
            gap = int(len(ask.prompt_ids) * _GAP)
            kept = ask.prompt_ids[:gap] + ask.prompt_ids[gap + spare :]
            ask = replace(ask, prompt_ids=kept)
        return FilledPrompt(ask, len(ask.prompt_ids))

    def _turns(self, asked: Messages, tokens: int) -> int:
        """Filler turns that make it just longer."""
        key = (str(asked), tokens)
        if key not in self._known_turns:
            rest = self._size(self._messages(0, asked))
            each = max((self._size(self._messages(40, asked)) - rest) / 40, 1)
            turns = max(int((tokens - rest) / each), 0)
            while self._size(self._messages(turns, asked)) < tokens:
                turns += 1
            self._known_turns[key] = turns
        return self._known_turns[key]

    @cached_property
    def _known_turns(self) -> dict[tuple[str, int], int]:
        return {}

    def _fitted(self, turns: int, asked: Messages, tokens: int, changed: str) -> Messages:
        """The longest messages that are no longer than that, up to a word."""
        while turns and self._size(self._messages(turns, asked, changed)) > tokens:
            turns -= 1
        best = self._messages(turns, asked, changed)
        words = tokens - self._size(best)
        while words > 0:
            longer = self._messages(turns, asked, changed, f"It was{_WORD * words} long. ")
            over = self._size(longer) - tokens
            if over <= 0:
                return longer
            words -= over
        return best

    def _messages(
        self, turns: int, asked: Messages, changed: str = "", padding: str = ""
    ) -> Messages:
        rng = random.Random(0)
        said = [filler(rng) for _ in range(turns)]
        if said:
            said[int(turns * _GAP)] = padding + said[int(turns * _GAP)]
        said.insert(int(turns * _BEFORE_MIDDLE), self.facts[MIDDLE].statement(changed == MIDDLE))
        said.insert(0, self.facts[BEGINNING].statement(changed == BEGINNING))
        said.append(self.facts[END].statement(changed == END))
        messages: list[Mapping[str, str]] = []
        for sentence in said:
            messages.append({"role": "user", "content": sentence})
            messages.append({"role": "assistant", "content": rng.choice(ACKNOWLEDGEMENTS)})
        first = [message for message in asked if message["role"] == "system"]
        return (*first, *messages, *asked[len(first) :])

    def _size(self, messages: Messages) -> int:
        """Tokens of rendered messages, or about as many."""
        counted = self._counted(messages)
        if counted is not None:
            return counted
        count = self._bench.engine.count
        texts = [message["content"] for message in messages]
        return sum((count(text) or len(text.split()) * 2) + _MESSAGE for text in texts)

    def _counted(self, messages: Messages) -> int | None:
        try:
            return len(self._bench.engine.render(messages).ids)
        except EngineError:
            return None


def cut_at(ids: Sequence[int], kept: int) -> dict[str, tuple[int, ...]]:
    """A prompt shortened to so many tokens, in the ways in which engines do that."""
    half = kept // 2
    return {
        "left": tuple(ids[-kept:]),
        "right": tuple(ids[:kept]),
        "middle": (*ids[: kept - half], *ids[len(ids) - half :]),
    }
