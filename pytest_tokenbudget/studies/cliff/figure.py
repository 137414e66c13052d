"""Two figures: accuracy and gains between budgets, and when right answers come, by token."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_tokenbudget.common.text_layout import count
from pytest_tokenbudget.core.cliff import cliff_budgets
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.report import style
from pytest_tokenbudget.report.drawing import (
    count_ticks,
    interval_markers,
    line_by_token,
    new_figure,
    percent_axis,
    percent_ticks,
    save_study_figure,
    study_texts,
)
from pytest_tokenbudget.studies.cliff.analysis import AnswerPlace, CliffStudy, analyse_cliff

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

UNIT = 16  # tokens that gains are shown for


def cliff_figure(study: Study, directory: Path) -> list[Path]:
    """Draw the cliff; no files where no problem has all its traces."""
    if not study.complete or not cliff_budgets(study) or not analyse_cliff(study).cliff.steps:
        return []
    return save_study_figure(
        lambda: draw_cliff(study), study, directory, "fig3_cliff_detail", "{}: cliff"
    )


def draw_cliff(study: Study) -> Figure:
    """The figure itself; draw it inside `style.figure_style`."""
    result = analyse_cliff(study)
    figure = new_figure((6.8, 6.4))
    accuracy, gains = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (1.6, 1.0)})
    steepest, interval = result.cliff.steepest, result.cliff.place
    if steepest is not None and interval is not None and steepest.gain.value > 0:
        name = "steepest window seen" if result.cliff.reason else "cliff"
        for axes in (accuracy, gains):
            window = steepest.low, steepest.high
            _mark_steepest(axes, interval, window, name, named=axes is accuracy, zorder=0.6)
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
    estimates = [point.accuracy for point in result.points]
    label = "accuracy at the budgets, 95 % interval"
    interval_markers(axes, result.budgets, estimates, style.ACCURACY, label)
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
    for shown, fill, label in (
        (True, style.BLUE, "gain shown (exact paired test, Holm)"),
        (False, "white", "gain not shown"),
    ):
        chosen = [i for i, step in enumerate(steps) if step.significant is shown]
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


def _mark_steepest(
    axes: Axes,
    interval: tuple[int, int],
    window: tuple[int, int],
    name: str,
    *,
    named: bool,
    zorder: float = 0.5,
) -> None:
    """The steepest window, and from where to where the truly steepest may lie.

    Args:
        axes: Where to draw.
        interval: The 95 % interval of the window's place.
        window: The window.
        name: What the legend calls it.
        named: Whether these axes have the entries of the legend.
        zorder: Of the window; the grid has 0.5.
    """
    for (low, high), alpha, label, height in (
        (interval, 0.10, "95 % interval of the steepest window's place", 0.5),
        (window, 0.28, name, zorder),
    ):
        axes.axvspan(
            low,
            high,
            facecolor=style.ORANGE,
            alpha=alpha,
            linewidth=0,
            label=label if named else None,
            zorder=height,
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


def answer_figure(study: Study, answers: AnswerPlace | None, directory: Path) -> list[Path]:
    """Draw where answers come; no files where that is not known or no answer came."""
    if answers is None or not answers.came_at:
        return []
    return save_study_figure(
        lambda: draw_answers(study, answers),
        study,
        directory,
        "fig3_answer_place",
        "{}: where answers come",
    )


def draw_answers(study: Study, answers: AnswerPlace) -> Figure:
    """The figure itself; draw it inside `style.figure_style`."""
    figure = new_figure((6.8, 5.6))
    shares, counts = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (1.6, 1.0)})
    # Beyond the last answer nothing comes; a trace's cap may lie far beyond it.
    end = min(answers.reach, answers.came_at[-1] + answers.width)
    if answers.steepest is not None and answers.place is not None:
        interval = answers.place[0], min(answers.place[1], end)
        window = answers.steepest.low, min(answers.steepest.high, end)
        for axes in (shares, counts):
            name = f"steepest {answers.width} tokens"
            _mark_steepest(axes, interval, window, name, named=axes is shares)
    _draw_shares(shares, answers, end)
    _draw_counts(counts, answers)
    counts.set_xlim(0, end)
    counts.set_xlabel("output tokens")
    count_ticks(counts.xaxis, 8)
    study_texts(figure, shares, study, "When right answers come", [answers.sentence()])
    figure.align_ylabels()
    return figure


def _draw_shares(axes: Axes, answers: AnswerPlace, end: int) -> None:
    right = len(answers.came_at)
    axes.step(
        [0, *answers.came_at, end],
        [0.0, *((i + 1) / right for i in range(right)), 1.0],
        where="post",
        color=style.GREY,
        linewidth=0.9,
        label=f"right answers that had come ({right:,} of {answers.traces:,})",
        zorder=2,
    )
    tokens = [quantile.token for quantile in answers.quantiles]
    shares = [quantile.share for quantile in answers.quantiles]
    interval_markers(axes, shares, tokens, style.ACCURACY, "quantiles, 95 % interval", across=True)
    percent_axis(axes, "right answers\nthat had come", (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1))


def _draw_counts(axes: Axes, answers: AnswerPlace) -> None:
    # Token t lies in the window from (t - 1) // width * width + 1 on.
    width = answers.width
    bars = [0] * ((answers.came_at[-1] - 1) // width + 1)
    for token in answers.came_at:
        bars[(token - 1) // width] += 1
    starts = [i * width for i in range(len(bars))]
    axes.bar(starts, bars, width=0.92 * width, align="edge", color=style.BLUE, zorder=2)
    axes.set_ylabel(f"answers that came\nin {width} tokens")
    count_ticks(axes.yaxis, 5)
