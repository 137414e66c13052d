"""The figure of a comparison: both runs' curves, and how far they are apart."""

from __future__ import annotations

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
    save_study_figure,
    series,
)
from pytest_tokenbudget.report.figure_texts import add_texts, legend_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pytest_tokenbudget.baselines.comparison import BaselineComparison, Curves
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
