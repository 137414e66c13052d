"""How figures look, and how numbers and foreign text are shown everywhere in a report."""

from __future__ import annotations

import math
import re
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from pytest_tokenbudget.common.outside_text import printable

# Okabe and Ito's palette, told apart with any colour vision; line styles and markers carry the
# same distinctions for grey print.
BLUE = "#0072B2"
ORANGE = "#D55E00"
GREEN = "#009E73"
PURPLE = "#CC79A7"
SKY = "#56B4E9"
YELLOW = "#E69F00"
INK = "#222222"
GREY = "#777777"

DPI = 300
MAX_WIDTH = 80
MIN_WIDTH = 40


class Look(NamedTuple):
    """How one series is told from the others, with colour and without."""

    colour: str
    marker: str
    line: str | tuple[int, tuple[int, ...]]


ACCURACY = Look(BLUE, "o", "-")
COMPLETED = Look(ORANGE, "s", "--")
TRUNCATED = Look(INK, "^", "-.")
TOKENS = Look(PURPLE, "D", ":")
# For series of one meaning, such as several models; the order is that of their contrast.
SERIES = (
    ACCURACY,
    Look(ORANGE, "s", "--"),
    Look(GREEN, "^", "-."),
    Look(PURPLE, "D", ":"),
    Look(INK, "v", (0, (5, 1, 1, 1, 1, 1))),
    Look(SKY, "P", (0, (3, 1))),
    Look(YELLOW, "X", (0, (1, 1))),
)

# Fonts that know more scripts than matplotlib's own; used where the machine has them.
_WIDE_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans SC",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "Microsoft YaHei",
    "PingFang SC",
    "Arial Unicode MS",
)

_STYLE: dict[str, Any] = {
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.labelsize": 9.0,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.0,
    # Outlines: the reader's machine need not have the fonts.
    "svg.fonttype": "path",
    "svg.hashsalt": "pytest-tokenbudget",
}


@contextmanager
def figure_style() -> Iterator[None]:
    """This project's style over matplotlib's defaults, whatever the user's own settings are.

    The settings are put back afterwards, and characters that no font holds make no warning: with
    warnings as errors a model's name would fail the run.
    """
    import warnings

    import matplotlib as mpl
    import matplotlib.style
    from matplotlib import font_manager

    known = {font.name for font in font_manager.fontManager.ttflist}
    fonts = ["DejaVu Sans", *(name for name in _WIDE_FONTS if name in known)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from")
        settings: Any = {"font.family": fonts, **_STYLE}
        with matplotlib.style.context("default"), mpl.rc_context(settings):
            yield


def cells(text: Iterable[str]) -> int:
    """How many columns of a terminal ``text`` takes."""
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


def shorten(text: str, width: int) -> str:
    """``text`` in at most ``width`` terminal columns, its middle left out where it is longer."""
    # A text of few columns can still be long: combining marks take none.
    if len(text) <= 8 * width and cells(text) <= width:
        return text
    half = len(text) // 2
    head, tail = list(text[:half][: 4 * width]), list(text[half:][-4 * width :])
    columns = cells(head) + cells(tail)
    while columns > width - 1:
        columns -= cells(head.pop() if len(head) >= len(tail) else tail.pop(0))
    return "".join([*head, "\u2026", *tail])


def percent(value: float, width: int = 0) -> str:
    """A share as a percentage with one decimal, ``-`` where there is none."""
    shown = f"{100 * value + 0.0:.1f}" if math.isfinite(value) else "-"
    return ("0.0" if shown == "-0.0" else shown).rjust(width)


def count(number: float) -> str:
    """A whole number with thousands separators."""
    return f"{round(number):,}"


def no_token(missing: int) -> str:
    """What a run that generated nothing says of its tokens.

    Args:
        missing: Problems, or conversations, that are not complete.
    """
    if missing:
        return "no token: what is shown was stored before, the rest is missing"
    return "no token: all were stored"


def aligned(rows: Sequence[Sequence[str]], left: int = 0) -> list[str]:
    """Rows as lines, each column as wide as its widest cell, with one or two spaces between.

    Args:
        rows: Rows of as many cells each.
        left: How many columns begin at their left edge; the others end at their right edge.
    """
    widths = [max(map(cells, column)) for column in zip(*rows, strict=True)]
    gap = "  " if sum(widths) + 2 * (len(widths) - 1) <= MAX_WIDTH else " "
    lines = []
    for row in rows:
        pads = [" " * (width - cells(cell)) for cell, width in zip(row, widths, strict=True)]
        parts = [
            cell + pad if place < left else pad + cell
            for place, (cell, pad) in enumerate(zip(row, pads, strict=True))
        ]
        lines.append(gap.join(parts).rstrip())
    return lines


def plural(number: int, one: str, many: str | None = None) -> str:
    """``1 problem``, ``1,319 problems``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def listed(names: Sequence[str], most: int = 6) -> str:
    """``a``, ``a and b``, ``a, b and c``; of more than ``most`` the rest is counted."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most:,} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def wrapped(sentence: str, width: int, indent: str = "  ") -> list[str]:
    """Lines of at most ``width`` columns, the further ones indented.

    What belongs together stays on one line: ``95 %``, ``n = 40``, names with hyphens.
    """
    tied = re.sub(r"(?<=\d) %|(?<=\bn) = ", lambda m: m[0].replace(" ", "\u00a0"), sentence)
    lines = textwrap.wrap(tied, width, subsequent_indent=indent, break_on_hyphens=False)
    return [line.replace("\u00a0", " ") for line in lines]


def columns(width: int) -> int:
    """The columns that a report uses of a terminal of ``width``."""
    return max(MIN_WIDTH, min(width, MAX_WIDTH))


def rule(name: str, tail: str, width: int) -> str:
    """A line across the terminal, in its middle a foreign name and what is said of it."""
    shown = shorten(printable(name), max(12, MAX_WIDTH - 12 - cells(tail))) + tail
    title = f" {shorten(shown, width - 8)} "
    left = (width - cells(title)) // 2
    return "-" * left + title + "-" * (width - cells(title) - left)
