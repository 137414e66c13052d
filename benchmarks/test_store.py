"""How fast traces are written and read, as a run does it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from benchmarks import synthetic
from benchmarks.conftest import GSM8K_SIZE, Benchmark, Sizes
from pytest_tokenbudget.core.engine import Decoding, Engine, Generated, Request
from pytest_tokenbudget.core.gather import gather
from pytest_tokenbudget.core.plan import Plan
from pytest_tokenbudget.core.store import EndedTrace, TraceStore
from pytest_tokenbudget.core.trace import StopReason

CAP = 256


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[list[TraceStore]]:
    """Stores that a test opened; they are closed after it."""
    opened: list[TraceStore] = []
    yield opened
    for store in opened:
        store.close()


def fill(store: TraceStore, written: list[synthetic.Written]) -> None:
    """Commit every trace by itself."""
    store.want(
        [Request(w.result.request.key, synthetic.PROMPT, w.result.request.cap) for w in written]
    )
    for one in written:
        ended = EndedTrace(one.result, one.text, one.offsets)
        store.commit_all(synthetic.MODEL, [ended])


def test_write(
    benchmark: Benchmark, sizes: Sizes, tmp_path: Path, stores: list[TraceStore]
) -> None:
    """Traces committed a second, each in a transaction of its own."""
    _, problems = synthetic.task_of(sizes.problems(GSM8K_SIZE))
    written = synthetic.traces(problems, max(sizes.settings.budgets))

    def fresh() -> tuple[tuple[TraceStore, list[synthetic.Written]], dict[str, object]]:
        stores.append(TraceStore(tmp_path / f"{len(stores)}.sqlite", "run", "owner"))
        return (stores[-1], written), {}

    benchmark.pedantic(fill, setup=fresh, rounds=3)
    seconds = benchmark.stats.stats.median
    benchmark.extra_info |= {
        "traces": len(written),
        "tokens": sum(len(one.result.output_ids) for one in written),
        "traces_a_second": len(written) / seconds,
        "megabytes": sum(p.stat().st_size for p in tmp_path.glob("0.sqlite*")) / 1e6,
    }
    assert stores[0].missing() == 0


def test_read(benchmark: Benchmark, sizes: Sizes, tmp_path: Path, stores: list[TraceStore]) -> None:
    """Traces read a second, all of a study at once."""
    _, problems = synthetic.task_of(sizes.problems(GSM8K_SIZE))
    written = synthetic.traces(problems, max(sizes.settings.budgets))
    store = TraceStore(tmp_path / "traces.sqlite", "run", "owner")
    stores.append(store)
    fill(store, written)
    names, prompts = synthetic.names(problems), synthetic.prompts(problems)
    loaded = benchmark.pedantic(store.load, args=(names, prompts), rounds=3)
    benchmark.extra_info |= {
        "traces": len(loaded),
        "traces_a_second": len(loaded) / benchmark.stats.stats.median,
    }
    assert [loaded[p.id, 0].output_ids for p in problems] == [w.result.output_ids for w in written]


class Instant(Engine):
    """Has every output at once, so that only the work around it takes time."""

    context = 4096
    began = processor = 0.0

    def __init__(self, rows: int) -> None:
        self._rows = rows

    def rows(self, prompt: int, total: int) -> int:
        return self._rows

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> Iterator[Generated]:
        if not self.began:
            self.began, self.processor = time.perf_counter(), time.process_time()
        for request in requests:
            yield ended(request).result

    def close(self) -> None: ...


def ended(request: Request) -> EndedTrace:
    """What is committed for a request: an output of 256 tokens and about a kilobyte of text."""
    ids, offsets = tuple(range(CAP)), tuple(range(4, 4 * CAP + 1, 4))
    text = "word" * CAP
    result = Generated(request, ids, StopReason.EOS, "eos", 1.0, text=text, offsets=offsets)
    return EndedTrace(result, text, offsets)


def plan() -> Plan:
    """A plan of synthetic traces."""
    return Plan(
        alias=synthetic.MODEL,
        identity={"model": synthetic.MODEL},
        model=synthetic.MODEL,
        where="nowhere",
        task="any",
        limit=None,
        samples=1,
        thinking=None,
        format=None,
        decoding=Decoding(),
        budgets=(CAP,),
        left_out=(),
        margin=0.02,
    )


def wants(count: int) -> list[Request]:
    """So many wanted traces."""
    return [Request(synthetic.key(index), synthetic.PROMPT, CAP) for index in range(count)]


@pytest.mark.parametrize("wanted", [1_000, 10_000, 200_000])
def test_cost_a_trace(
    benchmark: Benchmark, sizes: Sizes, tmp_path: Path, stores: list[TraceStore], wanted: int
) -> None:
    """What a trace costs beside its generation, by how many are wanted; most are stored already."""
    wanted = sizes.problems(wanted)
    asked = wants(wanted)
    new = min(1_000, wanted // 2)
    store = TraceStore(tmp_path / "traces.sqlite", "run", "owner")
    stores.append(store)
    for start in range(0, wanted - new, 500):
        share = asked[start : min(start + 500, wanted - new)]
        requests = [Request(want.key, want.prompt_ids, CAP) for want in share]
        store.commit_all(synthetic.MODEL, [ended(request) for request in requests])
    os.sync()  # else the first durable commit waits for all of that
    engine = Instant(rows=64)
    began = time.perf_counter()
    benchmark.pedantic(gather, args=(store, plan(), asked, lambda: engine), rounds=1)
    finished, processor = time.perf_counter(), time.process_time()
    assert store.missing() == 0
    benchmark.extra_info |= {
        "wanted": wanted,
        "milliseconds_a_trace": 1e3 * (finished - engine.began) / new,
        "processor_milliseconds_a_trace": 1e3 * (processor - engine.processor) / new,
        "seconds_until_the_first": engine.began - began,
    }
    if sizes.judged:
        assert benchmark.extra_info["milliseconds_a_trace"] < 3


def test_commits_of_traces_that_end_together(
    benchmark: Benchmark, sizes: Sizes, tmp_path: Path, stores: list[TraceStore]
) -> None:
    """Traces committed durably a second, as a worker does it, where all end at once."""
    asked = wants(sizes.problems(5_000))
    engine = Instant(rows=len(asked))

    def fresh() -> tuple[tuple[object, ...], dict[str, object]]:
        stores.append(TraceStore(tmp_path / f"{len(stores)}.sqlite", "run", "owner"))
        return (stores[-1], plan(), asked, lambda: engine), {}

    benchmark.pedantic(gather, setup=fresh, rounds=3)
    rate = len(asked) / benchmark.stats.stats.median
    benchmark.extra_info |= {"traces_a_second": rate}
    assert stores[0].missing() == 0
    if sizes.judged:
        assert rate > 1_000
