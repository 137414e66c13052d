"""The command line: a recipe's settings for one engine, or for all.

Exit codes: 0 written; 2 the command line is wrong; 4 the recipe cannot be used.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from pytest_tokenbudget.common.text_layout import print_text
from pytest_tokenbudget.models.allocation_table import EXPLICIT
from pytest_tokenbudget.models.catalogue import not_among
from pytest_tokenbudget.models.resolution import ModelError, load_catalogue
from pytest_tokenbudget.models.template_switches import TemplateError
from pytest_tokenbudget.recipes.engines import WRITERS as ENGINES
from pytest_tokenbudget.recipes.engines import Writer
from pytest_tokenbudget.recipes.legacy_formats import chat_template_settings, yaml_settings
from pytest_tokenbudget.recipes.recipe import RecipeError, Serving, read_recipe, resolve_recipe
from pytest_tokenbudget.recipes.settings import EngineSettings, find_template
from pytest_tokenbudget.settings.config_file import ConfigError

WRITERS: Final[Mapping[str, Writer]] = {
    **ENGINES,
    "yaml": yaml_settings,
    "chat-template": chat_template_settings,
}
UNUSABLE: Final = 4


def write_settings(serving: Serving, engine: str) -> tuple[EngineSettings, ...]:
    """The settings of a recipe for one engine, or for ``all``.

    Args:
        serving: The recipe, resolved.
        engine: ``vllm``, ``sglang``, ``llama.cpp``, ``transformers``, ``yaml``, ``chat-template``
            or ``all``.

    Raises:
        RecipeError: If there is no such engine, or no budget to set.
        TemplateError: If the model's own template is broken.
    """
    if engine not in (*WRITERS, "all"):
        raise RecipeError(not_among("engine", str(engine), (*WRITERS, "all")))
    template = find_template(serving)
    names = list(WRITERS) if engine == "all" else [engine]
    return tuple(WRITERS[name](serving, template) for name in names)


def _head(serving: Serving) -> list[str]:
    """What is said before the settings of any engine."""
    recipe, allocation = serving.recipe, serving.allocation
    source = "the recipe" if allocation.mode == EXPLICIT else "a table"
    lines = [
        f"# evidence: {' '.join(recipe.evidence.split())}"
        if recipe.evidence
        else f"# NO EVIDENCE stands behind these settings: the budget is not measured, but taken "
        f"from {source}",
        f"# {recipe.name}: {recipe.model_path} = {serving.model}",
        f"# thinking budget: {serving.tokens:,} tokens ({allocation.mode}; {allocation.reason})",
    ]
    needed = serving.tokens + recipe.answer_tokens
    if allocation.context is not None and needed >= allocation.context:
        lines.append(
            f"# beware: thinking and an answer of {recipe.answer_tokens:,} tokens need {needed:,}, "
            f"and prompt and output together may have {allocation.context:,}"
        )
    elif allocation.context is None and serving.tokens:
        lines.append(
            f"# beware: the context of {serving.model} is not known here: see that it holds the "
            f"prompt and {needed:,} tokens"
        )
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m pytest_tokenbudget.recipes",
        description="Write a recipe's thinking budget as settings for an engine, and say whether "
        "that engine enforces it, hints it or ignores it.",
    )
    parser.add_argument("recipe", type=Path, help="a .toml or .json file")
    parser.add_argument(
        "--engine",
        choices=[*WRITERS, "all"],
        help="which settings to write (default: the recipe's backend)",
    )
    given = parser.parse_args(arguments)
    try:
        recipe = read_recipe(given.recipe)
        serving = resolve_recipe(recipe, load_catalogue(Path.cwd()))
        written = write_settings(serving, given.engine or recipe.backend)
    except (RecipeError, TemplateError, ModelError, ConfigError) as error:
        print(f"error: {error}", file=sys.stderr)
        return UNUSABLE
    text = "\n".join([*_head(serving), "", "\n\n".join(settings.show() for settings in written)])
    print_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
