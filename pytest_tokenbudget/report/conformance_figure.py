"""The figure of the conformance eval: ways by budgets, coloured by verdict; and the limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from pytest_tokenbudget.conformance.results import (
    Behaviour,
    BudgetResult,
    Finding,
    OverflowCase,
    Verdict,
)
from pytest_tokenbudget.report import style
from pytest_tokenbudget.report.conformance import budget_name, mean_thinking, star_sentence
from pytest_tokenbudget.report.conformance_study import ConformanceReport
from pytest_tokenbudget.report.drawing import LINE, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

# Light enough for dark letters. Every row also has its verdict in words, for any colour vision.
_PLAIN = "#eeeeee"
COLOURS: Mapping[Verdict, str] = MappingProxyType(
    {
        Verdict.ENFORCED: "#9fd9c4",
        Verdict.SOFT: "#bfe3f7",
        Verdict.IGNORED: "#f3b78f",
        Verdict.INVERTED: "#e3b3cd",
        Verdict.REFUSED: "#ffffff",
        Verdict.NOT_RESOLVED: _PLAIN,
    }
)
FINDINGS: Mapping[Finding, str] = MappingProxyType(
    {
        Finding.KEPT: COLOURS[Verdict.ENFORCED],
        Finding.BROKEN: COLOURS[Verdict.IGNORED],
        Finding.DIFFERS: COLOURS[Verdict.SOFT],
        Finding.NOT_POSSIBLE: "#ffffff",
    }
)
# What leaves open whether anything is lost.
_OPEN = (Behaviour.NOT_RESOLVED, Behaviour.NOT_ASKED)
_WIDTH, _ROW = 6.8, 0.34  # inches: of the figure, of a row
_NAMES, _VERDICTS = 2.75, 1.0  # inches: of the names of ways, of the verdicts
_NAME = 40  # characters of a way's name
_CHIPS = 5  # limits side by side
_CHIP_NAME = 26  # characters of the name of a limit or a case
# Name, finding and colour.
Chip = tuple[str, str, str]


def conformance_figure(report: ConformanceReport, path: Path) -> list[Path]:
    """Draw ways and limits as a table, as PNG for print and as SVG.

    Args:
        report: What was found; a way was tried at least.
        path: Where to, without a suffix.

    Returns:
        The two files.
    """
    title = f"{style.visible(report.alias)} by {style.visible(report.engine)}: conformance"
    return save_figure(lambda: draw_conformance(report), path, title)


def draw_conformance(report: ConformanceReport) -> Figure:
    """The table of ways, and below it the limits; for `style.figure_style`."""
    # A row above the ways names the budgets.
    heights = [_ROW * (len(report.ways) + 1)]
    chips = [
        ("limits", [(e.probe, str(e.finding), FINDINGS[e.finding]) for e in report.limits]),
        ("beyond the context", [(e.case, str(e.behaviour), _of(e)) for e in report.overflow]),
    ]
    chips = [(title, row) for title, row in chips if row]
    heights += [_ROW * (-(-len(row) // _CHIPS)) for _, row in chips]
    figure = new_figure((_WIDTH, 1.4 + sum(heights) + 0.3 * len(chips)))
    table, *others = figure.subplots(
        len(heights), 1, squeeze=False, gridspec_kw={"height_ratios": heights}
    )[:, 0]
    for axes, (title, row) in zip(others, chips, strict=True):
        _draw_chips(axes, title, row)
    _draw_ways(table, report)
    version = report.about.get("engine_version")
    name = style.visible(report.engine + (f" {version}" if version else ""))
    head = figure.suptitle(
        f"{style.shorten(style.visible(report.alias), 54)} by {style.shorten(name, 24)}",
        fontsize=12,
        fontweight="bold",
    )
    lines = (
        *style.wrapped(style.visible(report.thinking_sentence()), LINE, ""),
        *style.wrapped(style.visible(report.limits_sentence()), LINE, ""),
        "in a cell: mean thinking tokens; below, how many of the outputs that can tell keep it",
        *([star] if (star := star_sentence(report)) else []),
    )
    about = table.set_title("\n".join(lines), fontsize=8.5)
    _fit(head, _WIDTH - 0.2)
    _fit(about, _WIDTH - 0.2)
    return figure


def _draw_ways(axes: Axes, report: ConformanceReport) -> None:
    budgets, ways = report.budgets, report.ways
    width = (_WIDTH - _NAMES - _VERDICTS) / len(budgets)
    lefts = [_NAMES + column * width for column in range(len(budgets))]
    axes.text(_NAMES - 0.1, -1, "thinking budget:", ha="right", va="center", fontsize=8.5)
    for left, budget in zip(lefts, budgets, strict=True):
        axes.text(
            left + width / 2, -1, budget_name(budget), ha="center", va="center", fontsize=9,
            fontweight="bold",
        )  # fmt: skip
    for row, way in enumerate(ways):
        name = style.shorten(style.visible(way.way), _NAME)
        label = axes.text(_NAMES - 0.1, row, name, ha="right", va="center", fontsize=8)
        _fit(label, _NAMES - 0.2)
        at = {each.budget: each for each in way.budgets}
        for left, budget in zip(lefts, budgets, strict=True):
            if budget in at:  # a switch knows one budget only
                colour = _PLAIN if budget is None else COLOURS[way.verdict]
                _cell(axes, left, row, width, colour)
                _numbers(axes, left + width / 2, row, at[budget])
        axes.text(_WIDTH - _VERDICTS + 0.1, row, str(way.verdict), va="center", fontsize=8.5)
    axes.set_ylim(len(ways) - 0.5, -1.5)
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


def _of(case: OverflowCase) -> str:
    """The colour of a case."""
    if case.broken:
        return FINDINGS[Finding.BROKEN]
    return FINDINGS[Finding.NOT_POSSIBLE if case.behaviour in _OPEN else Finding.KEPT]


def _draw_chips(axes: Axes, title: str, chips: Sequence[Chip]) -> None:
    """Names with what was found, each a cell."""
    width = _WIDTH / _CHIPS
    for place, (chip, found, colour) in enumerate(chips):
        row, column = divmod(place, _CHIPS)
        _cell(axes, column * width, row, width, colour)
        middle = (column + 0.5) * width
        shown = style.shorten(style.visible(chip), _CHIP_NAME)
        name = axes.text(middle, row - 0.16, shown, ha="center", va="center", fontsize=8)
        _fit(name, width - 0.2)
        axes.text(middle, row + 0.22, found, ha="center", va="center", fontsize=7)
    axes.set_ylim(-(-len(chips) // _CHIPS) - 0.5, -0.5)
    axes.set_title(title, fontsize=8.5)
    _bare(axes)


def _cell(axes: Axes, left: float, row: float, width: float, colour: str) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(
        Rectangle(
            (left + 0.015, row - 0.46), width - 0.03, 0.92, facecolor=colour,
            edgecolor=style.GREY, linewidth=0.5,
        )
    )  # fmt: skip


def _bare(axes: Axes) -> None:
    """Neither axes nor grid: the cells are both."""
    axes.set_xlim(0, _WIDTH)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_axis_off()


def _fit(text: Text, inches: float) -> None:
    """Make a foreign name small enough; as a name, not as a formula."""
    text.set_parse_math(False)
    assert text.figure is not None
    width = text.get_window_extent().width / text.figure.dpi
    if width > inches:
        text.set_fontsize(float(text.get_fontsize()) * inches / width * 0.98)
