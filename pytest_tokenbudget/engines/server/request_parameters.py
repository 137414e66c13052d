"""Request parameters that a server wants under another name, or not at all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pytest_tokenbudget.engines.server.faults import UNKNOWN

LIMIT = "max_tokens"
OTHER_LIMITS = ("max_completion_tokens", "max_output_tokens", "max_new_tokens")
# What no answer depends on, with a name by which refusals may call it, too.
OPTIONAL = {"stream_options": "include_usage"}
# By which option a parameter is set.
SETTERS = {
    "temperature": "--temperature",
    "top_p": "--top-p",
    "seed": "--seed (with --temperature 0 none is sent)",
}


class RequestParameters:
    """What one server has refused, and what is sent instead."""

    def __init__(self) -> None:
        self._limit = LIMIT
        self._limits_left = list(OTHER_LIMITS)
        self._left_out: set[str] = set()

    def applied(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The body as the server takes it."""
        return {
            self._limit if name == LIMIT else name: value
            for name, value in body.items()
            if name not in self._left_out
        }

    def learn(self, body: Mapping[str, Any], sent: Mapping[str, Any], refusal: str) -> bool:
        """Take a refusal of ``body``, which went as ``sent``, into account.

        False where the request cannot be put otherwise.
        """
        if self.applied(body) != sent:
            return True  # another request that was on its way has taught it already
        if LIMIT in body and (name := self._other_limit(refusal)):
            self._limits_left.remove(name)
            self._limit = name
            return True
        for name, other in OPTIONAL.items():
            if name in sent and (name in refusal or other in refusal):
                self._left_out.add(name)
                return True
        return False

    def _other_limit(self, refusal: str) -> str | None:
        """The name under which to send the limit next; None where it is not the name's fault."""
        for name in self._limits_left:
            if re.search(rf"(?<!\w){name}(?!\w)", refusal):
                return name
        unknown = re.search(rf"(?<!\w){self._limit}(?!\w)", refusal) and UNKNOWN.search(refusal)
        return next(iter(self._limits_left), None) if unknown else None
