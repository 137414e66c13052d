"""Sizes of the catalogue's models: complete, as published, and used without a network."""

from __future__ import annotations

import json
import socket

import pytest

from pytest_tokenbudget.engines.memory_estimate import (
    estimate_config,
    estimate_memory,
    known_shapes,
)
from pytest_tokenbudget.estimate import main
from pytest_tokenbudget.models.resolution import load_catalogue, resolve_model

pytest_plugins = ["model_fixtures"]
pytestmark = pytest.mark.usefixtures("hub_cache")

# As the model cards have them, in millions.
PUBLISHED = {
    "qwen-0.5b": 494,
    "qwen-1.5b": 1_544,
    "qwen-3b": 3_086,
    "qwen-7b": 7_616,
    "qwen3-0.6b": 596,
    "qwen3-1.7b": 1_721,
    "qwen3-4b": 4_022,
    "qwen3-8b": 8_191,
    "llama-3.2-1b": 1_236,
    "llama-3.2-3b": 3_213,
    "llama-3.1-8b": 8_030,
    "llama-3.3-70b": 70_554,
    "gemma-3-1b": 1_000,
    "gemma-4-31b": 30_697,
    "deepseek-r1-1.5b": 1_777,
    "smollm2-135m": 135,
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*arguments, **_):
        raise AssertionError(f"the network was asked for: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_every_hub_model_of_the_catalogue_has_its_sizes():
    hub = {spec.source: spec for spec in load_catalogue().values() if spec.kind == "hub"}
    shapes = known_shapes()
    assert shapes.keys() == hub.keys()
    for source, shape in shapes.items():
        assert shape["max_position_embeddings"] == hub[source].context


@pytest.mark.parametrize("alias", PUBLISHED)
def test_parameters_are_those_that_are_published(alias):
    config, note = estimate_config(resolve_model(alias, load_catalogue()))
    told = estimate_memory(config, budget=1)
    assert round(told.parameters / 1e6) == PUBLISHED[alias]
    assert "from this package's catalogue" in note


@pytest.mark.parametrize("name", ["qwen3-0.6b", "Qwen/Qwen3-0.6B"])
def test_the_command_of_the_readme_needs_no_network(name, capsys):
    assert main([name, "--budget", "2048", "32768", "--memory", "24GB"]) == 0
    shown = capsys.readouterr().out
    assert "596,049,920 parameters" in shown
    assert "note: sizes of Qwen/Qwen3-0.6B from this package's catalogue" in shown
    assert main([name, "--json"]) == 0
    [told] = json.loads(capsys.readouterr().out)
    assert "catalogue" in told["sizes_from"]


def test_the_models_own_files_come_first(hub_cache, capsys):
    spec = load_catalogue()["qwen3-0.6b"]
    folder = hub_cache / "models--Qwen--Qwen3-0.6B"
    snapshot = folder / "snapshots" / spec.revision
    snapshot.mkdir(parents=True)
    own = {**known_shapes()[spec.source], "num_hidden_layers": 2}
    (snapshot / "config.json").write_text(json.dumps(own))
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(spec.revision)
    config, note = estimate_config(spec)
    assert (config.num_hidden_layers, note) == (2, "")
    assert main(["qwen3-0.6b"]) == 0
    assert "catalogue" not in capsys.readouterr().out
