"""Proof: a server that spoils 30 % of its answers costs time, and no answer and no number."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace

import pytest
from engine_helpers import GREEDY, collect, make_engine, requests
from memory_watch import STATM, MemoryWatch
from server_scripted import NANO
from server_spoiling import SpoilingServer, kinds_for
from test_server_engine import VLLM

from pytest_tokenbudget.core.trace import StopReason
from pytest_tokenbudget.engines.server.dialects import DIALECTS
from pytest_tokenbudget.engines.server.engine import ServerEngine
from pytest_tokenbudget.engines.server.server_state import ServerTiming
from pytest_tokenbudget.settings.endpoints import Endpoint
from pytest_tokenbudget.texts.detokenizer import text_and_offsets

pytestmark = pytest.mark.slow

SEED = int(os.environ.get("TOKENBUDGET_FAULT_SEED", "20261129"))
TRACES, CAP, SHARE = 100, 48, 0.3
# How often the same command is run at the most, as errors tell people to.
RUNS = 3
TIMING = ServerTiming(
    first=0.02, longest=0.2, retry_after=0.2, look=0.1, look_timeout=5, all_down=60, overloaded=60
)
WAYS = [
    (kind, api)
    for kind, dialect in DIALECTS.items()
    for api in (("ids", "chat") if dialect.takes_ids else ("chat",))
]
MIB = 2**20


@pytest.fixture(scope="module")
def written():
    """What the embedded model writes: requests, and outputs with their texts."""
    engine = make_engine(batch_size=50)
    asked = requests(TRACES, CAP)
    try:
        results = collect(engine, asked, GREEDY)
        outputs = {}
        for request in asked:
            ids = list(results[request.key].output_ids)
            text, offsets = text_and_offsets(engine.decode, ids)
            texts = [text[a:b] for a, b in zip((0, *offsets), offsets, strict=False)]
            outputs[request.key] = (ids, texts)
        return asked, outputs, next(iter(sorted(engine.eos_ids)))
    finally:
        engine.close()


def posed(written, api):
    """The requests as an API takes them, and what the server answers to each."""
    asked, outputs, _ = written
    if api == "ids":
        return asked, {request.prompt_ids: outputs[request.key] for request in asked}
    chats = [
        replace(request, cap=2 * CAP, messages=({"role": "user", "content": request.key},))
        for request in asked
    ]
    # A character of two halves in each, and one that is no ASCII.
    texts = {key: (ids, ["\U0001f600é", *texts]) for key, (ids, texts) in outputs.items()}
    return chats, texts


def answers(engine, asked):
    return {result.request.key: result for result in engine.generate(asked, GREEDY)}


def engine_of(kind, api, server, timeout):
    facts = replace(VLLM, kind=kind, ids=DIALECTS[kind].takes_ids)
    spec = replace(NANO, endpoint=Endpoint((server.url,), "m", api))
    return ServerEngine(spec, facts, in_flight=16, timeout=timeout, timing=TIMING)


def told(result):
    """What a trace is made of."""
    return result.output_ids, result.stop_reason, result.text, result.offsets, result.counted


def wrong_ones(server, asked, wrong, found, expected):
    """For each wrong trace, what there is and should be, and which faults its prompt met."""
    shown = []
    for request in asked:
        if request.key in wrong:
            size = len(request.prompt_ids)
            faults = [
                (fault, len(body.get("prompt", body.get("input_ids", ()))) - size)
                for body, fault in server.log
                if request.key == body.get("messages", [{}])[-1].get("content")
                or tuple(body.get("prompt", body.get("input_ids", ()))[:size]) == request.prompt_ids
            ]
            shown.append((request.key, faults, found[request.key], expected[request.key]))
    return shown


@pytest.mark.skipif(not STATM.exists(), reason="memory is measured by /proc")
@pytest.mark.parametrize(("kind", "api"), WAYS)
def test_a_third_of_all_answers_is_spoilt_and_every_trace_is_right(
    written, kind, api, record_property
):
    asked, outputs = posed(written, api)
    # Others for each, so that together they meet every kind of fault.
    seed = SEED + WAYS.index((kind, api))
    end = next(ids[-1] for ids, _ in outputs.values() if len(ids) < CAP)
    with SpoilingServer(kind, api, outputs, end) as server:
        engine = engine_of(kind, api, server, 30)
        try:
            expected = {key: told(result) for key, result in answers(engine, asked).items()}
        finally:
            engine.close()
    assert len(expected) == TRACES
    assert all(reason is not StopReason.ERROR for _, reason, *_ in expected.values())

    found, errors = {}, Counter()
    with (
        SpoilingServer(kind, api, outputs, end, share=SHARE, seed=seed) as server,
        MemoryWatch() as memory,
    ):
        for _ in range(RUNS):
            left = [request for request in asked if request.key not in found]
            engine = engine_of(kind, api, server, 1)
            try:
                for key, result in answers(engine, left).items():
                    if result.stop_reason is StopReason.ERROR:
                        errors[result.error] += 1
                    else:
                        found[key] = told(result)
            finally:
                engine.close()
            if len(found) == TRACES:
                break
    made = sum(server.faults.values())
    wrong = [key for key in found if found[key] != expected[key]]
    line = (
        f"{kind}, {api}: {made} faults of {len(+server.faults)} kinds in {server.asked} requests"
        f" (seed {seed}), {len(wrong)} wrong, {TRACES - len(found)} lost, {sum(errors.values())}"
        f" asked for again by a second run, {memory.grown / MIB:.0f} MiB"
    )
    print(line)
    record_property("proof", line)
    for each in wrong_ones(server, asked, wrong, found, expected):
        print(each)
    assert not wrong, line
    assert len(found) == TRACES, (line, errors)
    assert memory.grown < 300 * MIB
    assert len(+server.faults) >= min(25, made), line
    assert set(server.faults) - {""} <= set(kinds_for(kind, api))
    assert 0.2 < made / server.asked < 0.4
