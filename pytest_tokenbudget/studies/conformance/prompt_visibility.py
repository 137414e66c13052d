"""Which part of a prompt an engine dropped, found out by what decides its output.

The prompts have a wished length, and a fact at the beginning, in the middle and at the end. Of two
prompts that differ in one fact only, greedy outputs are the same where the engine does not see that
fact, and mostly differ where it does. So a fact is *seen* if the output tells each of its two
values, or changes with it; *not seen* if the output stays the same, token for token, and changes in
a prompt that fits; and else nothing is told. That needs neither a model that remembers well nor an
engine that gives ids, log-probabilities or honest counts.
"""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

from pytest_tokenbudget.core.engine import EngineError
from pytest_tokenbudget.core.probes import Ask, Reply
from pytest_tokenbudget.studies.conformance.analysis import Behaviour, Sight
from pytest_tokenbudget.studies.conformance.probe_context import STOP_WORDS, Messages, ProbeContext
from pytest_tokenbudget.tasks.recall import ACKNOWLEDGEMENTS, GOODS, RECALL_INSTRUCTION, filler
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
_SYSTEM = {"role": "system", "content": RECALL_INSTRUCTION}


class FilledPrompt(NamedTuple):
    """A request, and the tokens of its prompt; None where nobody here can count them."""

    ask: Ask
    tokens: int | None


class Fact(NamedTuple):
    """What is told about one person: a name, and two things it may be, of as many tokens."""

    name: str
    values: tuple[str, str]

    def statement(self, other: bool) -> str:
        """The sentence with the one value or with the other."""
        return f"I sold {self.name} {self.values[other]}."


class PromptFiller:
    """Makes the prompts for one engine."""

    def __init__(self, probe_context: ProbeContext) -> None:
        self._probe_context = probe_context
        self._known_turns: dict[tuple[str, int], int] = {}

    @cached_property
    def facts(self) -> dict[str, Fact]:
        """What is told at each place. Names and values are as short as this tokenizer has them."""
        count = self._probe_context.engine.count
        names = sorted(NAMES, key=lambda name: (count(f" {name}") or len(name), name))
        alike: defaultdict[int, list[str]] = defaultdict(list)
        for good in sorted(GOODS):
            alike[count(f" {good}") or 0].append(good)
        enough = [alike[size] for size in sorted(alike) if len(alike[size]) >= 2 * len(PLACES)]
        goods = enough[0] if enough else sorted(GOODS)
        return {
            place: Fact(names[number], (goods[2 * number], goods[2 * number + 1]))
            for number, place in enumerate(PLACES)
        }

    @cached_property
    def least(self) -> int:
        """Tokens from the start up to where the fact at the beginning ends."""
        return self._size((_SYSTEM, *self._messages(0, ())[:2]))

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
        asked = (_SYSTEM, {"role": "user", "content": f"What did I sell {self.facts[place].name}?"})
        return self._filled(asked, tokens, max_tokens, place if changed else "")

    def problem(self, number: int, tokens: int, max_tokens: int) -> FilledPrompt:
        """A prompt that ends in a problem which is thought about for long."""
        candidates = self._probe_context.candidates
        filled = candidates[number % len(candidates)] if candidates else ()
        return self._filled(filled, tokens, max_tokens)

    def _filled(
        self, asked: Messages, tokens: int, max_tokens: int, changed: str = ""
    ) -> FilledPrompt:
        turns = self._turns(asked, tokens)
        if not self._probe_context.takes_ids:
            messages = self._fitted(turns, asked, tokens, changed)
            ask = self._probe_context.plain(messages, max_tokens)
            return FilledPrompt(ask, self._counted(messages))
        ask = self._probe_context.plain(self._messages(turns, asked, changed), max_tokens)
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
        count = self._probe_context.engine.count
        texts = [message["content"] for message in messages]
        return sum((count(text) or len(text.split()) * 2) + _MESSAGE for text in texts)

    def _counted(self, messages: Messages) -> int | None:
        try:
            return len(self._probe_context.engine.render(messages).ids)
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


Ids = tuple[int, ...]
# What tells one output from another: its ids, else its text.
Key = Ids | str
# Of two prompts that differ in one fact.
Pair = tuple[Reply, Reply]
# Output tokens of a question for a fact.
ANSWER = 48
# Counts from text, or of another template, may be off by this.
SLACK = 8

