"""Studies made by hand for the tests of reports: traces of known length and answer."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from pytest_tokenbudget.core.engine import Decoding
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.core.trace import StopReason, ThinkingFormat, Trace
from pytest_tokenbudget.tasks.answers import EXTRACTOR, extract_number
from pytest_tokenbudget.tasks.base import AnswerVerdict
from pytest_tokenbudget.tasks.numbers import parse_number
from pytest_tokenbudget.tasks.problem import Problem

BUDGETS = (32, 64, 128, 256, 512, 1024, 2048)


class NumberTask:
    """A task of given problems, scored by the number in the text."""

    extractor = EXTRACTOR

    def __init__(self, name: str = "sums", problems: Sequence[Problem] = ()) -> None:
        self.name = name
        self.size = len(problems)
        self._problems = tuple(problems)

    def problems(self, limit: int | None) -> tuple[Problem, ...]:
        return self._problems[:limit]

    def judge_text(self, problem: Problem, text: str, truncated: bool) -> AnswerVerdict:
        found = extract_number(text, truncated)
        if found is None:
            return AnswerVerdict(predicted=None, branch=None, correct=False)
        correct = found.value == parse_number(problem.answer)
        return AnswerVerdict(predicted=str(found.value), branch=found.branch, correct=correct)


def make_problem(index: int) -> Problem:
    return Problem(
        id=f"sum-{index:03}",
        question=f"How much is {index} + 100?",
        answer=str(100 + index),
        category="1-step" if index % 2 else "2-step",
        messages=({"role": "user", "content": f"How much is {index} + 100?"},),
    )


def trace_of(
    problem_id: str,
    pieces: Sequence[str],
    cap: int,
    sample: int = 0,
    error: str = "",
    opened: bool = False,
) -> Trace:
    """A trace of one token a piece; what is longer than the cap is capped."""
    kept = list(pieces[:cap])
    reason = StopReason.LENGTH if len(pieces) > cap else StopReason.EOS
    offsets, end = [], 0
    for piece in kept:
        end += len(piece)
        offsets.append(end)
    return Trace(
        problem_id=problem_id,
        sample=sample,
        prompt_ids=(1, 2, 3),
        output_ids=tuple(range(len(kept))),
        stop_reason=StopReason.ERROR if error else reason,
        cap=cap,
        text="".join(kept),
        offsets=tuple(offsets),
        opened_by_prompt=opened,
        error=error,
    )


def answer_pieces(length: int, answer: str) -> list[str]:
    """``length`` tokens that end in a declared answer, a newline, and end-of-sequence."""
    tail = ["####", " ", *answer, "\n", ""]
    return ["so "] * (length - len(tail)) + tail


def make_study(
    n: int = 60,
    budgets: tuple[int, ...] = BUDGETS,
    *,
    alias: str = "qwen-1.5b",
    accuracy: float = 0.92,
    samples: int = 1,
    missing: int = 0,
    errors: int = 0,
    lengths: Callable[[random.Random], float] = lambda rng: rng.lognormvariate(5.1, 0.5),
    mode: str = "plain",
    thinking: ThinkingFormat | None = None,
    left_out: tuple[int, ...] = (),
    decoding: Decoding | None = None,
) -> Study:
    """A study of ``n`` sums; the first ``errors`` fail, the last ``missing`` have no traces."""
    rng = random.Random(0)
    problems = tuple(make_problem(index) for index in range(n))
    traces: dict[tuple[str, int], Trace] = {}
    for index, problem in enumerate(problems):
        for sample in range(samples):
            length = max(12, round(lengths(rng)))
            answer = problem.answer if rng.random() < accuracy else "7"
            pieces = answer_pieces(length, answer)
            failed = "out of memory: 2 GiB wanted" if index < errors else ""
            if failed:
                pieces = pieces[:5]
            if index < n - missing:
                traces[problem.id, sample] = trace_of(
                    problem.id, pieces, max(budgets), sample, failed
                )
    return Study(
        alias=alias,
        identity={"id": "Qwen/Qwen2.5-1.5B-Instruct", "revision": "989aa79"},
        task=NumberTask(problems=problems),
        problems=problems,
        traces=traces,
        samples=samples,
        thinking=thinking,
        mode=mode,
        budgets=budgets,
        margin=0.02,
        left_out=left_out,
        decoding=decoding or Decoding(),
    )
