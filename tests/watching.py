"""A watch that notes what engines tell it while they write."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_tokenbudget.core.engine import Request


class Notes:
    """What was told of each request, in order, and the texts that came with it last.

    Args:
        follow: Whether it wants to hear of any.
    """

    def __init__(self, follow: bool = True) -> None:
        self.follow = follow
        self.told: dict[str, list[tuple[int, ...] | str]] = {}
        self.texts: dict[str, Sequence[str] | None] = {}

    def follows(self, request: Request) -> bool:
        return self.follow

    def wrote(
        self, request: Request, ids: Sequence[int], texts: Sequence[str] | None = None
    ) -> None:
        self.told.setdefault(request.key, []).append(tuple(ids))
        self.texts[request.key] = texts

    def wrote_text(self, request: Request, text: str) -> None:
        self.told.setdefault(request.key, []).append(text)
