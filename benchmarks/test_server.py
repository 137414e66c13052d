"""What driving a server costs this process: the server here costs next to nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.conftest import Benchmark, Sizes
from pytest_tokenbudget.core.engine import Decoding, Request
from pytest_tokenbudget.engines.server.engine import ServerEngine
from pytest_tokenbudget.engines.server.server_facts import probe
from pytest_tokenbudget.models.resolution import load_catalogue, resolve_model
from pytest_tokenbudget.settings.endpoints import Endpoint

TOKENS = 500
IN_FLIGHT = 64


@pytest.fixture
def url() -> Iterator[str]:
    """The address of the server, in a process of its own."""
    program = Path(__file__).with_name("fast_server.py")
    process = subprocess.Popen(
        [sys.executable, str(program), str(TOKENS)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
    finally:
        process.kill()
        process.communicate()


def test_tokens_from_a_server(benchmark: Benchmark, sizes: Sizes, url: str) -> None:
    """Tokens that one process takes from servers in a second of its own processor time."""
    endpoint = Endpoint((url,))
    spec = replace(resolve_model("nano-reasoner", load_catalogue()), endpoint=endpoint)
    engine = ServerEngine(spec, probe(endpoint), in_flight=IN_FLIGHT)
    asked = [Request(str(i), (5, 6, 7, 5 + i % 90), 2 * TOKENS) for i in range(sizes.problems(100))]
    engine.decode([5])  # loads the tokenizer
    rates: list[float] = []

    def take() -> None:
        started = time.process_time()
        taken = sum(len(each.output_ids) for each in engine.generate(asked, Decoding()))
        rates.append(taken / (time.process_time() - started))
        assert taken == TOKENS * len(asked)

    try:
        benchmark.pedantic(take, rounds=3, warmup_rounds=1)
    finally:
        engine.close()
    benchmark.extra_info["tokens_a_cpu_second"] = round(max(rates))
