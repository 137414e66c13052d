"""Phrases of the context eval that its terminal report and its figure share."""

from __future__ import annotations


def shown_limit(limit: str) -> str:
    """A limit for people: ``25 %``, ``1,024``."""
    return limit.replace("%", " %") if limit.endswith("%") else f"{int(limit):,}"
