"""The figure of the conformance eval: which budgets are kept, way by way; and the limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from pytest_tokenbudget.common.outside_text import printable
from pytest_tokenbudget.common.text_layout import shorten
from pytest_tokenbudget.report import style
from pytest_tokenbudget.report.drawing import new_figure, save_figure
from pytest_tokenbudget.report.figure_texts import add_texts, fit
from pytest_tokenbudget.studies.conformance.analysis import (
    Behaviour,
    BudgetResult,
    ConformanceReport,
    LimitFinding,
    OverflowCase,
)
from pytest_tokenbudget.studies.conformance.wording import (
    budget_name,
    limits_sentence,
    mean_thinking,
    star_sentence,
    thinking_sentence,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Meaning(NamedTuple):
    """What a cell says: its colour, which means nothing else, and its words in the legend."""

    colour: str
    words: str


# Light enough for dark letters. The numbers and words in the cells carry the same for grey print.
KEPT = Meaning("#9fd9c4", "kept")
PARTLY = Meaning("#bfe3f7", "kept by some outputs")
BROKEN = Meaning("#f3b78f", "not kept")
DIFFERS = Meaning("#f7e6a0", "differs: no defect")
UNKNOWN = Meaning("#ffffff", "refused, or not known")
NO_BUDGET = Meaning("#e6e6e6", "no budget set")
FINDINGS: Mapping[LimitFinding, Meaning] = MappingProxyType(
    {
        LimitFinding.KEPT: KEPT,
        LimitFinding.BROKEN: BROKEN,
        LimitFinding.DIFFERS: DIFFERS,
        LimitFinding.NOT_POSSIBLE: UNKNOWN,
    }
)
# What leaves open whether anything is lost.
_OPEN = (Behaviour.NOT_RESOLVED, Behaviour.NOT_ASKED)
_WIDTH, _ROW = 6.8, 0.34  # inches: of the figure, of a row
_NAMES, _VERDICTS = 2.75, 1.0  # inches: of the names of ways, of the verdicts
_NAME = 40  # characters of a way's name
_CHIPS = 5  # limits side by side
_CHIP_NAME = 26  # characters of the name of a limit or a case
# Name, finding and what it means.
Chip = tuple[str, str, Meaning]


def conformance_figure(report: ConformanceReport, path: Path) -> list[Path]:
    """Draw ways and limits as a table, as PNG for print and as SVG."""
    title = f"{printable(report.alias)} by {printable(report.engine)}: conformance"
    return save_figure(lambda: draw_conformance(report), path, title)


def draw_conformance(report: ConformanceReport) -> Figure:
    """The table of ways, and below it the limits; for `style.figure_style`."""
    # A row above the ways names the budgets.
    heights = [_ROW * (len(report.methods) + 1)]
    chips = [
        ("limits", [(e.probe, str(e.finding), FINDINGS[e.finding]) for e in report.limits]),
        (
            "beyond the context",
            [(e.case, str(e.behaviour), _overflow_meaning(e)) for e in report.overflow],
        ),
    ]
    chips = [(title, row) for title, row in chips if row]
    heights += [_ROW * (-(-len(row) // _CHIPS)) for _, row in chips]
    figure = new_figure((_WIDTH, 0.9 + sum(heights) + 0.3 * len(chips)))
    table, *others = figure.subplots(
        len(heights), 1, squeeze=False, gridspec_kw={"height_ratios": heights}
    )[:, 0]
    for axes, (title, row) in zip(others, chips, strict=True):
        _draw_chips(axes, title, row)
    _draw_methods(table, report)
    version = report.about.get("engine_version")
    add_texts(
        figure,
        table,
        "Conformance",
        model=report.alias,
        subtitle=f"engine: {report.engine}" + (f" {version}" if version else ""),
        sentences=[
            thinking_sentence(report),
            limits_sentence(report),
            "in a cell: mean thinking tokens; below it, how many of the outputs that can tell kept "
            "the budget",
            *([star] if (star := star_sentence(report)) else []),
        ],
        columns=6,
        legends=(table, *others),
    )
    return figure


def _draw_methods(axes: Axes, report: ConformanceReport) -> None:
    budgets, methods = report.budgets, report.methods
    width = (_WIDTH - _NAMES - _VERDICTS) / len(budgets)
    lefts = [_NAMES + column * width for column in range(len(budgets))]
    axes.text(_NAMES - 0.1, -1, "thinking budget:", ha="right", va="center", fontsize=8.5)
    for left, budget in zip(lefts, budgets, strict=True):
        axes.text(
            left + width / 2, -1, budget_name(budget), ha="center", va="center", fontsize=9,
            fontweight="bold",
        )  # fmt: skip
    for row, method in enumerate(methods):
        name = shorten(printable(method.way), _NAME)
        label = axes.text(_NAMES - 0.1, row, name, ha="right", va="center", fontsize=8)
        fit(label, _NAMES - 0.2)
        at = {each.budget: each for each in method.budgets}
        for left, budget in zip(lefts, budgets, strict=True):
            if budget in at:  # a switch knows one budget only
                _cell(axes, left, row, width, _budget_meaning(at[budget]))
                _numbers(axes, left + width / 2, row, at[budget])
        axes.text(_WIDTH - _VERDICTS + 0.1, row, str(method.verdict), va="center", fontsize=8.5)
    axes.set_ylim(len(methods) - 0.5, -1.5)
    _bare(axes)


def _numbers(axes: Axes, middle: float, row: int, result: BudgetResult) -> None:
    """Mean thinking tokens; below, how many of the telling outputs kept the budget."""
    telling = result.budget is not None and result.informative > 0
    axes.text(
        middle, row - (0.13 if telling else 0), mean_thinking(result), ha="center", va="center",
        fontsize=8.5, color=style.INK,
    )  # fmt: skip
    if telling:
        axes.text(
            middle, row + 0.24, f"{result.kept} of {result.informative}", ha="center",
            va="center", fontsize=6, color=style.INK,
        )  # fmt: skip


def _budget_meaning(result: BudgetResult) -> Meaning:
    """What outputs under a budget say about it."""
    if result.budget is None:
        return NO_BUDGET
    if not result.informative:
        return UNKNOWN
    if result.kept == result.informative:
        return KEPT
    return PARTLY if result.kept else BROKEN


def _overflow_meaning(case: OverflowCase) -> Meaning:
    if case.broken:
        return BROKEN
    return UNKNOWN if case.behaviour in _OPEN else KEPT


def _draw_chips(axes: Axes, title: str, chips: Sequence[Chip]) -> None:
    """Names with what was found, each a cell."""
    width = _WIDTH / _CHIPS
    for place, (chip, found, meaning) in enumerate(chips):
        row, column = divmod(place, _CHIPS)
        _cell(axes, column * width, row, width, meaning)
        middle = (column + 0.5) * width
        shown = shorten(printable(chip), _CHIP_NAME)
        name = axes.text(middle, row - 0.16, shown, ha="center", va="center", fontsize=8)
        fit(name, width - 0.2)
        axes.text(middle, row + 0.22, found, ha="center", va="center", fontsize=7)
    axes.set_ylim(-(-len(chips) // _CHIPS) - 0.5, -0.5)
    axes.set_title(title, fontsize=8.5)
    _bare(axes)


def _cell(axes: Axes, left: float, row: float, width: float, meaning: Meaning) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(
        Rectangle(
            (left + 0.015, row - 0.46), width - 0.03, 0.92, facecolor=meaning.colour,
            edgecolor=style.GREY, linewidth=0.5, label=meaning.words,
        )
    )  # fmt: skip


def _bare(axes: Axes) -> None:
    """Neither axes nor grid: the cells are both."""
    axes.set_xlim(0, _WIDTH)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_axis_off()
