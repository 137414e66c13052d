"""Text for people: numbers, plurals, lists, tables and lines that fit a terminal."""

from __future__ import annotations

import math
import os
import re
import sys
import textwrap
import unicodedata
from collections.abc import Collection, Iterable, Sequence

from pytest_tokenbudget.common.outside_text import printable

MAX_WIDTH = 80
MIN_WIDTH = 40
MIN_NAME = 8


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


def share(value: float | None) -> str:
    """``92.0 %``, and ``-`` where there is no value."""
    return f"{percent(value)} %" if value is not None and math.isfinite(value) else "-"


def rate(estimate: Sequence[float], width: int = 0) -> str:
    """A share with its interval, ``92.0 % [88.4, 94.6]``.

    Args:
        estimate: Value, lower and upper bound, as shares; more is ignored.
        width: Columns of each number; 5 aligns the rows of a table.
    """
    value, low, high = (percent(number, width) for number in estimate[:3])
    return f"{value} % [{low}, {high}]"


def p_value(value: float) -> str:
    """A p-value with three decimals, ``<0.001`` below that."""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def points(value: float, digits: int = 1) -> str:
    """A difference of shares in percentage points with its sign, ``-`` where there is none."""
    if not math.isfinite(value):
        return "-"
    return f"{round(100 * value, digits) + 0.0:+.{digits}f}"


def point_change(estimate: Sequence[float], unit: str = "", digits: int = 1) -> str:
    """A difference of shares with its interval in percentage points, ``+1.2 [-0.3, +2.7]``.

    Args:
        estimate: Value, lower and upper bound, as shares; more is ignored.
        unit: What stands between the value and its interval, ``" points"``.
        digits: Decimals.
    """
    value, low, high = (points(number, digits) for number in estimate[:3])
    return f"{value}{unit} [{low}, {high}]"


def count(number: float) -> str:
    """A whole number with thousands separators."""
    return f"{round(number):,}"


def decimal(number: float) -> str:
    """A number with one decimal and thousands separators, ``-`` where there is none."""
    return f"{number:,.1f}" if math.isfinite(number) else "-"


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


class Table:
    """A table on the terminal, each column as wide as its widest cell.

    Where the terminal is too narrow, the space between the columns shrinks, then the columns of
    names do, and at last each row becomes a sentence.
    """

    def __init__(self, *headings: str, left: Collection[int] = (0,), span: str = "") -> None:
        """Begin a table.

        Args:
            headings: Of each column.
            left: Columns of names, which begin at their left edge; numbers end at their right one.
            span: A second heading, above the columns on the right.
        """
        self.headings = headings
        self.rows: list[tuple[str, ...]] = []
        self._left = left
        self._span = span

    def add(self, *cells: str) -> None:
        """Add a row; cells that are missing at its end stay empty."""
        self.rows.append(cells)

    def lines(self, width: int = MAX_WIDTH) -> list[str]:
        """The lines of the table, none where it has no rows.

        Args:
            width: Columns of the terminal.
        """
        if not self.rows:
            return []
        rows = [
            row + ("",) * (len(self.headings) - len(row)) for row in (self.headings, *self.rows)
        ]
        widths = [max(map(cells, column)) for column in zip(*rows, strict=True)]
        gap = 2 if sum(widths) + 2 * (len(widths) - 1) <= width else 1
        room = width - gap * (len(widths) - 1)
        while sum(widths) > room:
            widest = max(self._left, key=lambda column: widths[column], default=None)
            if widest is None or widths[widest] <= MIN_NAME:
                return [line for row in self.rows for line in wrapped(self._sentence(row), width)]
            widths[widest] -= 1
        lines = [self._line(row, widths, " " * gap) for row in rows]
        if self._span:
            lines.insert(0, self._span.rjust(sum(widths) + gap * (len(widths) - 1)))
        return lines

    def _line(self, row: Sequence[str], widths: Sequence[int], gap: str) -> str:
        padded = []
        for column, (cell, width) in enumerate(zip(row, widths, strict=True)):
            shown = shorten(cell, width)
            pad = " " * (width - cells(shown))
            padded.append(shown + pad if column in self._left else pad + shown)
        return gap.join(padded).rstrip()

    def _sentence(self, row: Sequence[str]) -> str:
        named = [
            f"{heading} {cell.strip()}"
            for heading, cell in zip(self.headings[1:], row[1:], strict=False)
            if cell
        ]
        return f"{row[0]}: {', '.join(named)}" if named else row[0]


def print_text(text: str) -> None:
    """Print a text; that a reader (head, a pager that was left) had enough of it is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Python flushes once more at its end, and would complain of that.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
