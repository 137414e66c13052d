"""Generated decisions in two-player games, answered as one JSON object.

Games are simultaneous, sequential with a history, or have more than two options; each is posed in
an emotional framing. Payoffs are part of the problem's metadata.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from pytest_tokenbudget.settings.generation_config import FRAMINGS
from pytest_tokenbudget.tasks.problem import Message, Problem, content_id
from pytest_tokenbudget.tasks.ruled import CHOICE, GeneratedTask
from pytest_tokenbudget.tasks.word_problems import NAMES

GAME_INSTRUCTION = (
    'You play a game. Answer with one JSON object: {"choice": "...", "reason": "..."}'
)
DEFAULT_SIZE = 36
MAX_SIZE = 100_000
# Games come in turn, and a game with so many options comes late. So that the standard set has 3, 4,
# 5 and 6 of them, and its first few every category, it takes some from later in the stream and
# leaves two for later. No problem changes by that, only its place.
EARLY = (0, 8, 9, 3, 4, 69, 109)
LATE = (19, 33)
FEELINGS = {
    "anger": "{o} was rude and you are angry.",
    "happiness": "It is a good day and you are happy.",
    "sadness": "You had bad news and you are sad.",
    "fear": "Much is at stake and you are afraid.",
    "disgust": "{o} cheated others and you feel disgust.",
    "surprise": "Nobody told you about this and you are surprised.",
}


@dataclass(frozen=True)
class Game:
    """One decision with its payoffs: the points of each option, for each choice of the other.

    The category is ``simultaneous``, ``sequential`` or ``multi-option``. The rules name the
    payoffs.
    """

    name: str
    category: str
    options: tuple[str, ...]
    payoffs: tuple[tuple[int, ...], ...]
    rules: str

    def worst(self, option: str) -> int:
        return min(self.payoffs[self.options.index(option)])

    @property
    def safest(self) -> str:
        """The option with the best worst case, the first of equals."""
        return max(self.options, key=self.worst)


SIMULTANEOUS = {
    "prisoner's dilemma": ("cooperate", "defect"),
    "stag hunt": ("stag", "hare"),
    "battle of the sexes": ("opera", "football"),
    "chicken": ("swerve", "straight"),
    "matching pennies": ("heads", "tails"),
}
SEQUENTIAL = ("repeated prisoner's dilemma", "ultimatum", "trust", "centipede")
MULTI_OPTIONS = ("north", "south", "east", "west", "up", "down")


def _table(rng: random.Random, name: str) -> tuple[tuple[int, ...], ...]:
    """Points for (first, first), (first, second), (second, first), (second, second)."""
    low, mid, high, top = sorted(rng.sample(range(10), 4))
    return {
        "prisoner's dilemma": ((high, low), (top, mid)),
        "stag hunt": ((top, low), (mid, mid)),
        "battle of the sexes": ((top, low), (low, high)),
        "chicken": ((high, mid), (top, low)),
        "matching pennies": ((top, low), (low, top)),
    }[name]


def make_game(rng: random.Random, category: str, name: str, other: str) -> Game:
    if category == "simultaneous" or name == "repeated prisoner's dilemma":
        base = name.removeprefix("repeated ")
        options: tuple[str, ...] = SIMULTANEOUS[base]
        payoffs = _table(rng, base)
        rules = " ".join(
            f"Your {mine} against {theirs}: {payoffs[i][j]}."
            for i, mine in enumerate(options)
            for j, theirs in enumerate(options)
        )
        if name != base:
            history = [rng.choice(options) for _ in range(rng.randint(1, 4))]
            rules += f" {other} played before: {', '.join(history)}."
        return Game(name, category, options, payoffs, rules)
    if name == "ultimatum":
        offer = rng.randint(1, 9)
        rules = f"{other} offers you {offer} of 10. You accept: {offer}. You reject: 0."
        return Game(name, category, ("accept", "reject"), ((offer,), (0,)), rules)
    if name == "trust":
        stake, back = rng.randint(2, 9), rng.randint(0, 9)
        rules = (
            f"You keep: {stake}. You send and {other} pays back: {stake + back}. "
            f"You send and {other} keeps all: 0. {other} paid back {rng.randint(0, 3)} of 3 before."
        )
        return Game(name, category, ("keep", "send"), ((stake, stake), (stake + back, 0)), rules)
    if name == "centipede":
        take, later = rng.randint(2, 9), rng.randint(0, 1)
        rules = (
            f"Round {rng.randint(1, 6)} of 6. You take: {take}. "
            f"You pass and {other} takes: {later}. "
            f"You pass and {other} passes: {take + 2}."
        )
        return Game(name, category, ("take", "pass"), ((take, take), (later, take + 2)), rules)
    directions = tuple(rng.sample(MULTI_OPTIONS, rng.randint(3, 6)))
    multi = tuple((rng.randint(0, 9), rng.randint(0, 9)) for _ in directions)
    rules = f"{other} goes left or right. " + " ".join(
        f"You go {option}: {a} or {b}." for option, (a, b) in zip(directions, multi, strict=True)
    )
    return Game(name, category, directions, multi, rules)


def pose(game: Game, framing: str, other: str) -> list[Message]:
    feeling = FEELINGS[framing].format(o=other) + " " if framing != "neutral" else ""
    text = (
        f"{feeling}The game is {game.name}, with {other}. {game.rules} "
        f"Choose one: {', '.join(game.options)}."
    )
    return [
        {"role": "system", "content": GAME_INSTRUCTION},
        {"role": "user", "content": text},
    ]


def kinds() -> list[tuple[str, str]]:
    return [
        *(("simultaneous", name) for name in SIMULTANEOUS),
        *(("sequential", name) for name in SEQUENTIAL),
        *(("multi-option", name) for name in ("compass",)),
    ]


def in_order() -> Iterator[int]:
    """Where in the stream each problem stands, in the order in which they are given."""
    yield from EARLY
    standard = (n for n in range(MAX_SIZE) if n not in EARLY and n not in LATE)
    yield from islice(standard, DEFAULT_SIZE - len(EARLY))
    yield from LATE
    yield from standard


def held_out(seed: int = 0) -> Iterator[Problem]:
    """Yield the task's problems: every game in turn, framings shifting with each round.

    The first 36 are the standard set, which has every game, framing and number of options.
    """
    games = kinds()
    for index in in_order():
        rng = random.Random(f"games/{seed}/{index}")
        category, name = games[index % len(games)]
        framing = FRAMINGS[(index + index // len(games)) % len(FRAMINGS)]
        other = rng.choice(NAMES)
        game = make_game(rng, category, name, other)
        messages = tuple(pose(game, framing, other))
        answer = "|".join(game.options)
        yield Problem(
            id=content_id("game", messages, answer),
            question=messages[-1]["content"],
            answer=answer,
            category=category,
            messages=messages,
            metadata={
                "game": name,
                "framing": framing,
                "options": list(game.options),
                "payoffs": [list(row) for row in game.payoffs],
            },
        )


def games_task() -> GeneratedTask:
    return GeneratedTask("games", CHOICE, DEFAULT_SIZE, held_out())
