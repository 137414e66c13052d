"""The figure of where answers come: by which token right answers had come, and how many when."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.report import style
from pytest_tokenbudget.report.drawing import (
    count_ticks,
    new_figure,
    percent_axis,
    save_study_figure,
    study_texts,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pytest_tokenbudget.studies.cliff.answer_place import AnswerPlace

SIZE = (6.8, 5.6)


def answer_figure(study: Study, answers: AnswerPlace | None, directory: Path) -> list[Path]:
    """Draw where answers come below ``directory``, as PNG for print and as SVG.

    Args:
        study: The study.
        answers: Where its answers come; None where only some budgets are known.
        directory: The reports directory; files go to its ``figures``.

    Returns:
        The two files, or none where that is not known or no answer came.
    """
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
    figure = new_figure(SIZE)
    shares, counts = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (1.6, 1.0)})
    # Beyond the last answer nothing comes; a trace's cap may lie far beyond it.
    end = min(answers.reach, answers.came_at[-1] + answers.width)
    for axes in (shares, counts):
        _mark_window(axes, answers, end, named=axes is shares)
    _draw_shares(shares, answers, end)
    _draw_counts(counts, answers)
    counts.set_xlim(0, end)
    counts.set_xlabel("output tokens")
    count_ticks(counts.xaxis, 8)
    study_texts(figure, shares, study, "When right answers come", [answers.sentence()])
    figure.align_ylabels()
    return figure


def _mark_window(axes: Axes, answers: AnswerPlace, end: int, named: bool) -> None:
    """The steepest window, and from where to where the truly steepest may lie."""
    if answers.steepest is None or answers.place is None:
        return
    for low, high, alpha, label in (
        (*answers.place, 0.10, "95 % interval of the steepest window's place"),
        (answers.steepest.low, answers.steepest.high, 0.28, f"steepest {answers.width} tokens"),
    ):
        axes.axvspan(
            low,
            min(high, end),
            facecolor=style.ORANGE,
            alpha=alpha,
            linewidth=0,
            label=label if named else None,
            zorder=0.5,
        )


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
    look = style.ACCURACY
    places = [quantile.share for quantile in answers.quantiles]
    axes.hlines(
        places,
        [quantile.token.low for quantile in answers.quantiles],
        [quantile.token.high for quantile in answers.quantiles],
        color=look.colour,
        alpha=0.55,
        linewidth=1.2,
        zorder=3,
    )
    axes.plot(
        [quantile.token.value for quantile in answers.quantiles],
        places,
        color=look.colour,
        marker=look.marker,
        linestyle="none",
        label="quantiles, 95 % interval",
        zorder=4,
    )
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
