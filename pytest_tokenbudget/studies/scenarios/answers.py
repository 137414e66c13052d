"""What answers to scenarios are: valid JSON, a legal choice, and which one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from pytest_tokenbudget.core.scoring import JudgedCut
from pytest_tokenbudget.core.trace import Outcome
from pytest_tokenbudget.stats.intervals import Estimate, clustered_rate
from pytest_tokenbudget.tasks.problem import Problem
from pytest_tokenbudget.tasks.ruled import json_objects


class AnswerKind(StrEnum):
    """What an answer amounts to; each is one of these."""

    LEGAL = "legal"  # a JSON object with a choice that the game has
    ILLEGAL = "illegal"  # one with a choice that it has not
    NO_CHOICE = "no choice"  # a JSON object without a choice
    NO_JSON = "no JSON"  # ended without any JSON object
    TRUNCATED = "truncated"  # cut before any JSON object had ended
    ERROR = "error"  # the engine failed: in no rate


VALID = (AnswerKind.LEGAL, AnswerKind.ILLEGAL, AnswerKind.NO_CHOICE)


@dataclass(frozen=True)
class GroupAnswers:
    """Answers to a group of scenarios, at one budget.

    Attributes:
        findings: How many of each finding; all of them together are the answers.
        valid_json: Share with a valid JSON object, of all without an error.
        valid_of_completed: The same of those that the budget did not cut; None where it cut all.
        alone: Share that is one valid JSON object and nothing else.
        legal: Share with a legal choice.
        legal_of_valid: The same of those with a valid JSON object; None where there is none.
        choices: How often each legal choice was made, the options of all games together.
        places: How often the option that stands first was chosen, that which stands second, ...
        safest: Share of legal choices whose worst case is the best; only of games whose options
            differ in that. None where there is none.
    """

    findings: Mapping[str, int]
    valid_json: Estimate
    valid_of_completed: Estimate | None
    alone: Estimate
    legal: Estimate
    legal_of_valid: Estimate | None
    choices: Mapping[str, int]
    places: tuple[int, ...]
    safest: Estimate | None


def has_options(problems: Sequence[Problem]) -> bool:
    """Whether all problems are choices between options."""
    return bool(problems) and all(isinstance(p.metadata.get("options"), list) for p in problems)


def finding_of(judged: JudgedCut) -> AnswerKind:
    """What one answer amounts to."""
    if judged.outcome is Outcome.ERROR:
        return AnswerKind.ERROR
    if judged.correct:
        return AnswerKind.LEGAL
    if judged.predicted is not None:
        return AnswerKind.ILLEGAL
    if any(True for _ in json_objects(judged.cut.answer)):
        return AnswerKind.NO_CHOICE
    return AnswerKind.TRUNCATED if judged.cut.truncated else AnswerKind.NO_JSON


def answers_of(judged: Sequence[JudgedCut], samples: int = 1) -> GroupAnswers:
    """What a group's answers amount to.

    Args:
        judged: Answers to problems with options, all samples of a problem together; those with an
            error are in no rate.
        samples: How many a problem.
    """
    found = [finding_of(each) for each in judged]
    choices: Counter[str] = Counter()
    places: Counter[int] = Counter()
    safe: list[bool | None] = []
    for each, what in zip(judged, found, strict=True):
        if what is not AnswerKind.LEGAL:
            safe.append(None)
            continue
        options, chosen = options_of(each.problem), str(each.predicted)
        choices[chosen] += 1
        places[options.index(chosen)] += 1
        safest = safest_options(each.problem)
        safe.append(chosen in safest if 0 < len(safest) < len(options) else None)
    seen = [what is not AnswerKind.ERROR for what in found]
    valid = [what in VALID for what in found]
    legal = [what is AnswerKind.LEGAL for what in found]
    ended = [not each.cut.truncated for each in judged]
    alone = [_alone(each.cut.answer) for each in judged]

    def rate(hits: Sequence[bool], among: Sequence[bool]) -> Estimate:
        return _rate([h if a else None for h, a in zip(hits, among, strict=True)], samples)

    completed = [s and e for s, e in zip(seen, ended, strict=True)]
    most = max((len(options_of(each.problem)) for each in judged), default=0)
    return GroupAnswers(
        findings={what.value: found.count(what) for what in AnswerKind},
        valid_json=rate(valid, seen),
        valid_of_completed=rate(valid, completed) if any(completed) else None,
        alone=rate(alone, seen),
        legal=rate(legal, seen),
        legal_of_valid=rate(legal, valid) if any(valid) else None,
        choices=dict(sorted(choices.items(), key=lambda item: (-item[1], item[0]))),
        places=tuple(places[place] for place in range(most)),
        safest=_rate(safe, samples) if any(each is not None for each in safe) else None,
    )


def _rate(hits: Sequence[bool | None], samples: int) -> Estimate:
    """Share of hits with an interval by problem; None is in no rate."""
    values = [np.nan if hit is None else float(hit) for hit in hits]
    return clustered_rate(np.array(values, np.float64).reshape(-1, samples))


def safest_options(problem: Problem) -> list[str]:
    """The options whose worst case is the best one; none where the payoffs are not known."""
    options, payoffs = options_of(problem), problem.metadata.get("payoffs")
    if not isinstance(payoffs, list) or len(payoffs) != len(options):
        return []
    worst = [min(row) for row in payoffs]
    return [option for option, least in zip(options, worst, strict=True) if least == max(worst)]


def options_of(problem: Problem) -> list[str]:
    """The options of a problem, in their order."""
    options = problem.metadata["options"]
    assert isinstance(options, list)
    return [str(option) for option in options]


def _alone(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
