"""Problems with a conversation in front of them, for what happens when it does not fit.

There are three arms: ``recall`` asks for a fact told in the conversation, ``multi-hop`` for what
two such facts say together, and ``task`` poses the problems of any task after small talk that has
nothing to do with them.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from pytest_tokenbudget.context.conversation import SYSTEM_ROLES
from pytest_tokenbudget.tasks import recall
from pytest_tokenbudget.tasks.base import AnswerVerdict, Task
from pytest_tokenbudget.tasks.problem import Message, Problem


class Arm(StrEnum):
    """What is asked at the end of a conversation."""

    RECALL = "recall"
    MULTI_HOP = "multi-hop"
    TASK = "task"


# How many conversations each arm has where nobody says. Recall has four for each depth and length,
# and all together are enough to show that one of seven strategies loses less than 2 points, if it
# loses nothing.
COUNTS: Mapping[Arm, int] = {Arm.RECALL: 176, Arm.MULTI_HOP: 88, Arm.TASK: 44}
HOPS = {Arm.RECALL: 1, Arm.MULTI_HOP: 2}


@dataclass(frozen=True)
class ConversationCase:
    """A problem behind a conversation.

    Attributes:
        arm: What is asked.
        problem: The problem; its messages are the whole conversation.
        turns: Filler turns of the conversation.
        depth: Where the facts stand, 0 the start and 1 the end; None where there are none.
        needed: Indexes of messages without which the answer cannot be known, or not be given as
            it is asked for: those that tell the facts, or the system messages of a task, if it
            has any.
    """

    arm: Arm
    problem: Problem
    turns: int
    depth: float | None
    needed: tuple[int, ...]


def conversations(
    arm: Arm, turns: Sequence[int], count: int, task: Task
) -> tuple[ConversationCase, ...]:
    """The conversations of an arm: depths and lengths in turn, so that all meet all.

    They are the same for every model. More extend fewer. There are ``count`` of them, fewer where
    the task has not so many problems; ``turns`` are numbers of filler turns. The task is that of
    the arm ``task``.

    Raises:
        TaskError: If the task's problems cannot be had.
    """
    if arm is Arm.TASK:
        problems = task.problems(count)
        return tuple(
            with_history(problem, turns[i % len(turns)]) for i, problem in enumerate(problems)
        )
    made: dict[str, ConversationCase] = {}
    index = 0
    while len(made) < count:
        depth = recall.DEPTHS[index % len(recall.DEPTHS)]
        # Depths and lengths meet in every combination where their numbers share no divisor.
        step = index if len(turns) % len(recall.DEPTHS) else index // len(recall.DEPTHS)
        length = turns[step % len(turns)]
        posed = recall.pose(f"context/{arm}/{index}", HOPS[arm], length, depth)
        told = posed.metadata["told_in"]
        assert isinstance(told, list)
        made.setdefault(posed.id, ConversationCase(arm, posed, length, depth, tuple(told)))
        index += 1
    return tuple(made.values())


def with_history(problem: Problem, turns: int) -> ConversationCase:
    """A problem with turns of small talk between its system messages and its question."""
    rng = random.Random(f"history/{problem.id}/{turns}")
    begin = next(
        (i for i, message in enumerate(problem.messages) if message["role"] not in SYSTEM_ROLES),
        len(problem.messages),
    )
    talk: list[Message] = []
    for _ in range(turns):
        talk.append({"role": "user", "content": recall.filler(rng)})
        talk.append({"role": "assistant", "content": rng.choice(recall.ACKNOWLEDGEMENTS)})
    posed = replace(
        problem,
        id=f"{problem.id}+{turns}",
        messages=(*problem.messages[:begin], *talk, *problem.messages[begin:]),
    )
    return ConversationCase(Arm.TASK, posed, turns, None, tuple(range(begin)))


class ArmsTask:
    """The tasks of several arms as one, each problem judged as its own arm is."""

    def __init__(self, arms: Mapping[Arm, Task], posed: Sequence[ConversationCase]) -> None:
        self._arms = dict(arms)
        self._problems = tuple(each.problem for each in posed)
        self._arm_of = {each.problem.id: each.arm for each in posed}

    @property
    def name(self) -> str:
        return ", ".join(dict.fromkeys(task.name for task in self._arms.values()))

    @property
    def extractor(self) -> str:
        return ", ".join(dict.fromkeys(task.extractor for task in self._arms.values()))

    @property
    def size(self) -> int:
        return len(self._problems)

    def problems(self, limit: int | None = None) -> tuple[Problem, ...]:
        return self._problems[:limit]

    def judge_text(self, problem: Problem, text: str, truncated: bool) -> AnswerVerdict:
        return self._arms[self._arm_of[problem.id]].judge_text(problem, text, truncated)