CUTS = {"left": Behaviour.CUT_LEFT, "right": Behaviour.CUT_RIGHT, "middle": Behaviour.CUT_MIDDLE}
_KEPT = {"left": "the last {} tokens", "right": "the first {}", "middle": "{} tokens of both ends"}


@dataclass(frozen=True)
class PromptView:
    """What was found out about a prompt that does not fit and was answered.

    Attributes:
        sent: Its tokens; None where nobody here can count them.
        counted: Its tokens as the engine counts them.
        sights: What was seen of it, by place.
        cut: Which way of shortening it gives the very same output; empty if none, or several.
        kept: The same for people, with the tokens that are left.
    """

    sent: int | None
    counted: int | None
    sights: Mapping[str, Sight] = field(default_factory=dict)
    cut: str = ""
    kept: str = ""

    @property
    def shortened(self) -> bool | None:
        """Whether the engine counts less than was sent; None where it does not say."""
        if self.sent is None or self.counted is None:
            return None
        return self.counted < self.sent - SLACK


def where_cut(look: PromptView) -> tuple[Behaviour, str]:
    """What became of the prompt, and the evidence for it.

    Never by a count alone, which is a claim; but where beginning and end are seen and less is
    counted than was sent, what is missing lies between them.
    """
    sights = [look.sights.get(place, Sight.UNTOLD) for place in PLACES]
    facts = "; ".join(
        f"{', '.join(places)} {sight}"
        for sight in Sight
        if (places := [place for place in PLACES if look.sights.get(place) is sight])
    )
    found = _by_facts(sights, look.shortened)
    said = f"of its facts: {facts}" if facts else "its facts could not be asked for"
    if look.counted is not None:
        of = "" if look.sent is None else f" of {look.sent:,}"
        said += f"; {look.counted:,}{of} tokens counted"
    compared = CUTS.get(look.cut, Behaviour.NOT_RESOLVED)
    if compared is Behaviour.CUT_MIDDLE and found is not compared:
        # Both ends are enough to answer the question: so it is answered by whoever sees all, too.
        return found, said
    if look.kept:
        said += f"; the same comes of {look.kept} alone"
    if found is Behaviour.NOT_RESOLVED:
        return compared, said
    if compared not in (found, Behaviour.NOT_RESOLVED):
        return Behaviour.NOT_RESOLVED, f"{said}, which do not agree"
    return found, said


def _by_facts(sights: list[Sight], shortened: bool | None) -> Behaviour:
    beginning, middle, end = sights
    if (beginning, end) == (Sight.UNSEEN, Sight.SEEN):
        return Behaviour.CUT_LEFT
    if (beginning, end) == (Sight.SEEN, Sight.UNSEEN):
        return Behaviour.CUT_RIGHT
    if (beginning, end) == (Sight.SEEN, Sight.SEEN):
        if middle is Sight.UNSEEN or shortened:
            return Behaviour.CUT_MIDDLE
        if middle is Sight.SEEN and shortened is False:
            return Behaviour.WHOLE
    return Behaviour.NOT_RESOLVED


