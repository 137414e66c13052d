"""A mode of thinking as it applies to one model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ThinkingMode:
    """A mode as it applies to one model.

    Attributes:
        name: One of ``--modes``, or ``explicit``.
        thinking: Whether the model thinks, for the switch of its chat template.
        thinking_budget: Tokens that it may think; None without a limit.
        reason: How the budget came about, for people.
    """

    name: str
    thinking: bool
    thinking_budget: int | None
    reason: str = ""

    def __str__(self) -> str:
        return self.name
