"""From a model and the settings to the engine that runs it."""

from __future__ import annotations

from collections.abc import Callable

from pytest_tokenbudget.common import xdist
from pytest_tokenbudget.common.extensions import ENGINES
from pytest_tokenbudget.core.engine import Engine
from pytest_tokenbudget.engines.planning import Placement
from pytest_tokenbudget.models.choice import engine_of
from pytest_tokenbudget.models.resolution import ModelSpec
from pytest_tokenbudget.settings.options import Settings

Say = Callable[[str], None]
EngineMaker = Callable[[ModelSpec, Settings, Placement, Say], Engine]


def make_engine(spec: ModelSpec, settings: Settings, placement: Placement, say: Say) -> Engine:
    """The engine of a model: the server where it is served, else the one that is configured.

    ``placement`` is where and in which form it runs in this process; ``say`` takes lines for the
    terminal.
    """
    make: EngineMaker = ENGINES.load(engine_of(settings, spec))
    return make(spec, settings, placement, say)


def make_transformers_engine(
    spec: ModelSpec, settings: Settings, placement: Placement, say: Say
) -> Engine:
    """The engine that runs models in this process."""
    xdist.divide_threads()
    from pytest_tokenbudget.engines.transformers.engine import TransformersEngine

    return TransformersEngine(
        spec,
        device=placement.device,
        dtype=placement.dtype,
        quantization=placement.quantization,
        batch_size=settings.batch_size or "auto",
        threads=xdist.cpu_threads(),
        say=say,
    )


def make_vllm_engine(spec: ModelSpec, settings: Settings, placement: Placement, say: Say) -> Engine:
    """The engine that runs vLLM in this process."""
    xdist.divide_threads()
    from pytest_tokenbudget.engines.vllm.engine import VllmEngine

    return VllmEngine(
        spec,
        dtype=placement.dtype,
        quantization=placement.quantization,
        tensor_parallel=settings.tensor_parallel,
        data_parallel=settings.data_parallel,
        memory_share=placement.share,
        say=say,
    )


def make_server_engine(
    spec: ModelSpec, settings: Settings, placement: Placement, say: Say
) -> Engine:
    """The engine that asks servers."""
    from pytest_tokenbudget.engines.server.engine import ServerEngine

    assert spec.endpoint is not None
    assert spec.endpoint.facts is not None
    return ServerEngine(
        spec,
        spec.endpoint.facts,
        in_flight=settings.batch_size,
        timeout=settings.request_timeout,
        say=say,
    )
