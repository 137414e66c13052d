"""Conformance of real servers: which of them keeps a budget, set in which place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from real_servers import TEMPLATES
from server_scripted import NANO

from pytest_tokenbudget.conformance.bench import Bench
from pytest_tokenbudget.conformance.limits import LIMIT_PROBES
from pytest_tokenbudget.conformance.results import Finding, Verdict, WayResult
from pytest_tokenbudget.conformance.thinking import probe_way
from pytest_tokenbudget.conformance.ways import WAYS
from pytest_tokenbudget.endpoints import Endpoint
from pytest_tokenbudget.engines.server.engine import ServerEngine
from pytest_tokenbudget.engines.server.facts import probe

pytest_plugins = ["servers"]

BUDGET = 16
PROMPTS = 6
# An end exactly at the cap is called "length", and prompts beyond the context are answered.
BROKEN = {"serve": ("boundary", "overflow")}


@pytest.fixture
def bench_at() -> Iterator[Callable[..., Bench]]:
    """A function that makes a bench of a server; its engine ends with the test."""
    engines = []

    def make(real) -> Bench:
        endpoint = Endpoint((real.url,), real.model, "auto")
        spec = replace(NANO, endpoint=endpoint)
        engines.append(ServerEngine(spec, probe(endpoint)))
        return Bench(engines[-1], spec, size=PROMPTS)

    yield make
    for engine in engines:
        engine.close()


def with_budget(bench: Bench, name: str) -> WayResult:
    return probe_way(bench, replace(WAYS[name], budgets=(BUDGET,)))


def assert_enforced(found: WayResult) -> None:
    assert found.verdict is Verdict.ENFORCED, found.sentence
    under, without = found.budgets
    assert under.budget == BUDGET
    assert under.kept == under.informative == PROMPTS
    most = BUDGET + found.slack
    assert max(each.thinking for each in under.observations) <= most
    assert min(each.thinking for each in without.observations) > most


def assert_ignored(found: WayResult) -> None:
    """To the last token, and without an error: that is what must be found out."""
    assert found.verdict is Verdict.IGNORED, found.sentence
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
    found = probe_way(bench_at(started), "reasoning-budget-flag")
    assert "end their thinking at exactly 34 tokens, the tags counted" in found.sentence


@pytest.mark.parametrize("limit", ["max_tokens", "boundary", "finish_reason", "usage", "overflow"])
def test_limits(bench_at, server, limit):
    found = LIMIT_PROBES[limit](bench_at(server))
    broken = limit in BROKEN.get(server.kind, ())
    assert found.finding is (Finding.BROKEN if broken else Finding.KEPT), found.sentence
    assert found.evidence
