"""Conformance of the in-process engine, with the embedded model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pytest_tokenbudget.core.probes import Ask, Askable
from pytest_tokenbudget.engines.transformers.engine import TransformersEngine
from pytest_tokenbudget.models.resolution import DEFAULT_MODEL, load_catalogue, resolve_model
from pytest_tokenbudget.studies.conformance.analysis import Behaviour, BudgetVerdict, LimitFinding
from pytest_tokenbudget.studies.conformance.limits import LIMIT_PROBES
from pytest_tokenbudget.studies.conformance.probe_context import ProbeContext
from pytest_tokenbudget.studies.conformance.thinking import probe_method

MESSAGES = ({"role": "user", "content": "Tom has 12 pens. Tom finds 7 pens. How many pens now?"},)


@pytest.fixture(scope="module")
def engine() -> Iterator[TransformersEngine]:
    spec = resolve_model(DEFAULT_MODEL, load_catalogue())
    made = TransformersEngine(spec, device="cpu")
    yield made
    made.close()


@pytest.fixture(scope="module")
def desk(engine: TransformersEngine) -> ProbeContext:
    return ProbeContext(engine, resolve_model(DEFAULT_MODEL, load_catalogue()), size=5)


def test_the_transformers_engine_can_be_probed(engine: TransformersEngine) -> None:
    assert isinstance(engine, Askable)
    assert engine.engine_name == "transformers"


def test_replies_are_in_the_order_of_the_asks(engine: TransformersEngine) -> None:
    asks = [Ask(cap, MESSAGES, temperature=heat, seed=3) for cap, heat in [(3, 0), (2, 1), (1, 0)]]
    replies = engine.ask(asks, at_once=3)
    assert [len(reply.choices[0].ids or ()) for reply in replies] == [3, 2, 1]
    assert [reply.sent["max_tokens"] for reply in replies] == [3, 2, 1]


def test_template_variables_reach_the_template(engine: TransformersEngine) -> None:
    plain, off = engine.ask(
        [Ask(4, MESSAGES), Ask(4, MESSAGES, template={"enable_thinking": False})]
    )
    assert plain.prompt_tokens is not None
    assert off.prompt_tokens is not None
    assert off.prompt_tokens > plain.prompt_tokens
    assert not off.choices[0].opened
    assert off.sent["template"] == {"enable_thinking": False}


def test_prompt_ids_that_open_thinking_are_seen(engine: TransformersEngine) -> None:
    ids = engine.encode(engine.render(MESSAGES).text + "<think>\n")
    (reply,) = engine.ask([Ask(4, prompt_ids=ids)])
    assert reply.choices[0].opened


def test_n_gives_different_samples_that_repeat(engine: TransformersEngine) -> None:
    ask = Ask(24, ({"role": "user", "content": "Write about rain."},), n=3, temperature=1.5, seed=1)
    first, second = engine.ask([ask])[0], engine.ask([ask])[0]
    assert len({choice.ids for choice in first.choices}) > 1
    assert first.choices == second.choices


@pytest.mark.parametrize(
    "ask",
    [
        Ask(4, MESSAGES, fields={"thinking_token_budget": 3}),
        Ask(0, MESSAGES),
        Ask(5000, MESSAGES),
        Ask(4, ({"role": "user", "content": "one " * 4000},)),
    ],
)
def test_fields_and_caps_that_the_engine_does_not_take_are_refused(
    engine: TransformersEngine, ask: Ask
) -> None:
    good = Ask(1, MESSAGES)
    bad, other = engine.ask([ask, good], at_once=2)
    assert bad.refused
    assert bad.error
    assert not bad.choices
    assert other.choices


@pytest.mark.slow
def test_variables_that_the_template_does_not_name_are_ignored(desk: ProbeContext) -> None:
    result = probe_method(desk, "template-max_thinking_tokens")
    assert result.verdict is BudgetVerdict.IGNORED
    assert result.unknown_fields == "dropped"
    # All are the very same, token for token.
    assert [each.same for each in result.budgets[:4]] == [5, 5, 5, 5]
    assert not result.counted


@pytest.mark.slow
def test_the_thinking_switch_of_the_template_is_kept(desk: ProbeContext) -> None:
    result = probe_method(desk, "template-enable_thinking")
    assert result.verdict is BudgetVerdict.ENFORCED
    assert max(each.thinking for each in result.budgets[0].observations) == 0


@pytest.mark.parametrize("name", ["max_tokens", "n", "seeds", "finish_reason"])
def test_token_limits_are_kept(desk: ProbeContext, name: str) -> None:
    assert LIMIT_PROBES[name](desk).finding is LimitFinding.KEPT


def test_prompts_beyond_the_context_are_refused(desk: ProbeContext) -> None:
    *alone, together = LIMIT_PROBES["overflow"](desk).cases
    assert [case.behaviour for case in alone] == [Behaviour.REFUSED] * 4
    assert together.behaviour is Behaviour.WHOLE
