"""Which part of a prompt an engine dropped, found out by what decides its output.

Of two prompts that differ in one fact only, greedy outputs are the same where the engine does not
see that fact, and mostly differ where it does. So a fact is *seen* if the output tells each of its
two values, or changes with it; *not seen* if the output stays the same, token for token, and
changes in a prompt that fits; and else nothing is told. That needs neither a model that remembers
well nor an engine that gives ids, log-probabilities or honest counts.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pytest_tokenbudget.core.probes import Reply
from pytest_tokenbudget.studies.conformance.filled_prompts import (
    BEGINNING,
    PLACES,
    FilledPrompt,
    Filling,
    cut_at,
)
from pytest_tokenbudget.studies.conformance.probe_context import STOP_WORDS, ProbeContext
from pytest_tokenbudget.studies.conformance.results import Behaviour, Sight

Ids = tuple[int, ...]
# What tells one output from another: its ids, else its text.
Key = Ids | str
# Of two prompts that differ in one fact.
Pair = tuple[Reply, Reply]
# Output tokens of a question for a fact.
ANSWER = 48
# Counts from text, or of another template, may be off by this.
SLACK = 8

CUTS: Mapping[str, Behaviour] = {
    "left": Behaviour.CUT_LEFT,
    "right": Behaviour.CUT_RIGHT,
    "middle": Behaviour.CUT_MIDDLE,
}
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


class Looking:
    """Finds out what an engine sees of prompts that do not fit.

    Args:
        bench: The engine.
        filling: Makes its prompts.
    """

    def __init__(self, bench: ProbeContext, filling: Filling) -> None:
        self._bench, self._filling = bench, filling
        self._fitting: dict[str, Pair] = {}

    def at(self, tokens: int) -> PromptView:
        """Look at a prompt of that length, with :data:`ANSWER` output tokens."""
        pairs = {place: self._pair(place, tokens) for place in PLACES}
        first = pairs[BEGINNING][0]
        posed = self._filling.question(BEGINNING, tokens, ANSWER)
        counted = first.usage.get("prompt_tokens")
        sights = {place: self._sight(place, pairs[place], tokens) for place in PLACES}
        look = PromptView(posed.tokens, counted, sights)
        return self._compared(look, posed, first)

    def _pair(self, place: str, tokens: int, begun: Ids = ()) -> Pair:
        """Replies to the question with the one value of the fact and with the other."""
        return (
            self._asked(place, tokens, begun, changed=False),
            self._asked(place, tokens, begun, changed=True),
        )

    def _asked(self, place: str, tokens: int, begun: Ids, changed: bool) -> Reply:
        ask = self._filling.question(place, tokens, ANSWER, changed).ask
        if begun:
            ask = replace(ask, prompt_ids=(*ask.prompt_ids, *begun))
        return self._bench.ask([ask])[0]

    def _sight(self, place: str, pair: Pair, tokens: int) -> Sight:
        if not all(reply.choices for reply in pair):
            return Sight.UNTOLD
        if self._told(place, pair):
            return Sight.SEEN
        known = self._known(place)
        sight = self._by_change(place, pair, tokens, known)
        if sight is Sight.UNTOLD and known is not None and self._bench.takes_ids:
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
            steady = bool(again.choices) and self._bench.key(again.choices[0]) == one
            return Sight.SEEN if steady else Sight.UNTOLD
        if known is None:
            return Sight.UNTOLD
        ended = all(reply.choices[0].finish_reason in STOP_WORDS for reply in pair)
        reach = None if ended else len(one)
        return Sight.UNSEEN if known[0][:reach] != known[1][:reach] else Sight.UNTOLD

    def _known(self, place: str) -> tuple[Key, Key] | None:
        """The outputs for both values in a prompt that fits; None if they do not differ there."""
        if place not in self._fitting:
            fits = self._bench.engine.context - ANSWER - SLACK
            self._fitting[place] = self._pair(place, fits)
        pair = self._fitting[place]
        if not all(reply.choices for reply in pair):
            return None
        one, other = self._keys(pair)
        return None if one == other else (one, other)

    def _keys(self, pair: Pair) -> tuple[Key, Key]:
        one, other = pair
        return self._bench.key(one.choices[0]), self._bench.key(other.choices[0])

    def _compared(self, look: PromptView, posed: FilledPrompt, reply: Reply) -> PromptView:
        """The look, with what the same prompt gives where it was shortened on purpose."""
        ids = posed.ask.prompt_ids
        if not ids or not reply.choices:
            return look
        key = self._bench.key(reply.choices[0])
        context = self._bench.engine.context
        sizes = [context - ANSWER, context - ANSWER - 1]
        if look.shortened and look.counted:
            sizes = [look.counted]
        for size in sizes:
            room = min(ANSWER, context - size)
            if room < 1 or not key or size >= len(ids):
                continue
            same, others = [], 0
            for name, kept in cut_at(ids, size).items():
                ask = replace(posed.ask, prompt_ids=kept, max_tokens=room)
                (cut,) = self._bench.ask([ask])
                if cut.choices and self._bench.key(cut.choices[0])[:room] == key[:room]:
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
