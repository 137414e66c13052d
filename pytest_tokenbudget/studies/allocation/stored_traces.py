"""A thinking study as what policies are replayed on: nothing is generated."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from pytest_tokenbudget.core.trace import Trace
from pytest_tokenbudget.studies.thinking.forced_answers import ForcedAnswerKey, ended_within
from pytest_tokenbudget.studies.thinking.study import ThinkingAnswer, ThinkingStudy
from pytest_tokenbudget.tasks.problem import Problem

if TYPE_CHECKING:
    from pytest_tokenbudget.studies.allocation.policy_results import Spent
    from pytest_tokenbudget.studies.allocation.replay import Replay

FIRST = 32
"""So many tokens of thinking are looked at to predict how difficult a problem is."""

FEATURES = (
    "tokens of the prompt",
    "numbers in the question",
    f"tokens of thinking among the first {FIRST}",
    "numbers in these",
    "characters of these",
)
"""What difficulty is predicted from, in the order of the weights."""

_NUMBER = r"\d+(?:[.,]\d+)*"


class Replayed(NamedTuple):
    """What policies are replayed on, and thinking switched off on the same problems.

    Attributes:
        replay: Problems x budgets above 0; the last budget stands for no limit, and is the smallest
            one of the study that limits nothing, if there is one. An answer without any thinking
            is one of another kind, often longer, so that 0 is none of the budgets.
        off: Right answers and tokens with thinking switched off, or ended before it began where
            the template has no switch; None where neither was tried.
    """

    replay: Replay
    off: Spent | None


def replay_of(study: ThinkingStudy) -> Replayed:
    """A study as arrays; problems with an error in any trace are left out and counted.

    Forced answers with the default closer are what policies get, and are the probes of the policy
    that stops at the first stable answer.

    Computed once a study.

    Raises:
        ValueError: If fewer than two problems are left, or there is no budget above 0.
    """
    return study.cached(_replay_of, study)


def _replay_of(study: ThinkingStudy) -> Replayed:
    import numpy as np

    from pytest_tokenbudget.studies.allocation.policy_results import Spent
    from pytest_tokenbudget.studies.allocation.replay import make_replay

    budgets, form = study.positive, study.format
    if not budgets:
        raise ValueError("there is no thinking budget above 0")
    columns = [study.ended(budget) for budget in budgets]
    free = study.unlimited()
    alike = [b for b, column in zip(budgets, columns, strict=True) if _same_answers(column, free)]
    if alike:
        budgets = tuple(b for b in budgets if b <= alike[0])
        columns = columns[: len(budgets)]
    else:
        budgets, columns = (*budgets, study.natural.reach), [*columns, free]
    off = _off(study)
    every = study.correct([*columns, *([off] if off else [])])
    known = [row for row, some in enumerate(every) if np.isfinite(some).all()]
    if len(known) < 2:
        raise ValueError(f"{len(known)} problems without an error: a replay needs at least two")
    problems = [study.complete[row] for row in known]
    traces = [study.natural.traces[p.id, 0] for p in problems]
    ends = [ended_within(trace, study.natural.reach, form) for trace in traces]
    replay = make_replay(
        budgets,
        every[known, : len(columns)],
        [[column[row].tokens for column in columns] for row in known],
        categories=[problem.category for problem in problems],
        features=[features(*each) for each in zip(problems, traces, ends, strict=True)],
        features_from=FIRST,
        answers=[[column[row].judged.predicted for column in columns] for row in known],
        probe_tokens=[
            [
                _probe(study, study.complete[row], budget, column[row])
                for budget, column in zip(budgets, columns, strict=True)
            ]
            for row in known
        ],
        natural_tokens=[np.inf if end is None else float(end) for end in ends],
    )
    spent = None
    if off:
        spent = Spent(every[known, -1], np.array([off[row].tokens for row in known], np.float64))
    return Replayed(replace(replay, missing=len(study.complete) - len(known)), spent)


def _same_answers(column: Sequence[ThinkingAnswer], other: Sequence[ThinkingAnswer]) -> bool:
    return all(
        (a.tokens, str(a.correct), a.judged.predicted)
        == (b.tokens, str(b.correct), b.judged.predicted)
        for a, b in zip(column, other, strict=True)
    )


def _off(study: ThinkingStudy) -> tuple[ThinkingAnswer, ...]:
    if study.off is not None:
        return study.switched_off()
    return study.ended(0) if 0 in study.budgets else ()


def features(problem: Problem, trace: Trace, end: int | None) -> list[float]:
    """What is known of a problem once the first tokens of thinking are there.

    ``end`` is after how many tokens its thinking ended by itself; None where it did not.
    """
    seen = min(FIRST, len(trace.output_ids), FIRST if end is None else end)
    text = trace.text[: trace.offsets[seen - 1]] if seen else ""
    return [
        float(len(trace.prompt_ids)),
        float(len(re.findall(_NUMBER, problem.question))),
        float(seen),
        float(len(re.findall(_NUMBER, text))),
        float(len(text)),
    ]


def _probe(study: ThinkingStudy, problem: Problem, budget: int, answer: ThinkingAnswer) -> float:
    """Tokens of closer and answer; 0 where the thinking had ended, since that is not probed."""
    forced = study.forced.get(ForcedAnswerKey(study.closers[0], budget, problem.id))
    if not answer.forced or forced is None:
        return 0.0
    prompt = len(study.natural.traces[problem.id, 0].prompt_ids)
    closer = len(forced.trace.prompt_ids) - prompt - forced.before
    return float(closer + answer.tokens - forced.before)
