"""Generated conversations that end with a question about something said earlier.

A conversation has a system message, facts told in user turns, filler turns between them and a
question at the end. ``recall`` asks for one fact; ``multi-hop`` needs two.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from pytest_tokenbudget.tasks.problem import Message, Problem, content_id
from pytest_tokenbudget.tasks.ruled import CONTAINS, GeneratedTask
from pytest_tokenbudget.tasks.word_problems import ANIMALS, NAMES

RECALL_INSTRUCTION = "You remember what you are told and answer in one sentence."
DEFAULT_SIZE = 110
MAX_SIZE = 100_000
DEPTHS = tuple(step / 10 for step in range(11))
FILLER_TURNS = (2, 6, 12, 20)

COLOURS = "blue red pink white brown yellow black green grey orange purple".split()
GOODS = (
    "buttons coins stamps pens plums pears beads stones keys cups tickets candles ribbons balls"
).split()
# Values, how one is told after "I" or "You", and the question. The value comes right after the
# name, and is one token of the embedded model: such a model learns to look up what followed a word
# long before it learns to look further back.
KINDS_OF_FACTS = {
    "colour": (
        COLOURS,
        "knitted {name} {value} socks.",
        "Which colour of socks did I knit {name}?",
    ),
    "goods": (GOODS, "sold {name} {value}.", "What did I sell {name}?"),
    "animals": (ANIMALS, "gave {name} {value}.", "Which animals did I give {name}?"),
    "lender": (NAMES, "lent {name} {value}'s book.", "Whose book did I lend {name}?"),
    "song": (NAMES, "taught {name} {value}'s song.", "Whose song did I teach {name}?"),
}
KINDS = tuple(KINDS_OF_FACTS)
ACKNOWLEDGEMENTS = ("Noted.", "I see.", "All right.", "Thank you.")

FILLER_SUBJECTS = (
    "The weather, The train, The old bridge, The market, The river, The music, The new road, "
    "The film, The match, The morning, The shop on the corner, The meeting"
).split(", ")
FILLER_PREDICATES = (
    "was very long today, was late again, was quiet this week, is open until night, looked nice in "
    "the sun, was better than last year, is full of people, was cold and wet, will be closed soon, "
    "took more time than planned, is not far from here, made everyone smile"
).split(", ")
FILLER_TAILS = (
    "",
    ", as far as I know",
    ", and nobody knew why",
    ", so we went home early",
    ", but that is fine",
    ", which was a surprise",
)


@dataclass(frozen=True)
class Fact:
    """Something told once, with its answer and the question that asks for ``value``.

    The question looks up the key; no two facts of a conversation share it.
    """

    statement: str
    answer: str
    question: str
    value: str
    key: str


@dataclass(frozen=True)
class Lookup:
    """A question over one or two facts and its answer sentence."""

    facts: tuple[Fact, ...]
    question: str
    answer: str
    value: str


def make_fact(rng: random.Random, name: str, kind: str | None = None) -> Fact:
    kind = kind or rng.choice(KINDS)
    values, told, question = KINDS_OF_FACTS[kind]
    value = rng.choice([other for other in values if other != name])
    said = told.format(name=name, value=value)
    return Fact(f"I {said}", f"You {said}", question.format(name=name), value, f"{name} {kind}")


def make_lookup(rng: random.Random, name: str, hops: int = 1, kind: str | None = None) -> Lookup:
    """Make up a question over ``hops`` facts (1 or 2) that starts from ``name``.

    ``kind`` is that of the fact when there is one hop; any when None.
    """
    if hops == 1:
        fact = make_fact(rng, name, kind)
        return Lookup((fact,), fact.question, fact.answer, fact.value)
    first = make_fact(rng, name, "lender")
    second = make_fact(rng, first.value, "colour")
    return Lookup(
        (first, second),
        f"Which colour of socks did I knit the one whose book I lent {name}?",
        f"{first.answer} {second.answer}",
        second.value,
    )


def filler(rng: random.Random) -> str:
    return (
        f"{rng.choice(FILLER_SUBJECTS)} {rng.choice(FILLER_PREDICATES)}{rng.choice(FILLER_TAILS)}."
    )


def make_conversation(
    rng: random.Random, lookups: list[Lookup], turns: int, depth: float | None = None
) -> list[Message]:
    """Lay facts and filler out as a conversation, without the question.

    The facts of the first lookup stand at ``depth`` among the filler turns, 0 the start and 1 the
    end, or anywhere when it is None; those of further lookups stand anywhere. A system message
    comes first, and then turns of user and assistant.
    """
    placed: list[tuple[float, str]] = [(i + 0.5, filler(rng)) for i in range(turns)]
    for number, lookup in enumerate(lookups):
        for fact in lookup.facts:
            at = rng.random() * turns if depth is None or number else depth * turns
            placed.append((at, fact.statement))
    placed.sort(key=lambda item: item[0])
    messages: list[Message] = [{"role": "system", "content": RECALL_INSTRUCTION}]
    for _, sentence in placed:
        messages.append({"role": "user", "content": sentence})
        messages.append({"role": "assistant", "content": rng.choice(ACKNOWLEDGEMENTS)})
    return messages


def distinct_lookups(
    rng: random.Random, count: int, hops: tuple[int, ...] = (1,), kind: str | None = None
) -> list[Lookup]:
    """Lookups whose facts cannot be confused: no key is used twice."""
    lookups: list[Lookup] = []
    taken: set[str] = set()
    while len(lookups) < count:
        lookup = make_lookup(rng, rng.choice(NAMES), rng.choice(hops), kind)
        keys = {fact.key for fact in lookup.facts}
        if not keys & taken:
            taken |= keys
            lookups.append(lookup)
    return lookups


def held_out(seed: int = 0, hops: int = 1) -> Iterator[Problem]:
    """Yield the task's problems: depths in turn, lengths in turn after them.

    It takes 1 fact (``recall``) or 2 (``multi-hop``) to answer.
    """
    for index in range(MAX_SIZE):
        depth = DEPTHS[index % len(DEPTHS)]
        turns = FILLER_TURNS[index // len(DEPTHS) % len(FILLER_TURNS)]
        yield pose(f"{prefix(hops)}/{seed}/{index}", hops, turns, depth)


def prefix(hops: int) -> str:
    return "recall" if hops == 1 else "hop"


def pose(seed: str, hops: int, turns: int, depth: float) -> Problem:
    """One conversation with its question, which everything random is drawn for from ``seed``.

    The facts stand at ``depth`` among the filler turns, 0 the start and 1 the end.
    """
    rng = random.Random(seed)
    asked, *others = distinct_lookups(rng, 3, (hops,))
    messages = make_conversation(rng, [asked, *others], turns, depth)
    messages.append({"role": "user", "content": asked.question})
    told = {fact.statement for fact in asked.facts}
    return Problem(
        id=content_id(prefix(hops), messages, asked.value),
        question=asked.question,
        answer=asked.value,
        category=f"depth-{depth:.0%}",
        messages=tuple(messages),
        metadata={
            "depth": depth,
            "filler_turns": turns,
            "hops": hops,
            "told_in": [i for i, message in enumerate(messages) if message["content"] in told],
        },
    )


def recall_task() -> GeneratedTask:
    return GeneratedTask("recall", CONTAINS, DEFAULT_SIZE, held_out())


def multi_hop_task() -> GeneratedTask:
    return GeneratedTask("multi-hop", CONTAINS, DEFAULT_SIZE, held_out(hops=2))
