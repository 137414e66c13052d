"""The figure of the cliff: accuracy by token, and the gain of each step between budgets."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_tokenbudget.common.text_layout import count
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.report import style
from pytest_tokenbudget.report.drawing import (
    line_by_token,
    new_figure,
    percent_ticks,
    save_study_figure,
    study_texts,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pytest_tokenbudget.studies.cliff.analysis import CliffStudy

SIZE = (6.8, 6.4)
UNIT = 16  # tokens that gains are shown for


def cliff_figure(study: Study, directory: Path) -> list[Path]:
    """Draw the cliff below ``directory``, as PNG for print and as SVG.

    Args:
        study: The study.
        directory: The reports directory; files go to its ``figures``.

    Returns:
        The two files, or none where no problem has all its traces.
    """
    from pytest_tokenbudget.core.cliff import cliff_budgets
    from pytest_tokenbudget.studies.cliff.analysis import analyse_cliff

    if not study.complete or not cliff_budgets(study) or not analyse_cliff(study).cliff.steps:
        return []
    return save_study_figure(
        lambda: draw_cliff(study), study, directory, "fig3_cliff_detail", "{}: cliff"
    )


def draw_cliff(study: Study) -> Figure:
    """The figure itself; draw it inside `style.figure_style`."""
    from pytest_tokenbudget.studies.cliff.analysis import analyse_cliff

    result = analyse_cliff(study)
    figure = new_figure(SIZE)
    accuracy, gains = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (1.6, 1.0)})
    _mark_cliff(accuracy, result, named=True)
    _mark_cliff(gains, result, named=False)
    _draw_accuracy(accuracy, study, result)
    _draw_gains(gains, result)
    _token_axis(gains, result)
    study_texts(
        figure, accuracy, study, "Where accuracy rises most steeply", [result.cliff.sentence()]
    )
    figure.align_ylabels()
    return figure


def _draw_accuracy(axes: Axes, study: Study, result: CliffStudy) -> None:
    if result.answers is not None:
        line_by_token(axes, study)
    look = style.ACCURACY
    estimates = [point.accuracy for point in result.points]
    axes.vlines(
        result.budgets,
        [e.low for e in estimates],
        [e.high for e in estimates],
        color=look.colour,
        alpha=0.55,
        linewidth=1.2,
        zorder=3,
    )
    axes.plot(
        result.budgets,
        [e.value for e in estimates],
        color=look.colour,
        marker=look.marker,
        linestyle="none",
        label="accuracy at the budgets, 95 % interval",
        zorder=4,
    )
    low = min(e.low for e in estimates)
    high = max(e.high for e in estimates)
    room = 0.06 * max(high - low, 0.05)
    axes.set_ylim(max(low - room, -0.02), min(high + room, 1.02))
    percent_ticks(axes.yaxis)
    axes.set_ylabel("accuracy")


def _draw_gains(axes: Axes, result: CliffStudy) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.axhline(0, color=style.INK, linewidth=0.8, zorder=2)
    scale = 100 * UNIT
    steps = result.cliff.steps
    axes.hlines(
        [scale * step.per_token.value for step in steps],
        [step.low for step in steps],
        [step.high for step in steps],
        color=style.BLUE,
        linewidth=1.8,
        zorder=3,
    )
    middles = [(step.low + step.high) / 2 for step in steps]
    axes.vlines(
        middles,
        [scale * step.per_token.low for step in steps],
        [scale * step.per_token.high for step in steps],
        color=style.BLUE,
        alpha=0.55,
        linewidth=1.2,
        zorder=3,
    )
    for told, fill, label in (
        (True, style.BLUE, "gain shown (exact paired test, Holm)"),
        (False, "white", "gain not shown"),
    ):
        chosen = [i for i, step in enumerate(steps) if step.significant is told]
        if not chosen:
            continue
        axes.plot(
            [middles[i] for i in chosen],
            [scale * steps[i].per_token.value for i in chosen],
            color=style.BLUE,
            marker="o",
            markerfacecolor=fill,
            linestyle="none",
            label=label,
            zorder=4,
        )
    axes.set_ylabel(f"gain, points\nper {UNIT} tokens")
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    tops = [scale * step.per_token.high for step in steps]
    lows = [scale * step.per_token.low for step in steps]
    high, low = max([*tops, 1.0]), min([*lows, 0.0])
    # Room above for the legend of this panel's own signs.
    axes.set_ylim(low - 0.05 * (high - low), high + 0.2 * (high - low))
    axes.legend(loc="upper center", ncols=2, borderaxespad=0.2, handletextpad=0.3)


def _mark_cliff(axes: Axes, result: CliffStudy, named: bool) -> None:
    """The steepest window, and from where to where the truly steepest may lie."""
    steepest, place = result.cliff.steepest, result.cliff.place
    if steepest is None or place is None or steepest.gain.value <= 0:
        return
    name = "steepest window seen" if result.cliff.reason else "cliff"
    axes.axvspan(
        *place,
        facecolor=style.ORANGE,
        alpha=0.10,
        linewidth=0,
        label="95 % interval of the steepest window's place" if named else None,
        zorder=0.5,
    )
    axes.axvspan(
        steepest.low,
        steepest.high,
        facecolor=style.ORANGE,
        alpha=0.28,
        linewidth=0,
        label=name if named else None,
        zorder=0.6,
    )


def _token_axis(axes: Axes, result: CliffStudy) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter

    budgets = result.budgets
    room = 0.04 * (budgets[-1] - budgets[0])
    axes.set_xlim(budgets[0] - room, budgets[-1] + room)
    # At most a dozen labels, evenly chosen, the last always.
    every = math.ceil(len(budgets) / 12)
    named = list(reversed(budgets[::-1][::every]))
    axes.xaxis.set_major_locator(FixedLocator(named))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
    axes.set_xlabel("output tokens allowed")
