"""The result of the conformance eval in two boxes: an SVG badge, and the same for shields.io."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from xml.sax.saxutils import escape, quoteattr

from pytest_tokenbudget.common.outside_text import printable
from pytest_tokenbudget.common.text_layout import cells, plural, shorten
from pytest_tokenbudget.report.files import write_json, write_text
from pytest_tokenbudget.studies.conformance.analysis import (
    BudgetVerdict,
    ConformanceReport,
    LimitFinding,
)

# Dark enough for white letters (4.5 to 1 at least); what is meant stands in words beside them.
COLOURS: Mapping[BudgetVerdict, str] = MappingProxyType(
    {
        BudgetVerdict.ENFORCED: "#00704f",
        BudgetVerdict.SOFT: "#005c8f",
        BudgetVerdict.IGNORED: "#b04a00",
        BudgetVerdict.INVERTED: "#8f2f68",
        BudgetVerdict.REFUSED: "#5a5a5a",
        BudgetVerdict.NOT_RESOLVED: "#5a5a5a",
    }
)
GOOD, BAD, OPEN = COLOURS[BudgetVerdict.ENFORCED], COLOURS[BudgetVerdict.IGNORED], "#5a5a5a"
# The engine keeps its word, and fewer tokens are saved than it says.
CAUTION = "#7d5a00"
LABEL = "#333333"
MAX_MESSAGE = 60
GOES_ON = "thinks on after its close"
# About the widths of Verdana's characters at 11 pixels.
_WIDTHS = (
    ("ijlI.,'|:;!/ ", 3.5),
    ('frt()[]-"', 4.3),
    ("*_`szcLFkvxyPaoTeJ?", 6.2),
    ("wMmW%@#+<=>^~OQDG&", 9.4),
)
_USUAL = 7.1


@dataclass(frozen=True)
class Badge:
    """Two boxes: what it is about, and how it stands."""

    label: str
    message: str
    colour: str

    def endpoint(self) -> dict[str, object]:
        """What shields.io reads from an address (its endpoint badge)."""
        return {
            "schemaVersion": 1,
            "label": self.label,
            "message": self.message,
            "color": self.colour.removeprefix("#"),
        }

    def svg(self) -> str:
        """The badge as a picture; readers that cannot see it get its words."""
        left, right = _width(self.label) + 12, _width(self.message) + 12
        words = f"{self.label}: {self.message}"
        boxes = (
            (0, left, LABEL, self.label),
            (left, right, self.colour, self.message),
        )
        shapes = "".join(
            f'<rect x="{x}" width="{width}" height="20" fill={quoteattr(colour)}/>'
            for x, width, colour, _ in boxes
        )
        # textLength holds the text within its box whatever font the reader has.
        texts = "".join(
            f'<text x="{x + width / 2:g}" y="14" textLength="{width - 12}">{escape(text)}</text>'
            for x, width, _, text in boxes
        )
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" '
            f'role="img" aria-label={quoteattr(words)}><title>{escape(words)}</title>'
            f'<clipPath id="r"><rect width="{left + right}" height="20" rx="3"/></clipPath>'
            f'<g clip-path="url(#r)">{shapes}</g>'
            '<g fill="#ffffff" text-anchor="middle" font-size="11" '
            f'font-family="Verdana,Geneva,DejaVu Sans,sans-serif">{texts}</g></svg>\n'
        )


def badge_of(report: ConformanceReport) -> Badge:
    """The one sentence about an engine: how a thinking budget is kept, and what is broken.

    Whoever reads "enforced" expects to pay for no more thinking than that. So it is said where the
    model, its block closed by force, goes on thinking in the answer.

    Where no way to set a thinking budget was tried, it is about the token limits.
    """
    broken = report.limits_with(LimitFinding.BROKEN)
    best = report.best
    if best is None:
        if not report.limits:
            return Badge("token limits", "not measured", OPEN)
        return Badge("token limits", _broken(broken) or "kept", BAD if broken else GOOD)
    message, colour = str(best.verdict), COLOURS[best.verdict]
    kept = best.verdict in (BudgetVerdict.ENFORCED, BudgetVerdict.SOFT)
    if kept:
        message += f" by {best.way}"
    message = shorten(printable(message), MAX_MESSAGE)
    if kept and best.goes_on:
        message, colour = f"{message}, {GOES_ON}", CAUTION
    if broken:
        message, colour = f"{message}, {_broken(broken)}", BAD
    return Badge("thinking budget", message, colour)


def _broken(names: tuple[str, ...]) -> str:
    return f"{plural(len(names), 'limit')} broken" if names else ""


def write_badge(report: ConformanceReport, path: Path) -> list[Path]:
    """Write the badge.

    Returns:
        The SVG, and the JSON of a shields.io endpoint.
    """
    badge = badge_of(report)
    return [
        write_text(path.with_name(path.name + ".svg"), badge.svg()),
        write_json(path.with_name(path.name + ".json"), badge.endpoint()),
    ]


def _width(text: str) -> int:
    """About how many pixels a text takes in Verdana of 11 pixels."""
    return round(sum(_sign_width(sign) for sign in text))


def _sign_width(sign: str) -> float:
    if cells(sign) > 1:
        return 11.0
    return next((width for signs, width in _WIDTHS if sign in signs), _USUAL)
