"""What the scenarios eval finds: answers, tokens needed and limits, by game, framing, category."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from pytest_tokenbudget.common.messages import nearest
from pytest_tokenbudget.common.outside_text import PrintableError
from pytest_tokenbudget.core.study import PLAIN, Study
from pytest_tokenbudget.core.trace import Outcome
from pytest_tokenbudget.report.limits import TARGET
from pytest_tokenbudget.settings.generation_config import SPLITS, GenerationConfig
from pytest_tokenbudget.stats.intervals import Estimate, Floats, clustered_rate
from pytest_tokenbudget.stats.resampling import holm
from pytest_tokenbudget.stats.rules_of_thumb import GUIDELINES
from pytest_tokenbudget.stats.tokens import TokenSpread, token_spread
from pytest_tokenbudget.stats.truncation import Bools, LimitVerdict, judge_limit, truncates
from pytest_tokenbudget.studies.scenarios.answers import GroupAnswers, answers_of, has_options
from pytest_tokenbudget.studies.scenarios.checks import (
    MORE,
    GivenLimit,
    GroupDifference,
    GuidelineCheck,
    MoreCheck,
    judge_given,
    lengths_differ,
    mean_gap,
)
from pytest_tokenbudget.studies.scenarios.limits import (
    Learned,
    ScenarioReplay,
    learn,
    replay_limits,
)
from pytest_tokenbudget.tasks.problem import Problem

ALL = "all"
GAME, FRAMING, CATEGORY = "game", "framing", "category"
REPORTED_BY = (GAME, FRAMING, CATEGORY)
LIMITED_BY = (FRAMING, CATEGORY)
# What else makes the answers of a split's groups unlike.
STRATA = {GAME: FRAMING, FRAMING: GAME, CATEGORY: FRAMING}


class NoScenariosError(PrintableError):
    """The problems are not of several kinds; the message is for people."""


@dataclass(frozen=True)
class ScenarioGroup:
    """Scenarios that have something in common.

    Attributes:
        name: What they have in common.
        needs: Tokens that answers took; those cut at the largest budget needed more.
        truncation: Share of answers that are cut, at each budget.
        answers: What the answers are at the largest budget; None where problems have no options.
    """

    name: str
    needs: TokenSpread
    truncation: Mapping[int, Estimate]
    answers: GroupAnswers | None


@dataclass(frozen=True)
class ScenarioReport:
    """What the scenarios eval found.

    Attributes:
        budget: The largest budget, which answers were generated with.
        target: Share of answers that a limit may truncate.
        overall: All scenarios.
        groups: By what scenarios are sorted by (``game``, ``framing``, ``category``), then each.
        differ: Whether the groups of each take unlike numbers of tokens.
        learned: The limit of all, and of each framing and category.
        guidelines: Rules of thumb against these traces.
        more: Whether anger needs more than happiness; None where one of them is not there.
        replay: One limit against several; None where there are too few problems.
        given: What limits of ``--generation-config`` truncate; None where there were none.
    """

    budget: int
    target: float
    overall: ScenarioGroup
    groups: Mapping[str, tuple[ScenarioGroup, ...]]
    differ: tuple[GroupDifference, ...]
    learned: Learned
    guidelines: tuple[GuidelineCheck, ...]
    more: MoreCheck | None
    replay: ScenarioReplay | None
    given: Mapping[str, tuple[GivenLimit, ...]] | None


def analyse_scenarios(
    study: Study, target: float = TARGET, given: GenerationConfig | None = None
) -> ScenarioReport:
    """What a study says about scenarios and their limits; computed once for the arguments.

    Args:
        study: The study; problems whose traces are not all there are left out.
        target: Share of answers that a limit may truncate.
        given: Limits to be judged.

    Raises:
        NoScenariosError: If no problem has all its traces, or they are all of one kind.
    """
    return study.cached(_analyse, study, target, given)


def splits_of(problems: Sequence[Problem]) -> dict[str, list[str]]:
    """What problems can be sorted by, and the group of each; only what parts them."""
    found = {}
    for split in REPORTED_BY:
        names = [name_of(problem, split) for problem in problems]
        if all(names) and len(set(names)) > 1:
            found[split] = names
    return found


def name_of(problem: Problem, split: str) -> str:
    """A problem's game, framing or category; empty where it has none."""
    if split == CATEGORY:
        return problem.category
    name = problem.metadata.get(split)
    return name if isinstance(name, str) else ""


