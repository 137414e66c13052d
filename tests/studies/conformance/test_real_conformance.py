"""Conformance of real servers: which of them keeps a budget, set in which place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from real_servers import TEMPLATES
from server_scripted import NANO

from pytest_tokenbudget.engines.server.engine import ServerEngine
from pytest_tokenbudget.engines.server.server_facts import probe
from pytest_tokenbudget.settings.endpoints import Endpoint
from pytest_tokenbudget.studies.conformance.analysis import (
    Behaviour,
    BudgetVerdict,
    LimitFinding,
    MethodResult,
)
from pytest_tokenbudget.studies.conformance.budget_methods import BUDGET_METHODS
from pytest_tokenbudget.studies.conformance.limits import LIMIT_PROBES
from pytest_tokenbudget.studies.conformance.overflow import Case
from pytest_tokenbudget.studies.conformance.probe_context import ProbeContext
from pytest_tokenbudget.studies.conformance.prompt_visibility import (
    PromptFiller,
    VisibilityProbe,
    where_cut,
)
from pytest_tokenbudget.studies.conformance.thinking import probe_method

pytest_plugins = ["servers"]

BUDGET = 16
PROMPTS = 6
# An end exactly at the cap is called "length".
BROKEN = {"serve": ("boundary",)}
# A prompt a little and twice too long; with its budget, and the budget alone; four at once.
REFUSED, CAPPED, WHOLE = Behaviour.REFUSED, Behaviour.CAPPED, Behaviour.WHOLE
BEYOND = {
    "serve": (WHOLE, Behaviour.NOT_RESOLVED, WHOLE, Behaviour.NOT_ASKED, WHOLE),
    "llamacpp": (REFUSED, REFUSED, CAPPED, CAPPED, WHOLE),
    "vllm": (REFUSED, REFUSED, CAPPED, REFUSED, WHOLE),
}


@pytest.fixture
def bench_at() -> Iterator[Callable[..., ProbeContext]]:
    """A function that makes a bench of a server; its engine ends with the test."""
    engines = []

    def make(real) -> ProbeContext:
        endpoint = Endpoint((real.url,), real.model, "auto")
        spec = replace(NANO, endpoint=endpoint)
        engines.append(ServerEngine(spec, probe(endpoint)))
        return ProbeContext(engines[-1], spec, size=PROMPTS)

    yield make
    for engine in engines:
        engine.close()


def with_budget(bench: ProbeContext, name: str) -> MethodResult:
    return probe_method(bench, replace(BUDGET_METHODS[name], budgets=(BUDGET,)))


def assert_enforced(found: MethodResult) -> None:
    assert found.verdict is BudgetVerdict.ENFORCED, found.sentence
    under, without = found.budgets
    assert under.budget == BUDGET
    assert under.kept == under.informative == PROMPTS
    most = BUDGET + found.slack
    assert max(each.thinking for each in under.observations) <= most
    assert min(each.thinking for each in without.observations) > most


def assert_ignored(found: MethodResult) -> None:
    """To the last token, and without an error: that is what must be found out."""
    assert found.verdict is BudgetVerdict.IGNORED, found.sentence
    under, without = found.budgets
    assert under.budget == BUDGET
    assert (under.same, under.kept, under.informative) == (PROMPTS, 0, PROMPTS)
    assert under.mean_thinking == without.mean_thinking > BUDGET + found.slack
    assert found.unknown_fields == "dropped"


def test_vllm_keeps_a_budget_at_the_top_level_and_drops_it_in_template_variables(
    bench_at, vllm_server
):
    bench = bench_at(vllm_server)
    top = with_budget(bench, "thinking_token_budget")
    assert_enforced(top)
    assert top.budgets[0].request["thinking_token_budget"] == BUDGET
    template = with_budget(bench, "template-thinking_token_budget")
    assert_ignored(template)
    assert template.budgets[0].request["chat_template_kwargs"] == {"thinking_token_budget": BUDGET}


@pytest.mark.llamacpp
def test_llamacpp_keeps_a_budget_where_its_template_shows_thinking(bench_at, start_server):
    found = with_budget(bench_at(start_server("llamacpp", thinking=True)), "thinking_budget_tokens")
    assert_enforced(found)
    assert found.budgets[0].request["thinking_budget_tokens"] == BUDGET


@pytest.mark.llamacpp
def test_llamacpp_where_the_prompt_opens_thinking(bench_at, start_server, tmp_path):
    """Its template, not the one that lies here, says whether the prompt does."""
    begins = "'<|im_start|>assistant\\n"
    text = (TEMPLATES / "qwen3.jinja").read_text()
    assert text.count(f"{begins}'") == 1
    opening = tmp_path / "opening.jinja"
    opening.write_text(text.replace(f"{begins}'", f"{begins}<think>\\n'"))
    started = start_server("llamacpp", thinking=True, template=opening)
    found = with_budget(bench_at(started), "thinking_budget_tokens")
    assert found.prompt_opens
    assert_enforced(found)


@pytest.mark.llamacpp
def test_llamacpp_drops_the_same_budget_where_it_does_not(bench_at, start_server):
    started = start_server("llamacpp", options=("--reasoning", "on"))
    found = with_budget(bench_at(started), "thinking_budget_tokens")
    assert_ignored(found)


@pytest.mark.llamacpp
def test_a_budget_of_the_whole_server_is_seen_without_asking_for_one(bench_at, start_server):
    started = start_server("llamacpp", thinking=True, options=("--reasoning-budget", "32"))
    found = probe_method(bench_at(started), "reasoning-budget-flag")
    assert "end their thinking at exactly 34 tokens, the tags counted" in found.sentence


@pytest.mark.parametrize("limit", ["max_tokens", "boundary", "finish_reason", "usage"])
def test_limits(bench_at, server, limit):
    found = LIMIT_PROBES[limit](bench_at(server))
    broken = limit in BROKEN.get(server.kind, ())
    assert found.finding is (LimitFinding.BROKEN if broken else LimitFinding.KEPT), found.sentence
    assert found.evidence


def overflow(bench: ProbeContext) -> tuple[LimitFinding, dict[str, Behaviour]]:
    found = LIMIT_PROBES["overflow"](bench)
    assert found.evidence
    return found.finding, {case.case: case.behaviour for case in found.cases}


def test_what_happens_beyond_the_context(bench_at, server):
    """A prompt that is twice too long for a model shows nothing: it understands nothing of it."""
    finding, cases = overflow(bench_at(server))
    assert cases == dict(zip(Case, BEYOND[server.kind], strict=True))
    assert finding is (LimitFinding.BROKEN if server.kind == "serve" else LimitFinding.KEPT)


@pytest.mark.llamacpp
def test_a_context_shift_drops_the_beginning(bench_at, start_server):
    started = start_server("llamacpp", context=1024, slots=1, options=("--context-shift",))
    finding, cases = overflow(bench_at(started))
    assert finding is LimitFinding.BROKEN
    assert cases[Case.PROMPT] is REFUSED
    assert cases[Case.BUDGET] is Behaviour.CUT_LEFT


@pytest.mark.llamacpp
def test_slots_that_share_a_context_fail_together(bench_at, start_server):
    """Each is said to have all of it."""
    options = ("--kv-unified",)
    bench = bench_at(start_server("llamacpp", context=256, slots=4, options=options))
    assert bench.engine.context == 1024
    finding, cases = overflow(bench)
    assert finding is LimitFinding.BROKEN
    assert cases == dict(
        zip(Case, (REFUSED, REFUSED, CAPPED, CAPPED, Behaviour.FAILED), strict=True)
    )


@pytest.mark.parametrize(
    ("side", "behaviour"), [("left", Behaviour.CUT_LEFT), ("right", Behaviour.CUT_RIGHT)]
)
def test_where_a_real_server_was_told_to_cut_is_found_out(bench_at, vllm_server, side, behaviour):
    """VLLM keeps so many tokens where a request says so."""
    bench = bench_at(vllm_server)
    plain = bench.engine.ask

    def cutting(asks, at_once=1):
        fields = {"truncate_prompt_tokens": 2000, "truncation_side": side}
        return plain([replace(ask, fields=fields) for ask in asks], at_once)

    bench.engine.ask = cutting
    look = VisibilityProbe(bench, PromptFiller(bench)).view(bench.engine.context + 64)
    found, why = where_cut(look)
    assert found is behaviour, why
    assert look.counted == 2000
    assert "2,000" in look.kept
