"""A recipe: which model is served with which thinking budget. Read from TOML or JSON."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from pytest_tokenbudget.common.messages import kind_of, nearest, real_number, text, whole_number
from pytest_tokenbudget.common.outside_files import FileError, read_json
from pytest_tokenbudget.common.outside_text import PrintableError
from pytest_tokenbudget.models.allocation_table import (
    Allocation,
    AllocationError,
    allocate,
    check_mode,
)
from pytest_tokenbudget.models.catalogue import not_among
from pytest_tokenbudget.models.resolution import (
    ModelError,
    ModelSpec,
    load_catalogue,
    resolve_model,
)
from pytest_tokenbudget.recipes.families import ModelFamily, find_family
from pytest_tokenbudget.settings.config_file import ConfigError, read_toml
from pytest_tokenbudget.texts.thinking_blocks import ThinkingFormat

BACKENDS: Final = ("vllm", "sglang", "llama.cpp", "transformers")
DEFAULT_ANSWER_TOKENS: Final = 4096
_TABLE: Final = "recipe"
SCHEMA: Final = "tokenbudget-allocation-settings/"
NO_EVIDENCE: Final = "NONE"
"""How the ``evidence`` of settings begins that nothing stands behind."""


class RecipeError(PrintableError, ValueError):
    """A recipe that cannot be used; the message is for people."""


@dataclass(frozen=True)
class Recipe:
    """Which model is served with which thinking budget, as a file or Python code says it.

    Attributes:
        id: The name that requests use for the model.
        name: The name for people; without it the id.
        model_path: An alias of the catalogue, a hub id, a directory or a ``.gguf`` file.
        backend: The engine that serves it; see :data:`BACKENDS`.
        thinking_mode: A mode of the allocation table.
        max_thinking_tokens: An explicit budget, which wins over the mode.
        answer_tokens: Tokens for the answer, on top of the thinking.
        temperature: Sampling temperature; None for what the model's card recommends.
        top_p: Nucleus; None likewise.
        evidence: What shows that the budget is good enough, as the allocation eval writes it;
            empty where nothing was measured.

    Raises:
        RecipeError: If a value cannot be used; the message names it and what is allowed.
    """

    id: str
    model_path: str
    name: str = ""
    backend: str = "vllm"
    thinking_mode: str = "auto"
    max_thinking_tokens: int | None = None
    answer_tokens: int = DEFAULT_ANSWER_TOKENS
    temperature: float | None = None
    top_p: float | None = None
    evidence: str = ""

    def __post_init__(self) -> None:
        wrong = RecipeError
        checked: dict[str, object] = {"name": self.name or self.id}
        for key in ("id", "model_path", "backend", "thinking_mode"):
            text(key, getattr(self, key), error=wrong)
        text("name", checked["name"], error=wrong)
        if self.evidence != "":
            text("evidence", self.evidence, error=wrong)
        if self.backend not in BACKENDS:
            raise RecipeError(not_among("backend", self.backend, BACKENDS))
        try:
            check_mode(self.thinking_mode)
        except AllocationError as error:
            raise RecipeError(str(error)) from error
        checked["answer_tokens"] = whole_number("answer_tokens", self.answer_tokens, 1, error=wrong)
        if self.max_thinking_tokens is not None:
            checked["max_thinking_tokens"] = whole_number(
                "max_thinking_tokens", self.max_thinking_tokens, 0, error=wrong
            )
        for key, most in (("temperature", 10.0), ("top_p", 1.0)):
            if getattr(self, key) is not None:
                checked[key] = real_number(key, getattr(self, key), 0.0, most, error=wrong)
        for key, value in checked.items():
            object.__setattr__(self, key, value)


@dataclass(frozen=True)
class Serving:
    """A recipe with all that was found out about it.

    Attributes:
        recipe: The recipe.
        model: The resolved model id: what an engine is given to load.
        family: The model's family; None for a stranger.
        thinking: How it marks its thinking, as its files, the catalogue or its family say; None
            where nobody does.
        allocation: The thinking budget.
        spec: The model on this machine or the hub; None where the path is another machine's.
    """

    recipe: Recipe
    model: str
    family: ModelFamily | None
    thinking: ThinkingFormat | None
    allocation: Allocation
    spec: ModelSpec | None

    @property
    def tokens(self) -> int:
        """The thinking budget; raises RecipeError if the table knows none."""
        if self.allocation.tokens is None:
            raise RecipeError(
                f"recipe {self.recipe.id!r}: {self.allocation.reason}: there is nothing to set"
            )
        return self.allocation.tokens


def read_recipe(path: Path) -> Recipe:
    """The recipe in a TOML or JSON file: its keys at the top, or in a table ``recipe``.

    The settings that the allocation eval writes (``allocation_settings_*.json``) are one, too.

    Raises:
        RecipeError: If it cannot be read or says something that cannot be.
    """
    kind = path.suffix.lower()
    if kind == ".toml":
        try:
            content: object = read_toml(path)
        except ConfigError as error:
            raise RecipeError(str(error)) from error
    elif kind == ".json":
        content = _read_json(path)
    else:
        raise RecipeError(
            f"{path}: a recipe is a .toml or .json file, not {kind or 'without type'}"
        )
    if isinstance(content, Mapping) and isinstance(content.get(_TABLE), Mapping):
        content = content[_TABLE]
    if not isinstance(content, Mapping):
        raise RecipeError(f"{path} must hold the keys of one recipe, not {kind_of(content)}")
    if str(content.get("schema", "")).startswith(SCHEMA):
        try:
            content = _measured_keys(content)
        except (ValueError, TypeError) as error:
            raise RecipeError(f"{path}: {error}") from error
    return parse_recipe(content, str(path))


def _measured_keys(settings: Mapping[str, Any]) -> dict[str, object]:
    """The keys of a recipe for the policy that ``allocation_settings_*.json`` recommends.

    A recipe has one thinking budget: where groups have limits of their own, it is the largest,
    which is also the one that the settings' command lines set.

    Raises:
        ValueError: If the settings have no limit, or lack what a recipe needs; the message says so.
    """
    limits = settings.get("thinking_token_limits")
    lacking = [key for key in ("model", "model_id", "answer_tokens") if key not in settings]
    if lacking or not isinstance(limits, Mapping):
        lacking += [] if isinstance(limits, Mapping) else ["thinking_token_limits"]
        raise ValueError(f"the settings lack {', '.join(lacking)}: run the allocation eval again")
    if not limits:
        raise ValueError(
            f"the policy {settings.get('policy')!r} has no thinking limit that an engine could be "
            "given: write a recipe with max_thinking_tokens"
        )
    name, evidence = str(settings["model"]), str(settings.get("evidence") or NO_EVIDENCE)
    groups = len(limits)
    return {
        "id": name,
        "name": name if groups == 1 else f"{name} (the largest of {groups} limits)",
        "model_path": settings["model_id"],
        "max_thinking_tokens": max(limits.values()),
        "answer_tokens": settings["answer_tokens"],
        **({} if evidence.startswith(NO_EVIDENCE) else {"evidence": evidence}),
    }


def parse_recipe(table: Mapping[str, object], where: str) -> Recipe:
    """A recipe from its keys and values.

    Args:
        table: The keys.
        where: What messages call the place they come from.

    Raises:
        RecipeError: If a key is unknown or missing, or a value cannot be.
    """
    known = tuple(field.name for field in fields(Recipe))
    for key in table:
        if key not in known:
            close = nearest(key, known, 1)
            hint = f", did you mean {close[0]!r}?" if close else ""
            raise RecipeError(
                f"{where}: unknown key {key!r}{hint}; a recipe has {', '.join(known)}"
            )
    # JSON writes null for what is left out.
    values: dict[str, Any] = {key: value for key, value in table.items() if value is not None}
    for key in ("id", "model_path"):
        if key not in values:
            raise RecipeError(f"{where}: {key} is missing; a recipe needs id and model_path")
    try:
        return Recipe(**values)
    except RecipeError as error:
        raise RecipeError(f"{where}: {error}") from None


def resolve_recipe(recipe: Recipe, catalogue: Mapping[str, ModelSpec] | None = None) -> Serving:
    """Find the model behind a recipe, and its thinking budget. Nothing is downloaded.

    A path that does not lie on this machine is taken as it is: a recipe is written for the machine
    that serves it.

    Raises:
        RecipeError: If the budget is refused, or the model's name leads nowhere.
    """
    spec: ModelSpec | None
    try:
        spec = resolve_model(
            recipe.model_path, load_catalogue() if catalogue is None else catalogue
        )
    except ModelError as error:
        if not _elsewhere(recipe.model_path):
            raise RecipeError(f"recipe {recipe.id!r}: {error}") from error
        spec = None
    model = spec.source if spec else recipe.model_path
    try:
        allocation = allocate(
            model, recipe.thinking_mode, recipe.max_thinking_tokens, spec.context if spec else None
        )
    except AllocationError as error:
        raise RecipeError(f"recipe {recipe.id!r}: {error}") from error
    family = find_family(model)
    # Its own files and the user's catalogue know better than the family.
    own = spec.thinking if spec else None
    thinking = own or (family.thinking if family else None)
    return Serving(recipe, model, family, thinking, allocation, spec)


def _elsewhere(path: str) -> bool:
    """Whether this is a path of another machine, rather than a name that leads nowhere."""
    written = os.path.isabs(path) or path.startswith(("~", "\\\\")) or path[1:3] == ":\\"
    return written and not os.path.exists(os.path.expanduser(path))


def _read_json(path: Path) -> object:
    try:
        return read_json(path)
    except FileError as error:
        raise RecipeError(str(error)) from None
