"""Decoding speed on a GPU, by batch size and quantisation, of the model of ``--model``."""

from __future__ import annotations

import pytest

from benchmarks.conftest import Benchmark, Sizes
from pytest_tokenbudget.common import xdist
from pytest_tokenbudget.core.engine import Decoding, Request
from pytest_tokenbudget.core.trace import StopReason
from pytest_tokenbudget.engines.transformers.engine import TransformersEngine
from pytest_tokenbudget.models.resolution import load_catalogue, resolve_model
from pytest_tokenbudget.tasks.registry import load_task

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not xdist.visible_gpus(), reason="needs a CUDA GPU; none is visible"),
]

CAP = 256


@pytest.mark.parametrize("quantization", ["none", "4bit"])
@pytest.mark.parametrize("rows", [1, 8, 32, 128])
def test_tokens_a_second(benchmark: Benchmark, sizes: Sizes, rows: int, quantization: str) -> None:
    """Output tokens a second with ``rows`` rows in the batch, prefill included."""
    import torch

    spec = resolve_model(sizes.settings.models[0], load_catalogue())
    engine = TransformersEngine(spec, device="cuda", quantization=quantization, batch_size=rows)
    cap = min(CAP, max(sizes.settings.budgets))
    requests = [
        Request(problem.id, engine.render(problem.messages, False).ids, cap)
        for problem in load_task(sizes.settings.task).problems(rows)
    ]
    torch.cuda.reset_peak_memory_stats()

    def generate() -> int:
        results = list(engine.generate(requests, Decoding()))
        assert not any(result.stop_reason is StopReason.ERROR for result in results)
        torch.cuda.synchronize()
        return sum(len(result.output_ids) for result in results)

    try:
        tokens = benchmark.pedantic(generate, rounds=1, warmup_rounds=1)
        benchmark.extra_info |= {
            "model": spec.alias,
            "dtype": engine.dtype,
            "tokens": tokens,
            "tokens_a_second": tokens / benchmark.stats.stats.total,
            "peak_gpu_gigabytes": torch.cuda.max_memory_allocated() / 1e9,
            "gpu": torch.cuda.get_device_name(),
        }
    finally:
        engine.close()
