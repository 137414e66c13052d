"""Two figures: types of errors by budget, annotated or only suggested, and their recovery."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pytest_tokenbudget.common.text_layout import count, plural
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.report import style
from pytest_tokenbudget.report.drawing import (
    count_ticks,
    interval_markers,
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
    from pytest_tokenbudget.studies.errors.statistics import ErrorStep


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

# By what larger budgets say; see docs/errors.md.
VERDICTS = {
    "yes": Fill(style.BLUE, "", "recoverable: right at a larger budget"),
    "no": Fill(style.ORANGE, "//", "persistent: right at none of the larger budgets"),
    "unknown": Fill("#bbbbbb", "..", "unknown: still cut at the largest budget"),
}
NARROW = 0.07  # share of the tallest bar below which a number does not fit into its part


def errors_figure(study: Study, report: ErrorReport, directory: Path) -> list[Path]:
    """Draw the types of errors; no files where there is no error at any budget."""
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
    figure = new_figure((6.8, 5.6))
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
    _draw_wrong(counts_axes, shown)
    counts_axes.set_xticks(
        range(len(shown)), [f"{count(one.budget)}\n{_size(one, annotated)}" for one in shown]
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


def _size(errors: BudgetErrors, annotated: bool) -> str:
    """How many answers stand behind a group of bars."""
    if not annotated:
        return f"n = {errors.errors:,}"
    return f"n = {errors.annotated:,} annotated" if errors.annotated else "not annotated"


def _draw_wrong(axes: Axes, shown: Sequence[BudgetErrors]) -> None:
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


def recovery_figure(study: Study, report: ErrorReport, directory: Path) -> list[Path]:
    """Draw recoverable and persistent errors; no files where there is no error at any budget."""
    if not any(one.errors for one in report.budgets):
        return []
    return save_study_figure(
        lambda: draw_recovery(study, report),
        study,
        directory,
        "fig2_error_recovery",
        "Recovery from errors of {}",
    )


def draw_recovery(study: Study, report: ErrorReport) -> Figure:
    """The figure itself; draw it inside `style.figure_style`."""
    steps = [step for step in report.steps if step.errors]
    figure = new_figure((6.8, 5.4 if steps else 3.4))
    panels = figure.subplots(
        2 if steps else 1, 1, squeeze=False,
        gridspec_kw={"height_ratios": (1.5, 1.0) if steps else (1,)},
    )[:, 0]  # fmt: skip
    _draw_recoverable(panels[0], report.budgets)
    sentences = []
    if steps:
        _draw_steps(panels[1], steps)
        lost = sum(step.broken for step in report.steps)
        sentences.append(f"from one budget to the next {plural(lost, 'right answer')} went wrong")
    study_texts(
        figure,
        panels[0],
        study,
        "Recoverable and persistent errors",
        sentences,
        columns=1,
        legends=list(panels),
    )
    figure.align_ylabels()
    return figure


def _draw_recoverable(axes: Axes, budgets: Sequence[BudgetErrors]) -> None:
    """Errors at each budget, by what the larger budgets say about them."""
    tallest = max(one.errors for one in budgets)
    bottom = [0] * len(budgets)
    for verdict, fill in VERDICTS.items():
        counts = [one.measured.get(verdict, 0) for one in budgets]
        if not any(counts):
            continue
        axes.bar(
            range(len(budgets)), counts, 0.6, bottom=bottom, color=fill.colour, hatch=fill.hatch,
            edgecolor="white", linewidth=0.5, label=fill.name, zorder=2,
        )  # fmt: skip
        for place, (low, number) in enumerate(zip(bottom, counts, strict=True)):
            if number > NARROW * tallest:
                axes.text(
                    place, low + number / 2, count(number), ha="center", va="center",
                    fontsize=8, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.2},
                    zorder=3,
                )  # fmt: skip
        bottom = [low + number for low, number in zip(bottom, counts, strict=True)]
    for place, one in enumerate(budgets):
        axes.annotate(
            f"{count(one.errors)} of {count(one.answers)}",
            (place, one.errors),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    axes.set_ylim(0, 1.15 * tallest)
    axes.set_xlim(-0.6, max(len(budgets) - 0.4, 0.6))
    axes.set_xticks(range(len(budgets)), [count(one.budget) for one in budgets])
    axes.set_xlabel("budget: output tokens allowed (above the bars: errors of answers)")
    axes.set_ylabel("errors")
    count_ticks(axes.yaxis, 5)
    axes.grid(axis="x", visible=False)


def _draw_steps(axes: Axes, steps: Sequence[ErrorStep]) -> None:
    """The share of the errors at a budget that are right at the next, also by annotated type."""
    rows: list[tuple[str, style.SeriesStyle, list[Estimate | None]]] = [
        ("all errors", style.SeriesStyle(style.INK, "o", "none"), [step.recovery for step in steps])
    ]
    types = [kind for kind in KINDS if any(kind in step.recovery_by_type for step in steps)]
    for kind, marker in zip(types, "s^Dv<>P", strict=False):
        look = style.SeriesStyle(KINDS[kind].colour, marker, "none")
        rows.append(
            (f"annotated {kind}", look, [step.recovery_by_type.get(kind) for step in steps])
        )
    for number, (label, look, estimates) in enumerate(rows):
        shift = 0.1 * (number - (len(rows) - 1) / 2)
        known = [(place + shift, e) for place, e in enumerate(estimates) if e is not None]
        interval_markers(
            axes,
            [place for place, _ in known],
            [estimate for _, estimate in known],
            look,
            label if len(rows) > 1 else None,
            alpha=0.6,
            linewidth=1.4,
            clip_on=False,
        )
    percent_axis(axes, "right at the next\nbudget, 95 % interval")
    axes.set_xlim(-0.6, max(len(steps) - 0.4, 0.6))
    axes.set_xticks(
        range(len(steps)),
        [f"{count(s.budget)} to {count(s.next)}\nn = {s.errors:,}" for s in steps],
    )
    axes.set_xlabel("from one budget to the next (n: errors at the smaller)")
    axes.grid(axis="x", visible=False)
