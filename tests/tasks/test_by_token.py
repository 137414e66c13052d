"""Accuracy at every token count: the same as if every cut were judged by itself."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from studies import NumberTask

from pytest_tokenbudget.core import scoring
from pytest_tokenbudget.core.scoring import judge, verdict_changes
from pytest_tokenbudget.core.trace import StopReason, ThinkingFormat, Trace
from pytest_tokenbudget.tasks.base import NO_ANSWER
from pytest_tokenbudget.tasks.problem import Problem
from pytest_tokenbudget.tasks.registry import load_task
from pytest_tokenbudget.tasks.ruled import ANSWER, CHOICE, CONTAINS, NUMBER, GivenTask

CHANNELS = ThinkingFormat(
    open="<|analysis|>", close="<|end|>", switch=None, answer=("<|final|>", "<|final json|>")
)
FORMS = (
    None,
    ThinkingFormat(),
    ThinkingFormat(repeats=True),
    ThinkingFormat(nests=True),
    ThinkingFormat(prompt_opens=True),
    CHANNELS,
)
TAGS = ("<think>", "</think>", "</thi", "<", "<|analysis|>", "<|final|>", "<|end|>", "<|fi")
TASKS = {
    "number": (NUMBER, ("4", "7/2", "1,000", "-3")),
    "answer": (ANSWER, ("4", "Paris", "New York", "C#")),
    "contains": (CONTAINS, ("4", "red fox", "1.5", "a a")),
    "choice": (CHOICE, ("left|right",)),
}
# What declares, what can be declared, and what can change it later.
WORDS = (
    "####", "##", "#", " ", "\n", "\n\n", "\\boxed{", "boxed{", "}", "{", "The answer is",
    "Answer:", "ANSWER ", "answer", "nswer", " will be", " is", ":", "**", "_", "4", "7", "/", "2",
    "7/2", ".", ",", "000", "1,000", "1", "-", "3", "-3", " + ", " = ", "$", "%", " apples", "x",
    "\\frac{7}{2}", " thousand", "Paris", "paris.", "New ", "York", "C#", "red", " fox", "red\nfox",
    "1.5", "a a", "a", '{"choice": "left"}', '{"choice": "', "right", '"}', '"', "\\", "[",
    "So we go on for a while with many words that say nothing at all. ", "S", "answer i\u017f", "e",
    "10", "=" * 90, " " * 90, "\n" * 90,
)  # fmt: skip


def task_of(kind: str, answer: str) -> tuple[GivenTask, Problem]:
    problem = Problem("p", "?", answer, "all", ({"role": "user", "content": "?"},))
    return GivenTask(kind, TASKS[kind][0], (problem,)), problem


def make(text, sizes, stop, reach, opened=False):
    """A trace of ``text`` in tokens of these sizes, over and over; a size of 0 adds no text."""
    offsets, place = [], 0
    while not offsets or offsets[-1] < len(text):
        offsets.append(min((offsets[-1] if offsets else 0) + sizes[place % len(sizes)], len(text)))
        place += 1
    if stop is StopReason.EOS:
        offsets.append(len(text))
    length = len(offsets)
    cap = length if stop is StopReason.LENGTH else max(length, reach)
    return Trace(
        "p", 0, (1,), tuple(range(length)), stop, cap, text, tuple(offsets), opened_by_prompt=opened
    )


def changes_one_by_one(task, problem, trace, thinking, reach):
    """What `verdict_changes` must find: every cut judged."""
    correct = False
    for tokens in range(1, reach + 1):
        now = judge(task, problem, trace.cut(tokens, thinking)).correct
        if now != correct:
            yield tokens, now
            correct = now


def check(task, problem, trace, thinking):
    reaches = {len(trace.output_ids), max(len(trace.output_ids) - 3, 1)}
    if not trace.capped:
        reaches.add(len(trace.output_ids) + 5)
    for reach in reaches:
        found = list(verdict_changes(task, problem, trace, thinking, reach))
        assert found == list(changes_one_by_one(task, problem, trace, thinking, reach))


@st.composite
def cases(draw):
    kind = draw(st.sampled_from(list(TASKS)))
    task, problem = task_of(kind, draw(st.sampled_from(TASKS[kind][1])))
    form = draw(st.sampled_from(FORMS))
    words = WORDS if form is None else WORDS + TAGS * 3
    text = "".join(draw(st.lists(st.sampled_from(words), min_size=1, max_size=24)))
    sizes = draw(st.lists(st.integers(0, 7), min_size=1, max_size=5).filter(any))
    stop = draw(st.sampled_from([StopReason.EOS, StopReason.STOP, StopReason.LENGTH]))
    return task, problem, make(text, sizes, stop, 1, draw(st.booleans())), form


@settings(max_examples=1500)
@given(cases())
@pytest.mark.slow
def test_judging_by_token_equals_judging_every_cut(case):
    check(*case)


KEYWORDS = (
    "#### ", "####", "#####", "\\boxed{", "The answer is ", "Answer:", "ANSWER: ",
    "answer will be ", "answer\n\n is ", "answer", "answer should", "answers", "answer i\u017f ",
)  # fmt: skip
GAPS = ("", "", "**", " ", "\n", " the final", " = ", " x =", " " * 70, "\n" * 78, " so " * 19, "(")
NUMBERS = (
    "4", "4", "7/2", "1,000", "-3", "\\frac{7}{2}", "1. ", "1.", "4 + 3 = 7", "4 x 1 = 4", "250,00",
    "4" * 70, "4 apples", "4}", "\\frac{7}{2}}", "3}4}", "Paris.", "New York}", "C#",
)  # fmt: skip
GOING_ON = (
    "", "\n", "0", ".", ",", " thousand", "/2", " = ", "3", "+", " and so on", "\nand", "}", "\n\n",
    "e", " " * 50,
)  # fmt: skip


@st.composite
def declarations(draw):
    """Declarations one after another, each as near to what is not settled as can be."""
    parts = st.tuples(*map(st.sampled_from, (KEYWORDS, GAPS, NUMBERS, GOING_ON, GOING_ON)))
    return "".join(map("".join, draw(st.lists(parts, min_size=1, max_size=4))))


@settings(max_examples=600)
@given(declarations(), st.sampled_from(["number", "answer"]), st.integers(0, 3))
@pytest.mark.slow
def test_outside_of_stretches_a_verdict_stays(text, kind, which):
    rule, answers = TASKS[kind]
    verdicts = [rule.judge(answers[which], text[:end], True) for end in range(len(text) + 1)]
    stretches = rule.verdict_changes(answers[which], text)
    assert verdicts[0] == NO_ANSWER
    for end in range(1, len(text) + 1):
        if not any(first <= end <= last for first, last in stretches):
            assert verdicts[end] == verdicts[end - 1], text[:end]


@pytest.mark.parametrize("name", ["word-problems", "recall", "multi-hop", "games"])
def test_judging_by_token_is_the_same_on_every_generated_task(name):
    task = load_task(name)
    draw = random.Random(name)
    for problem in task.problems(6):
        answer = problem.answer.partition("|")[0]
        said = f'{{"choice": "{answer}"}}' if name == "games" else f"The answer is {answer}."
        text = f"<think>Is it 7?\n{said}</think>\nSo {said} No:\n\n#### {answer}\nOr #### 7"
        for form in FORMS:
            trace = make(text, [draw.randint(1, 4) for _ in range(9)], StopReason.EOS, 1)
            check(task, problem, trace, form)


def test_a_task_of_ones_own_needs_to_know_nothing():
    task, problem = NumberTask(), task_of("number", "4")[1]
    check(task, problem, make("It is\n#### 4\nor\n#### 5", [2, 3], StopReason.EOS, 1), None)
    check(task, problem, make("a<think>#### 5</think>#### 4", [2], StopReason.LENGTH, 1), FORMS[1])


def test_few_cuts_are_judged(monkeypatch):
    judged = []

    def watched(task, problem, cut):
        judged.append(cut.budget)
        return judge(task, problem, cut)

    monkeypatch.setattr(scoring, "judge", watched)
    task, problem = task_of("number", "4")
    steps = "They have 3 + 1 = 4 apples.\n" * 200
    trace = make(f"{steps}#### 4\n{steps}", [3], StopReason.EOS, 1)
    found = list(verdict_changes(task, problem, trace, None, len(trace.output_ids)))
    # Within the line after the answer, and at the end.
    assert len(found) == 1
    assert len(judged) < 60 < len(trace.output_ids) / 20


def test_a_trace_without_ids_of_its_engine_may_be_shorter_than_its_cap():
    task, problem = task_of("number", "4")
    text = "It is\n#### 4\nand more"
    offsets = tuple(range(1, len(text) + 1))
    trace = Trace(
        "p", 0, (1,), offsets, StopReason.LENGTH, 100, text, offsets, counted=True
    )  # fmt: skip
    found = list(verdict_changes(task, problem, trace, None, 100))
    assert found == [(text.index("4") + 2, True)]
    assert found == list(changes_one_by_one(task, problem, trace, None, 100))
