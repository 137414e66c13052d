"""The figure of the allocation eval: accuracy against mean tokens for every policy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_tokenbudget.report import style
from pytest_tokenbudget.report.allocation_replay import replay_of
from pytest_tokenbudget.report.allocation_study import OFF, AllocationReport, analyse_allocation
from pytest_tokenbudget.report.drawing import (
    LINE,
    decoding_words,
    head_over,
    new_figure,
    percent_axis,
    save_study_figure,
)
from pytest_tokenbudget.report.thinking_study import ThinkingStudy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pytest_tokenbudget.analysis.judging import PolicyPoint
    from pytest_tokenbudget.analysis.policies import PolicyStudy

LIMIT = style.Look(style.BLUE, "o", "-")
LOOKS = {
    "per category": style.Look(style.ORANGE, "s", "--"),
    "predicted difficulty": style.Look(style.GREEN, "^", "-."),
    "first stable answer": style.Look(style.PURPLE, "D", ":"),
}
THINKING_OFF = style.Look(style.INK, "v", "none")


def allocation_figure(study: ThinkingStudy, directory: Path) -> list[Path]:
    """Draw the policies below ``directory``, as PNG for print and as SVG.

    Args:
        study: The study; its policies could be replayed.
        directory: The reports directory; files go to its ``figures``.

    Returns:
        The two files.
    """
    return save_study_figure(
        lambda: draw_policies(study),
        study,
        directory,
        "allocation_policies",
        "{}: allocation policies",
    )


def draw_policies(study: ThinkingStudy) -> Figure:
    """Accuracy against mean tokens, and what a policy gains; for `style.figure_style`."""
    report = analyse_allocation(study)
    found = report.policies
    assert found is not None
    rows = [(each.name, each.working, LOOKS[each.name]) for each in found.policies[1:]]
    if report.off is not None:
        rows.append((OFF, report.off, THINKING_OFF))
    height = 0.28 * max(len(rows), 1) + 0.2
    figure = new_figure((6.8, 5.6 + height))
    axes, gains = figure.subplots(2, 1, gridspec_kw={"height_ratios": (4.0, height)})
    _draw_oracle(axes, study, found)
    _draw_limits(axes, found)
    for each in found.policies[1:]:
        look, line = LOOKS[each.name], each.frontier
        xs, ys = [p.mean_tokens.value for p in line], [p.accuracy.value for p in line]
        axes.plot(xs, ys, color=look.colour, linestyle=look.line, linewidth=1.2, zorder=2.5)
    for name, point, look in rows:
        _cross(axes, point, look)
        _legend(axes, look, name)
    percent_axis(axes, "accuracy", (0, 0.2, 0.4, 0.6, 0.8, 1))
    _token_axis(axes, report, found)
    _draw_gains(gains, rows)
    _titles(figure, axes, study, found)
    return figure


def _legend(axes: Axes, look: style.Look, label: str) -> None:
    """An entry of the legend with line and marker, which are drawn apart."""
    axes.plot(
        [], [], color=look.colour, linestyle=look.line, linewidth=1.2, marker=look.marker,
        label=label,
    )  # fmt: skip


def _draw_gains(axes: Axes, rows: Sequence[tuple[str, PolicyPoint, style.Look]]) -> None:
    """What each policy gains over one limit with as many tokens, a row each."""
    from matplotlib.ticker import MaxNLocator

    axes.axvline(0, color=style.BLUE, linewidth=1.2, zorder=2)
    for place, (_, point, look) in enumerate(rows):
        value, low, high = (100 * part for part in point.advantage[:3])
        axes.hlines(place, low, high, color=look.colour, linewidth=1.6, zorder=3)
        axes.plot([value], [place], color=look.colour, marker=look.marker, zorder=4)
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))
    axes.set_xlabel("points of accuracy against one limit for all at the same mean tokens")


def _draw_oracle(axes: Axes, study: ThinkingStudy, found: PolicyStudy) -> None:
    import numpy as np

    from pytest_tokenbudget.analysis.judging import oracle_accuracy

    replay = replay_of(study).replay
    first = float(replay.tokens.min(axis=1).mean())
    xs = np.linspace(first, max(found.oracle.mean_tokens.value, first), 200)
    axes.plot(
        xs,
        [oracle_accuracy(replay, float(x)) for x in xs],
        color=style.GREY,
        linestyle=(0, (1, 1)),
        linewidth=1.4,
        label="oracle, of these limits",
        zorder=2,
    )


def _draw_limits(axes: Axes, found: PolicyStudy) -> None:
    points = list(found.limits.items())
    axes.plot(
        [p.mean_tokens.value for _, p in points],
        [p.accuracy.value for _, p in points],
        color=LIMIT.colour,
        linestyle=LIMIT.line,
        linewidth=1.4,
        marker=LIMIT.marker,
        markersize=4,
        label="one limit for all, as named",
        zorder=2.7,
    )
    for budget, each in points:
        axes.vlines(
            each.mean_tokens.value,
            each.accuracy.low,
            each.accuracy.high,
            color=LIMIT.colour,
            linewidth=1.1,
            alpha=0.7,
            zorder=2.6,
        )
        low = each.accuracy.low < 0.06
        if budget in _named(points):
            axes.annotate(
                style.count(budget),
                (each.mean_tokens.value, each.accuracy.value if low else each.accuracy.low),
                xytext=(-5, 0) if low else (0, -4),
                textcoords="offset points",
                ha="right" if low else "center",
                va="center" if low else "top",
                fontsize=7.5,
                color=LIMIT.colour,
                zorder=6,
            )


def _named(points: Sequence[tuple[int, PolicyPoint]]) -> set[int]:
    """Budgets to label: those that stand apart from the one labelled before."""
    span = points[-1][1].mean_tokens.value - points[0][1].mean_tokens.value
    named: list[tuple[int, PolicyPoint]] = []
    for budget, each in points:
        apart = not named or (
            each.mean_tokens.value - named[-1][1].mean_tokens.value > 0.07 * span
            or abs(each.accuracy.value - named[-1][1].accuracy.value) > 0.06
        )
        if apart:
            named.append((budget, each))
    return {budget for budget, _ in named}


def _cross(axes: Axes, point: PolicyPoint, look: style.Look) -> None:
    """A point with the intervals of its accuracy and of its mean tokens."""
    tokens, accuracy = point.mean_tokens, point.accuracy
    axes.errorbar(
        tokens.value,
        accuracy.value,
        xerr=[[tokens.value - tokens.low], [tokens.high - tokens.value]],
        yerr=[[accuracy.value - accuracy.low], [accuracy.high - accuracy.value]],
        fmt=look.marker,
        color=look.colour,
        ecolor=look.colour,
        elinewidth=1.1,
        markersize=6.5,
        markeredgecolor="white",
        markeredgewidth=0.6,
        zorder=5,
    )


def _token_axis(axes: Axes, report: AllocationReport, found: PolicyStudy) -> None:
    shown = [*found.limits.values(), *(each.working for each in found.policies)]
    if report.off is not None:
        shown.append(report.off)
    high = max(p.mean_tokens.high for p in shown)
    low = min(p.mean_tokens.low for p in shown)
    room = 0.05 * max(high - low, 1.0)
    axes.set_xlim(max(0.0, low - room), high + room)
    axes.set_xlabel("mean tokens an answer, thinking and answer together, probes paid for")


def _titles(
    figure: Figure,
    axes: Axes,
    study: ThinkingStudy,
    found: PolicyStudy,
) -> None:
    size = f"n = {found.problems:,}"
    if found.problems < len(study.problems):
        size += f" of {len(study.problems):,}"
    task = style.shorten(style.visible(study.task.name), 40)
    about = [
        f"{task}, thinking, {size}, {decoding_words(study.natural)}; 95 % intervals",
        f"markers: at most limit {style.count(found.reference)}'s mean tokens; lines: fewer or "
        "more; cross-validated",
        found.sentence(),
    ]
    head_over(
        figure,
        axes,
        style.shorten(style.visible(study.alias), 54),
        [line for text in about for line in style.wrapped(text, LINE, "")],
    )
