"""Token limits in common use. Each is a claim to be measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RuleOfThumb:
    """A rule of thumb: a limit for a kind of use."""

    kind: str
    limit: int
    words: str


RULES = (
    RuleOfThumb("standard", 440, "standard: 440"),
    RuleOfThumb("standard", 500, "standard: 500 to 600, lower end"),
    RuleOfThumb("standard", 600, "standard: 500 to 600, upper end"),
    RuleOfThumb("standard", 1000, "standard: at most 1,000"),
    RuleOfThumb("thinking", 1200, "thinking: at least 1,200"),
    RuleOfThumb("thinking", 1500, "thinking: 1,500 to 2,000, lower end"),
    RuleOfThumb("thinking", 1800, "thinking: 1,800 recommended"),
    RuleOfThumb("thinking", 2000, "thinking: 1,500 to 2,000, upper end"),
    RuleOfThumb("sequential", 1200, "sequential: 1,200 or more"),
    RuleOfThumb("multi-turn", 1500, "multi-turn: 1,500 or more"),
)
"""Limits in common use, each a claim to be measured."""


@dataclass(frozen=True)
class Guideline:
    """A rule of thumb: a limit that is enough for a kind of scenario, or for all.

    The kind is a name in a split (``category``, ``framing``). It may be meant for models that
    think.
    """

    words: str
    limit: int
    split: str = ""
    name: str = ""
    thinking: bool = False


GUIDELINES = (
    Guideline("440", 440),
    Guideline("600", 600),
    Guideline("sequential: 1,200", 1200, "category", "sequential"),
    Guideline("thinking: 1,500", 1500, thinking=True),
    Guideline("anger: 1,800", 1800, "framing", "anger"),
    Guideline("happiness: 1,200", 1200, "framing", "happiness"),
)
"""Limits of a guide in circulation."""
