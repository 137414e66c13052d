import json
from contextlib import closing

import pytest
from fake_engine import FakeEngine, gather_all, make_plan, make_problems
from hypothesis import given
from hypothesis import strategies as st

from pytest_tokenbudget.core.engine import Decoding
from pytest_tokenbudget.core.plan import Plan, render_key, trace_key
from pytest_tokenbudget.core.store import StoredPrompt, TraceStore
from pytest_tokenbudget.core.study import load_study
from pytest_tokenbudget.core.trace import ThinkingFormat
from pytest_tokenbudget.models.thinking_formats import builtin_formats
from pytest_tokenbudget.tasks.registry import load_task

DECODING = Decoding(temperature=0.7, top_p=0.9, seed=3, stop=("a", "b"))


@pytest.mark.parametrize(
    "form",
    [
        None,
        ThinkingFormat(),
        ThinkingFormat("<a>", "</a>", None),
        builtin_formats()["gpt-oss"].resolved({"<|end|>": 200007}),
    ],
)
@pytest.mark.parametrize("thinking", [None, True, False])
def test_a_plan_comes_back_from_json(form, thinking):
    plan = make_plan(
        format=form, thinking=thinking, decoding=DECODING, budgets=(8, 16), left_out=(4096,)
    )
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    assert plan.cap == 16
    assert plan.mode == ("thinking" if thinking else "plain")


def test_a_traces_key_is_what_its_tokens_depend_on():
    base = trace_key("m", (1, 2), DECODING, 0)
    others = [
        trace_key("n", (1, 2), DECODING, 0),
        trace_key("m", (1, 3), DECODING, 0),
        trace_key("m", (1, 2), DECODING, 1),
        *(
            trace_key("m", (1, 2), Decoding(**{**vars(DECODING), **change}), 0)
            for change in ({"temperature": 0.8}, {"top_p": 1.0}, {"seed": 4}, {"stop": ("a",)})
        ),
    ]
    assert len({base, *others}) == 1 + len(others)
    assert base == trace_key("m", [1, 2], DECODING, 0)


def test_greedy_decoding_has_one_key_whatever_the_seed():
    keys = {trace_key("m", (1,), Decoding(seed=s, top_p=p), 0) for s in (0, 9) for p in (0.5, 1)}
    assert len(keys) == 1
    assert trace_key("m", (1,), Decoding(stop=("x",)), 0) not in keys


@given(
    st.lists(st.tuples(st.sampled_from(["user", "system"]), st.text()), max_size=4),
    st.sampled_from([None, True, False]),
)
def test_a_rendered_prompts_key_is_its_messages_and_mode(pairs, thinking):
    messages = [{"role": role, "content": content} for role, content in pairs]
    key = render_key(messages, thinking)
    reordered = [dict(reversed(m.items())) for m in messages]
    assert render_key(reordered, thinking) == key
    assert render_key([*messages, {"role": "user", "content": "?"}], thinking) != key
    assert render_key(messages, not thinking) != key


def test_wants_have_the_cap_and_go_from_long_to_short():
    problems = make_problems(12)
    prompts = {p.id: StoredPrompt(tuple(p.question.encode()), False) for p in problems}
    plan = make_plan(samples=2, budgets=(8, 32))
    wants = plan.wants(problems, prompts)
    assert len({want.key for want in wants}) == 24
    assert {want.cap for want in wants} == {32}
    lengths = [len(want.prompt_ids) for want in wants]
    assert lengths == sorted(lengths, reverse=True)
    del prompts["p3"]
    assert len(plan.wants(problems, prompts)) == 22


def test_a_study_is_loaded_from_what_the_store_has(tmp_path):
    """Some problems have traces, some none, and some were never rendered."""
    task = load_task("word-problems")
    with closing(TraceStore(tmp_path / "t.sqlite", "one", "a")) as store:
        gather_all(store, FakeEngine(), 4)
        study = load_study(store, make_plan(), task, make_problems(6))
        assert (len(study.complete), study.missing) == (4, 2)
        assert len(study.traces) == 4
        longer = load_study(store, make_plan(30), task, make_problems(4))
        finished = [t for t in longer.traces.values() if not t.capped]
        assert len(longer.complete) == len(finished) < 4
        empty = load_study(store, make_plan(model="another"), task, make_problems(2))
        assert (len(empty.complete), empty.missing) == (0, 2)
