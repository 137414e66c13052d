"""What studies have in common: what is made of one is made once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Value = TypeVar("Value")


class Once:
    """Keeps what is made of it, for whoever asks again."""

    def once(self, key: object, make: Callable[[], Value]) -> Value:
        """What ``make`` makes of this study, made on first use and kept under ``key``."""
        kept: dict[object, Any] = self.__dict__.setdefault("_made", {})
        if key not in kept:
            kept[key] = make()
        made: Value = kept[key]
        return made
