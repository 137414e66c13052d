"""Figures of the context eval: depth by limit, accuracy against limit, tokens lost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_tokenbudget.common.text_layout import count, plural, shorten
from pytest_tokenbudget.report import style
from pytest_tokenbudget.report.drawing import (
    count_ticks,
    head_axes,
    new_figure,
    percent_axis,
    save_study_figure,
)
from pytest_tokenbudget.report.figure_texts import add_texts, decoding_words
from pytest_tokenbudget.studies.context.analysis import (
    WHOLE_LIMIT,
    ContextReport,
    ConversationGroup,
    analyse_context,
)
from pytest_tokenbudget.studies.context.conversations import Arm
from pytest_tokenbudget.studies.context.statistics import shown_limit
from pytest_tokenbudget.studies.context.study import ContextStudy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pytest_tokenbudget.stats.intervals import Estimate

WIDTH = 6.8
MAPS_A_ROW = 4
MAP = "cividis"
LOST = "facts lost in most windows"
CUT = "question cut in most windows"
MARKS = {LOST: "///", CUT: "..."}


def context_figures(study: ContextStudy, directory: Path) -> list[Path]:
    """Draw the figures of a context study that has complete conversations, as PNG and SVG."""
    report = analyse_context(study)
    written: list[Path] = []
    for arm in report.arms:
        if arm is not Arm.TASK:
            written += save_study_figure(
                lambda arm=arm: draw_depths(study, arm),  # type: ignore[misc]
                study.whole,
                directory,
                f"context_depth_{arm.value}",
                f"{arm.value}, depth by limit: {{}}",
            )
    for name, draw in (("context_accuracy", draw_accuracy), ("context_tokens", draw_tokens)):
        written += save_study_figure(
            lambda draw=draw: draw(study),  # type: ignore[misc]
            study.whole,
            directory,
            name,
            "Truncated conversations: {}",
        )
    return written


def draw_depths(study: ContextStudy, arm: Arm) -> Figure:
    """Accuracy by depth and limit, a map a strategy; draw it inside `style.figure_style`."""
    report = analyse_context(study)
    whole = report.whole(arm)
    panels = len(report.strategies) + 1
    rows = math.ceil(panels / MAPS_A_ROW)
    figure = new_figure((WIDTH, 0.9 + 2.35 * rows))
    grid = figure.add_gridspec(rows + 1, MAPS_A_ROW, height_ratios=(0.01, *[1.0] * rows))
    top = head_axes(figure, grid)
    flat = [
        figure.add_subplot(grid[1 + place // MAPS_A_ROW, place % MAPS_A_ROW])
        for place in range(panels)
    ]
    # Not those of the whole conversations alone: all that had one depth may have failed.
    depths = sorted({d for a in study.whole_answers(arm) if (d := a.case.depth) is not None})
    _map_of_lengths(flat[0], study, arm, depths)
    for axes, strategy in zip(flat[1:], report.strategies, strict=False):
        points = [report.at(arm, strategy, limit) for limit in report.limits]
        _map(axes, strategy, [p.by_depth for p in points], depths)
        axes.set_xticks(range(len(points)), [_tick(limit) for limit in report.limits])
    for place, axes in enumerate(flat):
        if place % MAPS_A_ROW:
            axes.set_yticklabels([])
        else:
            axes.set_ylabel("depth of the facts")
        axes.set_xlabel("context limit" if place else "filler turns", fontsize=8)
    for label, hatch in MARKS.items():
        top.bar([0], [0], color="#555555", edgecolor="white", hatch=hatch, label=label)
    n = min((group.accuracy.n for group in whole.by_depth), default=0)
    add_texts(
        figure,
        top,
        "Accuracy by depth of the facts",
        model=study.alias,
        subtitle=f"{study.arm_name(arm)}, n = {whole.curve.problems:,}, {n} or more per depth, "
        f"{decoding_words(study.whole)}; numbers: % right",
        sentences=[
            "A model cannot answer rightly, other than by a guess, where a fact that it needs is "
            "lost, or where the question itself is cut. Unmarked cells with low numbers are the "
            "model's own errors."
        ],
    )
    return figure


def _map_of_lengths(axes: Axes, study: ContextStudy, arm: Arm, depths: Sequence[float]) -> None:
    """The whole conversations by their length."""
    from pytest_tokenbudget.stats.intervals import wilson

    turns = sorted({a.case.turns for a in study.whole_answers(arm)})
    columns = []
    for length in turns:
        groups = []
        for depth in depths:
            right = [
                a.correct
                for a in study.whole_answers(arm)
                if (a.case.turns, a.case.depth) == (length, depth) and a.correct == a.correct
            ]
            if right:
                groups.append(
                    ConversationGroup(depth, wilson(round(sum(right)), len(right)), None, None)
                )
        columns.append(tuple(groups))
    _map(axes, "not truncated", columns, depths)
    axes.set_xticks(range(len(turns)), [count(t) for t in turns])


def _map(
    axes: Axes, title: str, columns: Sequence[Sequence[ConversationGroup]], depths: Sequence[float]
) -> None:
    """One heat map: depths downwards, columns to the right."""
    import matplotlib as mpl
    import numpy as np
    from matplotlib.patches import Rectangle

    values = np.full((len(depths), len(columns)), math.nan)
    for x, groups in enumerate(columns):
        for group in groups:
            y = depths.index(group.label)
            values[y, x] = group.accuracy.value
            marks = (
                (LOST, group.kept),
                (CUT, group.question_whole),
            )
            for mark, whole in marks:
                if whole is not None and whole.value < 0.5:
                    axes.add_patch(
                        Rectangle(
                            (x - 0.5, y - 0.5), 1, 1, fill=False, hatch=MARKS[mark],
                            linewidth=0, edgecolor="#888888", zorder=2,
                        )
                    )  # fmt: skip
    colours = mpl.colormaps[MAP]
    axes.imshow(values, cmap=colours, vmin=0, vmax=1, aspect="auto", zorder=1)
    for (y, x), value in np.ndenumerate(values):
        if math.isfinite(value):
            axes.text(
                x, y, f"{100 * value:.0f}", ha="center", va="center", fontsize=6.5,
                color=style.INK if value > 0.55 else "white", zorder=3,
                bbox={"facecolor": colours(value), "edgecolor": "none", "pad": 0.8},
            )  # fmt: skip
    axes.set_title(title, fontsize=8.5)
    axes.set_yticks(range(len(depths)), [f"{100 * depth:.0f} %" for depth in depths])
    axes.tick_params(labelsize=7.5, length=0)
    axes.grid(visible=False)
    for side in axes.spines.values():
        side.set_visible(False)


def draw_accuracy(study: ContextStudy) -> Figure:
    """Accuracy against limit for all strategies; draw it inside `style.figure_style`."""
    report = analyse_context(study)
    figure = new_figure((WIDTH, 1.6 + 2.3 * len(report.arms)))
    panels = figure.subplots(len(report.arms), 1, sharex=True, squeeze=False)[:, 0]
    for axes, arm in zip(panels, report.arms, strict=True):
        for place, strategy in enumerate(report.strategies):
            points = [report.at(arm, strategy, limit) for limit in report.limits]
            _line(axes, report, place, strategy, [p.accuracy for p in points])
        percent_axis(axes, f"{shorten(study.arm_name(arm), 20)}\naccuracy")
    _limit_axis(panels[-1], report)
    numbers = [f"{study.arm_name(a)} {report.whole(a).curve.problems:,}" for a in report.arms]
    add_texts(
        figure,
        panels[0],
        "Accuracy against context limit",
        model=study.alias,
        subtitle=f"{decoding_words(study.whole)}; 95 % intervals",
        sentences=[
            f"conversations: {', '.join(numbers)}; at one limit the strategies stand side by side"
        ],
        columns=4,
    )
    return figure


def draw_tokens(study: ContextStudy) -> Figure:
    """What limits cost, and what of them is not used; draw it inside `style.figure_style`."""
    report = analyse_context(study)
    figure = new_figure((WIDTH, 5.4))
    lost_axes, unused_axes = figure.subplots(2, 1, sharex=True)
    for place, strategy in enumerate(report.strategies):
        cells = [
            [report.at(arm, strategy, limit) for arm in report.arms] for limit in report.limits
        ]
        lost = [_pooled([p.tokens_lost for p in points]) for points in cells]
        unused = [_pooled([p.unused for p in points]) for points in cells]
        look = style.SERIES[place % len(style.SERIES)]
        for axes, values in ((lost_axes, lost), (unused_axes, unused)):
            axes.plot(
                _places(report, place), values, color=look.colour, marker=look.marker,
                linestyle=look.line, linewidth=1.3, label=strategy, clip_on=False,
            )  # fmt: skip
    lost_axes.set_ylabel("tokens of the\nconversation lost")
    unused_axes.set_ylabel("tokens of the limit\nthat are not used")
    for axes in (lost_axes, unused_axes):
        axes.set_ylim(bottom=0)
        count_ticks(axes.yaxis)
    _limit_axis(unused_axes, report)
    number = plural(len(study.complete), "conversation")
    add_texts(
        figure,
        lost_axes,
        "Tokens lost by truncation",
        model=study.alias,
        subtitle=f"means over {number}",
        columns=4,
    )
    figure.align_ylabels()
    return figure


def _pooled(estimates: Sequence[Estimate]) -> float:
    """The mean over several groups of conversations."""
    known = [(e.value, e.n) for e in estimates if e.n]
    total = sum(n for _, n in known)
    return sum(value * n for value, n in known) / total if total else math.nan


def _line(
    axes: Axes, report: ContextReport, place: int, strategy: str, estimates: Sequence[Estimate]
) -> None:
    look = style.SERIES[place % len(style.SERIES)]
    xs = _places(report, place)
    axes.vlines(
        xs, [e.low for e in estimates], [e.high for e in estimates], color=look.colour,
        alpha=0.5, linewidth=1.1, zorder=2,
    )  # fmt: skip
    axes.plot(
        xs, [e.value for e in estimates], color=look.colour, marker=look.marker,
        linestyle=look.line, linewidth=1.3, label=strategy, zorder=4, clip_on=False,
    )  # fmt: skip


def _places(report: ContextReport, place: int) -> list[float]:
    """Where a strategy stands: beside the others, so that equal values can be told apart."""
    shift = (place - (len(report.strategies) - 1) / 2) * 0.06
    return [x + (0 if limit == WHOLE_LIMIT else shift) for x, limit in enumerate(report.limits)]


def _limit_axis(axes: Axes, report: ContextReport) -> None:
    axes.set_xticks(range(len(report.limits)), [_tick(limit) for limit in report.limits])
    axes.set_xlim(-0.35, len(report.limits) - 0.65)
    axes.set_xlabel("context limit (shares are of each conversation)")


def _tick(limit: str) -> str:
    return "all" if limit == WHOLE_LIMIT else shown_limit(limit)
