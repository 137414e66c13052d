"""What all figures are drawn with: files, axes, series with intervals, titles."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_tokenbudget.report import style
from pytest_tokenbudget.report.files import safe_name, write_bytes
from pytest_tokenbudget.report.json_files import file_stem
from pytest_tokenbudget.report.study import PLAIN, Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pytest_tokenbudget.analysis.intervals import Estimate
    from pytest_tokenbudget.report.thinking_study import ThinkingStudy

LINE = 82  # characters that fit under the title of a figure 6.8 inches wide


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
    draw: Callable[[], Figure],
    study: Study | ThinkingStudy,
    directory: Path,
    name: str,
    title: str,
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
    about = f"{style.visible(study.alias)} on {style.visible(study.task.name)}"
    return save_figure(draw, directory / "figures" / f"{name}_{stem}", title.format(about))


def new_figure(size: tuple[float, float]) -> Figure:
    """An empty figure of ``size`` inches; without pyplot, so without global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def series(
    axes: Axes,
    budgets: Sequence[float],
    estimates: Sequence[Estimate],
    look: style.Look,
    label: str = "",
) -> None:
    """A line with markers over ``budgets``, its intervals as a band and as bars."""
    # One problem alone gives a mean without an interval, and NaN would upset the layout.
    known = [
        (budget, estimate.low, estimate.high)
        for budget, estimate in zip(budgets, estimates, strict=True)
        if math.isfinite(estimate.low) and math.isfinite(estimate.high)
    ]
    if known:
        places, low, high = zip(*known, strict=True)
        axes.fill_between(places, low, high, color=look.colour, alpha=0.18, linewidth=0, zorder=1)
        # A band has no width where there is but one budget; a bar has.
        axes.vlines(places, low, high, color=look.colour, alpha=0.55, linewidth=1.2, zorder=2)
    axes.plot(
        budgets,
        [e.value for e in estimates],
        color=look.colour,
        linestyle=look.line,
        marker=look.marker,
        label=label,
        zorder=4,
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


def percent_axis(axes: Axes, label: str, ticks: Sequence[float]) -> None:
    """Shares from 0 to 1 as percentages."""
    from matplotlib.ticker import FixedLocator, PercentFormatter

    axes.set_ylim(0, 1)
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.set_ylabel(label)


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
        FixedFormatter([style.count(b) if b in named else "" for b in budgets])
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


def titles(figure: Figure, top: Axes, study: Study, sentence: str, columns: int = 2) -> None:
    """The model's name over all, then what the data are, ``sentence`` and the legend."""
    name = style.shorten(style.visible(study.task.name), 40)
    about = f"{name}, {sample_size(study)}, {decoding_words(study)}"
    head_over(
        figure,
        top,
        style.shorten(style.visible(study.alias), 54),
        [*style.wrapped(about, LINE, ""), *style.wrapped(sentence, LINE, "")],
        columns,
    )


def head_over(
    figure: Figure, top: Axes, title: str, lines: Sequence[str], columns: int = 2
) -> None:
    """A bold title, lines of text, and the legend of ``top`` above ``top``."""
    head = figure.suptitle(title, fontsize=12, fontweight="bold")
    # Names are not formulas: "$" and "_" stand for themselves.
    head.set_parse_math(False)
    legend = top.legend(
        *top.get_legend_handles_labels(),
        loc="lower center",
        bbox_to_anchor=(0.5, 1.01),
        ncols=columns,
        title="\n".join(lines),
        handlelength=3.0,
        columnspacing=2.0,
    )
    legend.get_title().set_parse_math(False)
    legend.get_title().set_multialignment("center")
    # Over the panels, as the legend is, not over the figure: where they lie is known once laid out.
    figure.draw_without_rendering()
    box = top.get_position()
    middle = (box.x0 + box.x1) / 2
    head.set_x(middle)
    room = 2 * min(middle, 1 - middle) * figure.bbox.width
    width = head.get_window_extent().width
    if width > room:
        head.set_fontsize(head.get_fontsize() * room / width * 0.98)


def sample_size(study: Study) -> str:
    """How many problems and samples stand behind a figure."""
    size = f"n = {len(study.complete):,}"
    if study.missing:
        size += f" of {len(study.problems):,}"
    if study.samples > 1:
        size += f" problems x {study.samples} samples"
    return size if study.mode == PLAIN else f"{study.mode}, {size}"


def decoding_words(study: Study) -> str:
    """How tokens were chosen."""
    decoding = study.decoding
    if not decoding.known:
        return "decoding not recorded"
    if decoding.greedy:
        return "greedy"
    nucleus = "" if decoding.top_p >= 1 else f", top-p {decoding.top_p:g}"
    return f"temperature {decoding.temperature:g}{nucleus}, seed {decoding.seed}"
