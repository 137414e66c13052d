"""Studies of a made-up model that thinks, for the tests of the allocation eval."""

from __future__ import annotations

from dataclasses import replace

from studies import NumberTask, make_problem, trace_of

from pytest_tokenbudget.core.plan import Forcing
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.studies.thinking.forced_answers import ForcedAnswerKey, force
from pytest_tokenbudget.studies.thinking.study import ContinuedTrace, ThinkingStudy
from pytest_tokenbudget.texts.thinking_blocks import Closer, ThinkingFormat

THINK = ThinkingFormat()
BARE = Closer("bare", "\n</think>\n\n")
BUDGETS = (0, 4, 8, 16, 32, 64)
CLOSER_IDS = (7, 8, 9)
# How long easy and hard problems are thought about, and from when a forced answer is right.
EASY, HARD = (40, 4), (62, 62)


def answer(text):
    return ["####", " ", text, "\n", ""]


def pieces(problem, long):
    return ["<think>", *["so "] * (long - 2), "</think>", *answer(problem.answer)]


def natural_study(problems, traces, **options):
    return Study(
        alias="m",
        identity={},
        task=NumberTask(problems=problems),
        problems=tuple(problems),
        traces=traces,
        samples=1,
        thinking=THINK,
        budgets=tuple(b for b in BUDGETS if b),
        reach=94,
        **{"mode": "thinking", "kind": "thinking", **options},
    )


def make(n=40, off=None, budgets=BUDGETS, modes=(), error=0, missing=0):
    """Even problems are easy and odd ones hard; ``off`` is how many are right without thinking."""
    problems, traces, wanted, forced = [], {}, set(), {}
    for index in range(n):
        kind = "hard" if index % 2 else "easy"
        problem = replace(make_problem(index), category=kind)
        long, enough = HARD if index % 2 else EASY
        problems.append(problem)
        failed = "it broke" if index < error else ""
        trace = trace_of(problem.id, pieces(problem, long), 94, error=failed)
        traces[problem.id, 0] = trace
        for budget in budgets:
            branch = force(trace, budget, THINK, BARE, lambda text: CLOSER_IDS)
            if branch is None or failed:
                continue
            place = ForcedAnswerKey("bare", budget, problem.id)
            wanted.add(place)
            if index < n - missing:
                said = answer(problem.answer if budget >= enough else "7")
                one = replace(trace_of(problem.id, said, 30), prompt_ids=branch.prompt_ids)
                forced[place] = ContinuedTrace(one, branch.kept)
    switched = None
    if off is not None:
        without = {
            (p.id, 0): replace(
                trace_of(p.id, answer(p.answer if i < off else "7"), 94), prompt_ids=(1, 2, 4)
            )
            for i, p in enumerate(problems)
        }
        switched = natural_study(problems, without, mode="plain", kind="off")
    return ThinkingStudy(
        natural=natural_study(problems, traces),
        off=switched,
        forcing=Forcing(tuple(budgets), 30, (BARE,), modes=tuple(modes)),
        wanted=frozenset(wanted),
        forced=forced,
        switchable=off is not None,
    )
