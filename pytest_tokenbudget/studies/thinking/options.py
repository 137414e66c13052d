"""Options of the thinking eval that no lower floor reads.

Every pytest session loads this module, so it imports nothing that pytest has not loaded already.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pytest_tokenbudget.settings.option_fields import option, several
from pytest_tokenbudget.settings.option_values import names, number


def read_closers(text: str) -> tuple[str, ...]:
    """Names, or NAME=TEXT; a comma in a text would end it, so it is written as an escape."""
    closers = names(text)
    for closer in closers:
        name, equals, words = closer.partition("=")
        if not re.fullmatch(r"[\w.-]+", name) or (equals and not words):
            raise ValueError(
                "allowed: names of the model's closers, such as bare or sentence, and NAME=TEXT "
                r"for one's own, with \n for a line break and \x2c for a comma"
            )
    return closers


@dataclass(frozen=True)
class ThinkingOptions:
    """How thinking is ended by force, and sent on."""

    closers: tuple[str, ...] = several(
        "--closers",
        read_closers,
        "Names of the model's closers, or `NAME=TEXT`; without them `bare` and, if any, "
        "`sentence`.",
        "They end thinking by force; the first is the default. In a text, `\\n` is a line break "
        "and `\\x2c` a comma.",
    )
    wait: int = option(
        "--wait",
        number(int, 0, 32),
        'How often thinking that ends is sent on by an appended "Wait".',
        default="0",
    )
