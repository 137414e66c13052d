"""The error figure: types of errors by budget, annotated, or else only suggested."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pytest_tokenbudget.common.text_layout import count
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.report import style
from pytest_tokenbudget.report.drawing import (
    count_ticks,
    new_figure,
    percent_axis,
    save_study_figure,
    study_texts,
)
from pytest_tokenbudget.studies.errors.taxonomy import ERROR_TYPES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pytest_tokenbudget.stats.intervals import Estimate
    from pytest_tokenbudget.studies.errors.analysis import BudgetErrors, ErrorReport

WIDTH = 6.8


class Fill(NamedTuple):
    """How one kind is told from the others, with colour and without."""

    colour: str
    hatch: str
    name: str


KINDS = {
    "arithmetic": Fill(style.BLUE, "", "arithmetic"),
    "setup": Fill(style.PURPLE, "xx", "setup"),
    "logic": Fill(style.GREEN, "\\\\", "logic"),
    "incomplete": Fill(style.ORANGE, "//", "incomplete"),
    "format": Fill("#E69F00", "..", "format"),
    "hallucination": Fill("#56B4E9", "++", "hallucination"),
    "none": Fill("#aaaaaa", "", "no suggestion"),
}


def errors_figure(study: Study, report: ErrorReport, directory: Path) -> list[Path]:
    """Draw the types of errors below ``directory``, as PNG for print and as SVG.

    Returns:
        The two files, or none where there is no error at any budget.
    """
    if not any(one.errors for one in report.budgets):
        return []
    return save_study_figure(
        lambda: draw_errors(study, report),
        study,
        directory,
        "fig2_error_distribution",
        "Errors of {}",
    )


def draw_errors(study: Study, report: ErrorReport) -> Figure:
    """The figure itself; draw it inside `style.figure_style`."""
    annotated = report.annotated > 0
    shown = [one for one in report.budgets if one.errors]
    figure = new_figure((WIDTH, 5.6))
    shares_axes, counts_axes = figure.subplots(
        2, 1, sharex=True, gridspec_kw={"height_ratios": (2.6, 1.0)}
    )
    if annotated:
        names = [kind for kind in ERROR_TYPES if any(_count(one.types, kind) for one in shown)]
        estimates = [{k: s.share for k, s in one.types.items()} for one in shown]
    else:
        names = [k for k in KINDS if any(_count(one.suggested, k) for one in shown)]
        estimates = [{k: s.share for k, s in one.suggested.items()} for one in shown]
    _bars(shares_axes, names, estimates, pale=not annotated)
    percent_axis(
        shares_axes,
        "share of the annotated errors"
        if annotated
        else "share of all errors,\nsuggested by rules",
    )
    _counts(counts_axes, shown)
    counts_axes.set_xticks(
        range(len(shown)),
        [f"{count(one.budget)}\n{_size(one, annotated)}" for one in shown],
    )
    counts_axes.set_xlabel("budget: output tokens allowed")
    study_texts(
        figure, shares_axes, study, "Errors by token budget", [_sentence(report)], columns=4
    )
    figure.align_ylabels()
    return figure


def _sentence(report: ErrorReport) -> str:
    if report.annotated:
        return f"{report.sentence()}; 95 % intervals"
    return f"SUGGESTED by rules, NOT annotated ({report.sentence()}); 95 % intervals"


def _count(shares: Mapping[str, object], kind: str) -> int:
    return int(getattr(shares.get(kind), "count", 0))


def _bars(
    axes: Axes, names: Sequence[str], estimates: Sequence[Mapping[str, Estimate]], pale: bool
) -> None:
    width = 0.82 / max(len(names), 3)
    for at, name in enumerate(names):
        fill = KINDS[name]
        places = [x + (at - (len(names) - 1) / 2) * width for x in range(len(estimates))]
        values = [_value(one.get(name)) for one in estimates]
        axes.bar(
            places,
            values,
            width * 0.92,
            color=fill.colour,
            alpha=0.55 if pale else 1.0,
            hatch=fill.hatch,
            edgecolor="white",
            linewidth=0.5,
            label=fill.name,
            zorder=2,
        )
        for x, one in zip(places, estimates, strict=True):
            share = one.get(name)
            if share is not None and math.isfinite(share.value):
                # Where there is no bar, the interval's colour says whose it is.
                ink = style.INK if share.value else fill.colour
                axes.vlines(x, share.low, share.high, color=ink, linewidth=1.1, zorder=3)
                if not share.value:
                    axes.plot(x, 0, "o", color=ink, markersize=2.5, zorder=3, clip_on=False)
    axes.grid(axis="x", visible=False)


def _value(share: Estimate | None) -> float:
    return share.value if share is not None and math.isfinite(share.value) else 0.0


def _size(one: BudgetErrors, annotated: bool) -> str:
    """How many answers stand behind a group of bars."""
    if not annotated:
        return f"n = {one.errors:,}"
    return f"n = {one.annotated:,} annotated" if one.annotated else "not annotated"


def _counts(axes: Axes, shown: Sequence[BudgetErrors]) -> None:
    """How many answers are wrong at each budget: cut, or ended."""
    cut = [
        one.outcomes.get("truncated_in_answer", 0) + one.outcomes.get("truncated_in_thinking", 0)
        for one in shown
    ]
    ended = [one.errors - n for one, n in zip(shown, cut, strict=True)]
    xs = range(len(shown))
    axes.bar(xs, ended, 0.5, color=style.INK, edgecolor="white", linewidth=0.5, zorder=2)
    axes.bar(
        xs, cut, 0.5, bottom=ended, color="#bbbbbb", hatch="//", edgecolor="white",
        linewidth=0.5, zorder=2,
    )  # fmt: skip
    top = max((one.errors for one in shown), default=1)
    axes.set_ylim(0, top * 1.25)
    for x, one, n in zip(xs, shown, cut, strict=True):
        axes.text(
            x,
            one.errors + top * 0.03,
            f"{one.errors:,} ({n:,} cut)",
            ha="center",
            va="bottom",
            fontsize=8,
            color=style.INK,
        )
    axes.set_ylabel("errors\n(hatched: cut)")
    count_ticks(axes.yaxis, 3)
    axes.grid(axis="x", visible=False)
