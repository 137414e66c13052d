"""What a context study amounts to: a point for each arm, strategy and limit, and an advice."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_tokenbudget.core.context_plan import CUT_OVER_CHAT, WHOLE_CELL, Cell, WindowFacts
from pytest_tokenbudget.core.trace import Outcome
from pytest_tokenbudget.studies.context.conversations import Arm
from pytest_tokenbudget.studies.context.study import ContextAnswer, ContextStudy

if TYPE_CHECKING:
    from pytest_tokenbudget.core.curve import Point
    from pytest_tokenbudget.stats.intervals import Estimate, Floats
    from pytest_tokenbudget.studies.context.statistics import Advice, Contrast

WHOLE_LIMIT = WHOLE_CELL.limit


@dataclass(frozen=True)
class ConversationGroup:
    """Some of the conversations of a point.

    Attributes:
        label: What they have in common: a depth from 0 to 1, or a number of turns.
        accuracy: Rate of right answers.
        kept: Share of those whose window holds all that the answer needs; None where none can be
            told.
        question_whole: Share of those whose window holds the whole question; None where none can
            be told.
    """

    label: float
    accuracy: Estimate
    kept: Estimate | None
    question_whole: Estimate | None


@dataclass(frozen=True)
class WindowPoint:
    """The conversations of one arm, posed in one way.

    Of the answers to windows that hold the whole question, those where all that is needed is there
    tell what the model fails by itself, and those where it is not tell how often it guesses right.

    Attributes:
        arm: What is asked.
        strategy: The truncation strategy; empty for the whole conversation.
        limit: The limit as it is written.
        curve: Accuracy, completed, truncation of outputs, best and worst case. A conversation that
            has no window counts as not answered.
        no_window: Conversations that have none.
        why: Why they have none, for people; empty where all have one.
        kept: Share of windows that hold all that the answer needs: the facts, or a task's system
            prompt. None where it cannot be told.
        system_whole: Share of windows that hold the whole system prompt; None without one.
        question_whole: Share that hold the whole question.
        if_kept: Accuracy where question and all that is needed are there.
        if_lost: Accuracy where the question is there, and something that is needed is not.
        if_unasked: Accuracy where the question itself is cut.
        prompt_tokens: Tokens of a prompt as it is posed.
        unused: Tokens that the limit would still have allowed; 0 for a whole conversation.
        tokens_lost: Tokens of the whole prompt that are gone.
        share_kept: Share of the whole prompt's tokens that are still there.
        messages_lost: Mean number of messages of which nothing is left.
        by_depth: By the depth of the facts; empty where there are none.
        by_turns: By the length of the conversation.
    """

    arm: Arm
    strategy: str
    limit: str
    curve: Point
    no_window: int
    why: str
    kept: Estimate | None
    system_whole: Estimate | None
    question_whole: Estimate | None
    if_kept: Estimate | None
    if_lost: Estimate | None
    if_unasked: Estimate | None
    prompt_tokens: Estimate
    unused: Estimate
    tokens_lost: Estimate
    share_kept: Estimate
    messages_lost: float
    by_depth: tuple[ConversationGroup, ...]
    by_turns: tuple[ConversationGroup, ...]

    @property
    def accuracy(self) -> Estimate:
        """Rate of right answers over all conversations."""
        return self.curve.accuracy


@dataclass(frozen=True)
class ContextReport:
    """All points of a context study, and what follows from them.

    Attributes:
        arms: The arms, in order.
        strategies: The truncation strategies.
        limits: The limits as they are written, the whole conversation last.
        points: Every arm posed in every way, the whole conversation first.
        advice: For each arm, and for all together under ``all``, the way to truncate.
        contrasts: For each arm, every strategy against the first.
        alone: For each arm, over all truncated windows that hold question and all that is needed,
            the rate of right answers: what it lacks of 1 the model fails by itself.
        guessed: The same over windows that hold the question, but not all that is needed.
    """

    arms: tuple[Arm, ...]
    strategies: tuple[str, ...]
    limits: tuple[str, ...]
    points: tuple[WindowPoint, ...]
    advice: Mapping[str, Advice]
    contrasts: Mapping[str, tuple[Contrast, ...]]
    alone: Mapping[str, Estimate | None]
    guessed: Mapping[str, Estimate | None]

    def at(self, arm: str, strategy: str, limit: str) -> WindowPoint:
        """The point of an arm posed in one way.

        Args:
            arm: ``recall``, ``multi-hop`` or ``task``.
            strategy: A truncation strategy.
            limit: A limit as it is written; ``100%`` for the whole conversation.

        Raises:
            ValueError: If there is none, naming what there is.
        """
        wanted = "" if limit == WHOLE_LIMIT else strategy
        for point in self.points:
            if (point.arm, point.strategy, point.limit) == (arm, wanted, limit):
                # The whole conversation is the same prompt whatever would have truncated it.
                return replace(point, strategy=strategy)
        raise ValueError(
            f"nothing was measured for {arm}, {strategy} at {limit}; there are "
            f"{', '.join(self.arms)}; {', '.join(self.strategies)}; {', '.join(self.limits)}"
        )

    def whole(self, arm: str) -> WindowPoint:
        """The point of the whole conversations of an arm."""
        return self.at(arm, "", WHOLE_LIMIT)


def analyse_context(study: ContextStudy) -> ContextReport:
    """Everything that a context study says; computed once for each study.

    Raises:
        ValueError: If no conversation has all its answers.
    """
    if not study.complete:
        raise ValueError(f"no conversation has all its answers of {study.alias}: nothing to judge")
    return study.cached(_analyse, study)


def _analyse(study: ContextStudy) -> ContextReport:
    from pytest_tokenbudget.studies.context.statistics import contrasts

    context_plan = study.context_plan
    parts: dict[str, tuple[Arm, ...]] = {arm.value: (arm,) for arm in study.arms}
    if len(parts) > 1:
        parts["all"] = study.arms
    return ContextReport(
        arms=study.arms,
        strategies=context_plan.strategies,
        limits=(*context_plan.limits, WHOLE_LIMIT),
        points=tuple(_point(study, arm, cell) for arm in study.arms for cell in study.cells),
        advice={name: _advice(study, arms) for name, arms in parts.items()},
        contrasts={
            name: contrasts(context_plan.strategies, context_plan.limits, _correct(study, arms))
            for name, arms in parts.items()
        },
        alone={arm.value: _pooled(study, arm, needed_whole=True) for arm in study.arms},
        guessed={arm.value: _pooled(study, arm, needed_whole=False) for arm in study.arms},
    )


def _pooled(study: ContextStudy, arm: Arm, *, needed_whole: bool) -> Estimate | None:
    """Rate over all truncated windows of an arm, clustered by conversation."""
    import numpy as np

    from pytest_tokenbudget.stats.intervals import clustered_rate

    def score(answer: ContextAnswer) -> float:
        facts = answer.facts
        counts = facts.needed_whole is needed_whole and facts.question_whole is not False
        # A limit in tokens may be longer than a conversation.
        return answer.correct if facts.lost and counts and answer.judged else math.nan

    cells = [cell for cell in study.cells if cell != WHOLE_CELL]
    scores = np.array([[score(a) for a in study.answers(arm, cell)] for cell in cells]).T
    return clustered_rate(scores) if np.isfinite(scores).any() else None


def _correct(study: ContextStudy, arms: Sequence[Arm]) -> dict[tuple[str, str], Floats]:
    import numpy as np

    return {
        (cell.strategy, cell.limit): np.array(
            [answer.correct for arm in arms for answer in study.answers(arm, cell)]
        )
        for cell in study.cells
    }


def _advice(study: ContextStudy, arms: Sequence[Arm]) -> Advice:
    from pytest_tokenbudget.studies.context.statistics import advise

    correct = _correct(study, arms)
    tokens = {
        (cell.strategy, cell.limit): _mean(
            answer.facts.tokens
            for arm in arms
            for answer in study.answers(arm, cell)
            if answer.judged
        )
        for cell in study.cells
    }
    whole = (WHOLE_CELL.strategy, WHOLE_CELL.limit)
    return advise(
        strategies=study.context_plan.strategies,
        limits=study.context_plan.limits,
        correct=correct,
        whole=correct[whole],
        tokens=tokens,
        whole_tokens=tokens[whole],
        margin=study.whole.margin,
    )


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else math.nan


def _point(study: ContextStudy, arm: Arm, cell: Cell) -> WindowPoint:
    import numpy as np

    from pytest_tokenbudget.core.curve import build_curve
    from pytest_tokenbudget.stats.intervals import mean_estimate

    answers = study.answers(arm, cell)
    windows = [answer for answer in answers if answer.judged is not None]
    judged = [answer.judged for answer in answers]

    outcomes = [Outcome.NO_ANSWER if j is None else j.outcome for j in judged]
    curve = build_curve(
        [study.whole.reach],
        np.array([str(o.value) for o in outcomes], dtype=object)[:, None, None],
        np.array([j is not None and j.cut.truncated for j in judged])[:, None, None],
        np.array([0 if j is None else j.cut.tokens_used for j in judged])[:, None, None],
    )

    def mean(value: Callable[[ContextAnswer], float]) -> Estimate:
        return mean_estimate(np.array([[value(a)] for a in windows] or [[math.nan]]))

    asked = [a for a in windows if a.facts.question_whole is not False]
    return WindowPoint(
        arm=arm,
        strategy=cell.strategy,
        limit=cell.limit,
        curve=curve.points[0],
        no_window=len(answers) - len(windows),
        why=_no_window_reason([a.facts.impossible for a in answers if a.judged is None]),
        kept=_share(a.facts.needed_whole for a in windows),
        system_whole=_share(a.facts.system_whole for a in windows),
        question_whole=_share(a.facts.question_whole for a in windows),
        if_kept=_accuracy(a for a in asked if a.facts.needed_whole is True),
        if_lost=_accuracy(a for a in asked if a.facts.needed_whole is False),
        if_unasked=_accuracy(a for a in windows if a.facts.question_whole is False),
        prompt_tokens=mean(lambda a: a.facts.tokens),
        unused=mean(lambda a: _unused(cell, a.facts)),
        tokens_lost=mean(lambda a: a.facts.lost),
        share_kept=mean(lambda a: 1 - a.facts.lost / a.facts.original),
        messages_lost=_mean(a.facts.messages_lost for a in windows),
        by_depth=_groups(answers, lambda a: a.case.depth),
        by_turns=_groups(answers, lambda a: a.case.turns),
    )


def _no_window_reason(reasons: Sequence[str]) -> str:
    if not reasons:
        return ""
    if CUT_OVER_CHAT in reasons:
        return "only messages can be posed over chat"
    return "what must stay does not fit"


def _unused(cell: Cell, facts: WindowFacts) -> int:
    limit = cell.context_limit.tokens_of(facts.original)
    return max(0, min(limit, facts.original) - facts.tokens) if limit else 0


def _groups(
    answers: Sequence[ContextAnswer], label: Callable[[ContextAnswer], float | None]
) -> tuple[ConversationGroup, ...]:
    found: dict[float, list[ContextAnswer]] = {}
    for answer in answers:
        if (name := label(answer)) is not None:
            found.setdefault(name, []).append(answer)
    groups = []
    for name in sorted(found):
        accuracy = _accuracy(found[name])
        if accuracy is not None:
            facts = [a.facts for a in found[name] if a.judged is not None]
            groups.append(
                ConversationGroup(
                    name,
                    accuracy,
                    kept=_share(each.needed_whole for each in facts),
                    question_whole=_share(each.question_whole for each in facts),
                )
            )
    return tuple(groups)


def _accuracy(answers: Iterable[ContextAnswer]) -> Estimate | None:
    return _share(None if math.isnan(a.correct) else bool(a.correct) for a in answers)


def _share(verdicts: Iterable[bool | None]) -> Estimate | None:
    """Rate of what is true among what can be told."""
    from pytest_tokenbudget.stats.intervals import wilson

    told = [verdict for verdict in verdicts if verdict is not None]
    return wilson(sum(told), len(told)) if told else None
