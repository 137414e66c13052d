"""The answers that gates judge in the thinking eval: those of each enforcement, or of a mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from pytest_tokenbudget.core.answers import Answers, AnswersByBudget

if TYPE_CHECKING:
    from pytest_tokenbudget.models.resolution import ModelSpec
    from pytest_tokenbudget.session import Session
    from pytest_tokenbudget.studies.thinking.study import ThinkingAnswer, ThinkingStudy
    from pytest_tokenbudget.studies.thinking.thinking_mode import ThinkingMode

# The forced answers are judged if a gate names no mode.
ENFORCEMENTS: Final = ("forced", "hard", "natural", "off")


def thinking_answers(
    session: Session, spec: ModelSpec, study: ThinkingStudy, mode: ThinkingMode | None
) -> AnswersByBudget:
    """The answers of a thinking study by enforcement, the forced ones first.

    Args:
        session: The state of this pytest process.
        spec: The model.
        study: The study.
        mode: The mode under test, whose answers are the only ones then.
    """
    most = study.natural.reach + study.forcing.answer_tokens

    def answers_of(answers: Sequence[ThinkingAnswer]) -> Answers:
        return Answers([a.judged for a in answers], 1, [a.tokens for a in answers], most)

    if mode is not None:
        chosen = mode
        return AnswersByBudget(
            study.budgets[-1], {"": lambda budget: answers_of(study.in_mode(chosen))}
        )
    by_enforcement: dict[str, Callable[[int], Sequence[ThinkingAnswer]]] = {
        "forced": study.ended,
        "hard": study.hard,
        "natural": lambda budget: study.unlimited(),
        "off": study.switched_off,
    }

    def source(name: str) -> Callable[[int], Answers]:
        def at(budget: int) -> Answers:
            # Nothing can be cut at 0 tokens, and no limit is what an engine means by it.
            known = budget or name in ("forced", "natural")
            return answers_of(by_enforcement[name](budget) if known else ())

        return at

    there = [name for name in ENFORCEMENTS if name != "off" or study.off is not None]
    return AnswersByBudget(study.budgets[-1], {name: source(name) for name in there})
