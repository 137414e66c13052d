"""The figures of the thinking eval: its curve, its tokens, and where it stops being useful."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pytest_tokenbudget.common.text_layout import count, percent
from pytest_tokenbudget.report import style
from pytest_tokenbudget.report.drawing import (
    budgets_named,
    count_ticks,
    new_figure,
    percent_axis,
    percent_ticks,
    save_study_figure,
    series,
    side_by_side,
    study_texts,
)
from pytest_tokenbudget.report.figure_texts import legend_name
from pytest_tokenbudget.studies.thinking.analysis import (
    ThinkingPoint,
    ThinkingReport,
    analyse_thinking,
)
from pytest_tokenbudget.studies.thinking.study import Enforcement, ThinkingStudy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HARD = style.SeriesStyle(style.INK, "^", "-.")
OFF = style.SeriesStyle(style.GREEN, "v", ":")
CLOSERS = (
    style.SeriesStyle(style.BLUE, "o", "-"),
    style.SeriesStyle(style.ORANGE, "s", "--"),
    style.SeriesStyle(style.PURPLE, "D", (0, (5, 1, 1, 1))),
    style.SeriesStyle(style.SKY, "P", (0, (3, 1))),
    style.SeriesStyle(style.YELLOW, "X", (0, (1, 1))),
)


def thinking_figures(study: ThinkingStudy, directory: Path) -> list[Path]:
    """Draw a thinking study, of which at least one problem has all its traces, as PNG and SVG."""
    drawn: list[tuple[str, str, Callable[[], Figure]]] = [
        ("fig6_thinking_curve", "{}: accuracy against thinking", lambda: draw_curve(study)),
        ("fig7_thinking_tokens", "{}: thinking and answer tokens", lambda: draw_tokens(study)),
        ("fig8_thinking_usefulness", "{}: use of thinking", lambda: draw_usefulness(study)),
    ]
    return [
        file
        for name, title, draw in drawn
        for file in save_study_figure(draw, study, directory, name, title)
    ]


def draw_curve(study: ThinkingStudy) -> Figure:
    """Accuracy against budget for each enforcement; draw it inside `style.figure_style`."""
    report = analyse_thinking(study)
    figure = new_figure((6.8, 5.6))
    axes = figure.subplots()
    accuracy = report.natural.accuracy
    axes.axhline(
        accuracy.value,
        color=style.GREY,
        linewidth=1.4,
        label=f"no limit: {percent(accuracy.value)} %",
        zorder=1.8,
    )
    axes.axhspan(accuracy.low, accuracy.high, color=style.GREY, alpha=0.15, linewidth=0, zorder=1)
    lines = [
        _Line(
            report.points_of(Enforcement.FORCED, closer),
            look,
            f"ended by closer: {legend_name(closer, 20)}",
        )
        for closer, look in zip(study.closers, itertools.cycle(CLOSERS), strict=False)
    ]
    off = [point for point in report.points_of(Enforcement.OFF) if point.budget is not None]
    lines.append(_Line(report.points_of(Enforcement.HARD), HARD, "hard cut"))
    lines.append(_Line(off, OFF, "thinking off, hard cut"))
    lines = [line for line in lines if line.points]
    for number, line in enumerate(lines):
        _draw_line(axes, study, line, number, len(lines))
    percent_axis(axes, "accuracy")
    _axis(axes, study, "budget: thinking tokens, or all tokens of a hard cut (log scale)")
    room = count(study.forcing.answer_tokens)
    about = f"95 % intervals; after a forced close at most {room} tokens"
    if 0 in study.budgets:
        about += "; at 0 the block is opened and closed at once"
    about += "; where several lines share a budget their markers stand side by side"
    study_texts(figure, axes, study, "Accuracy against thinking budget", [about])
    return figure


def draw_tokens(study: ThinkingStudy) -> Figure:
    """Thinking against answer tokens; draw it inside `style.figure_style`."""
    report = analyse_thinking(study)
    figure = new_figure((6.8, 7.2))
    each, mean = figure.subplots(2, 1, gridspec_kw={"height_ratios": (1.3, 1.0)})
    _scatter(each, study)
    columns = [
        (count(p.budget or 0), p) for p in report.points_of(Enforcement.FORCED, study.closers[0])
    ]
    columns.append(("no\nlimit", report.natural))
    columns += [("off", off)] if (off := report.thinking_off) else []
    places = range(len(columns))
    thinking = [p.thinking_tokens.mean.value for _, p in columns]
    answer = [p.answer_tokens.mean.value for _, p in columns]
    mean.bar(places, thinking, 0.7, color=style.BLUE, label="thinking")
    mean.bar(places, answer, 0.7, bottom=thinking, color=style.YELLOW, hatch="//", label="answer")
    # Four digits and a comma take about half an inch.
    mean.set_xticks(
        list(places), [name for name, _ in columns], rotation=90 if len(columns) > 14 else 0
    )
    mean.set_ylim(0, max((*map(sum, zip(thinking, answer, strict=True)), 1)) * 1.25)
    count_ticks(mean.yaxis)
    mean.set_ylabel("mean tokens")
    mean.set_xlabel("thinking budget, ended by force")
    mean.grid(visible=False, axis="x")
    mean.legend(loc="upper left", ncols=2)
    about = "above: each answer without a limit; below: mean tokens at each thinking budget"
    study_texts(figure, each, study, "Thinking and answer tokens", [about], columns=3)
    return figure


def _scatter(axes: Axes, study: ThinkingStudy) -> None:
    answers = study.unlimited()
    groups = [
        ("right", style.BLUE, "o", [a for a in answers if a.correct == 1]),
        (
            "wrong, or none",
            style.ORANGE,
            "X",
            [a for a in answers if a.correct == 0 and not a.judged.cut.truncated],
        ),
        (
            "met the cap",
            style.INK,
            "^",
            [a for a in answers if a.correct == 0 and a.judged.cut.truncated],
        ),
    ]
    for label, colour, marker, rows in groups:
        if rows:
            axes.scatter(
                [a.thinking for a in rows],
                [a.answer for a in rows],
                s=26,
                c=colour,
                marker=marker,
                alpha=0.6,
                linewidths=0,
                label=f"{label}: {len(rows):,}",
                zorder=3,
            )
    axes.set_xlim(0, max((*(a.thinking for a in answers), 1)) * 1.05)
    axes.set_ylim(0, max((*(a.answer for a in answers), 1)) * 1.12)
    count_ticks(axes.xaxis, 8)
    count_ticks(axes.yaxis)
    axes.set_xlabel("thinking tokens without a limit")
    axes.set_ylabel("answer tokens")


def draw_usefulness(study: ThinkingStudy) -> Figure:
    """Where the thinking stops being useful; draw it inside `style.figure_style`."""
    report = analyse_thinking(study)
    figure = new_figure((6.8, 6.8))
    gap, settled = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (1.0, 1.0)})
    _draw_gap(gap, study, report)
    _draw_settled(settled, study, report)
    _axis(settled, study, "thinking budget in tokens (log scale)")
    study_texts(
        figure,
        gap,
        study,
        "Where thinking stops being useful",
        [report.usefulness.sentence(), report.settling.sentence()],
        legends=(gap, settled),
    )
    figure.align_ylabels()
    return figure


def _draw_gap(axes: Axes, study: ThinkingStudy, report: ThinkingReport) -> None:
    found = report.usefulness
    rows = sorted(found.comparisons, key=lambda c: c.budget)
    xs = [_place(study, c.budget) for c in rows]
    axes.axhline(0, color=style.INK, linewidth=0.8, zorder=2)
    axes.axhline(
        -found.margin,
        color=style.GREEN,
        linestyle=(0, (6, 2, 1, 2)),
        linewidth=1.2,
        label=f"margin: {100 * found.margin:g} points",
        zorder=2,
    )
    axes.vlines(
        xs,
        [c.lower_bound for c in rows],
        [c.upper_bound for c in rows],
        color=style.BLUE,
        alpha=0.55,
        linewidth=1.4,
        zorder=3,
    )
    axes.plot(
        xs,
        [c.difference for c in rows],
        color=style.BLUE,
        marker="o",
        linestyle="none",
        label="difference of accuracy, one-sided 95 % bounds",
        zorder=4,
        clip_on=False,
    )
    if found.budget is not None:
        axes.axvline(
            _place(study, found.budget),
            color=style.GREEN,
            linewidth=1.2,
            linestyle=":",
            label=f"useful up to {count(found.budget)}",
            zorder=1.5,
        )
    percent_ticks(axes.yaxis, "")
    axes.set_ylabel("accuracy, points\nagainst no limit")


def _draw_settled(axes: Axes, study: ThinkingStudy, report: ThinkingReport) -> None:
    ended = [
        sum(
            not unended and a.thinking <= budget
            for a, unended in zip(study.unlimited(), study.unended, strict=True)
        )
        / len(study.complete)
        for budget in study.budgets
    ]
    xs = [_place(study, budget) for budget in study.budgets]
    series(axes, xs, report.settling.settled, CLOSERS[0], "right, and right from then on")
    axes.plot(
        xs,
        ended,
        color=style.GREY,
        linestyle="--",
        marker="v",
        label="thinking had ended by itself",
        zorder=3,
        clip_on=False,
    )
    percent_axis(axes, "share of problems")


class _Line(NamedTuple):
    """A line of `draw_curve`."""

    points: Sequence[ThinkingPoint]
    look: style.SeriesStyle
    label: str


def _draw_line(axes: Axes, study: ThinkingStudy, line: _Line, number: int, lines: int) -> None:
    """A line beside the others; ``number`` counts from 0."""
    # Without any thinking the answer is one of another kind: no line leads there.
    apart = [p for p in line.points if not p.budget]
    places = [_place(study, budget) for budget in study.budgets]
    shifted = dict(zip(study.budgets, side_by_side(places, number, lines), strict=True))
    for group, label in (([p for p in line.points if p.budget], line.label), (apart, "")):
        if group:
            xs = [shifted[point.budget or 0] for point in group]
            series(axes, xs, [p.accuracy for p in group], line.look, label, band=False)


def _place(study: ThinkingStudy, budget: int) -> float:
    """Where a budget stands on a logarithmic axis: 0 a step and a half before the smallest."""
    return float(budget) if budget else min(study.positive, default=1) / 2**1.5


def _axis(axes: Axes, study: ThinkingStudy, label: str) -> None:
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    axes.set_xscale("log", base=2)
    places = [_place(study, budget) for budget in study.budgets]
    low, high = math.log2(places[0]), math.log2(places[-1])
    room = max(0.05 * (high - low), 0.25)
    axes.set_xlim(2 ** (low - room), 2 ** (high + room))
    named = budgets_named(study.positive, (high - low + 2 * room) / 14) if study.positive else set()
    axes.xaxis.set_major_locator(FixedLocator(places))
    axes.xaxis.set_major_formatter(
        FixedFormatter([count(b) if b in named or not b else "" for b in study.budgets])
    )
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(label)
