"""Standard output of the package's own commands."""

from __future__ import annotations

import os
import sys


def show(text: str) -> None:
    """Print a text; that a reader (head, a pager that was left) had enough of it is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Python flushes once more at its end, and would complain of that.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
