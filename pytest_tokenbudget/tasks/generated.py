"""Tasks whose problems are made from a seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from pytest_tokenbudget.tasks import games, recall, word_problems
from pytest_tokenbudget.tasks.base import TaskError, check_limit
from pytest_tokenbudget.tasks.problem import Problem
from pytest_tokenbudget.tasks.ruled import CHOICE, CONTAINS, NUMBER, Rule, RuledTask


class Generator(NamedTuple):
    """How the problems of a task are made.

    Attributes:
        rule: How answers are judged.
        size: How many problems make the full set; more can be had.
        stream: Makes the problems of a seed.
    """

    rule: Rule
    size: int
    stream: Callable[[int], Iterator[Problem]]


GENERATORS = {
    # Arithmetic word problems of 1 to 8 steps.
    "word-problems": Generator(NUMBER, word_problems.DEFAULT_SIZE, word_problems.held_out),
    # A fact told earlier in a conversation, and a question that needs two such facts.
    "recall": Generator(CONTAINS, recall.DEFAULT_SIZE, recall.held_out),
    "multi-hop": Generator(CONTAINS, recall.DEFAULT_SIZE, partial(recall.held_out, hops=2)),
    # Decisions in games, answered as a JSON object.
    "games": Generator(CHOICE, games.DEFAULT_SIZE, games.held_out),
}


class GeneratedTask(RuledTask):
    """Problems of one generator and seed, made as they are asked for.

    Args:
        name: Name of the task, one of `GENERATORS`.
        seed: Which set of problems is made. One that comes again is passed over.
    """

    def __init__(self, name: str, seed: int = 0) -> None:
        rule, self.size, stream = GENERATORS[name]
        super().__init__(name, rule)
        self._stream = stream(seed)
        self._made: dict[str, Problem] = {}

    def problems(self, limit: int | None = None) -> tuple[Problem, ...]:
        """The first ``limit`` problems, ``size`` of them where it is None.

        Raises:
            TaskError: If ``limit`` is below 1 or beyond what the generator can make.
        """
        check_limit(limit)
        wanted = self.size if limit is None else limit
        while len(self._made) < wanted:
            problem = next(self._stream, None)
            if problem is None:
                raise TaskError(
                    f"task {self.name} can make {len(self._made)} different problems, "
                    f"not {wanted}: ask for fewer"
                )
            self._made.setdefault(problem.id, problem)
        return tuple(self._made.values())[:wanted]
