"""How figures look."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

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


class SeriesStyle(NamedTuple):
    """How one series is told from the others, with colour and without."""

    colour: str
    marker: str
    line: str | tuple[int, tuple[int, ...]]


ACCURACY = SeriesStyle(BLUE, "o", "-")
COMPLETED = SeriesStyle(ORANGE, "s", "--")
TRUNCATED = SeriesStyle(INK, "^", "-.")
TOKENS = SeriesStyle(PURPLE, "D", ":")
# For series of one meaning, such as several models; the order is that of their contrast.
SERIES = (
    ACCURACY,
    SeriesStyle(ORANGE, "s", "--"),
    SeriesStyle(GREEN, "^", "-."),
    SeriesStyle(PURPLE, "D", ":"),
    SeriesStyle(INK, "v", (0, (5, 1, 1, 1, 1, 1))),
    SeriesStyle(SKY, "P", (0, (3, 1))),
    SeriesStyle(YELLOW, "X", (0, (1, 1))),
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