def unknown_names(given: GenerationConfig, problems: Sequence[Problem]) -> dict[str, str | None]:
    """Names that limits were given for and no problem has, with the nearest that one has."""
    found: dict[str, str | None] = {}
    for split, limits in given.limits.items():
        there = {name_of(problem, split) for problem in problems} - {""}
        for name in limits:
            if name not in there:
                found[name] = next(iter(nearest(name, there, count=1)), None)
    return found


def choices_made(study: Study) -> dict[str, dict[str, dict[str, int]]]:
    """How often each legal choice was made, by game, then by framing."""
    found: dict[str, dict[str, Counter[str]]] = {}
    for judged in study.judged(study.largest):
        game, framing = (name_of(judged.problem, split) for split in (GAME, FRAMING))
        if judged.correct and game and framing:
            own = found.setdefault(game, {}).setdefault(framing, Counter())
            own[str(judged.predicted)] += 1
    return {game: {name: dict(own) for name, own in by.items()} for game, by in found.items()}


class _Needs(NamedTuple):
    """Problems x samples.

    Attributes:
        tokens: Tokens taken; NaN after an error.
        ended: Whether each ended by itself.
        reached: Tokens taken, or the limit up to which each is known to be truncated.
    """

    tokens: Floats
    ended: Bools
    reached: Floats


def _analyse(study: Study, target: float, given: GenerationConfig | None) -> ScenarioReport:
    problems = study.complete
    if not study.scored:
        raise NoScenariosError(
            f"no problem of {study.task.name} has all its traces of {study.alias}"
        )
    splits = splits_of(problems)
    if not splits:
        raise NoScenariosError(
            f"the {len(problems):,} problems of {study.task.name} are all of one kind: scenarios "
            "are compared by framing and category, as those of --task games are"
        )
    needs = _needs(study)
    limited = {split: names for split, names in splits.items() if split in LIMITED_BY}
    learned = learn(needs.reached, needs.ended, limited, target=target)
    right = study.correct_by_token()[1] if study.by_token_available else None
    return ScenarioReport(
        budget=study.largest,
        target=target,
        overall=_group(study, needs, ALL, range(len(problems))),
        groups={
            split: tuple(
                _group(study, needs, name, [i for i, own in enumerate(names) if own == name])
                for name in dict.fromkeys(names)
            )
            for split, names in splits.items()
        },
        differ=_differ(needs, splits),
        learned=learned,
        guidelines=_guidelines(study, needs, learned, target),
        more=_more(needs, splits),
        replay=replay_limits(
            needs.reached, needs.ended, limited, target=target, correct_by_token=right
        ),
        given=_given(study, needs, limited, given, target),
    )


def _needs(study: Study) -> _Needs:
    judged = study.judged(study.largest)
    shape = len(study.complete), study.samples
    tokens = [np.nan if j.outcome is Outcome.ERROR else j.cut.tokens_used for j in judged]
    reached = [
        max(used, j.cut.budget) if j.cut.truncated else used
        for used, j in zip(tokens, judged, strict=True)
    ]
    return _Needs(
        np.array(tokens, np.float64).reshape(shape),
        np.array([not j.cut.truncated for j in judged], bool).reshape(shape),
        np.array(reached, np.float64).reshape(shape),
    )


def _group(study: Study, needs: _Needs, name: str, rows: Sequence[int]) -> ScenarioGroup:
    places = list(rows)
    tokens, ended, reached = needs.tokens[places], needs.ended[places], needs.reached[places]
    truncation = {}
    for budget in study.budgets:
        over = np.where(ended, tokens > budget, reached >= budget).astype(np.float64)
        truncation[budget] = clustered_rate(np.where(np.isnan(tokens), np.nan, over))
    answers = None
    if has_options(study.complete):
        judged = study.judged(study.largest)
        own = [judged[i * study.samples + s] for i in places for s in range(study.samples)]
        answers = answers_of(own, study.samples)
    spread = token_spread(tokens, np.isfinite(tokens) & ~ended)
    return ScenarioGroup(name, spread, truncation, answers)


