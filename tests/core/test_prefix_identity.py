"""Rule 1 on the embedded model: a fresh generation at a budget is the cut of a longer one."""

import pytest
from slow_cases import slow

from pytest_tokenbudget.core.engine import Decoding, Request
from pytest_tokenbudget.core.trace import StopReason
from pytest_tokenbudget.engines.transformers.engine import TransformersEngine
from pytest_tokenbudget.models.resolution import DEFAULT_MODEL, load_catalogue, resolve_model
from pytest_tokenbudget.tasks.registry import load_task

LARGEST = 512
SMALLER = (64, 128)


@pytest.fixture(scope="module")
def spec():
    return resolve_model(DEFAULT_MODEL, load_catalogue())


def generate(spec, cap, decoding, batch_size, prefixes=None):
    """Everything anew: engine, model, and in another order of problems."""
    engine = TransformersEngine(spec, device="cpu", dtype="float32", batch_size=batch_size)
    problems = load_task("word-problems").problems(4)
    requests = [
        Request(
            problem.id,
            engine.render(problem.messages, False).ids,
            cap,
            prefix_ids=(prefixes or {}).get(problem.id, ()),
        )
        for problem in problems
    ]
    return {made.request.key: made for made in engine.generate(requests[::-1], decoding)}


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "decoding",
    [slow(Decoding()), Decoding(temperature=0.9, top_p=0.95, seed=7)],
    ids=["greedy", "sampled"],
)
def test_a_fresh_generation_at_a_budget_is_the_cut_of_the_largest(spec, decoding):
    whole = generate(spec, LARGEST, decoding, batch_size=4)
    assert len({made.output_ids for made in whole.values()}) == 4
    for budget, batch_size in zip(SMALLER, (4, 3), strict=True):
        fresh = generate(spec, budget, decoding, batch_size)
        for key, made in fresh.items():
            assert made.output_ids == whole[key].output_ids[:budget]
            longer = len(whole[key].output_ids) > budget
            assert (made.stop_reason is StopReason.LENGTH) == longer


@pytest.mark.timeout(300)
def test_an_extended_trace_is_the_one_that_would_have_come_at_once(spec):
    decoding = Decoding(temperature=0.9, seed=3)
    whole = generate(spec, SMALLER[1], decoding, batch_size=4)
    short = generate(spec, SMALLER[0], decoding, batch_size=2)
    capped = {k: m.output_ids for k, m in short.items() if m.stop_reason is StopReason.LENGTH}
    assert capped
    extended = generate(spec, SMALLER[1], decoding, batch_size=4, prefixes=capped)
    assert {k: m.output_ids for k, m in extended.items()} == {
        k: m.output_ids for k, m in whole.items()
    }
