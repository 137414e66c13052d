"""Models of one run compared: lines on the terminal, result files and figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pytest_tokenbudget.baselines.figure import pareto_figure
from pytest_tokenbudget.baselines.models_compared import ModelsCompared, ModelsOfRun, Plane
from pytest_tokenbudget.baselines.run_statistics import Pair
from pytest_tokenbudget.common.outside_text import printable
from pytest_tokenbudget.common.text_layout import (
    MAX_WIDTH,
    Table,
    columns,
    count,
    p_value,
    percent,
    point_change,
    rule,
    shorten,
    wrapped,
)
from pytest_tokenbudget.report.files import safe_name, to_record
from pytest_tokenbudget.report.json_files import write_record
from pytest_tokenbudget.studies.saturation.figure import saturation_overlay

SCHEMA = "tokenbudget-models/1"
SHOWN = 10
"""Pairs on the terminal, unless all are asked for."""


def write_models_of_run(models: ModelsOfRun, directory: Path) -> list[Path]:
    """Write curves, results and figures of several models below ``directory``."""
    return [
        *saturation_overlay(models.studies, directory),
        *write_models(models.compared, directory),
    ]


def models_of_run_lines(models: ModelsOfRun, width: int, verbose: bool) -> list[str]:
    """What several models come to on the terminal."""
    return [line for one in models.compared for line in models_lines(one, width, verbose)]


def models_lines(
    compared: ModelsCompared, width: int = MAX_WIDTH, every: bool = False
) -> list[str]:
    """Which models differ, and which are worth their tokens.

    Of many pairs only the most decisive ones are shown, unless ``every`` one is asked for.
    """
    width = columns(width)
    task = shorten(printable(compared.task), 28)
    about = f" on {task} at {count(compared.budget)} tokens, n = {compared.problems:,}"
    lines = [rule(f"{len(compared.names)} models", about, width)]
    many = len(compared.pairs)
    pairs = compared.pairs if every or many <= SHOWN else _most_decisive(compared.pairs)
    lines += _table(pairs).lines(width)
    sentences = [f"p: exact McNemar, adjusted by Holm for {count(many)} pairs"] if many > 1 else []
    if len(pairs) < many:
        sentences.append(
            f"shown are the {count(len(pairs))} pairs with the smallest p of {count(many)}; all "
            "are in the JSON file, and here with -v"
        )
    for plane in compared.planes:
        sentences.append(f"in accuracy and {plane.axis.name} nothing beats {_front(plane)}")
    for sentence in sentences:
        lines += wrapped(sentence, width)
    return lines


def _front(plane: Plane) -> str:
    by_model: dict[str, list[int]] = {}
    for place in plane.front:
        by_model.setdefault(printable(place.name), []).append(place.budget)
    return "; ".join(
        f"{name} at {', '.join(map(count, budgets))}" for name, budgets in by_model.items()
    )


def _most_decisive(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs that differ most surely, then most, in that order."""

    def decisive(pair: Pair) -> tuple[float, float]:
        accuracy = pair.change.accuracy
        return accuracy.p_mcnemar, -abs(accuracy.difference.value)

    return sorted(pairs, key=decisive)[:SHOWN]


def _table(pairs: Sequence[Pair]) -> Table:
    table = Table("from", "to", "accuracy %", "change [95 %]", "p (Holm)", left=(0, 1))
    for pair in pairs:
        accuracy = pair.change.accuracy
        table.add(
            printable(pair.first),
            printable(pair.second),
            f"{percent(accuracy.before)} -> {percent(accuracy.after)}",
            point_change(accuracy.difference),
            p_value(pair.p_holm),
        )
    return table


def write_models(compared: Sequence[ModelsCompared], directory: Path) -> list[Path]:
    """Write results and figures of models compared below ``directory``; returns the files."""
    written = []
    for each in compared:
        stem = "compare_models" + (f"_{safe_name(each.task)}" if len(compared) > 1 else "")
        written.append(write_record(directory, stem, models_record(each)))
        for plane in each.planes:
            written += pareto_figure(
                plane, each.task, directory / "figures" / f"{stem}_{plane.axis.name}"
            )
    return written


def models_record(compared: ModelsCompared) -> dict[str, object]:
    """The comparison as a JSON object."""
    return {
        "schema": SCHEMA,
        "task": compared.task,
        "models": list(compared.names),
        "problems": compared.problems,
        "budget": compared.budget,
        "pairs": [{**to_record(pair), "different": pair.shown()} for pair in compared.pairs],
        "pareto": {
            plane.axis.name: {"places": list(plane.places), "front": list(plane.front)}
            for plane in compared.planes
        },
    }
