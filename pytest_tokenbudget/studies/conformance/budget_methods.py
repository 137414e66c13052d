"""The ways in which engines are said to take a thinking budget, as data.

A new way is one more entry of :data:`BUDGET_METHODS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from pytest_tokenbudget.core.probes import Ask
from pytest_tokenbudget.models.spec import ModelSpec
from pytest_tokenbudget.studies.conformance.probe_context import (
    ProbeContext,
    with_fields,
    with_suffix,
)

if TYPE_CHECKING:
    from pytest_tokenbudget.dry_run.parts import DryRunPlanner

BUDGETS = (0, 1, 32, 256)
OFF = (0,)
# Nobody has a field of this name.
UNKNOWN = "tokenbudget_no_such_field"

Fields = Mapping[str, Any]

ANY = frozenset({"*"})
_VLLM = frozenset({"vllm"})
_SGLANG = frozenset({"sglang"})
_LLAMACPP = frozenset({"llamacpp"})
# A server that does not say what it is: a gateway or a hosted model.
_HOSTED = frozenset({"openai", "server"})
_SERVERS = frozenset({"vllm", "sglang", "llamacpp", "serve"}) | _HOSTED


@dataclass(frozen=True)
class BudgetMethod:
    """One way to set a thinking budget.

    Attributes:
        name: Its name, fit for test ids.
        label: For people: which field, where.
        engines: Kinds of engines that are said to know it; ``*`` is all.
        put: Fields of the request for a budget; None is no budget.
        where: Whether the fields are the request's own, or variables of the chat template.
        suffix: Text behind the last message of the user, where there is a budget.
        budgets: Budgets to try; a switch knows 0 only.
        opens: Whether the prompt opens the thinking block, where its template does not.
        prefilled: Whether it is opened by an unfinished message of the assistant, which the chat
            API goes on with, and not by token ids.
        unknown: The same with a field that does not exist; None where that says nothing.
        server_wide: Whether it is set when the server starts and not by request.
    """

    name: str
    label: str
    engines: frozenset[str]
    put: Callable[[int | None], Fields] = lambda budget: {}
    where: Literal["fields", "template"] = "fields"
    suffix: str = ""
    budgets: tuple[int, ...] = BUDGETS
    opens: bool = False
    prefilled: bool = False
    unknown: Fields | None = None
    server_wide: bool = False

    def known_by(self, engine: str) -> bool:
        """Whether engines of this kind are said to know it."""
        return "*" in self.engines or engine in self.engines

    def ask(self, probe_context: ProbeContext, prompt: int, budget: int | None) -> Ask:
        """The request of one prompt under a budget; None is no budget."""
        fields = self.put(budget)
        ask = self._bare(probe_context, prompt, self.suffix if budget is not None else "")
        if self.where == "template":
            return with_fields(ask, {}, fields)
        return with_fields(ask, fields, {})

    def ask_unknown(self, probe_context: ProbeContext, prompt: int) -> Ask | None:
        """A request with a field that does not exist, where this way's field would stand."""
        if self.unknown is None:
            return None
        ask = self.ask(probe_context, prompt, None)
        if self.where == "template":
            return with_fields(ask, {}, self.unknown)
        return with_fields(ask, self.unknown, {})

    def _bare(self, probe_context: ProbeContext, prompt: int, suffix: str) -> Ask:
        messages = with_suffix(probe_context.prompts[prompt], suffix)
        if not self.opens:
            return Ask(probe_context.cap, messages)
        if not self.prefilled:
            return Ask(probe_context.cap, prompt_ids=probe_context.opened_ids(messages))
        begun = {"role": "assistant", "content": f"{probe_context.form.open}\n"}
        options = {"add_generation_prompt": False, "continue_final_message": True}
        return Ask(probe_context.cap, (*messages, begun), fields=options)


def _field(*path: str) -> Callable[[int | None], Fields]:
    """Puts the budget at a place in the request, and nothing where there is none."""

    def put(budget: int | None) -> Fields:
        return {} if budget is None else _nested(path, budget)

    return put


def _nested(path: tuple[str, ...], value: object) -> dict[str, Any]:
    for name in reversed(path):
        value = {name: value}
    return dict([*value.items()]) if isinstance(value, dict) else {}


def _off(name: str) -> Callable[[int | None], Fields]:
    return lambda budget: {} if budget is None else {name: False}


def _effort(budget: int | None) -> Fields:
    if budget is None:
        return {}
    words = {0: "none", 1: "minimal", 32: "low"}
    return {"reasoning_effort": words.get(budget, "medium")}


def _dashscope(budget: int | None) -> Fields:
    if budget is None:
        return {"enable_thinking": True}
    if budget == 0:
        return {"enable_thinking": False}
    return {"enable_thinking": True, "thinking_budget": budget}


def _openrouter(budget: int | None) -> Fields:
    return {"reasoning": {"enabled": True} if budget is None else {"max_tokens": budget}}


def _anthropic(budget: int | None) -> Fields:
    if budget is None:
        return {}
    if budget == 0:
        return {"thinking": {"type": "disabled"}}
    return {"thinking": {"type": "enabled", "budget_tokens": budget}}


def _top(name: str, engines: frozenset[str], *path: str) -> BudgetMethod:
    place = ".".join(path)
    return BudgetMethod(
        name,
        f"{place}, top level of the request",
        engines,
        _field(*path),
        unknown=_nested((*path[:-1], UNKNOWN), 32),
    )


