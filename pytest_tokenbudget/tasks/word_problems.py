"""Generated arithmetic word problems of 1 to 8 steps: the default task.

Every problem is a short story about one running total. Problem ``i`` of seed ``s`` depends on
``(s, i)`` alone, so a longer set extends a shorter one. The embedded model is trained on stories
from other streams and evaluated on these.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from pytest_tokenbudget.tasks.problem import SOLVE_INSTRUCTION, Problem, content_id
from pytest_tokenbudget.tasks.ruled import NUMBER, GeneratedTask

MAX_TOTAL = 99
DEFAULT_SIZE = 300
MAX_SIZE = 100_000
STEP_WEIGHTS = {1: 4, 2: 8, 3: 15, 4: 20, 5: 20, 6: 17, 7: 9, 8: 7}

NAMES = (
    "Mia Tom Ana Ben Lea Max Eva Sam Ida Leo Zoe Kim Ali Noa Jan Ravi Lin Omar Nina Hugo "
    "Sara Paul Yuki Emma Finn Rosa Ivan Maya Luis Clara Erik Dina Oskar Tara Nils Vera Amir "
    "Lola Ken Ruth"
).split()
THINGS = (
    "apples pears plums coins stamps marbles shells cards books pens stones beads stickers "
    "cookies lemons nuts buttons keys toys cups eggs candles tickets ribbons pencils balls"
).split()
ANIMALS = "hens ducks goats sheep cows geese horses rabbits".split()


@dataclass(frozen=True)
class Theme:
    """Sentence templates of one kind of story.

    ``{n}`` is the person, ``{m}`` a second one, ``{t}`` the things counted, ``{k}`` the number.
    """

    openings: tuple[str, ...]
    additions: tuple[str, ...]
    subtractions: tuple[str, ...]
    packs: tuple[str, ...]
    questions: tuple[str, ...]
    things: tuple[str, ...]


THEMES: dict[str, Theme] = {
    "person": Theme(
        openings=("{n} has {k} {t}.", "{n} starts with {k} {t}.", "{n} owns {k} {t}."),
        additions=(
            "{n} buys {k} more {t}.",
            "{n} finds {k} {t}.",
            "{m} gives {n} {k} {t}.",
            "{n} wins {k} {t}.",
        ),
        subtractions=(
            "{n} loses {k} {t}.",
            "{n} gives {k} {t} to {m}.",
            "{n} sells {k} {t}.",
            "{m} takes {k} {t}.",
        ),
        packs=("{n} buys {a} bags of {k} {t}.", "{m} brings {a} boxes of {k} {t}."),
        questions=(
            "How many {t} does {n} have now?",
            "How many {t} are there in the end?",
            "What is the number of {t} now?",
        ),
        things=tuple(THINGS),
    ),
    "bus": Theme(
        openings=("A bus has {k} {t}.", "There are {k} {t} on a train."),
        additions=("{k} {t} get on.", "At a stop {k} more {t} get in."),
        subtractions=("{k} {t} get off.", "At a stop {k} {t} leave."),
        packs=("{a} groups of {k} {t} get on.",),
        questions=("How many {t} are there in the end?", "How many {t} are left?"),
        things=("people", "children", "riders", "guests"),
    ),
    "farm": Theme(
        openings=("A farm has {k} {t}.", "{n} keeps {k} {t} on a farm."),
        additions=("{k} {t} are born.", "{n} buys {k} more {t}."),
        subtractions=("{k} {t} run away.", "{n} sells {k} {t}."),
        packs=("{a} farmers bring {k} {t} each.",),
        questions=("How many {t} are there now?", "How many {t} does the farm have now?"),
        things=tuple(ANIMALS),
    ),
    "money": Theme(
        openings=("{n} has {k} dollars.", "{n} saved {k} dollars."),
        additions=("{n} earns {k} dollars.", "{m} pays {n} {k} dollars.", "{n} finds {k} dollars."),
        subtractions=("{n} spends {k} dollars.", "{n} pays {m} {k} dollars."),
        packs=("{n} works {a} hours for {k} dollars each.",),
        questions=("How many dollars does {n} have now?", "How many dollars are left?"),
        things=("dollars",),
    ),
    "shelf": Theme(
        openings=("A shop has {k} {t}.", "There are {k} {t} on a shelf."),
        additions=("{n} adds {k} {t}.", "{k} more {t} come in."),
        subtractions=("{n} takes {k} {t} away.", "{k} {t} are sold."),
        packs=("{a} boxes of {k} {t} come in.",),
        questions=("How many {t} are left?", "How many {t} are there in the end?"),
        things=tuple(THINGS),
    ),
}


@dataclass(frozen=True)
class ArithmeticFact:
    """One arithmetic fact ``left op right = result`` with integer terms."""

    left: int
    op: str
    right: int
    result: int

    def __str__(self) -> str:
        return f"{self.left} {self.op} {self.right} = {self.result}"


@dataclass(frozen=True)
class Event:
    """One sentence of a story with the equations that it needs, the running total's last."""

    sentence: str
    equations: tuple[ArithmeticFact, ...]


