"""Configurations of the catalogue's models without the hub, for estimates of memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from pytest_tokenbudget.engines.loading import load_config
from pytest_tokenbudget.models.spec import ModelSpec
from pytest_tokenbudget.models.thinking_formats import models_file

if TYPE_CHECKING:
    from pytest_tokenbudget.engines import Config


def estimate_config(spec: ModelSpec) -> tuple[Config, str]:
    """A configuration to estimate memory with, and a note on where it comes from.

    A model's own files come first: those on disk, and those in the hub's cache. Without them the
    sizes that this package knows are used, and nothing is downloaded. Other hub models are looked
    up on the hub.

    Args:
        spec: The model.

    Returns:
        The configuration, and a note that is empty where it is the model's own.

    Raises:
        EngineError: If there is no configuration.
    """
    shape = known_shapes().get(spec.source) if spec.kind == "hub" else None
    if shape is None or _in_cache(spec):
        return load_config(spec), ""
    from transformers import AutoConfig

    factory: Any = AutoConfig
    return factory.for_model(**shape), (
        f"sizes of {spec.source} from this package's catalogue: the model's own files are not in "
        "the hub's cache"
    )


def known_shapes() -> Mapping[str, Mapping[str, Any]]:
    """The sizes that this package knows, by hub id, as keys of config.json."""
    return cast(Mapping[str, Mapping[str, Any]], models_file()["shapes"])


def _in_cache(spec: ModelSpec) -> bool:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(spec.source, "config.json", revision=spec.revision or "main")
    return isinstance(found, str)
