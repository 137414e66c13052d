"""Text for people: numbers, plurals, lists, tables and lines that fit a terminal."""

from __future__ import annotations

import math
import os
import re
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence

from pytest_tokenbudget.common.outside_text import printable

MAX_WIDTH = 80
MIN_WIDTH = 40


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


def show(text: str) -> None:
    """Print a text; that a reader (head, a pager that was left) had enough of it is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Python flushes once more at its end, and would complain of that.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
