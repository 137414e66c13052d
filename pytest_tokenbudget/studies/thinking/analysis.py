"""What the thinking eval finds: one point an enforcement and budget, and what they add up to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from pytest_tokenbudget.core.trace import Outcome
from pytest_tokenbudget.report.limits import limits_of
from pytest_tokenbudget.report.truncation_signs import sign_counts
from pytest_tokenbudget.studies.thinking.study import Enforcement, ThinkingAnswer, ThinkingStudy

if TYPE_CHECKING:
    from pytest_tokenbudget.core.curve import Point
    from pytest_tokenbudget.core.truncation_signs import SignCount
    from pytest_tokenbudget.stats.intervals import Estimate
    from pytest_tokenbudget.stats.limits import Recommendations
    from pytest_tokenbudget.stats.tokens import TokenSpread
    from pytest_tokenbudget.studies.thinking.modes import ThinkingMode
    from pytest_tokenbudget.studies.thinking.statistics import (
        MethodComparison,
        Settling,
        Usefulness,
    )


@dataclass(frozen=True)
class ThinkingPoint:
    """One enforcement at one budget.

    Attributes:
        enforcement: What was done about the budget.
        closer: What ended the thinking; None for all but forced answers.
        budget: The budget; None for no limit.
        curve: Accuracy, truncation and tokens as of any point of a curve. Its own budget is the
            most that an answer could take.
        in_thinking: Share truncated in the thinking.
        in_answer: Share truncated in the answer.
        thinking_tokens: Thinking tokens, tags among them.
        tokens_per_correct: All tokens over the right answers; None where none is right.
        token_stats: Average, maximum, and how many were truncated.
        forced: Problems whose thinking was ended by force.
        reopened: Problems whose thinking was opened again after its close.
        spilled: Problems whose thinking went on after its close, up to another close tag.
    """

    enforcement: Enforcement
    closer: str | None
    budget: int | None
    curve: Point
    in_thinking: Estimate
    in_answer: Estimate
    thinking_tokens: TokenSpread
    answer_tokens: TokenSpread
    tokens_per_correct: Estimate | None
    token_stats: dict[str, float | int | None]
    forced: int
    reopened: int
    spilled: int

    @property
    def accuracy(self) -> Estimate:
        return self.curve.accuracy

    @property
    def name(self) -> str:
        """Enforcement and closer in words."""
        return self.enforcement.value if self.closer is None else f"forced, {self.closer}"


@dataclass(frozen=True)
class SwitchedOff:
    """Whether thinking that is switched off is off.

    Attributes:
        problems: Problems that were answered.
        thought: Those in which the model thought all the same.
        opened: Those in which it opened a block of its own.
        most: The most tokens that it thought.
    """

    problems: int
    thought: int
    opened: int
    most: int

    @property
    def is_off(self) -> bool:
        return not self.thought

    def sentence(self) -> str:
        """What is known, for people."""
        if self.is_off:
            return f"thinking switched off is off: none in {self.problems:,} answers"
        return (
            f"thinking switched off is not off: the model thought in {self.thought:,} of "
            f"{self.problems:,} answers, {self.most:,} tokens at the most"
        )


@dataclass(frozen=True)
class ThinkingReport:
    """What a thinking study found.

    Attributes:
        problems: Problems that have all their traces.
        points: One for each enforcement, closer and budget.
        settling: Where forced answers become right for good.
        usefulness: The smallest budget that is not worse than no limit.
        closers: Closers against each other, over the budgets above 0 and at each budget.
        enforcements: Forced against hard, at the budgets that both have.
        limits: Recommended limits of all tokens while thinking.
        thinking_limits: Recommended limits of the thinking alone.
        off_limits: The same with thinking switched off; None where it cannot be.
        signs: Signs of truncation over all hard cuts and all natural answers.
        off: Whether thinking switched off is off; None where there is no switch.
    """

    problems: int
    points: tuple[ThinkingPoint, ...]
    settling: Settling
    usefulness: Usefulness
    closers: tuple[MethodComparison, ...]
    enforcements: tuple[MethodComparison, ...]
    limits: Recommendations
    thinking_limits: Recommendations
    off_limits: Recommendations | None
    signs: tuple[SignCount, ...]
    off: SwitchedOff | None

    def points_of(self, enforcement: Enforcement, closer: str | None = None) -> list[ThinkingPoint]:
        """The points of an enforcement, of one closer if it is named, by rising budget."""
        return [
            point
            for point in self.points
            if point.enforcement is enforcement and closer in (None, point.closer)
        ]

    @property
    def thinking_off(self) -> ThinkingPoint | None:
        """The answers with thinking switched off, without a limit; None where it cannot be."""
        points = self.points_of(Enforcement.OFF)
        return next((point for point in points if point.budget is None), None)

    @property
    def natural(self) -> ThinkingPoint:
        """The answers without a limit."""
        [point] = self.points_of(Enforcement.NATURAL)
        return point

    def at(self, budget: int) -> list[ThinkingPoint]:
        """All points of a budget."""
        return [point for point in self.points if point.budget == budget]

    def forced(self, budget: int) -> ThinkingPoint:
        """The forced answers at a budget, with the default closer."""
        return next(p for p in self.at(budget) if p.enforcement is Enforcement.FORCED)

    def in_mode(self, mode: ThinkingMode) -> ThinkingPoint:
        """The answers in a mode: thinking switched off, without a limit, or ended at a budget."""
        if not mode.thinking:
            return next(p for p in self.points_of(Enforcement.OFF) if p.budget is None)
        if mode.thinking_budget is None:
            return self.natural
        return self.forced(mode.thinking_budget)

    def gated(self, budget: int) -> Point:
        """The same as a point that gates can judge."""
        return replace(self.forced(budget).curve, budget=budget)

    def gated_in(self, mode: ThinkingMode) -> Point:
        """The answers in a mode as a point that gates can judge."""
        point = self.in_mode(mode)
        return point.curve if point.budget is None else replace(point.curve, budget=point.budget)


def analyse_thinking(study: ThinkingStudy) -> ThinkingReport:
    """What a thinking study found; computed once.

    Raises:
        ValueError: If no problem has all its traces.
    """
    return study.cached(_analyse, study, study.forcing.target, study.natural.margin)


def _analyse(study: ThinkingStudy, target: float, margin: float) -> ThinkingReport:
    from pytest_tokenbudget.studies.thinking.statistics import (
        compare_methods,
        settle,
        stops_being_useful,
    )

    if not study.complete:
        raise ValueError(
            f"no problem of {study.task.name} has all its thinking traces of {study.alias}: there "
            "is nothing to analyse"
        )
    natural = study.unlimited()
    lengths = [float("nan") if a.correct != a.correct else float(a.thinking) for a in natural]
    free = study.correct([natural])[:, 0]
    forced = study.forced_correct()
    positive = study.positive
    places = [study.budgets.index(b) for b in positive]
    closers = {name: study.forced_correct(name) for name in study.closers}
    hard = study.correct([study.hard(b) for b in positive]) if positive else None

    def limits(
        answers: Sequence[ThinkingAnswer], kind: str, of_thinking: bool = False
    ) -> Recommendations:
        tokens = [a.thinking if of_thinking else a.judged.cut.tokens_used for a in answers]
        judged = [a.judged for a in answers]
        return limits_of(
            study.complete, judged, tokens, kind=kind, target=target, of_thinking=of_thinking
        )

    return ThinkingReport(
        problems=len(study.complete),
        points=tuple(map(point, enforced_answers(study))),
        settling=settle(study.budgets, forced, free, lengths, capped=study.unended),
        usefulness=stops_being_useful(
            study.budgets, forced, free, lengths, capped=study.unended, margin=margin
        ),
        closers=compare_methods(study.budgets, closers) if len(closers) > 1 else (),
        enforcements=(
            ()
            if hard is None
            else compare_methods(positive, {"forced": forced[:, places], "hard": hard})
        ),
        limits=limits(natural, "thinking"),
        thinking_limits=limits(natural, "thinking", of_thinking=True),
        off_limits=None if study.off is None else limits(study.switched_off(), "standard"),
        signs=sign_counts(
            [a.judged for a in column]
            for column in (*(study.hard(budget) for budget in positive), natural)
        ),
        off=_off(study),
    )


class EnforcedAnswers(NamedTuple):
    """All problems under one enforcement at one budget.

    Attributes:
        enforcement: What was done.
        closer: What ended the thinking, or how often it was sent on.
        budget: The budget, None for no limit.
        most: Tokens that an answer could take at the most.
        answers: One a problem.
    """

    enforcement: Enforcement
    closer: str | None
    budget: int | None
    most: int
    answers: Sequence[ThinkingAnswer]


def enforced_answers(study: ThinkingStudy) -> list[EnforcedAnswers]:
    """Every enforcement at every budget."""
    natural, answer = study.natural.reach, study.forcing.answer_tokens
    found = [
        EnforcedAnswers(Enforcement.HARD, None, budget, budget, study.hard(budget))
        for budget in study.positive
    ]
    found += [
        EnforcedAnswers(
            Enforcement.FORCED, name, budget, budget + answer, study.ended(budget, name)
        )
        for name in study.closers
        for budget in study.budgets
    ]
    found.append(EnforcedAnswers(Enforcement.NATURAL, None, None, natural, study.unlimited()))
    if study.off is not None:
        found += [
            EnforcedAnswers(Enforcement.OFF, None, budget, budget, study.switched_off(budget))
            for budget in study.positive
            if budget <= study.off.reach
        ]
        found.append(
            EnforcedAnswers(Enforcement.OFF, None, None, study.off.reach, study.switched_off())
        )
    found += [
        EnforcedAnswers(Enforcement.WAIT, str(number), None, natural, study.extended(number))
        for number in range(1, study.forcing.waits + 1)
    ]
    return found


def point(enforced: EnforcedAnswers) -> ThinkingPoint:
    """The point of one enforcement at one budget."""
    import numpy as np

    from pytest_tokenbudget.core.curve import build_curve
    from pytest_tokenbudget.stats.intervals import wilson
    from pytest_tokenbudget.stats.tokens import token_spread, token_stats, tokens_per_correct

    answers = enforced.answers
    judged = [a.judged for a in answers]
    shape = (len(answers), 1, 1)
    tokens = np.array([a.tokens for a in answers])
    cut = np.array([j.cut.truncated for j in judged])
    outcomes = np.array([j.outcome.value for j in judged], dtype=object)
    valid = outcomes != Outcome.ERROR.value
    correct = np.array([a.correct for a in answers])

    def share(outcome: Outcome) -> Estimate:
        return wilson(int((outcomes == outcome.value).sum()), int(valid.sum()))

    def spread(values: Sequence[int], capped: Sequence[bool]) -> TokenSpread:
        return token_spread(np.where(valid, values, np.nan), np.array(capped) & valid)

    used = np.where(valid, tokens, np.nan)
    within = [j.cut.in_thinking for j in judged]
    return ThinkingPoint(
        enforcement=enforced.enforcement,
        closer=enforced.closer,
        budget=enforced.budget,
        curve=build_curve(
            (enforced.most,), outcomes.reshape(shape), cut.reshape(shape), tokens.reshape(shape)
        ).points[0],
        in_thinking=share(Outcome.TRUNCATED_IN_THINKING),
        in_answer=share(Outcome.TRUNCATED_IN_ANSWER),
        thinking_tokens=spread(
            [a.thinking for a in answers],
            [a.forced or (c and w) for a, c, w in zip(answers, cut.tolist(), within, strict=True)],
        ),
        answer_tokens=spread(
            [a.answer for a in answers],
            [c and not w for c, w in zip(cut.tolist(), within, strict=True)],
        ),
        tokens_per_correct=tokens_per_correct(used, correct),
        token_stats=token_stats(used, cut),
        forced=sum(a.forced for a in answers),
        reopened=sum(a.reopened for a in answers),
        spilled=sum(a.spilled for a in answers),
    )


def _off(study: ThinkingStudy) -> SwitchedOff | None:
    if study.off is None:
        return None
    blocks = [(a, a.judged.cut.blocks) for a in study.switched_off()]
    thought = [a.thinking for a, b in blocks if b.opened or b.closed]
    return SwitchedOff(
        problems=len(blocks),
        thought=len(thought),
        opened=sum(b.opened for _, b in blocks),
        most=max(thought, default=0),
    )
