"""Names of the options on the command line.

Every pytest session loads this module, so it imports nothing that pytest has not loaded already.
"""

from __future__ import annotations

from typing import Any

import pytest

from pytest_tokenbudget.option_table import OPTIONS


def add_options(parser: pytest.Parser) -> None:
    """Register every option of the table as flags and as an ini setting."""
    group = parser.getgroup("tokenbudget", "what token limits cost and buy")
    for option in OPTIONS:
        extra: dict[str, Any] = {"dest": option.ini, "default": None, "help": option.help}
        if option.switch:
            extra.update(action="store_const", const="on")
        elif option.many:
            extra.update(action="append", metavar=option.name.upper())
        else:
            extra["metavar"] = option.name.upper()
        group.addoption(*option.flags, **extra)
        parser.addini(option.ini, option.help, type="string", default="")
