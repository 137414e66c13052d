"""Answers of a study as rows for annotators: which are picked, and what is said about each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from pytest_tokenbudget.core.scoring import JudgedCut
from pytest_tokenbudget.core.study import PLAIN, Study
from pytest_tokenbudget.core.trace import Outcome
from pytest_tokenbudget.studies.errors import taxonomy


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


def pick(found: Iterable[JudgedCut], count: int, seed: int) -> list[JudgedCut]:
    """Choose ``count`` answers by chance.

    The chance is tied to problem and sample, not to place, budget or model: the same problems are
    picked at each budget as far as they are errors there, so that one can be followed from budget
    to budget; and more problems, or a larger count, only add.
    """

    def rank(judged: JudgedCut) -> str:
        name = f"{seed}\0{judged.problem.id}\0{judged.cut.trace.sample}"
        return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()

    return sorted(found, key=rank)[:count]


def suggestion(judged: JudgedCut) -> taxonomy.Suggestion:
    """What the rules suggest for an answer; nothing for a right one."""
    if judged.correct or judged.outcome is Outcome.ERROR:
        return taxonomy.Suggestion()
    return taxonomy.suggest(
        taxonomy.WrongAnswer(
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

    def recovery(self, judged: JudgedCut) -> taxonomy.Recovery:
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
        return taxonomy.Recovery(
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
        "measured_recoverable": "" if judged.correct else verdicts.recovery(judged).words(),
        "model": model,
        "sample": str(judged.cut.trace.sample),
        "trace": trace_mark(judged.cut.text),
    }
