"""Texts of figures: titles, legends and captions that fit, names, what the data are."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import TYPE_CHECKING, Protocol

from pytest_tokenbudget.common import text_layout
from pytest_tokenbudget.common.outside_text import printable
from pytest_tokenbudget.core.study import PLAIN, Study

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    from pytest_tokenbudget.tasks.base import Task

LINE = 106  # characters of a line of the caption of a figure 6.8 inches wide
LINE_HEIGHT = 0.155  # inches
MARGIN = 0.08  # inches that stay free on either side of titles and captions
NAME = 36  # characters of a model's name that a title has room for
SMALLEST = 6.0  # points


class ThinkingData(Protocol):
    """What figures tell of a study of thinking budgets."""

    alias: str
    natural: Study

    @property
    def problems(self) -> Sized: ...

    @property
    def task(self) -> Task: ...

    @property
    def complete(self) -> Sized: ...

    @property
    def missing(self) -> int: ...


def legend_name(name: str, width: int = 30) -> str:
    """A foreign name as an entry of a legend; matplotlib leaves out entries that begin with _."""
    shown = text_layout.shorten(printable(name), width)
    return f" {shown}" if shown.startswith("_") else shown


def data_words(study: Study | ThinkingData) -> str:
    """What the data of a figure are, in one line: task, problems, decoding."""
    task = text_layout.shorten(printable(study.task.name), 40)
    if isinstance(study, Study):
        return f"{task}, {sample_size(study)}, {decoding_words(study)}"
    size = f"n = {len(study.complete):,}"
    if study.missing:
        size += f" of {len(study.problems):,}"
    return f"{task}, thinking, {size}, {decoding_words(study.natural)}"


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


def add_texts(
    figure: Figure,
    top: Axes,
    what: str,
    *,
    model: str = "",
    subtitle: str = "",
    sentences: Sequence[str] = (),
    columns: int = 2,
    legends: Sequence[Axes] = (),
) -> None:
    """Add a title of one line, a subtitle of one line, a legend, and a caption below all panels.

    The figure grows by the lines of its caption, so panels keep their size.

    Args:
        figure: The figure; its panels are drawn.
        top: Its topmost panel, which the legend stands above.
        what: What the figure shows, in a few words.
        model: Whose data are shown; the caption has names that are too long for the title.
        subtitle: The data in one line.
        sentences: The caption, a paragraph each.
        columns: Columns of the legend, fewer where they do not fit.
        legends: Panels whose entries the legend has; ``top`` alone where empty.
    """
    name = printable(model)
    title = f"{what}: {text_layout.shorten(name, NAME)}" if name else what
    lines = [f"Model: {text_layout.shorten(name, 72)}"] if text_layout.cells(name) > NAME else []
    for sentence in sentences:
        lines += text_layout.wrapped(printable(sentence), LINE, "")
    if lines:
        figure.set_figheight(figure.get_figheight() + LINE_HEIGHT * len(lines) + 0.1)
        margin = MARGIN / figure.get_figwidth()
        fit(figure.supxlabel("\n".join(lines), x=margin, ha="left", fontsize=8.5))
    fit(figure.suptitle(title, fontsize=12, fontweight="bold"))
    _add_legend(figure, top, printable(subtitle), columns, legends or (top,))


def _add_legend(
    figure: Figure, top: Axes, subtitle: str, columns: int, panels: Sequence[Axes]
) -> None:
    """The subtitle and the legend above ``top``, centred over the figure and not over the panel."""
    entries: dict[str, Artist] = {}
    for panel in panels:
        handles, labels = panel.get_legend_handles_labels()
        for handle, label in zip(handles, labels, strict=True):
            entries.setdefault(label, handle)
    # Where the panel lies is known once all is laid out.
    figure.draw_without_rendering()
    panel_box = top.get_window_extent()
    middle = (figure.bbox.width / 2 - panel_box.x0) / panel_box.width
    room = figure.bbox.width - 2 * MARGIN * figure.dpi
    for ncols in range(min(columns, max(len(entries), 1)), 0, -1):
        legend = top.legend(
            list(entries.values()),
            list(entries),
            loc="lower center",
            bbox_to_anchor=(middle, 1.01),
            ncols=ncols,
            title=subtitle,
            handlelength=3.0,
            columnspacing=2.0,
        )
        fit(legend.get_title())
        for text in legend.get_texts():
            text.set_parse_math(False)
        if legend.get_window_extent().width <= room:
            break


def fit(text: Text, inches: float | None = None, smallest: float = SMALLEST) -> None:
    """Make a text small enough, and shorten it where it would become unreadable.

    Names are not formulas: ``$`` and ``_`` stand for themselves.

    Args:
        text: The text, part of a figure.
        inches: Room for it; the width of its figure less the margins where None.
        smallest: Points below which it is shortened instead.
    """
    text.set_parse_math(False)
    assert text.figure is not None
    page = text.figure.bbox
    dpi = text.figure.dpi
    room = page.width / dpi - 2 * MARGIN if inches is None else inches

    def width() -> float:
        return text.get_window_extent().width / dpi

    # Glyphs are fitted to pixels, so widths do not follow the size exactly.
    while width() > room and (size := float(text.get_fontsize())) > smallest:
        text.set_fontsize(max(size * min(room / width(), 0.98), smallest))
    while (
        width() > room and (longest := max(map(text_layout.cells, text.get_text().split("\n")))) > 4
    ):
        keep = max(min(longest - 1, int(longest * room / width())), 4)
        text.set_text(
            "\n".join(text_layout.shorten(line, keep) for line in text.get_text().split("\n"))
        )
