"""The Pareto figure: accuracy of several models against what it takes."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_tokenbudget.common.outside_text import printable
from pytest_tokenbudget.common.text_layout import count, shorten
from pytest_tokenbudget.report import style
from pytest_tokenbudget.report.drawing import new_figure, percent_axis, save_figure
from pytest_tokenbudget.report.figure_texts import add_texts, legend_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pytest_tokenbudget.baselines.models_compared import Plane
    from pytest_tokenbudget.baselines.run_statistics import ParetoPoint


def pareto_figure(plane: Plane, task: str, path: Path) -> list[Path]:
    """Draw a plane as PNG for print and as SVG; returns the files.

    Args:
        plane: The places and the front among them.
        task: The task's name.
        path: Where to, without a suffix.
    """
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
