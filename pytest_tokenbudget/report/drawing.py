"""What all figures are drawn with: files, axes, series with intervals."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_tokenbudget.common import text_layout
from pytest_tokenbudget.common.outside_text import printable
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.report import style
from pytest_tokenbudget.report.figure_texts import ThinkingData, add_texts, data_words
from pytest_tokenbudget.report.files import safe_name, write_bytes
from pytest_tokenbudget.report.json_files import file_stem

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.gridspec import GridSpec

    from pytest_tokenbudget.stats.intervals import Estimate

TICKS = (0, 0.2, 0.4, 0.6, 0.8, 1)


def save_figure(draw: Callable[[], Figure], path: Path, title: str) -> list[Path]:
    """Draw in the project's style and write PNG for print and SVG.

    The same figure gives the same bytes: nothing of the moment goes into the files.

    Args:
        draw: Makes the figure.
        path: Where to, without a suffix.
        title: Title in the files' metadata.

    Returns:
        The two files.
    """
    written = []
    with style.figure_style():
        figure = draw()
        for suffix, metadata in (
            (".png", {"Title": title, "Software": None}),
            (".svg", {"Title": title, "Date": None, "Creator": None}),
        ):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=suffix[1:], dpi=style.DPI, metadata=metadata)
            # Appended, not with_suffix: a model's name has dots of its own.
            written.append(write_bytes(path.with_name(path.name + suffix), buffer.getvalue()))
    return written


def save_study_figure(
    draw: Callable[[], Figure], study: Study | ThinkingData, directory: Path, name: str, title: str
) -> list[Path]:
    """Draw a figure of a study, as PNG for print and as SVG.

    Args:
        draw: Makes the figure.
        study: The study.
        directory: The reports directory; files go to its ``figures``.
        name: What the figure is called in the names of its files.
        title: Title in the files' metadata, ``{}`` for the model and the task.

    Returns:
        The two files.
    """
    stem = file_stem(study) if isinstance(study, Study) else safe_name(study.alias)
    about = f"{printable(study.alias)} on {printable(study.task.name)}"
    return save_figure(draw, directory / "figures" / f"{name}_{stem}", title.format(about))


def new_figure(size: tuple[float, float]) -> Figure:
    """An empty figure of ``size`` inches; without pyplot, so without global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(h_pad=0.06, w_pad=0.06))
    FigureCanvasAgg(figure)
    return figure


def head_axes(figure: Figure, grid: GridSpec) -> Axes:
    """Invisible axes in the first row of ``grid``, for a legend over panels side by side.

    Above one of them it would push the others aside.
    """
    axes = figure.add_subplot(grid[0, :])
    axes.set_axis_off()
    return axes


def series(
    axes: Axes,
    budgets: Sequence[float],
    estimates: Sequence[Estimate],
    look: style.SeriesStyle,
    label: str = "",
    *,
    band: bool = True,
) -> None:
    """A line with markers over ``budgets``, its intervals as bars and as a band.

    Args:
        axes: Where to draw.
        budgets: Places on the horizontal axis.
        estimates: One for each place.
        look: Colour, marker and line.
        label: Entry of the legend; empty for none.
        band: Whether to fill the intervals. More than two bands hide each other: draw such series
            without, at places from `side_by_side`.
    """
    # One problem alone gives a mean without an interval, and NaN would upset the layout.
    known = [
        (budget, estimate.low, estimate.high)
        for budget, estimate in zip(budgets, estimates, strict=True)
        if math.isfinite(estimate.low) and math.isfinite(estimate.high)
    ]
    if known:
        places, low, high = zip(*known, strict=True)
        if band:
            axes.fill_between(
                places, low, high, color=look.colour, alpha=0.18, linewidth=0, zorder=1
            )
        # A band has no width where there is but one budget; a bar has.
        axes.vlines(places, low, high, color=look.colour, alpha=0.55, linewidth=1.2, zorder=2)
    axes.plot(
        budgets,
        [e.value for e in estimates],
        color=look.colour,
        linestyle=look.line,
        linewidth=1.8 if band else 1.2,
        marker=look.marker,
        label=label,
        zorder=4,
        clip_on=False,
    )


def side_by_side(places: Sequence[float], number: int, total: int) -> list[float]:
    """Where series ``number`` of several stands on a logarithmic axis, beside the others.

    Series that share a place would hide each other. Each place gets a part of the way to its
    nearest neighbour, and no more than the series need.

    Args:
        places: Rising places that all series share.
        number: Which series this is, from 0.
        total: How many series there are.
    """
    if total < 2:
        return list(places)
    logs = [math.log2(place) for place in places]
    gaps = [after - before for before, after in itertools.pairwise(logs)]
    widest = 0.07 * total  # octaves
    room = [
        min([widest, *(0.6 * gap for gap in gaps[max(i - 1, 0) : i + 1])]) for i in range(len(logs))
    ]
    part = number / (total - 1) - 0.5
    return [2 ** (log + part * width) for log, width in zip(logs, room, strict=True)]


def nested_marker(
    axes: Axes, point: tuple[float, float], look: style.SeriesStyle, number: int, label: str = ""
) -> None:
    """A hollow marker that shows those drawn at the same place: a later one is smaller.

    Args:
        axes: Where to draw.
        point: Its place and height.
        look: Colour and marker; the line only shows in the legend.
        number: How many were drawn before.
        label: Entry of the legend; empty for none.
    """
    axes.plot(
        [point[0]],
        [point[1]],
        color=look.colour,
        linestyle=look.line,
        linewidth=1.2,
        marker=look.marker,
        markersize=max(14.0 - 3.0 * number, 4.0),
        markerfacecolor="none",
        markeredgewidth=1.6,
        label=label,
        zorder=5 + 0.1 * number,
        clip_on=False,
    )


