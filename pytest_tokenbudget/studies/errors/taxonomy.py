"""Errors of a study: their types, what a text itself suggests, whether more tokens correct them.

A suggestion comes from rules, never counts as an annotation, and names its reason. The rules, by
their version in `RULES`, in the order in which they are asked; the first that fires is taken:

1. ``arithmetic``: an equation does not come out when it is recomputed (`equations`); the first one
   and its place.
2. ``incomplete``: the budget cut the text.
3. ``format``: the right answer stands in the text but is not what was extracted. Where the model
   declared another answer, the right one must have been declared too; a number of the question
   must be declared or be the result of an equation.

Otherwise there is no suggestion: setup, logic and hallucination need a reader.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from pytest_tokenbudget.core.scoring import JudgedCut
from pytest_tokenbudget.core.study import PLAIN, Study
from pytest_tokenbudget.core.trace import Outcome
from pytest_tokenbudget.tasks import equations as eq
from pytest_tokenbudget.tasks.answers import declarations
from pytest_tokenbudget.tasks.numbers import parse_number, plain

RULES = f"suggestions/1 {eq.RULES}"

ERROR_TYPES = ("arithmetic", "setup", "logic", "incomplete", "format", "hallucination")
RECOVERABLE = ("yes", "no", "unknown")

Verdict = Literal["yes", "no", "unknown"]

_DECLARED = ("hash", "boxed", "answer_is")
_DIGITS = re.compile(r"(?<![\w.,])\.?[0-9][0-9,.]*+(?:/[0-9]++)?")
_LONGEST_SHOWN = 80


@dataclass(frozen=True)
class Suggestion:
    """What the rules say about a wrong answer.

    Attributes:
        type: The suggested type; None where no rule fired.
        reason: Why, in words; empty where no rule fired.
    """

    type: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class WrongAnswer:
    """A wrong answer, as far as the rules look at it.

    Attributes:
        text: All that was generated.
        answer: Its part outside of thinking, at the end of ``text``.
        truncated: Whether the budget cut it.
        question: The question.
        expected: The right answer.
        predicted: The answer that was extracted; None where there was none.
        branch: Which rule of the extractor found it.
    """

    text: str
    answer: str
    truncated: bool
    question: str
    expected: str
    predicted: str | None = None
    branch: str | None = None


@dataclass(frozen=True)
class Recovery:
    """Whether more tokens, or another sample, made a wrong answer right.

    Attributes:
        by_tokens: ``yes`` at `budget`, ``no`` up to `budget`, or ``unknown``.
        budget: The smallest larger budget at which it is right, or the largest that was looked at.
        samples: Other samples of the problem that were looked at.
        samples_right: How many of them are right.
        samples_budget: The budget at which they were looked at.
    """

    by_tokens: Verdict
    budget: int
    samples: int = 0
    samples_right: int = 0
    samples_budget: int = 0

    def sentence(self) -> str:
        """As shown to annotators."""
        said = {
            "yes": f"yes at budget {self.budget}",
            "no": f"no up to {self.budget}",
            "unknown": "unknown",
        }[self.by_tokens]
        if not self.samples:
            return said
        return (
            f"{said}; {self.samples_right} of {self.samples} other samples right at "
            f"budget {self.samples_budget}"
        )


def suggest(wrong: WrongAnswer) -> Suggestion:
    """The type that the text of a wrong answer suggests, with the reason."""
    for equation in eq.wrong_equations(wrong.text, wrong.truncated):
        assert equation.computed is not None
        shown = " ".join(equation.text.split())
        if len(shown) > _LONGEST_SHOWN:
            shown = shown[: _LONGEST_SHOWN - 1] + "\u2026"
        return Suggestion(
            "arithmetic",
            f"{position(wrong.text, equation.start)}: {shown}, but the left side is "
            f"{_decimal(equation.computed)}",
        )
    if wrong.truncated:
        return Suggestion("incomplete", "cut by the budget before its end")
    found = _right_answer(wrong)
    if found is None:
        return Suggestion()
    at = len(wrong.text) - len(wrong.answer) + found if wrong.answer else found
    taken = f"{wrong.predicted} was extracted" if wrong.predicted else "nothing was extracted"
    return Suggestion(
        "format", f"{position(wrong.text, at)}: the right answer {wrong.expected}, but {taken}"
    )


def position(text: str, offset: int) -> str:
    """A place in a text for people: ``line 2, character 14``, both from 1."""
    line = text.count("\n", 0, offset) + 1
    return f"line {line}, character {offset - text.rfind(chr(10), 0, offset)}"


def _decimal(value: Fraction) -> str:
    exact = plain(value)
    return exact if len(exact) <= 12 else f"{float(value):.6g}" if _fits(value) else "another value"


def _fits(value: Fraction) -> bool:
    return abs(value) < 10**300


def _right_answer(wrong: WrongAnswer) -> int | None:
    """Where in the answer the right one stands without having been extracted."""
    expected = parse_number(wrong.expected)
    declared = wrong.branch in _DECLARED
    if expected is None:
        if wrong.predicted is not None or not wrong.expected.strip():
            return None
        pattern = rf"(?<!\w){re.escape(wrong.expected.strip())}(?!\w)"
        match = re.search(pattern, wrong.answer, re.IGNORECASE)
        return match.start() if match else None
    results = [d.start for d in declarations(wrong.answer, False) if d.value == expected]
    if declared:
        return min(results, default=None)
    results += [e.start for e in eq.equations(wrong.answer) if e.value == expected]
    if not any(value == expected for _, value in _numbers(wrong.question)):
        results += [at for at, value in _numbers(wrong.answer) if value == expected]
    return min(results, default=None)


def _numbers(text: str) -> Iterator[tuple[int, Fraction]]:
    for match in _DIGITS.finditer(text):
        value = parse_number(match[0].rstrip(".,")) if len(match[0]) <= 64 else None
        if value is not None:
            yield match.start(), value


def label(study: Study) -> str:
    """The model's name in a table; another mode than plain is part of it."""
    return study.alias if study.mode == PLAIN else f"{study.alias}+{study.mode}"


