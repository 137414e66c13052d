"""Models that a server lists: which of them is meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_tokenbudget.common.messages import nearest
from pytest_tokenbudget.core.engine import EngineError

# Names of models that are shown where one is not there.
MOST_SHOWN = 10


def choose_served(listed: Sequence[str], wanted: str | None, url: str) -> str:
    """The model that is meant, among those that a server lists.

    Raises:
        EngineError: If it is not there, or there are several and none was chosen.
    """
    if wanted is not None:
        if wanted in listed:
            return wanted
        close = nearest(wanted, listed, count=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        there = f"it serves {_names(listed)}" if listed else "it lists no model at all"
        raise EngineError(f"{url} does not serve {wanted!r}: {there}{hint}")
    if len(listed) == 1:
        return listed[0]
    if not listed:
        raise EngineError(f"{url} lists no model; name the one that is meant with --served-model")
    raise EngineError(
        f"{url} serves {len(listed)} models; choose one with --served-model: {_names(listed)}"
    )


def _names(listed: Sequence[str]) -> str:
    more = f" and {len(listed) - MOST_SHOWN} more" if len(listed) > MOST_SHOWN else ""
    return ", ".join(map(repr, listed[:MOST_SHOWN])) + more


def read_models(body: object) -> list[Mapping[str, Any]]:
    """The models of an answer to ``/v1/models``; those without a name are left out."""
    data = body.get("data") if isinstance(body, Mapping) else body
    if not isinstance(data, list):
        return []
    return [each for each in data if isinstance(each, Mapping) and isinstance(each.get("id"), str)]
