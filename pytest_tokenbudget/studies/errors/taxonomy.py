"""Types of errors: which there are, and what a text itself suggests.

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

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from pytest_tokenbudget.tasks import equations as eq
from pytest_tokenbudget.tasks.answers import declarations, parse_number, plain

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

    def words(self) -> str:
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
    for equation in eq.wrong(wrong.text, wrong.truncated):
        assert equation.computed is not None
        shown = " ".join(equation.text.split())
        if len(shown) > _LONGEST_SHOWN:
            shown = shown[: _LONGEST_SHOWN - 1] + "\u2026"
        return Suggestion(
            "arithmetic",
            f"{place(wrong.text, equation.start)}: {shown}, but the left side is "
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
        "format", f"{place(wrong.text, at)}: the right answer {wrong.expected}, but {taken}"
    )


def place(text: str, at: int) -> str:
    """A place in a text for people: ``line 2, character 14``, both from 1."""
    line = text.count("\n", 0, at) + 1
    return f"line {line}, character {at - text.rfind(chr(10), 0, at)}"


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
