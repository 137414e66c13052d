"""Several models of one run: each against each by problem, and what their accuracy takes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from pytest_tokenbudget.baselines.comparison import compare_runs
from pytest_tokenbudget.baselines.run import BaselineError, run_of
from pytest_tokenbudget.baselines.run_statistics import Pair, ParetoPoint, pairwise, pareto
from pytest_tokenbudget.core.study import PLAIN, Study
from pytest_tokenbudget.engines.planning import Kind
from pytest_tokenbudget.report.cost import THOUSAND, cost_report
from pytest_tokenbudget.report.json_files import RunInfo
from pytest_tokenbudget.report.limits import TARGET


class Axis(NamedTuple):
    """What accuracy takes.

    Attributes:
        name: Its name in results and files.
        label: What stands at the figure's axis.
        price: How much of it a study takes for an answer at a budget; None where that is unknown.
    """

    name: str
    label: str
    price: Callable[[Study, int], float | None]


def _tokens(study: Study, budget: int) -> float:
    return study.curve.at(budget).mean_tokens.value


def _cost(study: Study, budget: int) -> float | None:
    cost = cost_report(study, TARGET).point(budget).cost
    return None if cost is None else THOUSAND * cost.each.value


def _axes(studies: Sequence[Study]) -> list[Axis]:
    """What accuracy takes of all these models, as far as it is known of each."""
    axes = [Axis("tokens", "mean output tokens of an answer (log scale)", _tokens)]
    currencies = {study.price.currency if study.price else None for study in studies}
    if len(currencies) == 1 and None not in currencies:
        label = f"{currencies.pop()} for {THOUSAND:,} answers (log scale)"
        axes.append(Axis("cost", label, _cost))
    return axes


@dataclass(frozen=True)
class Plane:
    """Every model at every budget, by accuracy and what it takes.

    Attributes:
        axis: What it takes.
        places: All of them, model by model.
        front: Those that no other one beats.
    """

    axis: Axis
    places: tuple[ParetoPoint, ...]
    front: tuple[ParetoPoint, ...]


@dataclass(frozen=True)
class ModelsCompared:
    """Models that answered the same problems.

    Attributes:
        task: The task's name.
        names: The models' names, in order.
        problems: Problems that all of them have.
        budget: The largest budget that all of them have, where they are compared pairwise.
        pairs: Every pair at that budget.
        planes: Accuracy against what it takes, for all that is known of every model.
    """

    task: str
    names: tuple[str, ...]
    problems: int
    budget: int
    pairs: tuple[Pair, ...]
    planes: tuple[Plane, ...]


class ModelsOfRun(NamedTuple):
    """The models of a run together.

    Attributes:
        studies: One study a model and task.
        compared: What the comparison found, task by task.
    """

    studies: Sequence[Study]
    compared: list[ModelsCompared]


def models_of_run(studies: Sequence[Study]) -> ModelsOfRun | None:
    """The models of a run together; None for one model."""
    whole = [study for study in studies if study.complete]
    return ModelsOfRun(whole, compare_models(whole)) if len(whole) > 1 else None


def compare_models(studies: Sequence[Study]) -> list[ModelsCompared]:
    """Compare the models of a run with each other, task by task."""
    by_task: dict[tuple[str, str], list[Study]] = {}
    for study in studies:
        if study.kind == Kind.MAIN and study.scored:
            by_task.setdefault((study.task.name, study.task.extractor), []).append(study)
    found = (_compare(group) for group in by_task.values() if len(group) > 1)
    return [each for each in found if each is not None]


def _compare(studies: Sequence[Study]) -> ModelsCompared | None:
    budgets = set.intersection(*(set(study.budgets) for study in studies))
    runs = [run_of(study, RunInfo()) for study in studies]
    problems = set.intersection(*(set(run.problems) for run in runs))
    if not budgets or not problems:
        return None
    budget = max(budgets)
    # Pairs on other problems than their neighbours' would not make one table.
    runs = [
        replace(run, answers={k: v for k, v in run.answers.items() if k[0] in problems})
        for run in runs
    ]
    names = [s.alias if s.mode == PLAIN else f"{s.alias}, {s.mode}" for s in studies]
    try:
        changes = [
            (one, other, compare_runs(first, second, one, chosen_budgets=(budget,)).at(budget))
            for (one, first), (other, second) in itertools.combinations(
                zip(names, runs, strict=True), 2
            )
        ]
    except BaselineError:
        return None
    return ModelsCompared(
        task=studies[0].task.name,
        names=tuple(names),
        problems=len(problems),
        budget=budget,
        pairs=pairwise(changes),
        planes=tuple(_planes(studies, names)),
    )


def _planes(studies: Sequence[Study], names: Sequence[str]) -> list[Plane]:
    planes = []
    for axis in _axes(studies):
        prices = [
            (name, point.budget, point.accuracy.value, axis.price(study, point.budget))
            for study, name in zip(studies, names, strict=True)
            for point in study.curve.points
        ]
        places = tuple(ParetoPoint(*each[:3], each[3]) for each in prices if each[3] is not None)
        if len(places) == len(prices):
            planes.append(Plane(axis, places, pareto(places)))
    return planes
