"""The cache of a study: each analysis runs once for each set of arguments."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Value = TypeVar("Value")


class Once:
    """Keeps the results of analyses, and facts about a study that become known later."""

    def once(
        self,
        make: Callable[Arguments, Value],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Value:
        """The result of ``make(*args, **kwargs)``, computed on the first call only.

        The function and all its arguments are the key, so a call with other arguments computes
        another result. Arguments that cannot be hashed are compared by identity. Pass a function
        that outlives the call: each lambda is a key of its own.
        """
        kept: dict[Hashable, tuple[Any, tuple[object, ...]]] = self.__dict__.setdefault("_made", {})
        given = (make, *args, *(part for pair in sorted(kwargs.items()) for part in pair))
        key = tuple(map(_key, given))
        if key not in kept:
            # The arguments are kept too: an identity is unique only while its object lives.
            kept[key] = make(*args, **kwargs), given
        made: Value = kept[key][0]
        return made

    def attach(self, name: str, value: object) -> None:
        """Store a fact about the study under a name; it replaces what was stored there."""
        self.__dict__.setdefault("_attached", {})[name] = value

    def attached(self, name: str) -> object:
        """The fact stored under a name; None if there is none."""
        facts: dict[str, object] = self.__dict__.get("_attached", {})
        return facts.get(name)


def _key(value: object) -> Hashable:
    try:
        hash(value)
    except TypeError:
        return type(value), id(value)
    # 1, 1.0 and True are equal, and different arguments.
    return type(value), value
