"""What the options about baselines may be set to.

Every pytest session loads this module, so it imports nothing that pytest has not loaded already.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

LATEST = "latest"
FALLING = ("accuracy", "completed")  # what a worse run has less of
RISING = ("truncation", "tokens")  # what it has more of
METRICS = (*FALLING, *RISING)
RULES = ("confident", "point", "noninferior")
_NAME = re.compile(r"[A-Za-z][\w.-]{0,79}", re.ASCII)
_NUMBER = re.compile(r"(?P<sign>[+-]?)(?P<size>\d+(\.\d*)?|\.\d+)(?P<percent>%?)", re.ASCII)
_EXAMPLES = "for example accuracy:-0.02, truncation:+0.01, tokens:+10%, 512:accuracy:-0.02"


@dataclass(frozen=True)
class Tolerance:
    """A change for the worse that is tolerated, and how it is judged.

    Attributes:
        metric: One of ``METRICS``.
        value: The change, below 0 for what falls; of tokens a number or, if ``relative``, a share.
        relative: Whether it is a share of what there was before.
        budget: The budget that it is for; None for the largest that both runs have.
        rule: One of ``RULES``. ``confident`` fails only where the whole interval is beyond the
            change, ``noninferior`` unless the whole interval is not, ``point`` goes by the
            estimate.
    """

    metric: str
    value: float
    relative: bool = False
    budget: int | None = None
    rule: str = RULES[0]

    @property
    def falls(self) -> bool:
        """Whether the metric is less in a worse run."""
        return self.metric in FALLING

    def __str__(self) -> str:
        before = "" if self.budget is None else f"{self.budget}:"
        sign = "-" if self.falls else "+"
        size = f"{100 * abs(self.value):g}%" if self.relative else f"{abs(self.value):g}"
        after = "" if self.rule == RULES[0] else f":{self.rule}"
        return f"{before}{self.metric}:{sign}{size}{after}"


def tolerances(text: str) -> tuple[Tolerance, ...]:
    """Several of ``[BUDGET:]METRIC:CHANGE[:RULE]`` with commas."""
    return tuple(_tolerance(item.strip()) for item in text.split(",") if item.strip()) or (
        _tolerance(text),
    )


def _tolerance(text: str) -> Tolerance:
    parts = text.split(":")
    budget = int(parts.pop(0)) if re.fullmatch(r"\d{1,9}", parts[0], re.ASCII) else None
    rule = parts.pop() if len(parts) > 2 else RULES[0]
    if len(parts) != 2 or budget == 0:
        raise ValueError(f"allowed: [BUDGET:]METRIC:CHANGE[:RULE], {_EXAMPLES}")
    metric, change = parts
    for what, given, allowed in (("METRIC", metric, METRICS), ("RULE", rule, RULES)):
        if given not in allowed:
            from pytest_tokenbudget.common.messages import nearest

            close = nearest(given, allowed, count=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"allowed as {what}: {', '.join(allowed)}{hint}")
    return Tolerance(metric, *_change(metric, change), budget, rule)


def _change(metric: str, text: str) -> tuple[float, bool]:
    found = _NUMBER.fullmatch(text)
    sign = "-" if metric in FALLING else "+"
    if found is None or found["sign"] == ("+" if sign == "-" else "-"):
        raise ValueError(
            f"{metric} of a worse run is {'lower' if sign == '-' else 'higher'}; {_EXAMPLES}"
        )
    size, percent = float(found["size"]), bool(found["percent"])
    if size and not found["sign"]:
        raise ValueError(f"allowed with its sign: {metric}:{sign}{text}")
    # A share of 1 would tolerate everything, and is meant as a point.
    if metric != "tokens" and (percent or size >= 1):
        points = "1 point" if size == 1 else f"{size:g} points"
        raise ValueError(
            f"allowed: a share below 1; for {points} write {sign}{round(size / 100, 12):g}"
        )
    size = size / 100 if percent else size
    return (math.copysign(size, -1.0) if sign == "-" else size) + 0.0, percent


def baseline_name(text: str) -> str:
    """A name to save under: what is later asked for must mean one thing."""
    if not _NAME.fullmatch(text) or text.lower() == LATEST or text.lower().endswith(".json"):
        raise ValueError(
            f"allowed: a letter, then letters, digits, '.', '_' and '-', but neither {LATEST} nor "
            "a name that ends in .json"
        )
    return text


def baseline(text: str) -> str | Path:
    """What to compare with: a path, or something that was saved."""
    slashes = [slash for slash in (os.sep, os.altsep) if slash]
    if text.lower().endswith(".json") or any(slash in text for slash in slashes):
        return Path(os.path.expanduser(text))
    return text