class VisibilityProbe:
    """Finds out what an engine sees of prompts that do not fit."""

    def __init__(self, probe_context: ProbeContext, filling: PromptFiller) -> None:
        self._probe_context, self._filling = probe_context, filling
        self._fitting: dict[str, Pair] = {}

    def view(self, tokens: int) -> PromptView:
        """Look at a prompt of that length, with :data:`ANSWER` output tokens."""
        pairs = {place: self._pair(place, tokens) for place in PLACES}
        first = pairs[BEGINNING][0]
        filled = self._filling.question(BEGINNING, tokens, ANSWER)
        counted = first.usage.get("prompt_tokens")
        sights = {place: self._sight(place, pairs[place], tokens) for place in PLACES}
        look = PromptView(filled.tokens, counted, sights)
        return self._compared(look, filled, first)

    def _pair(self, place: str, tokens: int, begun: Ids = ()) -> Pair:
        """Replies to the question with the one value of the fact and with the other."""
        one, other = (self._asked(place, tokens, begun, changed) for changed in (False, True))
        return one, other

    def _asked(self, place: str, tokens: int, begun: Ids, changed: bool) -> Reply:
        ask = self._filling.question(place, tokens, ANSWER, changed).ask
        if begun:
            ask = replace(ask, prompt_ids=(*ask.prompt_ids, *begun))
        return self._probe_context.ask([ask])[0]

    def _sight(self, place: str, pair: Pair, tokens: int) -> Sight:
        if not all(reply.choices for reply in pair):
            return Sight.UNTOLD
        if self._told(place, pair):
            return Sight.SEEN
        known = self._known(place)
        sight = self._by_change(place, pair, tokens, known)
        if sight is Sight.UNTOLD and known is not None and self._probe_context.takes_ids:
            # Of an output of a token or two nothing is told, unless that is where values part.
            begun = _in_common(*known)
            again = self._pair(place, tokens, begun)
            if all(reply.choices for reply in again):
                rest = known[0][len(begun) :], known[1][len(begun) :]
                sight = self._by_change(place, again, tokens, rest, begun)
        return sight

    def _told(self, place: str, pair: Pair) -> bool:
        """Whether each output tells its own value of the fact, and not the other."""
        values = self._filling.facts[place].values
        texts = [reply.choices[0].text.lower() for reply in pair]
        return all(
            own in text and other not in text
            for text, own, other in zip(texts, values, reversed(values), strict=True)
        )

    def _by_change(
        self, place: str, pair: Pair, tokens: int, known: tuple[Key, Key] | None, begun: Ids = ()
    ) -> Sight:
        """Whether the outputs change with the fact, as far as they do where all fits."""
        one, other = self._keys(pair)
        if one != other:
            again = self._asked(place, tokens, begun, changed=False)
            # An engine that does not repeat itself changes its output without any reason.
            steady = bool(again.choices) and self._probe_context.key(again.choices[0]) == one
            return Sight.SEEN if steady else Sight.UNTOLD
        if known is None:
            return Sight.UNTOLD
        ended = all(reply.choices[0].finish_reason in STOP_WORDS for reply in pair)
        reach = None if ended else len(one)
        return Sight.UNSEEN if known[0][:reach] != known[1][:reach] else Sight.UNTOLD

    def _known(self, place: str) -> tuple[Key, Key] | None:
        """The outputs for both values in a prompt that fits; None if they do not differ there."""
        if place not in self._fitting:
            fits = self._probe_context.engine.context - ANSWER - SLACK
            self._fitting[place] = self._pair(place, fits)
        pair = self._fitting[place]
        if not all(reply.choices for reply in pair):
            return None
        one, other = self._keys(pair)
        return None if one == other else (one, other)

    def _keys(self, pair: Pair) -> tuple[Key, Key]:
        one, other = pair
        return self._probe_context.key(one.choices[0]), self._probe_context.key(other.choices[0])

    def _compared(self, look: PromptView, filled: FilledPrompt, reply: Reply) -> PromptView:
        """The look, with what the same prompt gives where it was shortened on purpose."""
        ids = filled.ask.prompt_ids
        if not ids or not reply.choices:
            return look
        key = self._probe_context.key(reply.choices[0])
        context = self._probe_context.engine.context
        sizes = [context - ANSWER, context - ANSWER - 1]
        if look.shortened and look.counted:
            sizes = [look.counted]
        for size in sizes:
            room = min(ANSWER, context - size)
            if room < 1 or not key or size >= len(ids):
                continue
            same, others = [], 0
            for name, kept in cut_at(ids, size).items():
                ask = replace(filled.ask, prompt_ids=kept, max_tokens=room)
                (cut,) = self._probe_context.ask([ask])
                if cut.choices and self._probe_context.key(cut.choices[0])[:room] == key[:room]:
                    same.append(name)
                else:
                    others += bool(cut.choices)
            if len(same) == 1 and others:
                return replace(look, cut=same[0], kept=_KEPT[same[0]].format(f"{size:,}"))
        return look


def _in_common(one: Key, other: Key) -> Ids:
    """The ids that two outputs begin with; none of texts."""
    if isinstance(one, str) or isinstance(other, str):
        return ()
    alike = itertools.takewhile(lambda both: both[0] == both[1], zip(one, other, strict=False))
    return tuple(first for first, _ in alike)
