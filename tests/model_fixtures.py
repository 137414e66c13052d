"""Fixtures for models, for modules that say pytest_plugins = ["model_fixtures"]."""

import pytest

from pytest_tokenbudget.models.resolution import load_catalogue


@pytest.fixture
def catalogue():
    return load_catalogue()


@pytest.fixture
def hub_cache(tmp_path_factory, monkeypatch):
    """An empty hub cache: no test sees what this machine has downloaded."""
    cache = tmp_path_factory.mktemp("hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    return cache
