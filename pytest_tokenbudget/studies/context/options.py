"""Options of the context eval.

Every pytest session loads this module, so it imports nothing that pytest has not loaded already.
"""

from __future__ import annotations

from dataclasses import dataclass

from pytest_tokenbudget.settings.option_fields import several
from pytest_tokenbudget.settings.option_values import (
    code,
    did_you_mean,
    items,
    names,
    number,
    rising,
)

# In the order in which they are shown; `context.window_summary.named_strategy` makes them.
STRATEGIES = (
    "newest",
    "first",
    "ends",
    "system-newest",
    "system-first-newest",
    "sentences",
    "importance",
    "summary",
)


def read_strategies(text: str) -> tuple[str, ...]:
    """Ways to truncate; those with a share take it behind an equals sign."""
    return tuple(dict.fromkeys(_strategy(name) for name in names(text)))


def _strategy(text: str) -> str:
    from pytest_tokenbudget.settings.context_limits import WITH_SHARE

    name, equals, share = text.partition("=")
    if name not in STRATEGIES or (equals and name not in WITH_SHARE):
        raise ValueError(
            f"allowed: {', '.join(STRATEGIES)}, and a share for {' and '.join(WITH_SHARE)} "
            f"(ends=0.25){did_you_mean(name, STRATEGIES)}"
        )
    return f"{name}={number(float, 0, 1)(share):g}" if equals else name


def read_limits(text: str) -> tuple[str, ...]:
    """Limits as they are written, tokens before shares, each rising; none for the whole."""
    from pytest_tokenbudget.settings.context_limits import WHOLE, ContextError, ContextLimit

    try:
        read = {ContextLimit.read(item) for item in items(text) or [text]} - {WHOLE}
    except ContextError as error:
        raise ValueError(str(error).partition("; ")[2]) from None
    limits = sorted(read, key=lambda limit: (limit.share or 0, limit.tokens or 0))
    if not limits:
        raise ValueError(
            "allowed: at least one limit below the whole conversation, which is always posed"
        )
    return tuple(map(str, limits))


@dataclass(frozen=True)
class ContextOptions:
    """What the context eval poses and how it truncates.

    Attributes:
        context_limits: As they are written, without the whole.
        context_turns: Rising; empty for the default.
    """

    truncation: tuple[str, ...] = several(
        "--truncation",
        read_strategies,
        f"{code(STRATEGIES)}: ways to truncate that the context eval compares.",
        "`ends` and `summary` take a share (`ends=0.25`); see [context](context.md).",
        default=",".join(STRATEGIES[:-1]),
    )
    context_limits: tuple[str, ...] = several(
        "--context-limits",
        read_limits,
        "Limits of the context eval: tokens, or percent of the conversation.",
        "The whole one is always posed.",
        default="25%,50%,75%,100%",
    )
    context_turns: tuple[int, ...] = several(
        "--context-turns",
        rising(1, "numbers of turns"),
        "Filler turns of its conversations; without them powers of two up to the model's context.",
        "Of these the longest four that it has room for.",
    )