@dataclass(frozen=True)
class Story:
    """A word problem before it is put into chat messages."""

    theme: str
    thing: str
    opening: str
    start: int
    events: tuple[Event, ...]
    question: str

    @property
    def equations(self) -> tuple[ArithmeticFact, ...]:
        return tuple(e for event in self.events for e in event.equations)

    @property
    def steps(self) -> int:
        return len(self.equations)

    @property
    def answer(self) -> int:
        return self.equations[-1].result

    @property
    def text(self) -> str:
        return " ".join([self.opening, *(e.sentence for e in self.events), self.question])


def make_story(rng: random.Random, steps: int) -> Story:
    """Make up one story that takes so many equations to solve.

    Its running total stays between 2 and ``MAX_TOTAL``.
    """
    name = rng.choice(list(THEMES))
    theme = THEMES[name]
    n, m = rng.sample(NAMES, 2)
    t = rng.choice(theme.things)
    total = start = rng.randint(4, 45)
    opening = rng.choice(theme.openings).format(n=n, k=start, t=t)
    events: list[Event] = []
    left = steps
    while left:
        event = _make_event(rng, theme, {"n": n, "m": m, "t": t}, total, left)
        events.append(event)
        left -= len(event.equations)
        total = event.equations[-1].result
    question = rng.choice(theme.questions).format(n=n, t=t)
    return Story(name, t, opening, start, tuple(events), question)


def _make_event(
    rng: random.Random, theme: Theme, words: dict[str, str], total: int, left: int
) -> Event:
    kinds = []
    if total <= MAX_TOTAL - 2:
        kinds += ["add"] * 4
    if total >= 4:
        kinds += ["subtract"] * 4
    if total <= MAX_TOTAL // 2:
        kinds += ["multiple"]
    if left >= 2 and total <= MAX_TOTAL - 30:
        kinds += ["pack"] * 2
    kind = rng.choice(kinds)
    if kind == "add":
        k = rng.randint(2, min(20, MAX_TOTAL - total))
        sentence = rng.choice(theme.additions).format(k=k, **words)
        return Event(sentence, (ArithmeticFact(total, "+", k, total + k),))
    if kind == "subtract":
        k = rng.randint(2, min(20, total - 2))
        sentence = rng.choice(theme.subtractions).format(k=k, **words)
        return Event(sentence, (ArithmeticFact(total, "-", k, total - k),))
    if kind == "multiple":
        k = rng.choice([f for f in (2, 3) if total * f <= MAX_TOTAL])
        sentence = f"Then the {words['t']} {'double' if k == 2 else 'triple'}."
        return Event(sentence, (ArithmeticFact(total, "*", k, total * k),))
    a, k = rng.randint(2, 5), rng.randint(2, 6)
    sentence = rng.choice(theme.packs).format(a=a, k=k, **words)
    return Event(
        sentence,
        (ArithmeticFact(a, "*", k, a * k), ArithmeticFact(total, "+", a * k, total + a * k)),
    )


def to_problem(story: Story) -> Problem:
    messages = (
        {"role": "system", "content": SOLVE_INSTRUCTION},
        {"role": "user", "content": story.text},
    )
    answer = str(story.answer)
    return Problem(
        id=content_id("wp", messages, answer),
        question=story.text,
        answer=answer,
        category=f"{story.steps}-step",
        messages=messages,
        metadata={"steps": story.steps, "theme": story.theme},
    )


def held_out(seed: int = 0) -> Iterator[Problem]:
    """Yield the task's problems of one seed, without repetition and without end."""
    seen: set[str] = set()
    for index in range(MAX_SIZE):
        rng = random.Random(f"word-problems/{seed}/{index}")
        steps = rng.choices(list(STEP_WEIGHTS), weights=list(STEP_WEIGHTS.values()))[0]
        problem = to_problem(make_story(rng, steps))
        if problem.id not in seen:
            seen.add(problem.id)
            yield problem


def word_problems_task() -> GeneratedTask:
    return GeneratedTask("word-problems", NUMBER, DEFAULT_SIZE, held_out())
