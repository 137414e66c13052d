"""Studies of a made-up model that plays games, for the tests of the scenarios eval."""

from __future__ import annotations

from studies import trace_of

from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.tasks.registry import load_task


def said(problem, index):
    """What a made-up model answers; each fifth is wrong in a way of its own."""
    first, *_ = problem.answer.split("|")
    return {
        0: f'{{"choice": "{first}", "reason": "x"}}',
        1: f'I think: {{"choice": "{first.upper()}"}}.',
        2: '{"choice": "jump"}',
        3: '{"reason": "x"}',
        4: f"I choose {first}.",
    }[index % 5 if index < 10 else 0]


def make(n=36, cap=64, error=(), lengths=lambda problem: 20, texts=said):
    """A study of games: texts by ``said``, as long as ``lengths`` says."""
    task = load_task("games")
    problems = task.problems(n)
    traces = {}
    for index, problem in enumerate(problems):
        text = texts(problem, index)
        pieces = [text, *["\n"] * (lengths(problem) - 2), ""]
        failed = "it broke" if index in error else ""
        traces[problem.id, 0] = trace_of(problem.id, pieces, cap, error=failed)
    return Study(
        alias="some-model",
        identity={},
        task=task,
        problems=problems,
        traces=traces,
        samples=1,
        thinking=None,
        mode="plain",
        budgets=(16, cap),
    )