def trace_mark(text: str) -> str:
    """A short mark of a generated text, to notice that a row is about another one.

    It begins with a letter: a spreadsheet would take some hexadecimal digits for a number.
    """
    return "t" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:11]


def errors_at(study: Study, budget: int) -> list[JudgedCut]:
    """Answers that are not right at a budget; what ended in an engine's error is none."""
    return [j for j in study.judged(budget) if not j.correct and j.outcome is not Outcome.ERROR]


def pick(answers: Iterable[JudgedCut], count: int, seed: int) -> list[JudgedCut]:
    """Choose ``count`` answers by chance.

    The chance is tied to problem and sample, not to place, budget or model: the same problems are
    picked at each budget as far as they are errors there, so that one can be followed from budget
    to budget; and more problems, or a larger count, only add.
    """

    def rank(judged: JudgedCut) -> str:
        name = f"{seed}\0{judged.problem.id}\0{judged.cut.trace.sample}"
        return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()

    return sorted(answers, key=rank)[:count]


def suggestion(judged: JudgedCut) -> Suggestion:
    """What the rules suggest for an answer; nothing for a right one."""
    if judged.correct or judged.outcome is Outcome.ERROR:
        return Suggestion()
    return suggest(
        WrongAnswer(
            text=judged.cut.text,
            answer=judged.cut.answer,
            truncated=judged.cut.truncated,
            question=judged.problem.question,
            expected=judged.problem.answer,
            predicted=judged.predicted,
            branch=judged.branch,
        )
    )


@dataclass
class Verdicts:
    """Where each trace of a study is right: measured recovery of its errors.

    Attributes:
        study: The study.
        others: A study of the same task with further samples, if there is one.
    """

    study: Study
    others: Study | None = None
    _right: dict[tuple[str, int], dict[int, bool]] = field(default_factory=dict)
    _samples: dict[str, list[bool]] = field(default_factory=dict)
    _samples_budget: int = 0

    def __post_init__(self) -> None:
        for budget in self.study.budgets:
            for judged in self.study.judged(budget):
                unit = judged.problem.id, judged.cut.trace.sample
                if judged.outcome is not Outcome.ERROR:
                    self._right.setdefault(unit, {})[budget] = judged.correct
        if self.others is not None and self.others.complete:
            self._samples_budget = self.others.largest
            for judged in self.others.judged(self.others.largest):
                if judged.outcome is not Outcome.ERROR:
                    self._samples.setdefault(judged.problem.id, []).append(judged.correct)

    def recovery(self, judged: JudgedCut) -> Recovery:
        """Whether more tokens, or another sample, made an answer right."""
        unit, budget = (judged.problem.id, judged.cut.trace.sample), judged.cut.budget
        later = {b: right for b, right in self._right.get(unit, {}).items() if b > budget}
        at = min((b for b, right in later.items() if right), default=None)
        samples, samples_budget = self._samples.get(judged.problem.id, []), self._samples_budget
        if not samples:
            largest = self.study.largest
            samples_budget = largest
            samples = [
                self._right[judged.problem.id, other][largest]
                for other in range(self.study.samples)
                if other != unit[1] and largest in self._right.get((judged.problem.id, other), {})
            ]
        if at is not None:
            verdict, until = "yes", at
        elif later:
            verdict, until = "no", max(later)
        elif not judged.cut.truncated:
            # The text ended by itself: a larger budget gives the same one.
            verdict, until = "no", budget
        else:
            verdict, until = "unknown", budget
        return Recovery(
            verdict,  # type: ignore[arg-type]
            until,
            len(samples),
            sum(samples),
            samples_budget if samples else 0,
        )


def row_of(judged: JudgedCut, model: str, verdicts: Verdicts) -> dict[str, str]:
    """One answer as a row, nothing filled in."""
    said = suggestion(judged)
    return {
        "problem_id": judged.problem.id,
        "budget": str(judged.cut.budget),
        "question": judged.problem.question,
        "ground_truth": judged.problem.answer,
        "generated": judged.cut.text,
        "predicted": judged.predicted or "",
        "correct": "yes" if judged.correct else "no",
        "outcome": judged.outcome.value,
        "tokens_used": str(judged.cut.tokens_used),
        "suggested_type": said.type or "",
        "suggested_reason": said.reason,
        "measured_recoverable": "" if judged.correct else verdicts.recovery(judged).sentence(),
        "model": model,
        "sample": str(judged.cut.trace.sample),
        "trace": trace_mark(judged.cut.text),
    }
