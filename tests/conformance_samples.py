"""Hand-made results of the conformance eval, as its report and its gates take them."""

from __future__ import annotations

from pytest_tokenbudget.studies.conformance.analysis import (
    Behaviour,
    BudgetResult,
    BudgetVerdict,
    ConformanceReport,
    LimitFinding,
    LimitResult,
    MethodResult,
    NotAsked,
    Observation,
    OverflowCase,
    Sight,
)

LONG = (300, 420, 500, 610)
ABOUT = {
    "model": "nano-reasoner",
    "engine": "vllm",
    "engine_version": "0.32.0",
    "source": "http://127.0.0.1:8000/v1",
    "identity": {"served": "nano"},
}


def observation(prompt, thinking, **changes):
    given = {
        "prompt": prompt,
        "thinking": thinking,
        "answer": 20,
        "opened": thinking > 0,
        "closed": True,
        "reopened": False,
        "spilled": False,
        "capped": False,
        "finish_reason": "stop",
    }
    return Observation(**given | changes)


def budget_result(budget, thinking=LONG, **changes):
    within = [budget is None or used <= budget + 2 for used in thinking]
    return BudgetResult(
        budget=budget,
        observations=tuple(observation(n, used) for n, used in enumerate(thinking)),
        informative=0 if budget is None else len(thinking),
        kept=0 if budget is None else sum(within),
        request={"thinking_token_budget": budget},
        **changes,
    )


def way(name, verdict=BudgetVerdict.ENFORCED, sentence="as its evidence says", **changes):
    def used(budget):
        match verdict:
            case BudgetVerdict.ENFORCED:
                return tuple(min(each, budget + 1) for each in LONG)
            case BudgetVerdict.SOFT:
                return tuple((each + budget) // 2 for each in LONG)
            case BudgetVerdict.INVERTED:
                return tuple(each * 3 for each in LONG)
        return LONG

    budgets = [budget_result(b, used(b)) for b in (0, 1, 32, 256)]
    if verdict is BudgetVerdict.REFUSED:
        budgets = [BudgetResult(b, error="unknown field") for b in (0, 1, 32, 256)]
    given = {
        "way": name,
        "label": f"{name} at the top level",
        "prompt_opens": True,
        "verdict": verdict,
        "sentence": f"{verdict}: {sentence}",
        "budgets": (*budgets, budget_result(None)),
        "unknown_fields": "dropped",
    }
    return MethodResult(**given | changes)


def limit(name, finding=LimitFinding.KEPT, **changes):
    given = {"probe": name, "finding": finding, "sentence": f"{name}: {finding}", "checked": 8}
    return LimitResult(**given | changes)


CASES = (
    OverflowCase(
        "prompt a little too long", Behaviour.REFUSED, "refused", prompt=2112, max_tokens=48
    ),
    OverflowCase(
        "prompt twice too long",
        Behaviour.CUT_LEFT,
        "answered, the prompt cut at the left, without a word",
        broken=True,
        prompt=4096,
        max_tokens=48,
        counted=2000,
        output=31,
        finish_reason="stop",
        sights={"beginning": Sight.UNSEEN, "middle": Sight.UNTOLD, "end": Sight.SEEN},
        kept="the last 2,000 tokens",
    ),
    OverflowCase(
        "prompt and budget too long",
        Behaviour.CAPPED,
        "the output ends at the context and says 'length'",
        prompt=2024,
        max_tokens=64,
        output=24,
        finish_reason="length",
    ),
    OverflowCase("budget alone too long", Behaviour.NOT_ASKED, "not asked, for a reason"),
)
LIMITS = (
    limit("max_tokens"),
    limit("boundary"),
    limit("stop_strings"),
    limit("n"),
    limit("seeds"),
    limit("prefix_alone"),
    limit(
        "prefix_under_load",
        LimitFinding.DIFFERS,
        sentence="3 of 16 outputs go another way where others are in flight, first at token 12",
        checked=16,
        failed=3,
        rate=(0.1875, 0.066, 0.43),
    ),
    limit("usage"),
    limit(
        "finish_reason",
        LimitFinding.BROKEN,
        sentence="2 of 8 outputs end by their end-of-sequence token and are called 'length'",
        failed=2,
        evidence=({"request": {"max_tokens": 16}, "finish_reason": "length"},),
    ),
    limit("overflow", LimitFinding.KEPT, sentence="beyond the context: refused", cases=CASES),
)
WAYS = (
    way("thinking_token_budget", sentence="1,024 of 1,024 kept"),
    way("chat_template_kwargs.thinking_budget", BudgetVerdict.SOFT),
    way("chat_template_kwargs.max_thinking_tokens", BudgetVerdict.IGNORED),
    way("custom_params.thinking_budget", BudgetVerdict.NOT_RESOLVED),
    way("/no_think", BudgetVerdict.INVERTED, sentence="it thinks three times as long"),
    way("reasoning.max_tokens", BudgetVerdict.REFUSED),
)


def make_report(**changes):
    given = {
        "alias": "nano-reasoner",
        "engine": "vllm",
        "about": ABOUT,
        "limits": LIMITS,
        "methods": WAYS,
        "not_asked": (NotAsked("--reasoning-budget", "server flag", "only llama.cpp has it"),),
    }
    return ConformanceReport(**given | changes)