def _differ(needs: _Needs, splits: Mapping[str, Sequence[str]]) -> tuple[GroupDifference, ...]:
    # Samples of a problem are not independent: their mean stands for it.
    one = np.where(needs.ended | np.isnan(needs.tokens), needs.tokens, np.inf).mean(axis=1)
    found = []
    for split, names in splits.items():
        p, explained = lengths_differ(one, names, splits.get(STRATA[split]))
        # A test needs a group with two problems: else all there is lies between groups.
        if np.isfinite(p) and len(set(names)) < len(names):
            known = int((~np.isnan(one)).sum())
            found.append(GroupDifference(split, len(set(names)), known, p, p, explained))
    adjusted = holm([each.p for each in found])
    return tuple(replace(each, p_holm=p) for each, p in zip(found, adjusted, strict=True))


def _guidelines(
    study: Study, needs: _Needs, learned: Learned, target: float
) -> tuple[GuidelineCheck, ...]:
    found = []
    for rule in GUIDELINES:
        rows = [
            place
            for place, problem in enumerate(study.complete)
            if not rule.split or name_of(problem, rule.split) == rule.name
        ]
        if not rows:
            continue
        choice = learned.groups.get(rule.split, {}).get(rule.name, learned.overall)
        promised = choice.limit if choice.promised else None
        cut = truncates(needs.reached[rows], needs.ended[rows], rule.limit)
        found.append(
            GuidelineCheck(
                guideline=rule,
                applies=not rule.thinking or study.mode != PLAIN,
                truncation=cut,
                verdict=judge_limit(cut, target),
                recommended=promised,
                times_recommended=None if promised is None else rule.limit / promised,
            )
        )
    return tuple(found)


def _more(needs: _Needs, splits: Mapping[str, Sequence[str]]) -> MoreCheck | None:
    split, more, less = MORE
    names = splits.get(split, ())
    if not {more, less} <= set(names):
        return None
    known = np.isfinite(needs.tokens).all(axis=1)
    means = needs.tokens.mean(axis=1)
    own = np.asarray(names, dtype=object)
    within = np.asarray(splits.get(STRATA[split], [""] * own.size), dtype=object)
    strata = list(dict.fromkeys(within.tolist()))
    first, second = (
        [means[known & (own == name) & (within == stratum)] for stratum in strata]
        for name in (more, less)
    )
    gap = mean_gap(first, second)
    if not np.isfinite(gap.low):
        # A few problems of each game have no spread within it: then games are taken together.
        gap = mean_gap([np.concatenate(first)], [np.concatenate(second)])
    rows = known & ((own == more) | (own == less))
    capped = not needs.ended[rows].all()
    verdict = LimitVerdict.UNRESOLVED
    if capped:
        verdict = LimitVerdict.UNMEASURED
    elif gap.low > 0:
        verdict = LimitVerdict.HOLDS
    elif gap.high <= 0:
        verdict = LimitVerdict.REFUTED
    return MoreCheck(more, less, gap, verdict, capped)


def _given(
    study: Study,
    needs: _Needs,
    splits: Mapping[str, Sequence[str]],
    given: GenerationConfig | None,
    target: float,
) -> Mapping[str, tuple[GivenLimit, ...]] | None:
    if given is None:
        return None
    limits = [
        given.limit_of({split: name_of(problem, split) for split in SPLITS.values()})
        for problem in study.complete
    ]
    rows = [row for row, limit in enumerate(limits) if limit is not None]
    if not rows:
        return None
    return judge_given(
        needs.reached[rows],
        needs.ended[rows],
        [limit for limit in limits if limit is not None],
        {split: [names[row] for row in rows] for split, names in splits.items()},
        target=target,
    )
