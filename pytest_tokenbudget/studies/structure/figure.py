"""Two figures of structure: what fits within a budget, and accuracy with verification."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_tokenbudget.common.text_layout import count
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.report import drawing, style
from pytest_tokenbudget.studies.structure.analysis import (
    PART_NAMES,
    StructureStudy,
    analyse_structure,
)
from pytest_tokenbudget.studies.structure.rules import PARTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pytest_tokenbudget.studies.structure.statistics import StructurePoint

MAX_STRATA = 10

LOOKS = {
    "setup": style.SeriesStyle(style.GREEN, "o", "-"),
    "computation": style.SeriesStyle(style.BLUE, "s", "--"),
    "verification": style.SeriesStyle(style.ORANGE, "^", "-."),
    "answer": style.SeriesStyle(style.PURPLE, "D", ":"),
    "other": style.SeriesStyle(style.GREY, "x", "-"),
    "thinking": style.SeriesStyle("#cccccc", "x", "-"),
}
HATCHES = {"setup": "..", "verification": "//", "answer": "xx"}
GROUPS = {
    "verified": ("verification within the budget", style.SeriesStyle(style.ORANGE, "^", "-")),
    "none": ("wrote none", style.SeriesStyle(style.BLUE, "o", "--")),
    "cut_off": ("cut before its end", style.SeriesStyle(style.GREY, "s", ":")),
}
ROWS = {"verified": "within", "cut_off": "cut", "none": "none", "unknown": "unknown"}


def structure_figures(study: Study, directory: Path) -> list[Path]:
    """Draw both figures; none where there is no trace to show."""
    if not study.complete or not analyse_structure(study).traces:
        return []
    return [
        *drawing.save_study_figure(
            lambda: draw_structure(study),
            study,
            directory,
            "fig4_solution_structure",
            "structure of solutions: {}",
        ),
        *drawing.save_study_figure(
            lambda: draw_verification(study),
            study,
            directory,
            "fig5_verification_accuracy",
            "accuracy with and without verification: {}",
        ),
    ]


def draw_structure(study: Study) -> Figure:
    """What tokens do along the output, and which parts are complete within a budget."""
    result = analyse_structure(study)
    figure = drawing.new_figure((6.8, 6.8))
    along, fits = figure.subplots(2, 1, gridspec_kw={"height_ratios": (1.0, 1.25)})
    _draw_along(along, result)
    _draw_fits(fits, result)
    figure.align_ylabels()
    drawing.study_texts(
        figure,
        along,
        study,
        "Structure of solutions",
        [result.mean_tokens()],
        columns=3,
        legends=(fits, along),
    )
    return figure


def _draw_along(axes: Axes, result: StructureStudy) -> None:
    along = result.along
    # Each stretch is drawn from its first token to the next one's.
    edges = [place - 1 for place in along.places] + [
        (along.places[-1] - 1 if along.places else 0) + along.width
    ]
    below = [0.0] * len(along.places)
    for name in PART_NAMES:
        shares = along.shares[name]
        if not any(shares):
            continue
        above = [b + s for b, s in zip(below, shares, strict=True)]
        axes.fill_between(
            edges,
            [*below, below[-1]],
            [*above, above[-1]],
            step="post",
            color=LOOKS[name].colour,
            alpha=0.75,
            hatch=HATCHES.get(name),
            edgecolor="white",
            linewidth=0.5,
            label=name,
        )
        below = above
    axes.set_xlim(0, max(edges[-1], 1))
    drawing.percent_axis(
        axes, "what the token there\ndoes, share of answers", (0, 0.25, 0.5, 0.75, 1)
    )
    axes.set_xlabel("place of the token in the output (above the colours: already ended)")


def _draw_fits(axes: Axes, result: StructureStudy) -> None:
    budgets = result.budgets
    if result.cliff is not None:
        axes.axvspan(
            *result.cliff,
            color="#000000",
            alpha=0.07,
            linewidth=0,
            label=f"steepest gain: {result.cliff[0]:,} to {result.cliff[1]:,}",
        )
    fits = {kind: [point.part(kind) for point in result.points] for kind in PARTS}
    shown = [
        (kind.value, parts)
        for kind, parts in fits.items()
        if any(sum(p.traces[f] for f in ("complete", "begun", "cut_off")) for p in parts)
    ]
    for number, (kind, parts) in enumerate(shown):
        places = drawing.side_by_side(budgets, number, len(shown))
        estimates = [part.complete for part in parts]
        drawing.series(axes, places, estimates, LOOKS[kind], kind, band=False)
    drawing.percent_axis(axes, "answers whose part is\ncomplete, 95 % interval")
    drawing.budget_axis(axes, budgets)


def draw_verification(study: Study) -> Figure:
    """Accuracy by what became of the verification, by budget and by category."""
    result = analyse_structure(study)
    points = [result.at(budget) for budget in study.budgets]
    figure = drawing.new_figure((6.8, 7.2))
    top, numbers, strata = figure.subplots(3, 1, gridspec_kw={"height_ratios": (2.2, 0.7, 1.6)})
    _draw_groups(top, points)
    _draw_numbers(numbers, points)
    _draw_strata(strata, points[-1])
    figure.align_ylabels([top, strata])
    drawing.study_texts(
        figure,
        top,
        study,
        "Accuracy with and without verification",
        [points[-1].comparison.sentence()],
        columns=3,
    )
    return figure


def _draw_groups(axes: Axes, points: Sequence[StructurePoint]) -> None:
    for group, (label, look) in GROUPS.items():
        known = [
            (point.budget, point.groups[group].accuracy)
            for point in points
            if point.groups[group].accuracy is not None
        ]
        if known:
            budgets = [budget for budget, _ in known]
            estimates = [estimate for _, estimate in known if estimate is not None]
            drawing.series(axes, budgets, estimates, look, label)
    drawing.percent_axis(axes, "accuracy,\n95 % interval")
    drawing.budget_axis(axes, [point.budget for point in points])
    axes.set_xlabel("")
    axes.tick_params(labelbottom=False)


def _draw_numbers(axes: Axes, points: Sequence[StructurePoint]) -> None:
    """How many answers stand behind each point, as a table under it."""
    budgets = [point.budget for point in points]
    drawing.budget_axis(axes, budgets)
    low, high = axes.get_xlim()
    named = drawing.budgets_named(budgets, math.log2(high / low) / 14)
    rows = [row for row in ROWS if any(point.groups[row].traces for point in points)]
    for place, row in enumerate(rows):
        colour = GROUPS[row][1].colour if row in GROUPS else style.INK
        for point in points:
            if point.budget in named:
                axes.text(
                    point.budget,
                    place,
                    count(point.groups[row].traces),
                    ha="center",
                    va="center",
                    fontsize=8,
                    color=colour,
                )
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), [ROWS[row] for row in rows])
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_title("number of answers", fontsize=9, loc="left", color=style.INK)


def _draw_strata(axes: Axes, point: StructurePoint) -> None:
    strata = sorted(
        sorted(point.comparison.strata, key=lambda s: -(s.verified + s.none))[:MAX_STRATA],
        key=point.comparison.strata.index,
    )
    both = any(s.verified for s in strata) and any(s.none for s in strata)
    for group, side in (("verified", -1), ("none", 1)):
        look, shift = GROUPS[group][1], 0.13 * side * both
        for place, stratum in enumerate(strata):
            rate = stratum.verified_accuracy if group == "verified" else stratum.none_accuracy
            if rate is None:
                continue
            axes.vlines(place + shift, rate.low, rate.high, color=look.colour, linewidth=1.4)
            axes.plot(
                [place + shift], [rate.value], marker=look.marker, color=look.colour, clip_on=False
            )
            # Numbers at the bottom, where no interval has to make room for them.
            axes.annotate(
                count(stratum.verified if group == "verified" else stratum.none),
                (place + shift, 0),
                xytext=(9 * side * both, -3),
                textcoords="offset points",
                ha="center",
                va="top",
                fontsize=7.5,
                color=look.colour,
            )
    names = [s.name or "(no category)" for s in strata]
    drawing.name_ticks(axes.xaxis, range(len(strata)), names, max(74 // max(len(strata), 1) - 1, 6))
    axes.tick_params(axis="x", pad=13, length=0)
    axes.set_xlim(-0.6, max(len(strata) - 0.4, 0.6))
    axes.grid(visible=False, axis="x")
    drawing.percent_axis(axes, "accuracy,\n95 % interval")
    shown = "" if len(strata) == len(point.comparison.strata) else ", the largest"
    axes.set_title(
        f"by category of problems{shown}, at {count(point.budget)} tokens (numbers: answers)",
        fontsize=9,
        loc="left",
        color=style.INK,
    )
