"""What the tests of the Transformers engine share: the embedded model and its outputs."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from pytest_tokenbudget.core.engine import Decoding, Generated, Request
from pytest_tokenbudget.engines.transformers.engine import TransformersEngine
from pytest_tokenbudget.models.resolution import DEFAULT_MODEL, load_catalogue
from pytest_tokenbudget.tasks.word_problems import held_out

GREEDY = Decoding()
SAMPLED = Decoding(temperature=0.7, top_p=0.95, seed=5)
CAP = 160
SPEC = load_catalogue()[DEFAULT_MODEL]

Ids = dict[str, tuple[int, ...]]


def make_engine(**options: Any) -> TransformersEngine:
    options = {"device": "cpu", "threads": 1, "batch_size": 8} | options
    return TransformersEngine(options.pop("spec", SPEC), **options)


@functools.cache
def requests(count: int, cap: int = CAP) -> tuple[Request, ...]:
    engine = make_engine()
    problems = itertools.islice(held_out(), count)
    prompts = [engine.render(problem.messages, thinking=False) for problem in problems]
    return tuple(Request(f"p{i}", prompt.ids, cap) for i, prompt in enumerate(prompts))


@functools.cache
def reference(decoding: Decoding) -> dict[str, Generated]:
    """What a batch of 12 gives, capped at 160: everything else must agree with it."""
    results = collect(make_engine(batch_size=12), requests(12), decoding)
    return dict(sorted(results.items()))


def collect(
    engine: TransformersEngine, wanted: Sequence[Request], decoding: Decoding = GREEDY
) -> dict[str, Generated]:
    results = {done.request.key: done for done in engine.generate(wanted, decoding)}
    assert set(results) == {request.key for request in wanted}
    return results


def ids_of(results: dict[str, Generated]) -> Ids:
    return {key: done.output_ids for key, done in results.items()}


def on_forward(engine: TransformersEngine, before: Callable[..., None]) -> None:
    """Call ``before`` with the arguments of every forward pass."""
    engine._load()
    forward = engine._model.forward

    @functools.wraps(forward)
    def wrapped(**arguments: Any) -> Any:
        before(**arguments)
        return forward(**arguments)

    engine._model.forward = wrapped
