"""Tasks whose problems are made from a seed."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_tokenbudget.tasks import games, recall, word_problems
from pytest_tokenbudget.tasks.base import TaskError, check_limit
from pytest_tokenbudget.tasks.problem import Problem
from pytest_tokenbudget.tasks.ruled import CHOICE, CONTAINS, NUMBER, JudgingRule, RuledTask


class GeneratedTask(RuledTask):
    """Problems of one generator and seed, made as they are asked for.

    Args:
        name: Name of the task.
        rule: How answers are judged.
        size: How many problems make the full set; more can be had.
        stream: Makes the problems. One that comes again is passed over.
    """

    def __init__(self, name: str, rule: JudgingRule, size: int, stream: Iterator[Problem]) -> None:
        super().__init__(name, rule)
        self.size = size
        self._stream = stream
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


def word_problems_task(seed: int = 0) -> GeneratedTask:
    """Arithmetic word problems of 1 to 8 steps."""
    problems = word_problems.held_out(seed)
    return GeneratedTask("word-problems", NUMBER, word_problems.DEFAULT_SIZE, problems)


def recall_task(seed: int = 0) -> GeneratedTask:
    """A fact told earlier in a conversation."""
    return GeneratedTask("recall", CONTAINS, recall.DEFAULT_SIZE, recall.held_out(seed))


def multi_hop_task(seed: int = 0) -> GeneratedTask:
    """A question that needs two facts told earlier."""
    problems = recall.held_out(seed, hops=2)
    return GeneratedTask("multi-hop", CONTAINS, recall.DEFAULT_SIZE, problems)


def games_task(seed: int = 0) -> GeneratedTask:
    """Decisions in games, answered as a JSON object."""
    return GeneratedTask("games", CHOICE, games.DEFAULT_SIZE, games.held_out(seed))
