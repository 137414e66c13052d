"""Probes of thinking budgets: one way to set one, measured and judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pytest_tokenbudget.core.engine import EngineError
from pytest_tokenbudget.core.probes import NoAnswerError, Reply
from pytest_tokenbudget.studies.conformance.budget_methods import WAYS, BudgetMethod
from pytest_tokenbudget.studies.conformance.evidence import small
from pytest_tokenbudget.studies.conformance.probe_context import AT_ONCE, ProbeContext, Seen
from pytest_tokenbudget.studies.conformance.remarks import remarks
from pytest_tokenbudget.studies.conformance.results import BudgetResult, BudgetVerdict, MethodResult
from pytest_tokenbudget.studies.conformance.verdict import judge, server_wide

__all__ = ["WAYS", "probe_way"]


def probe_way(bench: ProbeContext, way: str | BudgetMethod) -> MethodResult:
    """Measure one way to set a thinking budget, and judge it.

    Args:
        bench: The engine with its prompts.
        way: Its name, a key of :data:`WAYS`; or a way of one's own.

    Raises:
        EngineError: If the engine cannot be used at all.
    """
    way = WAYS[way] if isinstance(way, str) else way
    before = bench.generations
    if way.server_wide:
        return _server_wide(bench, way)
    if way.opens and not way.prefilled and not bench.takes_ids:
        return _unmeasured(
            way, "this engine takes no token ids, so no prompt can be opened for it by them"
        )
    try:
        first, second = _without(bench, way)
    except NoAnswerError:
        raise
    except EngineError as error:
        return _unmeasured(way, str(error))
    apart = any(choice.reasoning for reply in first for choice in reply.choices)
    natural, seen = _read(bench, way, None, first, apart)
    repeated, seen_again = _read(bench, way, None, second, apart)
    if way.prefilled and not _opens(natural):
        return replace(
            _unmeasured(
                way,
                "a begun message does not open thinking here: outputs without a budget end by "
                "themselves and close nothing",
            ),
            budgets=(natural,),
        )
    natural = replace(natural, same=_same(seen, seen_again))
    repeated = replace(repeated, same=natural.same)
    tried = []
    for budget in way.budgets:
        replies = _ask_budget(bench, way, budget)
        # What no budget sets apart may come apart with one, and the other way round.
        split = apart or any(choice.reasoning for each in replies for choice in each.choices)
        observed, under = _read(bench, way, budget, replies, split)
        tried.append(replace(observed, same=_same(seen, under)))
    judged = judge(tried, natural, repeated, bench.slack)
    unknown, changed = _unknown_field(bench, way, seen)
    shared = sum(len(replies) for replies in (first, second))
    result = MethodResult(
        way=way.name,
        label=way.label,
        prompt_opens=way.opens or any(c.opened for reply in first for c in reply.choices),
        verdict=judged.verdict,
        sentence=judged.sentence,
        budgets=judged.budgets,
        unknown_fields=unknown,
        repeated=repeated,
        slack=bench.slack,
        counted=any(choice.ids is None for reply in first for choice in reply.choices),
        generations=max(bench.generations - before, shared),
    )
    limit = server_wide(natural.observations, repeated.observations, bench.slack)
    return replace(result, remarks=remarks(result, limit, changed))


def _without(bench: ProbeContext, way: BudgetMethod) -> list[list[Reply]]:
    """The same prompts without a budget, twice; asked once for all ways that share them."""
    asks = [way.ask(bench, prompt, None) for prompt in range(len(bench.prompts))]
    return bench.ask_again(asks, times=2)


def _ask_budget(bench: ProbeContext, way: BudgetMethod, budget: int) -> list[Reply]:
    """All prompts under a budget; the first goes ahead, and if it is refused the others stay."""
    asks = [way.ask(bench, prompt, budget) for prompt in range(len(bench.prompts))]
    first = bench.ask(asks[:1])
    if first[0].refused:
        return first
    return first + bench.ask(asks[1:], AT_ONCE)


def _read(
    bench: ProbeContext,
    way: BudgetMethod,
    budget: int | None,
    replies: Sequence[Reply],
    apart: bool,
) -> tuple[BudgetResult, dict[int, Seen]]:
    seen = {
        prompt: bench.read(prompt, reply.choices[0], True if way.opens else None, bench.cap, apart)
        for prompt, reply in enumerate(replies)
        if reply.choices
    }
    errors = [reply for reply in replies if reply.error]
    result = BudgetResult(
        budget=budget,
        observations=tuple(each.observation for each in seen.values()),
        request=small(replies[0].sent) if replies else {},
        error=errors[0].error if errors else "",
        refused=not seen and bool(errors) and all(reply.refused for reply in errors),
    )
    return result, seen


def _opens(natural: BudgetResult) -> bool:
    """Whether outputs behave as if thinking were open: most of those that end close it."""
    ended = [seen for seen in natural.observations if not seen.capped]
    return not ended or 2 * sum(seen.closed for seen in ended) > len(ended)


def _same(left: Mapping[int, Seen], right: Mapping[int, Seen]) -> int:
    return sum(left[k].tokens == right[k].tokens for k in left.keys() & right.keys())


def _unknown_field(
    bench: ProbeContext, way: BudgetMethod, seen: Mapping[int, Seen]
) -> tuple[str, bool]:
    """What happens to a field that does not exist, and whether the output changed with it."""
    ask = way.ask_unknown(bench, 0)
    if ask is None:
        return "", False
    ask = replace(ask, max_tokens=min(ask.max_tokens, 48))
    reply = bench.ask_again([ask], times=1)[0][0]
    if reply.refused:
        return "refused", False
    if not reply.choices or 0 not in seen:
        return "", False
    with_it, without = bench.key(reply.choices[0]), seen[0].tokens
    return "dropped", without[: len(with_it)] != with_it


def _server_wide(bench: ProbeContext, way: BudgetMethod) -> MethodResult:
    """A limit that is set at the server's start: seen by what outputs without a budget do.

    It cannot be set by request, and llama.cpp's /props does not name it, so there is nothing to
    compare with and no verdict. Where outputs end at one length, that is told; otherwise the user
    starts the server with it and looks again.
    """
    plain = replace(way, budgets=(), server_wide=False)
    first, second = _without(bench, plain)
    apart = any(choice.reasoning for reply in first for choice in reply.choices)
    natural, _ = _read(bench, plain, None, first, apart)
    repeated, _ = _read(bench, plain, None, second, apart)
    limit = server_wide(natural.observations, repeated.observations, bench.slack)
    sentence = (
        "it is set when the server starts and cannot be set by request, and the server does not "
        "say whether it was; start it with --reasoning-budget 32 and run this again"
    )
    if limit is not None:
        sentence = (
            f"outputs without a budget end their thinking at exactly {limit} tokens, the tags "
            f"counted: the server seems to keep a budget of its own; compare {limit} with what it "
            f"was started with"
        )
    return MethodResult(
        way=way.name,
        label=way.label,
        prompt_opens=any(c.opened for reply in first for c in reply.choices),
        verdict=BudgetVerdict.NOT_RESOLVED,
        sentence=f"{BudgetVerdict.NOT_RESOLVED.value}: {sentence}",
        budgets=(natural,),
        repeated=repeated,
        slack=bench.slack,
        generations=len(first) + len(second),
    )


def _unmeasured(way: BudgetMethod, why: str) -> MethodResult:
    verdict = BudgetVerdict.NOT_RESOLVED
    return MethodResult(way.name, way.label, way.opens, verdict, f"{verdict.value}: {why}", ())
