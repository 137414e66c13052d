"""The cost figure: money for an answer and for a right one, and seconds, against budget."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_tokenbudget.common.text_layout import count
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.report import style
from pytest_tokenbudget.report.cost import THOUSAND, CostReport, cost_report
from pytest_tokenbudget.report.drawing import (
    budget_axis,
    large_marker,
    new_figure,
    save_study_figure,
    series,
    study_texts,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pytest_tokenbudget.stats.intervals import Estimate

_EACH = style.SeriesStyle(style.INK, "^", "-.")
_CHEAPEST = style.SeriesStyle(style.GREEN, "*", "none")


def cost_figure(study: Study, directory: Path, target: float) -> list[Path]:
    """Draw what answers cost; no files without a price, or where nothing was answered."""
    if study.price is None or not study.scored:
        return []
    report = cost_report(study, target)
    return save_study_figure(
        lambda: draw_cost(study, report),
        study,
        directory,
        "fig1_cost",
        "What {} costs against budget",
    )


def draw_cost(study: Study, report: CostReport) -> Figure:
    """The figure itself; draw it inside `style.figure_style`."""
    timed = report.timing is not None
    figure = new_figure((6.8, 6.2 if timed else 4.6))
    panels = figure.subplots(
        2 if timed else 1,
        1,
        sharex=True,
        squeeze=False,
        gridspec_kw={"height_ratios": (2.2, 1.0) if timed else (1,)},
    )[:, 0]
    _draw_money(panels[0], report)
    if timed:
        _draw_time(panels[1], report)
    budget_axis(panels[-1], study.budgets)
    assert study.price is not None
    price = study.price
    rates = f"{price.input:g} for input, {price.output:g} for output"
    if price.reasoning != price.output:
        rates += f", {price.reasoning:g} for reasoning"
    study_texts(
        figure,
        panels[0],
        study,
        "Cost against token budget",
        [f"prices in {price.currency} per million tokens: {rates}"],
        legends=list(panels),
    )
    figure.align_ylabels()
    return figure


def _draw_money(axes: Axes, report: CostReport) -> None:
    assert report.price is not None
    paid = [(p.budget, p.cost) for p in report.points if p.cost is not None]
    series(
        axes,
        [budget for budget, _ in paid],
        [_thousand(cost.each) for _, cost in paid],
        _EACH,
        "a thousand answers",
    )
    right = [(b, _thousand(cost.correct)) for b, cost in paid if cost.correct is not None]
    if right:
        series(
            axes,
            [budget for budget, _ in right],
            [estimate for _, estimate in right],
            style.ACCURACY,
            "a thousand right answers, 95 %",
        )
        budget, best = min(right, key=lambda pair: pair[1].value)
        label = f"cheapest right answers: {count(budget)}"
        large_marker(axes, budget, best.value, _CHEAPEST, label)
    lowest = [e.value for e in (*(_thousand(c.each) for _, c in paid), *(e for _, e in right))]
    if any(value > 0 for value in lowest):
        _log_axis(axes, [value for value in lowest if value > 0])
    axes.set_ylabel(f"{report.price.currency} (log scale)")


def _log_axis(axes: Axes, values: list[float]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_yscale("log")
    low, high = min(values), max(values)
    # Intervals of what is hardly ever right reach as far as one likes.
    axes.set_ylim(low / 1.6, high * 2.5)
    steps = (1, 2, 5) if math.log10(high / low) < 1.7 else (1,)
    axes.yaxis.set_major_locator(LogLocator(subs=steps))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.10f}".rstrip("0").rstrip("."))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _draw_time(axes: Axes, report: CostReport) -> None:
    from matplotlib.ticker import MaxNLocator

    assert report.timing is not None
    points = report.timing.points
    budgets = [point.budget for point in points]
    series(axes, budgets, [point.each for point in points], style.TOKENS, "mean seconds")
    axes.plot(
        budgets,
        [point.p95 for point in points],
        color=style.ORANGE,
        linestyle=(0, (1, 1)),
        marker="v",
        markersize=4,
        linewidth=1.2,
        label="95 % of answers end within",
        clip_on=False,
    )
    axes.set_ylim(0, 1.12 * max(max(point.p95, point.each.value) for point in points))
    axes.set_ylabel("seconds\nan answer")
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))


def _thousand(estimate: Estimate) -> Estimate:
    value, low, high = (THOUSAND * part for part in estimate[:3])
    return estimate._replace(value=value, low=low, high=high)