def interval_markers(
    axes: Axes,
    places: Sequence[float],
    estimates: Sequence[Estimate],
    look: style.SeriesStyle,
    label: str | None = None,
    *,
    across: bool = False,
    alpha: float = 0.55,
    linewidth: float = 1.2,
    clip_on: bool = True,
) -> None:
    """Markers with their intervals as bars, without a line between them.

    Args:
        axes: Where to draw.
        places: One for each estimate.
        estimates: The values with their intervals.
        look: Colour and marker.
        label: Entry of the legend; None for none.
        across: Whether values lie on the horizontal axis, and places on the vertical one.
        alpha: Of the bars.
        linewidth: Of the bars.
        clip_on: Whether markers end at the edge of the axes.
    """
    lows, highs = [e.low for e in estimates], [e.high for e in estimates]
    values: Sequence[float] = [e.value for e in estimates]
    bars = axes.hlines if across else axes.vlines
    bars(places, lows, highs, color=look.colour, alpha=alpha, linewidth=linewidth, zorder=3)
    horizontal, vertical = (values, places) if across else (places, values)
    axes.plot(
        horizontal,
        vertical,
        color=look.colour,
        marker=look.marker,
        linestyle="none",
        label=label,
        zorder=4,
        clip_on=clip_on,
    )


def large_marker(axes: Axes, x: float, y: float, look: style.SeriesStyle, label: str) -> None:
    """One large marker on a series that names a finding in the legend."""
    axes.plot(
        [x],
        [y],
        marker=look.marker,
        markersize=15,
        linestyle=look.line,
        linewidth=1.2,
        color=look.colour,
        markeredgecolor="white",
        label=label,
        zorder=5,
        clip_on=False,
    )


def line_by_token(axes: Axes, study: Study) -> None:
    """The accuracy at every token count, behind what is drawn at the budgets."""
    counts, by_token = study.accuracy_by_token()
    axes.step(
        counts,
        by_token,
        where="post",
        color=style.GREY,
        linewidth=0.9,
        label="accuracy at every token count",
        zorder=2,
    )


def percent_axis(axes: Axes, label: str, ticks: Sequence[float] = TICKS) -> None:
    """Shares from 0 to 1 as percentages."""
    from matplotlib.ticker import FixedLocator, PercentFormatter

    axes.set_ylim(0, 1)
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.set_ylabel(label)


def percent_ticks(axis: Axis, symbol: str = " %", most: int = 6) -> None:
    """Ticks for a part of the range from 0 to 1, as percentages with the decimals they need."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=most, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(lambda value, _: f"{round(100 * value, 6) + 0.0:g}{symbol}")


def count_ticks(axis: Axis, most: int = 6) -> None:
    """Ticks for counts and tokens: whole numbers with thousands separators, at most ``most``."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=most, steps=[1, 2, 5, 10], integer=True))
    axis.set_major_formatter(lambda value, _: text_layout.count(value))


def name_ticks(axis: Axis, places: Sequence[float], names: Sequence[str], width: int) -> None:
    """Foreign names as labels of ticks, each in at most ``width`` columns, none as a formula."""
    axis.set_ticks(places, [text_layout.shorten(printable(name), width) for name in names])
    for label in axis.get_ticklabels():
        label.set_parse_math(False)


def budget_axis(axes: Axes, budgets: Sequence[int]) -> None:
    """Budgets on a logarithmic axis, labelled as far as there is room."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    axes.set_xscale("log", base=2)
    low, high = math.log2(budgets[0]), math.log2(budgets[-1])
    room = max(0.06 * (high - low), 0.25)
    # A budget alone still has the accuracy of fewer tokens to its left.
    first, last = low - (room if high > low else 3.0), high + room
    axes.set_xlim(2**first, 2**last)
    named = budgets_named(budgets, (last - first) / 14)
    axes.xaxis.set_major_locator(FixedLocator(list(budgets)))
    axes.xaxis.set_major_formatter(
        FixedFormatter([text_layout.count(b) if b in named else "" for b in budgets])
    )
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("budget: output tokens allowed (log scale)")


def budgets_named(budgets: Sequence[int], apart: float) -> set[int]:
    """The budgets to label so that labels stand at least ``apart`` powers of two from each other.

    The largest is always among them, and the smallest before its neighbours.
    """
    named = [budgets[-1]]
    first = [budgets[0]] if len(budgets) > 1 else []
    for budget in [*first, *reversed(budgets[1:-1])]:
        if all(abs(math.log2(budget / other)) >= apart for other in named):
            named.append(budget)
    return set(named)


def study_texts(
    figure: Figure,
    top: Axes,
    study: Study | ThinkingData,
    what: str,
    sentences: Sequence[str] = (),
    *,
    columns: int = 2,
    legends: Sequence[Axes] = (),
) -> None:
    """The texts of a study's figure: what it shows of which model, the data, the findings.

    Args:
        figure: The figure.
        top: Its topmost panel.
        study: The study.
        what: What the figure shows, in a few words.
        sentences: Findings and explanations for the caption.
        columns: Columns of the legend.
        legends: Panels whose entries the legend has; ``top`` alone where empty.
    """
    add_texts(
        figure,
        top,
        what,
        model=study.alias,
        subtitle=data_words(study),
        sentences=sentences,
        columns=columns,
        legends=legends,
    )
