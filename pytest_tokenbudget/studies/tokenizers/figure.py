"""The figures of the tokenizers eval: tokens a character text by text, and what fits a limit."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_tokenbudget.common.outside_text import printable
from pytest_tokenbudget.common.text_layout import plural
from pytest_tokenbudget.report import style
from pytest_tokenbudget.report.drawing import count_ticks, head_axes, new_figure, save_figure
from pytest_tokenbudget.report.figure_texts import add_texts, legend_name
from pytest_tokenbudget.studies.tokenizers.analysis import LimitFits, TokenizerReport
from pytest_tokenbudget.studies.tokenizers.samples import SAMPLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROW = 0.235  # inches of a text
_HEAD = 1.75  # inches of what stands above and below
# More models than this would hide each other.
MOST = len(style.SERIES)
# The limit that is drawn, where it was measured.
_DRAWN = 2048


def tokenizers_figure(report: TokenizerReport, path: Path) -> list[Path]:
    """Draw one model's rates and what fits a limit, as PNG for print and as SVG."""
    title = f"{printable(report.alias)}: tokens a character"
    return save_figure(lambda: draw_tokenizers(report), path, title)


def comparison_figure(reports: Sequence[TokenizerReport], path: Path) -> list[Path]:
    """Draw several models' rates side by side, as PNG for print and as SVG."""
    return save_figure(lambda: draw_comparison(reports), path, "Tokens a character")


def draw_tokenizers(report: TokenizerReport) -> Figure:
    """One model's figure; draw it inside `style.figure_style`."""
    names = tuple(report.texts)
    fits = next((f for f in report.fits if f.limit == _DRAWN), next(iter(report.fits), None))
    figure = new_figure((6.8, _HEAD + _ROW * len(names)))
    if fits is None:
        rates = top = figure.subplots()
    else:
        grid = figure.add_gridspec(2, 2, width_ratios=(3, 2), height_ratios=(0.01, 1))
        top, rates = head_axes(figure, grid), figure.add_subplot(grid[1, 0])
        right = figure.add_subplot(grid[1, 1], sharey=rates)
        _fits(right, fits, names)
        right.tick_params(axis="y", labelleft=False)
    _rows(rates, names)
    _dots(rates, report, names, style.SERIES[0], label="all passages, with 95 % interval")
    _spread(rates, report, names)
    _against(rates, report, names)
    _scale(rates, [report])
    add_texts(
        figure,
        top,
        "Tokens per character",
        legends=[rates],
        model=report.alias,
        subtitle=f"{_passages(report)}, by {report.about['by']}",
        sentences=[] if report.template is None else [report.template.sentence()],
    )
    return figure


def draw_comparison(reports: Sequence[TokenizerReport]) -> Figure:
    """Several models' figure; draw it inside `style.figure_style`."""
    shown = reports[:MOST]
    names = tuple(n for n in SAMPLES if any(n in report.texts for report in shown))
    figure = new_figure((6.8, _HEAD + 1.2 * _ROW * len(names)))
    axes = figure.subplots()
    _rows(axes, names)
    apart = 0.7 / len(shown)
    looks = itertools.cycle(style.SERIES)
    for place, (report, look) in enumerate(zip(shown, looks, strict=False)):
        shift = (place - (len(shown) - 1) / 2) * apart
        _dots(axes, report, names, look, shift=shift, label=legend_name(report.alias))
    _scale(axes, shown)
    more = f"; {len(reports) - MOST} further models are not drawn" if len(reports) > MOST else ""
    about = f"{_passages(shown[0])}; 95 % intervals over passages{more}"
    add_texts(figure, axes, "Tokens per character", subtitle=about, columns=3)
    return figure


def _passages(report: TokenizerReport) -> str:
    passages = sum(text.passages for text in report.texts.values())
    return f"{plural(len(report.texts), 'text')}, {passages} passages"


def _rows(axes: Axes, names: Sequence[str]) -> None:
    """A row for each text, the first above; a line where another content begins."""
    axes.set_yticks(range(len(names)), [SAMPLES[name].label for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    for place, name in enumerate(names):
        if place % 2 == 0:
            axes.axhspan(place - 0.5, place + 0.5, color="#f6f6f6", linewidth=0, zorder=0)
        if place and SAMPLES[name].parallel != SAMPLES[names[place - 1]].parallel:
            axes.axhline(place - 0.5, color=style.GREY, linewidth=0.8, zorder=1)


def _dots(
    axes: Axes,
    report: TokenizerReport,
    names: Sequence[str],
    look: style.SeriesStyle,
    *,
    shift: float = 0.0,
    label: str,
) -> None:
    """Rates with their intervals, one a row, ``shift`` rows lower."""
    there = [
        (n + shift, report.texts[name]) for n, name in enumerate(names) if name in report.texts
    ]
    rows = [row for row, _ in there]
    rates = [text.per_character for _, text in there]
    known = [(row, r) for row, r in zip(rows, rates, strict=True) if math.isfinite(r.low)]
    axes.hlines(
        [row for row, _ in known], [r.low for _, r in known], [r.high for _, r in known],
        color=look.colour, linewidth=1.4, alpha=0.6, zorder=3,
    )  # fmt: skip
    axes.plot(
        [rate.value for rate in rates], rows, color=look.colour, marker=look.marker, markersize=4,
        linestyle="none", label=label, zorder=4,
    )  # fmt: skip


def _scale(axes: Axes, reports: Sequence[TokenizerReport]) -> None:
    """Room for every rate with its interval, from 0 on."""
    texts = [text for report in reports for text in report.texts.values()]
    ends = [max(text.per_character.high, text.most) for text in texts]
    axes.set_xlim(0, 1.06 * max(end for end in ends if math.isfinite(end)))
    axes.set_xlabel("tokens per character")


def _spread(axes: Axes, report: TokenizerReport, names: Sequence[str]) -> None:
    """The passages with the fewest and the most tokens a character."""
    rows = range(len(names))
    for label, ends in (
        ("passages with fewest and most", [report.texts[name].least for name in names]),
        ("", [report.texts[name].most for name in names]),
    ):
        axes.plot(
            ends, rows, color=style.GREY, marker="|", markersize=7, linestyle="none",
            label=label, zorder=2,
        )  # fmt: skip


def _fits(axes: Axes, fits: LimitFits, names: Sequence[str]) -> None:
    """Characters that fit, from the fewest to the most."""
    _rows(axes, names)
    rows = range(len(names))
    found = [fits.texts[name] for name in names]
    axes.barh(rows, [fit.characters.value for fit in found], height=0.6, color=style.SKY, zorder=2)
    axes.hlines(
        rows, [fit.fewest for fit in found], [fit.most for fit in found], color=style.INK,
        linewidth=0.9, zorder=3,
    )  # fmt: skip
    axes.set_xlim(0, 1.08 * max(fit.most for fit in found))
    count_ticks(axes.xaxis, 3)
    axes.set_xlabel(f"characters in {fits.limit:,} tokens")


def _against(axes: Axes, report: TokenizerReport, names: Sequence[str]) -> None:
    """How many times the tokens of English the same text takes, beside the panel."""
    place = axes.get_yaxis_transform()
    axes.text(
        1.12, -0.7, "same text,\nEnglish = 1", transform=place, ha="center", va="bottom", fontsize=7
    )
    for row, name in enumerate(names):
        if (against := report.texts[name].against) is not None:
            axes.text(
                1.12, row, f"{against.value:.2f}", transform=place, ha="center", va="center",
                fontsize=8,
            )  # fmt: skip
