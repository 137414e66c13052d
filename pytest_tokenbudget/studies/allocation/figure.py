"""The figure of the allocation eval: accuracy against mean tokens for every policy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_tokenbudget.common.text_layout import count
from pytest_tokenbudget.report import style
from pytest_tokenbudget.report.drawing import (
    count_ticks,
    nested_marker,
    new_figure,
    percent_axis,
    percent_ticks,
    save_study_figure,
    study_texts,
)
from pytest_tokenbudget.studies.allocation.analysis import OFF, AllocationReport, analyse_allocation
from pytest_tokenbudget.studies.allocation.stored_traces import replay_of
from pytest_tokenbudget.studies.thinking.study import ThinkingStudy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pytest_tokenbudget.studies.allocation.policies import PolicyStudy
    from pytest_tokenbudget.studies.allocation.policy_results import PolicyPoint

LIMIT = style.SeriesStyle(style.BLUE, "o", "-")
LOOKS = {
    "per category": style.SeriesStyle(style.ORANGE, "s", "--"),
    "predicted difficulty": style.SeriesStyle(style.GREEN, "^", "-."),
    "first stable answer": style.SeriesStyle(style.PURPLE, "D", ":"),
}
THINKING_OFF = style.SeriesStyle(style.INK, "v", "none")


def allocation_figure(study: ThinkingStudy, directory: Path) -> list[Path]:
    """Draw the policies below ``directory``, as PNG for print and as SVG."""
    return save_study_figure(
        lambda: draw_policies(study),
        study,
        directory,
        "allocation_policies",
        "{}: allocation policies",
    )


def draw_policies(study: ThinkingStudy) -> Figure:
    """Accuracy against mean tokens, and each policy in numbers; for `style.figure_style`."""
    report = analyse_allocation(study)
    policy_study = report.policies
    assert policy_study is not None
    rows = [(each.name, each.working, LOOKS[each.name]) for each in policy_study.policies[1:]]
    if report.off is not None:
        rows.append((OFF, report.off, THINKING_OFF))
    height = 0.26 * (len(rows) + 1) + 0.2
    figure = new_figure((6.8, 5.0 + height))
    grid = figure.add_gridspec(2, 3, height_ratios=(4.0, height), width_ratios=(1, 1, 1.3))
    axes = figure.add_subplot(grid[0, :])
    columns = [figure.add_subplot(grid[1, column]) for column in range(3)]
    _draw_oracle(axes, study, policy_study)
    _draw_limits(axes, policy_study)
    for each in policy_study.policies[1:]:
        look, line = LOOKS[each.name], each.frontier
        xs, ys = [p.mean_tokens.value for p in line], [p.accuracy.value for p in line]
        axes.plot(xs, ys, color=look.colour, linestyle=look.line, linewidth=1.2, zorder=2.5)
    for number, (name, point, look) in enumerate(rows):
        at = (point.mean_tokens.value, point.accuracy.value)
        nested_marker(axes, at, look, number, name)
    percent_axis(axes, "accuracy")
    _token_axis(axes, report, policy_study)
    reference = f"one limit, {count(policy_study.reference)}"
    _draw_rows(columns, [(reference, policy_study.policies[0].working, LIMIT), *rows])
    study_texts(
        figure,
        axes,
        study,
        "Accuracy against tokens, by policy",
        [
            f"large markers: each policy with at most the mean tokens of limit "
            f"{count(policy_study.reference)}; lines: with fewer or more; below: the same policies "
            f"with 95 % intervals; cross-validated, n = {policy_study.problems:,}",
            policy_study.sentence(),
        ],
    )
    return figure


def _draw_rows(
    columns: Sequence[Axes], rows: Sequence[tuple[str, PolicyPoint, style.SeriesStyle]]
) -> None:
    """Accuracy, mean tokens, and gain over one limit, a row for each policy."""
    accuracy, tokens, gain = columns
    gain.axvline(0, color=LIMIT.colour, linewidth=1.2, zorder=2)
    for place, (_, point, look) in enumerate(rows):
        estimates = [point.accuracy, point.mean_tokens]
        # The first row is what the others are compared with.
        estimates += [point.advantage] if place else []
        for axes, (value, low, high, *_) in zip(columns, estimates, strict=False):
            axes.hlines(place, low, high, color=look.colour, linewidth=1.6, zorder=3)
            axes.plot(
                [value], [place], color=look.colour, marker=look.marker, zorder=4, clip_on=False
            )
    for axes in columns:
        axes.set_yticks(range(len(rows)), [name for name, *_ in rows] if axes is accuracy else [])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
    percent_ticks(accuracy.xaxis, most=4)
    tokens.set_xlim(left=max(0.0, tokens.get_xlim()[0]))
    count_ticks(tokens.xaxis, 4)
    percent_ticks(gain.xaxis, "", most=6)
    accuracy.set_xlabel("accuracy")
    tokens.set_xlabel("mean tokens")
    gain.set_xlabel("points against one limit\nat the same mean tokens")


def _draw_oracle(axes: Axes, study: ThinkingStudy, policy_study: PolicyStudy) -> None:
    import numpy as np

    from pytest_tokenbudget.studies.allocation.policy_results import oracle_accuracy

    replay = replay_of(study).replay
    first = float(replay.tokens.min(axis=1).mean())
    xs = np.linspace(first, max(policy_study.oracle.mean_tokens.value, first), 200)
    axes.plot(
        xs,
        [oracle_accuracy(replay, float(x)) for x in xs],
        color=style.GREY,
        linestyle=(0, (1, 1)),
        linewidth=1.4,
        label="oracle, of these limits",
        zorder=2,
    )


def _draw_limits(axes: Axes, policy_study: PolicyStudy) -> None:
    points = list(policy_study.limits.items())
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
                count(budget),
                (each.mean_tokens.value, each.accuracy.value if low else each.accuracy.low),
                xytext=(6, 0) if low else (0, -4),
                textcoords="offset points",
                ha="left" if low else "center",
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


def _token_axis(axes: Axes, report: AllocationReport, policy_study: PolicyStudy) -> None:
    shown = [*policy_study.limits.values(), *(each.working for each in policy_study.policies)]
    shown += [point for each in policy_study.policies for point in each.frontier]
    if report.off is not None:
        shown.append(report.off)
    high = max(p.mean_tokens.value for p in shown)
    low = min(p.mean_tokens.value for p in shown)
    room = 0.05 * max(high - low, 1.0)
    axes.set_xlim(max(0.0, low - room), high + room)
    count_ticks(axes.xaxis, 8)
    axes.set_xlabel("mean tokens per answer: thinking, answer and probes together")
