"""Writes the table of options into the guide: ``python docs/options_table.py``."""

from __future__ import annotations

import sys
from pathlib import Path

from pytest_tokenbudget.registry import option_groups
from pytest_tokenbudget.settings.option_fields import Option, options_of

HEAD = "| option | setting | default | meaning |\n|---|---|---|---|\n"


def _row(option: Option) -> str:
    flags = ", ".join(f"`{flag}`" for flag in option.flags)
    default = f" `{option.default}`" if option.default else ""
    meaning = f"{option.meaning} {option.details}".strip()
    return f"| {flags} | `{option.name}` |{default} | {meaning} |\n"


def with_table(guide: str) -> str:
    """The text of the guide with the table as it is now."""
    before, head, rest = guide.partition(HEAD)
    if not head:
        raise SystemExit("the guide has no table of options")
    # The table ends with the first line that is no row.
    lines = rest.splitlines(keepends=True)
    end = next((n for n, line in enumerate(lines) if not line.startswith("|")), len(lines))
    rows = [_row(option) for group in option_groups() for option in options_of(group)]
    return before + head + "".join(rows) + "".join(lines[end:])


if __name__ == "__main__":
    page = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "guide.md")
    page.write_text(with_table(page.read_text(encoding="utf-8")), encoding="utf-8")