def _template(name: str) -> BudgetMethod:
    return BudgetMethod(
        f"template-{name}",
        f"{name} in chat_template_kwargs",
        ANY,
        _field(name),
        "template",
        unknown={UNKNOWN: 32},
    )


def _switch(name: str) -> BudgetMethod:
    return BudgetMethod(
        f"template-{name}",
        f"{name}=false in chat_template_kwargs",
        ANY,
        _off(name),
        "template",
        budgets=OFF,
        unknown={UNKNOWN: False},
    )


def _opened(method: BudgetMethod, prefilled: bool = False) -> BudgetMethod:
    how, end = ("begun message", "begun") if prefilled else ("token ids", "opened")
    return replace(
        method,
        name=f"{method.name}-{end}",
        label=f"{method.label}, prompt opens thinking ({how})",
        opens=True,
        prefilled=prefilled,
    )


_VLLM_TOP = _top("thinking_token_budget", _VLLM, "thinking_token_budget")
_SGLANG_TOP = _top("custom_params", _SGLANG, "custom_params", "thinking_budget")
_LLAMACPP_TOP = _top("thinking_budget_tokens", _LLAMACPP, "thinking_budget_tokens")
_NO_THINK = BudgetMethod(
    "no_think",
    "/no_think behind the last message of the user",
    ANY,
    suffix=" /no_think",
    budgets=OFF,
)

_ALL = (
    _VLLM_TOP,
    _opened(_VLLM_TOP),
    BudgetMethod(
        "extra_body",
        "thinking_token_budget in a literal field extra_body, as no client unpacks it",
        _VLLM | _HOSTED,
        _field("extra_body", "thinking_token_budget"),
        unknown={"extra_body": {UNKNOWN: 32}},
    ),
    BudgetMethod(
        "vllm_xargs",
        "thinking_token_budget in vllm_xargs (extra_args)",
        _VLLM,
        _field("vllm_xargs", "thinking_token_budget"),
        unknown={"vllm_xargs": {UNKNOWN: 32}},
    ),
    replace(_template("thinking_token_budget"), engines=_VLLM),
    _SGLANG_TOP,
    _opened(_SGLANG_TOP),
    _LLAMACPP_TOP,
    _opened(_LLAMACPP_TOP),
    _opened(_LLAMACPP_TOP, prefilled=True),
    BudgetMethod(
        "reasoning-budget-flag",
        "--reasoning-budget of llama.cpp's server",
        _LLAMACPP,
        budgets=(),
        server_wide=True,
    ),
    BudgetMethod(
        "reasoning_effort",
        "reasoning_effort none, minimal, low, medium for 0, 1, 32, 256",
        _SERVERS,
        _effort,
        unknown={UNKNOWN: "low"},
    ),
    BudgetMethod(
        "dashscope",
        "enable_thinking and thinking_budget, top level, as DashScope has them",
        _HOSTED,
        _dashscope,
        unknown={UNKNOWN: 32},
    ),
    BudgetMethod(
        "openrouter",
        "reasoning.max_tokens, as OpenRouter has it",
        _HOSTED,
        _openrouter,
        unknown={"reasoning": {UNKNOWN: 32}},
    ),
    BudgetMethod(
        "anthropic",
        "thinking.budget_tokens, as Anthropic has it",
        _HOSTED,
        _anthropic,
        unknown={"thinking": {UNKNOWN: 32}},
    ),
    _switch("enable_thinking"),
    replace(_switch("thinking"), engines=frozenset()),
    _template("thinking_budget"),
    _template("max_thinking_tokens"),
    _NO_THINK,
    replace(_opened(_NO_THINK), engines=frozenset({"transformers", "vllm"})),
)
BUDGET_METHODS: Mapping[str, BudgetMethod] = {method.name: method for method in _ALL}


def methods_for(engine_name: str, spec: ModelSpec) -> tuple[str, ...]:
    """The ways that an engine is said to know, for a model, in fixed order.

    Args:
        engine_name: The kind of engine.
        spec: The model; a template's own switch is tried where it has another name.
    """
    switch = spec.thinking.switch if spec.thinking else None
    own = f"template-{switch}"
    return tuple(
        name
        for name, method in BUDGET_METHODS.items()
        if method.known_by(engine_name) or name == own
    )


def probes_note(planner: DryRunPlanner) -> str:
    """How many outputs the probes are at most, in a sentence."""
    from pytest_tokenbudget.models.choice import engine_of
    from pytest_tokenbudget.studies.conformance.budget_methods import BUDGET_METHODS, methods_for
    from pytest_tokenbudget.studies.conformance.probe_context import CAP, PROMPTS, PUZZLES

    spec = planner.spec
    facts = spec.endpoint.facts if spec.endpoint is not None else None
    engine = facts.kind if facts is not None else engine_of(planner.settings, spec)
    methods = [BUDGET_METHODS[name] for name in methods_for(engine, spec)]
    # Prompts are chosen once; each way asks them without a budget twice, and with each budget.
    outputs = (
        PROMPTS + 2 + len(PUZZLES) + PROMPTS * sum(2 + len(method.budgets) for method in methods)
    )
    cap = min(CAP, spec.context or CAP)
    return (
        "conformance: its probes are generated anew in every run, and are in none of these "
        f"numbers. Those of thinking budgets are at most {outputs:,} outputs of at most {cap:,} "
        "tokens; those of limits are shorter"
    )
