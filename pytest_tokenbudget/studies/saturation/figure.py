"""The saturation figure: accuracy, truncation and tokens used against budget."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_tokenbudget.common.outside_text import printable
from pytest_tokenbudget.common.text_layout import count, share, shorten
from pytest_tokenbudget.core.study import PLAIN, Study
from pytest_tokenbudget.report import style
from pytest_tokenbudget.report.drawing import (
    budget_axis,
    count_ticks,
    large_marker,
    line_by_token,
    new_figure,
    percent_axis,
    save_figure,
    save_study_figure,
    series,
    side_by_side,
    study_texts,
)
from pytest_tokenbudget.report.figure_texts import add_texts, legend_name
from pytest_tokenbudget.report.limits import (
    TARGET,
    is_recommended,
    limit_answer,
    named_limit,
    recommended_limits,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SATURATION = style.SeriesStyle(style.GREEN, "*", (0, (6, 2, 1, 2)))
_LIMIT = style.SeriesStyle(style.INK, "v", (0, (2, 1)))


def saturation_figure(study: Study, directory: Path, target: float = TARGET) -> list[Path]:
    """Draw a study; no files where no problem has all its traces.

    Args:
        study: The study.
        directory: The reports directory.
        target: Share of answers that the recommended limit may truncate.
    """
    if not study.complete:
        return []
    return save_study_figure(
        lambda: draw_saturation(study, target), study, directory, "fig1_saturation_curve", "{}"
    )


def draw_saturation(study: Study, target: float = TARGET) -> Figure:
    """The figure itself; draw it inside `style.figure_style`."""
    figure = new_figure((6.8, 7.2))
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
    count_ticks(tokens.yaxis, 3)
    budget_axis(tokens, study.budgets)
    panels = (accuracy, truncation, tokens)
    _mark_saturation(study, panels)
    sentence = _mark_limit(study, target, panels)
    study_texts(
        figure,
        accuracy,
        study,
        "Accuracy against token budget",
        (sentence, study.saturation.sentence()),
    )
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
        axes, study.budgets, [p.accuracy for p in points], style.ACCURACY, "accuracy, 95 % interval"
    )
    percent_axis(axes, "accuracy")


def _mark_saturation(study: Study, panels: Sequence[Axes]) -> None:
    budget = study.saturation.budget
    if budget is None:
        return
    for axes in panels:
        axes.axvline(
            budget, color=_SATURATION.colour, linestyle=_SATURATION.line, linewidth=1.2, zorder=1.5
        )
    accuracy = study.curve.at(budget).accuracy.value
    large_marker(panels[0], budget, accuracy, _SATURATION, f"saturation point: {count(budget)}")


def _mark_limit(study: Study, target: float, panels: Sequence[Axes]) -> str:
    """Mark the recommended limit, or the best that the traces allow; returns its sentence."""
    found = recommended_limits(study, target)["all_tokens"].overall
    named = named_limit(found)
    if named is not None:
        promised = found.limit is not None
        name = "recommended limit" if is_recommended(found) else "best limit seen"
        limit = named.limit
        low, high = panels[0].get_xlim()
        for axes in panels:
            axes.set_xlim(min(low, limit * 0.9), max(high, limit * 1.1))
            axes.axvline(
                limit, color=_LIMIT.colour, linestyle=_LIMIT.line, linewidth=1.5, zorder=1.6
            )
        panels[0].plot(
            [limit],
            [1.0],
            marker=_LIMIT.marker,
            markersize=9,
            markerfacecolor=_LIMIT.colour if promised else "white",
            markeredgewidth=1.4,
            color=_LIMIT.colour,
            linestyle=_LIMIT.line,
            linewidth=1.5,
            label=f"{name}: {count(limit)}, cuts at most {share(named.upper)}",
            zorder=6,
            clip_on=False,
        )
    return limit_answer(study, found)


def saturation_overlay(studies: Sequence[Study], directory: Path) -> list[Path]:
    """Draw the accuracy curves of several models into one figure.

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
    for number, (study, look) in enumerate(zip(studies, itertools.cycle(style.SERIES))):
        points = study.curve.points
        mode = "" if study.mode == PLAIN else f", {study.mode}"
        found = study.saturation.budget
        saturated = "" if found is None else f", saturates at {count(found)}"
        series(
            axes,
            side_by_side(study.budgets, number, len(studies)),
            [p.accuracy for p in points],
            look,
            f"{legend_name(study.alias)}{mode}, n = {len(study.complete):,}{saturated}",
            band=len(studies) < 3,
        )
    percent_axis(axes, "accuracy")
    budget_axis(axes, sorted({b for study in studies for b in study.budgets}))
    tasks = dict.fromkeys(printable(study.task.name) for study in studies)
    about = f"{shorten(', '.join(tasks), 60)}; 95 % intervals"
    add_texts(figure, axes, "Accuracy against token budget", subtitle=about, columns=1)
    return figure
