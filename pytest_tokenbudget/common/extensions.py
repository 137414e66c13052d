"""Engines, tasks and scorers by name: those of this package, and others' from entry points.

A package registers its own under the groups ``pytest_tokenbudget.engines``, ``.tasks`` and
``.scorers``. Names are known without importing anything; what a name stands for is imported when
somebody uses it.

Every pytest session loads this module, so it imports nothing that pytest has not loaded already.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

PACKAGE: Final = "pytest_tokenbudget"


class ExtensionError(Exception):
    """An entry point cannot be used; the message names the distribution that registered it."""


def points(group: str) -> list[EntryPoint]:
    """The entry points of a group by name, those of this package first."""
    from importlib.metadata import entry_points

    found = entry_points(group=f"{PACKAGE}.{group}")
    return sorted(found, key=lambda point: (not is_own(point), point.name, point.value))


def is_own(point: EntryPoint) -> bool:
    return point.value.startswith((f"{PACKAGE}.", f"{PACKAGE}:"))


def owner(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "an unknown package"


def fault(kind: str, point: EntryPoint, reason: str | Exception) -> str:
    from pytest_tokenbudget.common.outside_text import printable

    why = f"{type(reason).__name__}: {reason}" if isinstance(reason, Exception) else reason
    return printable(f"the {kind} {point.name!r} of {owner(point)} cannot be used: {why}")


def imported(target: str) -> Any:  # noqa: ANN401
    """What ``"package.module:name"`` names."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


class _Foreign(NamedTuple):
    points: Mapping[str, EntryPoint]
    faults: tuple[str, ...]


@dataclass(eq=False)
class Extensions:
    """What can be chosen by name.

    Attributes:
        kind: What it is, in one word; the group is its plural.
        own: This package's own, each with ``"package.module:name"``.
        fits: Why what an entry point of another package gives is not one; empty if it is.
    """

    kind: str
    own: Mapping[str, str]
    fits: Callable[[Any], str]

    @property
    def names(self) -> tuple[str, ...]:
        """All names, this package's own first."""
        return (*self.own, *self._foreign.points)

    @property
    def faults(self) -> tuple[str, ...]:
        """A sentence for each entry point whose name is taken."""
        return self._foreign.faults

    def load(self, name: str) -> Any:  # noqa: ANN401
        """What a name stands for.

        Raises:
            KeyError: If there is no such name.
            ExtensionError: If another package registered it, and it cannot be used.
        """
        if name in self.own:
            return imported(self.own[name])
        point = self._foreign.points[name]
        try:
            found = point.load()
            reason = self.fits(found)
        except Exception as error:  # whatever a module of others raises when it is imported
            raise ExtensionError(fault(self.kind, point, error)) from error
        if reason:
            raise ExtensionError(fault(self.kind, point, f"{point.value} {reason}"))
        return found

    @cached_property
    def _foreign(self) -> _Foreign:
        found: dict[str, EntryPoint] = {}
        faults = []
        for point in points(f"{self.kind}s"):
            if point.name in self.own or point.name in found:
                faults.append(fault(self.kind, point, "the name is taken"))
            else:
                found[point.name] = point
        return _Foreign(found, tuple(faults))


def _no_function(value: object) -> str:
    return "" if callable(value) else "is no function"


def _no_rule(value: object) -> str:
    missing = [
        name for name in ("extractor", "judge", "verdict_changes") if not hasattr(value, name)
    ]
    return f"is no scorer: it has no {missing[0]!r}" if missing else ""


# ``(spec, settings, placement, say) -> core.engine.Engine``
ENGINES: Final = Extensions(
    "engine",
    {
        "transformers": "pytest_tokenbudget.engines.makers:make_transformers_engine",
        "vllm": "pytest_tokenbudget.engines.makers:make_vllm_engine",
        "server": "pytest_tokenbudget.engines.makers:make_server_engine",
    },
    _no_function,
)
# ``() -> tasks.base.Task``
TASKS: Final = Extensions(
    "task",
    {
        "word-problems": "pytest_tokenbudget.tasks.word_problems:word_problems_task",
        "recall": "pytest_tokenbudget.tasks.recall:recall_task",
        "multi-hop": "pytest_tokenbudget.tasks.recall:multi_hop_task",
        "games": "pytest_tokenbudget.tasks.games:games_task",
        "gsm8k": "pytest_tokenbudget.tasks.gsm8k:Gsm8kTask",
    },
    _no_function,
)
# A ``tasks.ruled.JudgingRule``.
SCORERS: Final = Extensions(
    "scorer",
    {
        "number": "pytest_tokenbudget.tasks.ruled:NUMBER",
        "text": "pytest_tokenbudget.tasks.ruled:TEXT",
    },
    _no_rule,
)
