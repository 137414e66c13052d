"""Recommended limits of a study, generated or recorded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_tokenbudget.common.text_layout import plural, share
from pytest_tokenbudget.core.scoring import JudgedCut
from pytest_tokenbudget.core.study import PLAIN, Study
from pytest_tokenbudget.core.trace import Outcome
from pytest_tokenbudget.report.files import to_record
from pytest_tokenbudget.report.json_files import RunInfo
from pytest_tokenbudget.tasks.problem import Problem

if TYPE_CHECKING:
    from pytest_tokenbudget.stats.limits import Recommendation, Recommendations
    from pytest_tokenbudget.stats.truncation import Truncation

TARGET = 0.01
WEAK = 5
"""A limit whose bound on truncation is above so many times the target is not recommended."""


def recommended_limits(study: Study, target: float = TARGET) -> dict[str, Recommendations]:
    """Limits that truncate at most ``target`` of the answers, as far as the traces can promise it.

    Distributions are fitted to all traces together and not to single categories.

    Args:
        study: Its answers at the largest budget are looked at; those cut there needed more.
        target: Share of answers that may be truncated.

    Returns:
        Recommendations by what is limited: ``all_tokens``, and ``thinking_tokens`` where a model
        thought.
    """
    return study.cached(_recommended, study, target)


def _recommended(study: Study, target: float) -> dict[str, Recommendations]:
    judged = study.judged(study.largest)

    def limits(kind: str, tokens: list[int], of_thinking: bool) -> Recommendations:
        return limits_of(
            study.complete,
            judged,
            tokens,
            kind=kind,
            target=target,
            of_thinking=of_thinking,
            fit_each=False,
        )

    kind = "standard" if study.mode == PLAIN else "thinking"
    found = {"all_tokens": limits(kind, [j.cut.tokens_used for j in judged], False)}
    if any(j.cut.opened and j.cut.thinking_tokens for j in judged):
        thought = [j.cut.thinking_tokens for j in judged]
        found["thinking_tokens"] = limits("thinking", thought, True)
    return found


def recommendation_sentence(
    recommendation: Recommendation, accuracy: float | None = None, purpose: str = ""
) -> str:
    """The recommended limit in one sentence, with its accuracy and its truncation.

    A limit whose bound is far above the target is named, and not recommended.

    Args:
        recommendation: What the traces say about limits.
        accuracy: Accuracy at the limit that is named (``named_limit``); None or NaN if unknown.
        purpose: What the limit is for, after "tokens".
    """
    named = named_limit(recommendation)
    if named is None:
        return "no limit can be recommended: there is no trace to judge by"
    right = "accuracy there not known, "
    if accuracy is not None and math.isfinite(accuracy):
        right = f"{share(accuracy)} accuracy, "
    limit = f"{named.limit:,} tokens{purpose}"
    if recommendation.promise == "cap too low":
        cut = (named.truncated + named.unknown) / recommendation.needs.traces
        return (
            f"no limit up to {limit} can be recommended: at {named.limit:,} {right}"
            f"{share(cut)} truncated"
        )
    bound = f"at most {share(named.upper)} truncated"
    if not is_recommended(recommendation):
        few = plural(recommendation.needs.problems, "problem")
        return f"no limit can be recommended from {few}: at {limit} {right}{bound}"
    return f"recommended limit {limit}: {right}{bound}"


def limit_answer(study: Study, recommendation: Recommendation, purpose: str = "") -> str:
    """The sentence of a recommendation with the study's accuracy at the limit, where it is known.

    Args:
        study: Its accuracy at every token count is looked at.
        recommendation: A recommendation for all of its tokens.
        purpose: What the limit is for, after "tokens".
    """
    named = named_limit(recommendation)
    known = named is not None and 1 <= named.limit <= study.reach
    accuracy = study.accuracy_at(named.limit) if named and known else None
    return recommendation_sentence(recommendation, accuracy, purpose)


def named_limit(recommendation: Recommendation) -> Truncation | None:
    """The limit that a recommendation names, and what it truncates; None without any trace."""
    return recommendation.truncation or recommendation.best


def is_recommended(recommendation: Recommendation) -> bool:
    """Whether the limit that is named is also recommended: its bound is near the target."""
    named = named_limit(recommendation)
    if named is None or recommendation.promise == "cap too low":
        return False
    return named.upper <= WEAK * recommendation.target


def limits_record(recommendation: Recommendations) -> dict[str, object]:
    """Recommendations as they stand in result files, each with its sentence."""

    def record(single: Recommendation) -> dict[str, object]:
        return {**to_record(single), "sentence": single.sentence()}

    return {
        "overall": record(recommendation.overall),
        "by_category": {name: record(one) for name, one in recommendation.by_category.items()},
    }


def limits_of(
    problems: Sequence[Problem],
    answers: Sequence[JudgedCut],
    tokens: Sequence[int],
    *,
    kind: str,
    target: float,
    of_thinking: bool = False,
    fit_each: bool = True,
) -> Recommendations:
    """Recommended limits over all answers and for each category.

    Args:
        problems: What was asked.
        answers: As many of each problem, in order; errors are missing.
        tokens: What each took of what is limited; one that was cut needed more.
        kind: Which rules of thumb apply.
        target: Share of answers that may be truncated.
        of_thinking: Whether the thinking is limited, so that a cut after it does not matter.
        fit_each: Whether to fit distributions to each category, too.
    """
    import numpy as np

    from pytest_tokenbudget.stats.limits import recommend_by_category

    needs = [
        np.nan if j.outcome is Outcome.ERROR else count
        for j, count in zip(answers, tokens, strict=True)
    ]
    # A limit up to the budget truncates what it cut, wherever the text ends.
    allowed = [
        count + j.cut.budget - j.cut.tokens_used for j, count in zip(answers, tokens, strict=True)
    ]
    whole = [not j.cut.truncated or (of_thinking and not j.cut.in_thinking) for j in answers]
    shape = len(problems), -1
    return recommend_by_category(
        np.array(needs, dtype=float).reshape(shape),
        np.array(whole, dtype=bool).reshape(shape),
        [problem.category for problem in problems],
        caps=np.array(allowed, dtype=float).reshape(shape),
        kind=kind,
        target=target,
        fit_each=fit_each,
    )


def target_of(run: RunInfo) -> float:
    """The share of answers that a recommended limit may truncate."""
    return float(str(run.settings.get("target_truncation", TARGET)))
