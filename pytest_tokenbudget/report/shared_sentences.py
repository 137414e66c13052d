"""Sentences that several evals share: what is missing, what failed, what was generated now."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_tokenbudget.common.text_layout import count, plural


def nothing_yet(
    consequence: str = "nothing to show", whole: str = "problem", part: str = "trace"
) -> str:
    """That no problem is complete."""
    return f"no {whole} has all its {part}s yet: {consequence}"


def all_failed(consequence: str = "nothing to show") -> str:
    """That there are traces, and each ended in an error."""
    return f"every trace ended in an error: {consequence}"


def left_incomplete(missing: int, total: int, whole: str = "problem", part: str = "trace") -> str:
    """How many problems are left out because they are not complete, and what to do."""
    lack = f"lacks {part}s and is" if missing == 1 else f"lack {part}s and are"
    return (
        f"{missing:,} of {plural(total, whole)} {lack} left out: run the same command again to go "
        "on"
    )


def unfinished(
    missing: int, total: int, finished: bool, whole: str = "problem", part: str = "trace"
) -> list[str]:
    """What a run that did not get everything says: what is missing, else that it was interrupted.

    Args:
        missing: Problems, or what else is whole, that lack something.
        total: All there are.
        finished: Whether the run came to its end.
        whole: What lacks parts.
        part: What it lacks.
    """
    if missing:
        return [left_incomplete(missing, total, whole, part)]
    return [] if finished else ["the run was interrupted"]


def generated_now(tokens: int, missing: int, *, partly: bool = False) -> str:
    """How many tokens this run generated.

    Args:
        tokens: How many.
        missing: Problems that are not complete.
        partly: Whether others of the tokens that were named before were stored.
    """
    if partly and tokens:
        return f"this run generated {count(tokens)} of these tokens; the rest was stored"
    if tokens:
        return f"this run generated {plural(tokens, 'token')}"
    if missing:
        return "this run generated no token: what is shown was stored before, the rest is missing"
    return "this run generated no token: all were stored"


def left_out_budgets(
    budgets: Iterable[int], why: str = "beyond the model's context", unit: str = "tokens"
) -> str:
    """Which budgets are left out."""
    return f"left out, {why}: {', '.join(map(count, budgets))} {unit}"


def failed(number: int, part: str = "trace", effect: str = " and count in no rate") -> str:
    """How many traces ended in an error, and what becomes of them."""
    return f"{plural(number, part)} ended in an error{effect}"
