"""What was seen beside a verdict, a sentence each. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from pytest_tokenbudget.studies.conformance.results import (
    BudgetResult,
    BudgetVerdict,
    MethodResult,
    Observation,
)
from pytest_tokenbudget.studies.conformance.verdict import LEVEL, MIN_INFORMATIVE, sign_test

Test = Callable[[Observation], bool]

_WENT_ON = "thinking went on after its close"
_SEEN: tuple[tuple[str, Test], ...] = (
    ("thinking was opened again after its close", lambda seen: seen.reopened),
    (_WENT_ON, lambda seen: seen.spilled),
    ("thinking or its tags stand in content", lambda seen: seen.in_content),
    (
        "no answer followed, though the cap was not reached",
        lambda seen: not seen.answer and not seen.capped,
    ),
    (
        "thinking was left open, though the cap was not reached",
        lambda seen: seen.opened and not seen.closed and not seen.capped,
    ),
)


def remarks(result: MethodResult, limit: int | None, unknown_changes: bool) -> tuple[str, ...]:
    """What a reader of a verdict must know too.

    Args:
        result: The verdict with its budgets, the one without a budget last.
        limit: Thinking tokens at which outputs without a budget all end; None where they do not.
        unknown_changes: Whether a field that does not exist changed the output.
    """
    *tried, without = result.budgets
    said = [*_of_the_engine(result, without, limit, unknown_changes)]
    for each in (*tried, without):
        said += _of_a_budget(each, without)
    return tuple(said)


def _of_the_engine(
    result: MethodResult, without: BudgetResult, limit: int | None, unknown_changes: bool
) -> Iterator[str]:
    if limit is not None:
        yield (
            f"outputs without a budget end their thinking at exactly {limit} tokens: the server "
            f"seems to have a budget of its own"
        )
    n = len(without.observations)
    if result.repeated is not None and without.same < n:
        yield (
            f"without a budget {without.same} of {n} outputs are the same when asked twice, "
            f"greedily: the engine's own noise"
        )
    if result.unknown_fields == "dropped" and result.verdict is BudgetVerdict.IGNORED:
        yield "a field that does not exist is dropped without a word, and so, it seems, is this one"
    if unknown_changes:
        yield "a field that does not exist changed the output"


def _of_a_budget(each: BudgetResult, without: BudgetResult) -> Iterator[str]:
    name = "without a budget" if each.budget is None else f"budget {each.budget}"
    n = len(each.observations)
    if each.refused:
        yield f"{name}: refused ({each.error})"
    elif each.error:
        yield f"{name}: errors, {n} outputs came ({each.error})"
    if not n:
        return
    if each.budget is not None and each.informative < MIN_INFORMATIVE:
        yield (
            f"{name}: tells little, {each.informative} of {n} prompts think for longer without it"
        )
    for what, test in _SEEN:
        count = sum(map(test, each.observations))
        if count:
            more = f", {_mean_spill(each):.0f} tokens on average" if what is _WENT_ON else ""
            yield f"{name}: {what}, in {count} of {n} outputs{more}"
    if each.budget is not None and _moved(each.observations, without.observations):
        yield (
            f"{name}: answers grew by at least half of what was saved: thinking may have moved "
            f"into them"
        )


def _mean_spill(each: BudgetResult) -> float:
    lengths = [seen.spill for seen in each.observations if seen.spilled]
    return sum(lengths) / len(lengths)


def _moved(under: Sequence[Observation], natural: Sequence[Observation]) -> bool:
    """Whether the answers hold what thinking lost: more prompts than chance, by the sign test."""
    own = {each.prompt: each for each in natural}
    moved = kept = 0
    for each in under:
        before = own.get(each.prompt)
        if before is None or each.thinking >= before.thinking:
            continue
        grown = each.answer - before.answer > (before.thinking - each.thinking) / 2
        moved += grown
        kept += not grown
    return sign_test(moved, kept) < LEVEL
