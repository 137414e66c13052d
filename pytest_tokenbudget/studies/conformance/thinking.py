"""Probes of thinking budgets: one way to set one, measured and judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pytest_tokenbudget.core.engine import EngineError
from pytest_tokenbudget.core.probes import NoAnswerError, Reply
from pytest_tokenbudget.studies.conformance.analysis import (
    BudgetResult,
    BudgetVerdict,
    MethodResult,
)
from pytest_tokenbudget.studies.conformance.budget_methods import BUDGET_METHODS, BudgetMethod
from pytest_tokenbudget.studies.conformance.probe_context import (
    AT_ONCE,
    ProbeContext,
    ReadOutput,
    shortened_request,
)
from pytest_tokenbudget.studies.conformance.verdict import judge, remarks, server_wide


def probe_method(probe_context: ProbeContext, method: str | BudgetMethod) -> MethodResult:
    """Measure one way to set a thinking budget, and judge it.

    Raises:
        EngineError: If the engine cannot be used at all.
    """
    method = BUDGET_METHODS[method] if isinstance(method, str) else method
    before = probe_context.generations
    if method.server_wide:
        return _server_wide(probe_context, method)
    if method.opens and not method.prefilled and not probe_context.takes_ids:
        return _unmeasured(
            method, "this engine takes no token ids, so no prompt can be opened for it by them"
        )
    try:
        first, second = _without(probe_context, method)
    except NoAnswerError:
        raise
    except EngineError as error:
        return _unmeasured(method, str(error))
    apart = any(choice.reasoning for reply in first for choice in reply.choices)
    natural, seen = _read(probe_context, method, None, first, apart)
    repeated, seen_again = _read(probe_context, method, None, second, apart)
    if method.prefilled and not _opens(natural):
        return replace(
            _unmeasured(
                method,
                "a begun message does not open thinking here: outputs without a budget end by "
                "themselves and close nothing",
            ),
            budgets=(natural,),
        )
    natural = replace(natural, same=_same_outputs(seen, seen_again))
    repeated = replace(repeated, same=natural.same)
    tried = []
    for budget in method.budgets:
        replies = _ask_budget(probe_context, method, budget)
        # What no budget sets apart may come apart with one, and the other way round.
        split = apart or any(choice.reasoning for each in replies for choice in each.choices)
        observed, under = _read(probe_context, method, budget, replies, split)
        tried.append(replace(observed, same=_same_outputs(seen, under)))
    judged = judge(tried, natural, repeated, probe_context.slack)
    unknown, changed = _unknown_field(probe_context, method, seen)
    shared = sum(len(replies) for replies in (first, second))
    result = MethodResult(
        way=method.name,
        label=method.label,
        prompt_opens=method.opens or any(c.opened for reply in first for c in reply.choices),
        verdict=judged.verdict,
        sentence=judged.sentence,
        budgets=judged.budgets,
        unknown_fields=unknown,
        repeated=repeated,
        slack=probe_context.slack,
        counted=any(choice.ids is None for reply in first for choice in reply.choices),
        generations=max(probe_context.generations - before, shared),
    )
    limit = server_wide(natural.observations, repeated.observations, probe_context.slack)
    return replace(result, remarks=remarks(result, limit, changed))


def _without(probe_context: ProbeContext, method: BudgetMethod) -> list[list[Reply]]:
    """The same prompts without a budget, twice; asked once for all ways that share them."""
    asks = [method.ask(probe_context, prompt, None) for prompt in range(len(probe_context.prompts))]
    return probe_context.ask_again(asks, times=2)


def _ask_budget(probe_context: ProbeContext, method: BudgetMethod, budget: int) -> list[Reply]:
    """All prompts under a budget; the first goes ahead, and if it is refused the others stay."""
    asks = [
        method.ask(probe_context, prompt, budget) for prompt in range(len(probe_context.prompts))
    ]
    first = probe_context.ask(asks[:1])
    if first[0].refused:
        return first
    return first + probe_context.ask(asks[1:], AT_ONCE)


def _read(
    probe_context: ProbeContext,
    method: BudgetMethod,
    budget: int | None,
    replies: Sequence[Reply],
    apart: bool,
) -> tuple[BudgetResult, dict[int, ReadOutput]]:
    seen = {
        prompt: probe_context.read(
            prompt, reply.choices[0], True if method.opens else None, probe_context.cap, apart
        )
        for prompt, reply in enumerate(replies)
        if reply.choices
    }
    errors = [reply for reply in replies if reply.error]
    result = BudgetResult(
        budget=budget,
        observations=tuple(each.observation for each in seen.values()),
        request=shortened_request(replies[0].sent) if replies else {},
        error=errors[0].error if errors else "",
        refused=not seen and bool(errors) and all(reply.refused for reply in errors),
    )
    return result, seen


def _opens(natural: BudgetResult) -> bool:
    """Whether outputs behave as if thinking were open: most of those that end close it."""
    ended = [seen for seen in natural.observations if not seen.capped]
    return not ended or 2 * sum(seen.closed for seen in ended) > len(ended)


def _same_outputs(left: Mapping[int, ReadOutput], right: Mapping[int, ReadOutput]) -> int:
    return sum(left[k].tokens == right[k].tokens for k in left.keys() & right.keys())


def _unknown_field(
    probe_context: ProbeContext, method: BudgetMethod, seen: Mapping[int, ReadOutput]
) -> tuple[str, bool]:
    """What happens to a field that does not exist, and whether the output changed with it."""
    ask = method.ask_unknown(probe_context, 0)
    if ask is None:
        return "", False
    ask = replace(ask, max_tokens=min(ask.max_tokens, 48))
    reply = probe_context.ask_again([ask], times=1)[0][0]
    if reply.refused:
        return "refused", False
    if not reply.choices or 0 not in seen:
        return "", False
    with_it, without = probe_context.key(reply.choices[0]), seen[0].tokens
    return "dropped", without[: len(with_it)] != with_it


def _server_wide(probe_context: ProbeContext, method: BudgetMethod) -> MethodResult:
    """A limit that is set at the server's start: seen by what outputs without a budget do.

    It cannot be set by request, and llama.cpp's /props does not name it, so there is nothing to
    compare with and no verdict. Where outputs end at one length, that is told; otherwise the user
    starts the server with it and looks again.
    """
    plain = replace(method, budgets=(), server_wide=False)
    first, second = _without(probe_context, plain)
    apart = any(choice.reasoning for reply in first for choice in reply.choices)
    natural, _ = _read(probe_context, plain, None, first, apart)
    repeated, _ = _read(probe_context, plain, None, second, apart)
    limit = server_wide(natural.observations, repeated.observations, probe_context.slack)
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
        way=method.name,
        label=method.label,
        prompt_opens=any(c.opened for reply in first for c in reply.choices),
        verdict=BudgetVerdict.NOT_RESOLVED,
        sentence=f"{BudgetVerdict.NOT_RESOLVED.value}: {sentence}",
        budgets=(natural,),
        repeated=repeated,
        slack=probe_context.slack,
        generations=len(first) + len(second),
    )


def _unmeasured(method: BudgetMethod, reason: str) -> MethodResult:
    verdict = BudgetVerdict.NOT_RESOLVED
    return MethodResult(
        method.name, method.label, method.opens, verdict, f"{verdict.value}: {reason}", ()
    )
