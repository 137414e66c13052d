"""Traces of a realistic kind in any number, without a model: worked solutions with many numbers."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from pytest_tokenbudget.core.engine import Decoding, Generated, Request
from pytest_tokenbudget.core.store import StoredPrompt
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.core.trace import StopReason
from pytest_tokenbudget.tasks.base import Task
from pytest_tokenbudget.tasks.problem import Problem
from pytest_tokenbudget.tasks.registry import load_task

MODEL = "synthetic"
PROMPT = tuple(range(100, 280))
_TOKEN = re.compile(r" ?[A-Za-z]{1,6}|[0-9]|[^A-Za-z0-9]", re.DOTALL)
_ENDINGS = ("\n#### {}", "\n**#### ${}**", "\nThe answer is {}.", "\nSo \\boxed{{{}}} it is.")


@dataclass(frozen=True)
class Written:
    """One trace as an engine and a detokeniser give it."""

    result: Generated
    text: str
    offsets: tuple[int, ...]


def solution(rng: random.Random) -> Iterator[str]:
    """Lines of a worked solution, without end."""
    total = 0
    step = 0
    while True:
        step += 1
        more, price = rng.randint(2, 99), rng.randint(100, 9999) / 100
        yield (
            f"{step}. There were {total} boxes, and {more} more came: {total} + {more} = "
            f"{total + more}. At ${price:,.2f} each that is ${price * (total + more):,.2f}, "
            f"which is 1/{rng.randint(2, 9)} of the whole.\n"
        )
        total += more


def pieces(rng: random.Random, length: int, answer: str) -> list[str]:
    """Exactly ``length`` pieces of text as long as usual tokens are, ending in the answer."""
    tail = _TOKEN.findall(rng.choice(_ENDINGS).format(answer))
    body: list[str] = []
    lines = solution(rng)
    while len(body) + len(tail) < length:
        body += _TOKEN.findall(next(lines))
    return body[: length - len(tail)] + tail


def task_of(count: int) -> tuple[Task, tuple[Problem, ...]]:
    """The default task and its first problems."""
    task = load_task("word-problems")
    return task, task.problems(count)


def traces(problems: tuple[Problem, ...], cap: int, seed: int = 0) -> list[Written]:
    """One trace a problem: lengths up to the cap, a tenth of them cut by it, four fifths right."""
    made = []
    for index, problem in enumerate(problems):
        rng = random.Random(f"{seed}/{index}")
        length = rng.randint(cap // 32 + 12, cap + cap // 10)
        answer = problem.answer if rng.random() < 0.8 else "7"
        parts = pieces(rng, length, answer)[:cap]
        offsets: list[int] = []
        end = 0
        for part in parts:
            end += len(part)
            offsets.append(end)
        text = "".join(parts)
        ids = tuple(rng.randrange(32_000) for _ in parts)
        stop = StopReason.LENGTH if length > cap else StopReason.EOS
        if stop is StopReason.EOS and len(ids) < cap:
            ids, offsets = (*ids, 32_000), [*offsets, end]
        request = Request(key(index), PROMPT, cap)
        made.append(Written(Generated(request, ids, stop, stop.value, 1.0), text, tuple(offsets)))
    return made


def key(index: int) -> str:
    """Key of the trace of a problem."""
    return f"key-{index:06}"


def names(problems: tuple[Problem, ...]) -> dict[str, tuple[str, int]]:
    """For each trace key, the problem and sample that it stands for."""
    return {key(index): (problem.id, 0) for index, problem in enumerate(problems)}


def prompts(problems: tuple[Problem, ...]) -> dict[str, StoredPrompt]:
    """One rendered prompt for all problems."""
    return {problem.id: StoredPrompt(PROMPT, False) for problem in problems}


def study(
    task: Task, problems: tuple[Problem, ...], loaded: object, budgets: tuple[int, ...]
) -> Study:
    """A fresh study, with nothing computed yet, of traces loaded from a store."""
    assert isinstance(loaded, dict)
    return Study(
        alias=MODEL,
        identity={"model": MODEL},
        task=task,
        problems=problems,
        traces=loaded,
        samples=1,
        thinking=None,
        mode="plain",
        budgets=budgets,
        decoding=Decoding(),
    )
