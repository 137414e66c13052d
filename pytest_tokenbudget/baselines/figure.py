"""Figures of comparisons: two runs and how far they are apart, and several models of one run."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_tokenbudget.common.outside_text import printable
from pytest_tokenbudget.common.text_layout import count, plural, shorten
from pytest_tokenbudget.report import style
from pytest_tokenbudget.report.drawing import (
    budget_axis,
    count_ticks,
    new_figure,
    percent_axis,
    save_figure,
    save_study_figure,
    series,
)
from pytest_tokenbudget.report.figure_texts import add_texts, legend_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pytest_tokenbudget.baselines.comparison import BaselineComparison, Curves
    from pytest_tokenbudget.baselines.models_compared import Plane
    from pytest_tokenbudget.baselines.run_statistics import ParetoPoint
    from pytest_tokenbudget.core.study import Study

SIZE = (6.8, 8.4)
BEFORE = style.SeriesStyle(style.GREY, "s", "--")
AFTER = style.ACCURACY


def compare_figure(study: Study, comparison: BaselineComparison, directory: Path) -> list[Path]:
    """Draw a comparison below ``directory``, as PNG for print and as SVG; returns the files."""
    return save_study_figure(
        lambda: draw_comparison(comparison), study, directory, "compare", "{} against a stored run"
    )


def draw_comparison(comparison: BaselineComparison) -> Figure:
    """The figure itself; draw it inside `style.figure_style`."""
    figure = new_figure(SIZE)
    accuracy, change, truncation, tokens = figure.subplots(
        4, 1, sharex=True, gridspec_kw={"height_ratios": (2.6, 1.4, 1.0, 1.0)}
    )
    budgets, curves = comparison.budgets, comparison.curves()
    names = (comparison.label, "this run")
    for curve, look, name in zip(curves, (BEFORE, AFTER), names, strict=True):
        series(accuracy, budgets, curve.accuracy, look, legend_name(name, 34))
        series(truncation, budgets, curve.truncation, look)
        series(tokens, budgets, curve.tokens, look)
    percent_axis(accuracy, "accuracy")
    percent_axis(truncation, "truncated", (0, 0.5, 1))
    _draw_change(change, comparison)
    tokens.set_ylim(0, _top(curves) * 1.12)
    tokens.set_ylabel("mean tokens\nused")
    count_ticks(tokens.yaxis, 3)
    budget_axis(tokens, budgets)
    _title(figure, accuracy, comparison)
    figure.align_ylabels()
    return figure


def _draw_change(axes: Axes, comparison: BaselineComparison) -> None:
    differences = [point.accuracy.difference for point in comparison.points]
    axes.axhline(0, color=style.INK, linewidth=0.9, zorder=1.5)
    shown = [
        d._replace(value=100 * d.value, low=100 * d.low, high=100 * d.high) for d in differences
    ]
    series(axes, comparison.budgets, shown, style.SeriesStyle(style.ORANGE, "D", "-"))
    ends = [abs(end) for d in shown for end in (d.low, d.high) if math.isfinite(end)]
    top = max([*ends, 1.0]) * 1.15
    axes.set_ylim(-top, top)
    axes.set_ylabel("change of\naccuracy, points")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value + 0.0:+.3g}" if value else "0")


def _top(curves: tuple[Curves, Curves]) -> float:
    ends = [end for curve in curves for e in curve.tokens for end in (e.value, e.high)]
    return max([end for end in ends if math.isfinite(end)] + [1.0])


def _title(figure: Figure, top: Axes, comparison: BaselineComparison) -> None:
    from pytest_tokenbudget.stats.resampling import p_words

    point = comparison.at(comparison.largest)
    name = shorten(printable(comparison.after.task), 40)
    about = f"{name}, {plural(len(comparison.problems), 'problem')} in both runs; 95 % intervals"
    accuracy = point.accuracy
    value, low, high = (100 * x + 0.0 for x in accuracy.difference[:3])
    found = (
        f"at {count(point.budget)}: {value:+.1f} points [{low:+.1f}, {high:+.1f}], "
        f"{accuracy.fell:,} lost, {accuracy.rose:,} won, exact McNemar "
        f"{p_words(accuracy.p_mcnemar)}"
    )
    after, before = comparison.after.model, comparison.before.model
    models = after if after == before else f"{after} against {before}"
    add_texts(
        figure, top, "Change since a stored run", model=models, subtitle=about, sentences=[found]
    )


def pareto_figure(plane: Plane, task: str, path: Path) -> list[Path]:
    """Draw a plane as PNG for print and as SVG; returns the files."""
    return save_figure(
        lambda: draw_pareto(plane, task), path, f"Accuracy against {plane.axis.name}"
    )


def draw_pareto(plane: Plane, task: str) -> Figure:
    """The figure itself; draw it inside `style.figure_style`."""
    figure = new_figure((6.8, 5.4))
    axes = figure.subplots()
    by_model: dict[str, list[ParetoPoint]] = {}
    for place in plane.places:
        by_model.setdefault(place.name, []).append(place)
    for (name, places), look in zip(by_model.items(), itertools.cycle(style.SERIES), strict=False):
        axes.plot(
            [place.price for place in places],
            [place.accuracy for place in places],
            color=look.colour,
            linestyle=look.line,
            marker=look.marker,
            linewidth=1.2,
            label=legend_name(name),
            zorder=3,
            clip_on=False,
        )
    _draw_front(axes, plane)
    percent_axis(axes, "accuracy")
    _price_axis(axes, plane)
    add_texts(
        figure,
        axes,
        f"Accuracy against {plane.axis.name}",
        subtitle=f"{shorten(printable(task), 60)}; each point is a token budget",
        sentences=["ringed, with the budget: no other point is as accurate for less"],
    )
    return figure


def _draw_front(axes: Axes, plane: Plane) -> None:
    prices = [place.price for place in plane.front]
    heights = [place.accuracy for place in plane.front]
    axes.step(prices, heights, where="post", color=style.GREY, linewidth=0.9, zorder=2)
    axes.plot(
        prices,
        heights,
        linestyle="none",
        marker="o",
        markersize=11,
        markerfacecolor="none",
        markeredgecolor=style.INK,
        markeredgewidth=1.1,
        zorder=5,
        clip_on=False,
    )
    span, last = _span(plane), (-math.inf, -math.inf)
    for place in plane.front:
        here = (math.log(place.price) if place.price > 0 else -math.inf, place.accuracy)
        # Labels of close neighbours would cover each other.
        if here[0] - last[0] < 0.07 * span and here[1] - last[1] < 0.05:
            continue
        last = here
        # The front has nothing above and left of it.
        axes.annotate(
            count(place.budget),
            (place.price, place.accuracy),
            xytext=(-6, 6),
            textcoords="offset points",
            ha="right",
            fontsize=8,
            color=style.INK,
            zorder=6,
        )


def _span(plane: Plane) -> float:
    known = [math.log(place.price) for place in plane.places if place.price > 0]
    return max(known) - min(known) if known else 0.0


def _price_axis(axes: Axes, plane: Plane) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if all(place.price > 0 for place in plane.places):
        axes.set_xscale("log")
        subs = (1, 2, 5) if _span(plane) > math.log(10) else range(1, 10)
        axes.xaxis.set_major_locator(LogLocator(base=10, subs=tuple(subs)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.set_xlabel(plane.axis.label)
