"""The saturation figure: accuracy, truncation and tokens used against budget."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_tokenbudget.report import style
from pytest_tokenbudget.report.drawing import (
    budget_axis,
    head_over,
    line_by_token,
    new_figure,
    percent_axis,
    save_figure,
    save_study_figure,
    series,
    titles,
)
from pytest_tokenbudget.report.study import PLAIN, Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


SIZE = (6.8, 7.4)


def saturation_figure(study: Study, directory: Path) -> list[Path]:
    """Draw a study below ``directory``, as PNG for print and as SVG.

    The same study gives the same bytes: nothing of the moment goes into the files.

    Args:
        study: The study.
        directory: The reports directory; files go to its ``figures``.

    Returns:
        The two files, or none where no problem has all its traces.
    """
    if not study.complete:
        return []
    return save_study_figure(
        lambda: draw_saturation(study), study, directory, "fig1_saturation_curve", "{}"
    )


def draw_saturation(study: Study) -> Figure:
    """The figure itself; draw it inside `style.figure_style`."""
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(SIZE)
    accuracy, truncation, tokens = figure.subplots(
        3, 1, sharex=True, gridspec_kw={"height_ratios": (3.2, 1.0, 1.0)}
    )
    points = study.curve.points
    _draw_accuracy(accuracy, study)
    series(truncation, study.budgets, [p.truncation for p in points], style.TRUNCATED)
    percent_axis(truncation, "truncated", (0, 0.5, 1))
    series(tokens, study.budgets, [p.mean_tokens for p in points], style.TOKENS)
    ends = [end for p in points for end in (p.mean_tokens.value, p.mean_tokens.high)]
    top = max((end for end in ends if math.isfinite(end)), default=1)
    tokens.set_ylim(0, max(top, 1) * 1.12)
    tokens.set_ylabel("mean tokens\nused")
    tokens.yaxis.set_major_formatter(lambda value, _: style.count(value))
    tokens.yaxis.set_major_locator(MaxNLocator(nbins=3, steps=[1, 2, 5, 10], integer=True))
    budget_axis(tokens, study.budgets)
    _mark_saturation(study, (accuracy, truncation, tokens))
    titles(figure, accuracy, study, study.saturation.sentence())
    figure.align_ylabels()
    return figure


def _draw_accuracy(axes: Axes, study: Study) -> None:
    points = study.curve.points
    if study.by_token_available:
        line_by_token(axes, study)
    done = [p.completed for p in points]
    if any(estimate is not None for estimate in done):
        axes.plot(
            [p.budget for p in points],
            [math.nan if e is None else e.value for e in done],
            color=style.COMPLETED.colour,
            linestyle=style.COMPLETED.line,
            marker=style.COMPLETED.marker,
            markersize=8,
            markerfacecolor="none",
            markeredgewidth=1.2,
            label="accuracy of the completed",
            zorder=3,
            clip_on=False,
        )
    series(
        axes,
        study.budgets,
        [p.accuracy for p in points],
        style.ACCURACY,
        "accuracy, 95 % interval",
    )
    percent_axis(axes, "accuracy", (0, 0.2, 0.4, 0.6, 0.8, 1))


def _mark_saturation(study: Study, panels: Sequence[Axes]) -> None:
    budget = study.saturation.budget
    if budget is None:
        return
    for axes in panels:
        axes.axvline(
            budget, color=style.GREEN, linestyle=(0, (6, 2, 1, 2)), linewidth=1.2, zorder=1.5
        )
    panels[0].plot(
        [budget],
        [study.curve.at(budget).accuracy.value],
        marker="*",
        markersize=15,
        linestyle=(0, (6, 2, 1, 2)),
        linewidth=1.2,
        color=style.GREEN,
        markeredgecolor="white",
        label=f"saturation point: {style.count(budget)}",
        zorder=5,
        clip_on=False,
    )


def saturation_overlay(studies: Sequence[Study], directory: Path) -> list[Path]:
    """Draw the accuracy curves of several models into one figure.

    Args:
        studies: Those of one sample a problem are drawn; they must be of one task.
        directory: The reports directory; files go to its ``figures``.

    Returns:
        The two files, or none where there are fewer than two curves.
    """
    drawn = [study for study in studies if study.complete and study.kind == "main"]
    if len(drawn) < 2:
        return []
    path = directory / "figures" / "fig1_saturation_curve_overlay"
    return save_figure(lambda: draw_overlay(drawn), path, "Accuracy against budget")


def draw_overlay(studies: Sequence[Study]) -> Figure:
    """The figure of several models; draw it inside `style.figure_style`."""
    figure = new_figure((6.8, 5.2))
    axes = figure.subplots()
    for study, look in zip(studies, itertools.cycle(style.SERIES), strict=False):
        points = study.curve.points
        name = style.shorten(style.visible(study.alias), 30)
        mode = "" if study.mode == PLAIN else f", {study.mode}"
        found = study.saturation.budget
        saturated = "" if found is None else f", saturates at {style.count(found)}"
        series(
            axes,
            study.budgets,
            [p.accuracy for p in points],
            look,
            f"{name}{mode}, n = {len(study.complete):,}{saturated}".replace("$", r"\$"),
        )
    percent_axis(axes, "accuracy", (0, 0.2, 0.4, 0.6, 0.8, 1))
    budget_axis(axes, sorted({b for study in studies for b in study.budgets}))
    tasks = dict.fromkeys(style.visible(study.task.name) for study in studies)
    about = f"{style.shorten(', '.join(tasks), 60)}; 95 % intervals"
    head_over(figure, axes, "Accuracy against budget", [about], columns=1)
    return figure
