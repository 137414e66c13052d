"""Probes of thinking budgets, with engines that fail as real ones have failed."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from conformance_fakes import CLOSE, FORMAT, OPEN, SPEC, FakeEngine, Thought, Tokens, bench, words

from pytest_tokenbudget.core.probes import Ask, ProbeOutput, Reply
from pytest_tokenbudget.models.spec import ModelSpec
from pytest_tokenbudget.studies.conformance.analysis import BudgetVerdict, MethodResult
from pytest_tokenbudget.studies.conformance.budget_methods import (
    BUDGET_METHODS,
    UNKNOWN,
    methods_for,
)
from pytest_tokenbudget.studies.conformance.thinking import probe_method
from pytest_tokenbudget.texts.thinking_blocks import Closer, ThinkingFormat

TOP = "thinking_token_budget"


def keeps(thought: Thought) -> Thought:
    """Keeps a budget at the top level to the token."""
    budget = thought.budget()
    return thought if budget is None else replace(thought, thinking=min(thought.thinking, budget))


def probe(engine: FakeEngine, way: str = TOP) -> MethodResult:
    return probe_method(bench(engine), way)


def said(result: MethodResult, budget: int) -> str:
    return "\n".join(each for each in result.remarks if each.startswith(f"budget {budget}:"))


def test_a_budget_that_is_kept() -> None:
    result = probe(FakeEngine(keeps))
    assert result.verdict is BudgetVerdict.ENFORCED
    assert [each.budget for each in result.budgets] == [0, 1, 32, 256, None]
    assert [each.informative for each in result.budgets[:4]] == [10, 10, 10, 0]
    assert [each.kept for each in result.budgets[:4]] == [10, 10, 10, 0]
    assert "256 tokens cannot tell" in result.sentence
    assert "budget 256: tells little" in said(result, 256)
    assert result.budgets[2].request["thinking_token_budget"] == 32
    assert all(each.closed and each.answer for each in result.budgets[2].observations)


def test_it_is_enforced_with_prompts_that_open_thinking_too() -> None:
    result = probe(FakeEngine(keeps), f"{TOP}-opened")
    assert result.verdict is BudgetVerdict.ENFORCED
    assert result.prompt_opens
    # Without the opening tag in the output it is one token less, and the line end.
    assert {each.thinking for each in result.budgets[2].observations} == {33}


@pytest.mark.parametrize("off", [-1, 1, 2])
def test_what_engines_count_differently_is_no_failing(off: int) -> None:
    def mind(thought: Thought) -> Thought:
        budget = thought.budget()
        if budget is None:
            return thought
        return replace(thought, thinking=min(thought.thinking, max(budget + off, 0)))

    assert probe(FakeEngine(mind)).verdict is BudgetVerdict.ENFORCED


def test_a_budget_that_is_exceeded_once_is_not_enforced() -> None:
    calls = itertools.count()

    def mind(thought: Thought) -> Thought:
        return thought if thought.budget() == 32 and next(calls) == 3 else keeps(thought)

    result = probe(FakeEngine(mind))
    assert result.verdict is BudgetVerdict.SOFT
    assert "9 of 10 within 32" in result.sentence


def test_dropped_in_template_variables() -> None:
    result = probe(FakeEngine(keeps), f"template-{TOP}")
    assert result.verdict is BudgetVerdict.IGNORED
    assert result.unknown_fields == "dropped"
    assert any("does not exist" in each for each in result.remarks)
    assert all(each.same == 10 for each in result.budgets[:4])
    assert "token for token" in result.sentence
    assert result.budgets[0].request["chat_template_kwargs"] == {TOP: 0}


def test_a_literal_extra_body_is_not_the_top_level() -> None:
    result = probe(FakeEngine(keeps), "extra_body")
    assert result.verdict is BudgetVerdict.IGNORED
    assert result.budgets[2].request["extra_body"] == {TOP: 32}


def test_a_hint_that_is_followed_somewhat() -> None:
    def mind(thought: Thought) -> Thought:
        hint = thought.ask.template.get("thinking_budget")
        return thought if hint is None else replace(thought, thinking=max(hint, 60))

    result = probe(FakeEngine(mind), "template-thinking_budget")
    assert result.verdict is BudgetVerdict.SOFT
    assert result.budgets[2].shorter == 10


def test_ignored_when_the_model_emits_its_own_tag() -> None:
    engine = FakeEngine(lambda thought: keeps(thought) if thought.opened else thought)
    assert probe(engine, TOP).verdict is BudgetVerdict.IGNORED
    assert probe(engine, f"{TOP}-opened").verdict is BudgetVerdict.ENFORCED


def test_thinking_that_is_entered_again_after_a_forced_close() -> None:
    def mind(thought: Thought) -> Thought | Tokens:
        if thought.budget() is None or thought.budget() >= thought.thinking:
            return thought
        whole = words(thought)
        place = 2 + thought.budget()
        return [*whole[:place], CLOSE, OPEN, *whole[place:]]

    result = probe(FakeEngine(mind))
    assert result.verdict is BudgetVerdict.IGNORED
    assert "opened again after its close, in 10 of 10" in said(result, 32)
    assert all(each.reopened for each in result.budgets[2].observations)


def test_thinking_that_goes_on_after_its_close() -> None:
    def mind(thought: Thought) -> Thought | Tokens:
        if thought.budget() is None or thought.budget() >= thought.thinking:
            return thought
        whole = words(thought)
        place = 2 + thought.budget()
        return [*whole[:place], CLOSE, *whole[place:]]

    result = probe(FakeEngine(mind))
    # The engine has closed the block where it should; it cannot do more, and that is not enough.
    assert result.verdict is BudgetVerdict.ENFORCED
    assert "but the model went on thinking after the close" in result.sentence
    assert "10 of 10 with 32 tokens" in result.sentence
    assert "went on after its close, in 10 of 10" in said(result, 32)
    assert {each.thinking for each in result.budgets[2].observations} == {35}
    for under, own in zip(
        result.budgets[2].observations, result.budgets[4].observations, strict=True
    ):
        assert under.thinking + under.spill == own.thinking + 1
        assert under.answer == own.answer


def test_thinking_that_moves_into_the_answer() -> None:
    def mind(thought: Thought) -> Thought:
        kept = keeps(thought)
        return replace(kept, answer=kept.answer + thought.thinking - kept.thinking)

    result = probe(FakeEngine(mind))
    assert result.verdict is BudgetVerdict.ENFORCED
    assert "answers grew" in said(result, 32)
    assert "answers grew" not in said(result, 256)


def test_budget_0_without_bound() -> None:
    result = probe(FakeEngine(lambda thought: keeps(thought) if thought.budget() else thought))
    assert result.verdict is BudgetVerdict.INVERTED
    assert "with 0 tokens it thinks" in result.sentence


def test_off_that_makes_it_think_longer() -> None:
    def mind(thought: Thought) -> Thought:
        off = thought.ask.template.get("enable_thinking") is False
        return replace(thought, thinking=thought.thinking * 2) if off else thought

    assert probe(FakeEngine(mind), "template-enable_thinking").verdict is BudgetVerdict.INVERTED


def test_reasoning_that_leaks_into_content() -> None:
    def leak(ask: Ask, reply: Reply) -> Reply:
        if ask.fields.get(TOP) != 0:
            return reply
        (choice,) = reply.choices
        return replace(reply, choices=(replace(choice, content="think>\n" + choice.content),))

    result = probe(FakeEngine(keeps, apart=True, reply=leak))
    assert result.verdict is BudgetVerdict.ENFORCED
    assert "stand in content, in 10 of 10" in said(result, 0)
    assert "stand in content" not in said(result, 32)


def test_tags_in_content_are_no_leak_where_nothing_is_set_apart() -> None:
    result = probe(FakeEngine(keeps))
    assert not any("stand in content" in each for each in result.remarks)


def test_no_answer_after_a_forced_close() -> None:
    def mind(thought: Thought) -> Thought:
        kept = keeps(thought)
        return kept if kept.thinking == thought.thinking else replace(kept, answer=0)

    result = probe(FakeEngine(mind))
    assert result.verdict is BudgetVerdict.ENFORCED
    assert "no answer followed" in said(result, 32)


def test_a_refused_field() -> None:
    engine = FakeEngine(refuses=lambda ask: "unknown parameter" if TOP in ask.fields else "")
    result = probe(engine)
    assert result.verdict is BudgetVerdict.REFUSED
    assert "unknown parameter" in result.sentence
    assert all(each.refused for each in result.budgets[:4])
    # One request a budget is enough to be refused.
    assert result.unknown_fields == "dropped"


def test_unknown_fields_that_are_refused() -> None:
    result = probe(FakeEngine(keeps, refuses=lambda ask: "no" if UNKNOWN in ask.fields else ""))
    assert result.verdict is BudgetVerdict.ENFORCED
    assert result.unknown_fields == "refused"


def test_budgets_that_are_refused_in_part() -> None:
    result = probe(
        FakeEngine(keeps, refuses=lambda a: "at least 1" if a.fields.get(TOP) == 0 else "")
    )
    assert result.verdict is BudgetVerdict.ENFORCED
    assert "refused (at least 1)" in said(result, 0)


def test_a_server_that_breaks_has_not_refused() -> None:
    def broken(ask: Ask, reply: Reply) -> Reply:
        return Reply(reply.sent, error="it broke", status=500) if TOP in ask.fields else reply

    result = probe(FakeEngine(reply=broken))
    assert result.verdict is BudgetVerdict.NOT_RESOLVED
    assert "it broke" in result.sentence


def test_a_model_that_hardly_thinks_tells_nothing() -> None:
    engine = FakeEngine(lambda thought: replace(thought, thinking=3))
    result = probe(engine)
    assert result.verdict is BudgetVerdict.NOT_RESOLVED
    assert "5 are needed" in result.sentence


def test_a_model_that_does_not_think_tells_nothing() -> None:
    result = probe(FakeEngine(lambda thought: ["it ", "is ", "4"]))
    assert result.verdict is BudgetVerdict.NOT_RESOLVED
    assert "does not think" in result.sentence


def test_a_way_that_switches_thinking_on_is_not_inverted() -> None:
    def mind(thought: Thought) -> Thought | Tokens:
        return keeps(thought) if thought.budget() else ["it ", "is ", "4"]

    assert probe(FakeEngine(mind)).verdict is BudgetVerdict.NOT_RESOLVED


def test_noise_is_not_taken_for_an_effect() -> None:
    calls = itertools.count()

    def mind(thought: Thought) -> Thought:
        return replace(thought, thinking=thought.thinking + (next(calls) * 37) % 50)

    result = probe(FakeEngine(mind))
    assert result.verdict is BudgetVerdict.IGNORED
    assert any("noise" in each for each in result.remarks)


def test_counted_from_text_where_there_are_no_ids() -> None:
    result = probe(FakeEngine(keeps, ids=False, apart=True))
    assert result.counted
    assert result.verdict is BudgetVerdict.ENFORCED
    assert {each.thinking for each in result.budgets[2].observations} == {35}
    assert (
        probe(FakeEngine(keeps, ids=False), f"{TOP}-opened").verdict is BudgetVerdict.NOT_RESOLVED
    )


def test_a_known_closing_sentence_is_not_thinking() -> None:
    sentence = " ".join(["enough"] * 30)
    form = replace(FORMAT, closers=(*FORMAT.closers, Closer("long", f"{sentence}\n{CLOSE}\n\n")))

    def mind(thought: Thought) -> Thought | Tokens:
        budget = thought.budget()
        if budget is None or budget >= thought.thinking:
            return thought
        whole = words(replace(thought, thinking=budget))
        place = whole.index(CLOSE)
        return [*whole[:place], *("enough " for _ in range(29)), "enough", "\n", *whole[place:]]

    engine = FakeEngine(mind)
    assert probe(engine).verdict is BudgetVerdict.SOFT
    from pytest_tokenbudget.studies.conformance.probe_context import ProbeContext

    knowing = ProbeContext(engine, replace(SPEC, thinking=form))
    assert probe_method(knowing, TOP).verdict is BudgetVerdict.ENFORCED


def test_a_budget_of_the_servers_own_is_seen() -> None:
    engine = FakeEngine(lambda thought: replace(thought, thinking=32))
    result = probe(engine, "reasoning-budget-flag")
    assert result.verdict is BudgetVerdict.NOT_RESOLVED
    assert "exactly 35 tokens" in result.sentence
    assert any("of its own" in each for each in probe(engine).remarks)


def test_without_a_flag_the_user_is_told_what_to_do() -> None:
    result = probe(FakeEngine(), "reasoning-budget-flag")
    assert result.verdict is BudgetVerdict.NOT_RESOLVED
    assert "start it with --reasoning-budget 32" in result.sentence


def test_a_begun_message_that_opens_nothing_is_found_out() -> None:
    # The template drops what was begun, so the model answers at once.
    engine = FakeEngine(lambda thought: ["it ", "is ", "4"])
    result = probe(engine, "thinking_budget_tokens-begun")
    assert result.verdict is BudgetVerdict.NOT_RESOLVED
    assert "does not open thinking" in result.sentence


def test_no_think_stands_behind_the_users_words() -> None:
    def mind(thought: Thought) -> Thought:
        user = [each for each in thought.ask.messages if each["role"] == "user"]
        off = bool(user) and user[-1]["content"].endswith(" /no_think")
        return replace(thought, thinking=0) if off else thought

    assert probe(FakeEngine(mind), "no_think").verdict is BudgetVerdict.ENFORCED


def test_nested_fields_stand_in_their_place() -> None:
    def mind(thought: Thought) -> Thought:
        budget = thought.ask.fields.get("custom_params", {}).get("thinking_budget")
        return thought if budget is None else replace(thought, thinking=budget)

    assert probe(FakeEngine(mind), "custom_params").verdict is BudgetVerdict.ENFORCED


def test_the_baseline_is_asked_once_for_all_ways() -> None:
    engine = FakeEngine(keeps)
    desk = bench(engine)
    probe_method(desk, TOP)
    before = engine.calls
    probe_method(desk, "extra_body")
    # Four budgets of ten prompts, and the field that does not exist.
    assert engine.calls - before == 41


def test_a_begun_message_opens_thinking_where_ids_cannot() -> None:
    ask = BUDGET_METHODS["thinking_budget_tokens-begun"].ask(bench(FakeEngine()), 0, 32)
    assert ask.messages[-1] == {"role": "assistant", "content": f"{OPEN}\n"}
    assert ask.fields == {
        "add_generation_prompt": False,
        "continue_final_message": True,
        "thinking_budget_tokens": 32,
    }


@pytest.mark.parametrize(
    ("way", "budget", "fields"),
    [
        ("dashscope", None, {"enable_thinking": True}),
        ("dashscope", 0, {"enable_thinking": False}),
        ("dashscope", 32, {"enable_thinking": True, "thinking_budget": 32}),
        ("openrouter", None, {"reasoning": {"enabled": True}}),
        ("openrouter", 32, {"reasoning": {"max_tokens": 32}}),
        ("anthropic", 0, {"thinking": {"type": "disabled"}}),
        ("anthropic", 32, {"thinking": {"type": "enabled", "budget_tokens": 32}}),
        ("reasoning_effort", 0, {"reasoning_effort": "none"}),
        ("reasoning_effort", None, {}),
        ("vllm_xargs", 1, {"vllm_xargs": {TOP: 1}}),
    ],
)
def test_fields_as_they_are_documented(way: str, budget: int | None, fields: object) -> None:
    assert BUDGET_METHODS[way].put(budget) == fields


def test_ways_by_engine() -> None:
    assert TOP in methods_for("vllm", SPEC)
    assert TOP not in methods_for("llamacpp", SPEC)
    assert "thinking_budget_tokens" in methods_for("llamacpp", SPEC)
    assert "template-enable_thinking" in methods_for("transformers", SPEC)
    assert "anthropic" in methods_for("openai", SPEC)
    assert "template-thinking" not in methods_for("vllm", SPEC)
    other = ModelSpec("m", "m", thinking=ThinkingFormat(switch="thinking"))
    assert "template-thinking" in methods_for("vllm", other)
    assert methods_for("transformers", ModelSpec("m", "m", thinking=None))


def test_choices_without_ids_are_told_apart_by_their_text() -> None:
    desk = bench(FakeEngine())
    assert desk.key(ProbeOutput(None, "a", "stop", text="a")) == "a"
    assert desk.key(ProbeOutput((5, 0), "a", "stop", text="a")) == (5,)
