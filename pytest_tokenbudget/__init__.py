"""What token limits cost and buy: a pytest plugin, and its parts for Python code.

The names below are the public API; docs/python.md has an example of each. Importing this package
loads nothing: each name is imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_tokenbudget.context.window import (
        Chat,
        ContextError,
        ContextWindow,
        generation_cap,
        prompt_room,
    )
    from pytest_tokenbudget.context.window_summary import named_strategy
    from pytest_tokenbudget.engines.text import ModelText
    from pytest_tokenbudget.engines.token_counter import count_tokens
    from pytest_tokenbudget.llm.language_model import Generation, LanguageModel, LanguageModelError
    from pytest_tokenbudget.models.gguf_tokenizer import (
        GgufTokenizer,
        GgufTokenizerError,
        extract_eos_ids,
        load_gguf_tokenizer,
        read_tokenizer_metadata,
    )
    from pytest_tokenbudget.models.resolution import load_catalogue, resolve_model
    from pytest_tokenbudget.recipes.__main__ import write_settings
    from pytest_tokenbudget.recipes.recipe import Recipe, RecipeError, read_recipe, resolve_recipe
    from pytest_tokenbudget.report.load_results import Results, ResultsError, load_results
    from pytest_tokenbudget.studies.thinking.modes import ThinkingMode
    from pytest_tokenbudget.texts.detokenizer import Detokenizer, text_and_offsets

_HOMES = {
    "models.gguf_tokenizer": (
        "GgufTokenizer",
        "GgufTokenizerError",
        "extract_eos_ids",
        "load_gguf_tokenizer",
        "read_tokenizer_metadata",
    ),
    "texts.detokenizer": ("Detokenizer", "text_and_offsets"),
    "context.window": ("Chat", "ContextError", "ContextWindow", "generation_cap", "prompt_room"),
    "context.window_summary": ("named_strategy",),
    "engines.token_counter": ("count_tokens",),
    "engines.text": ("ModelText",),
    "llm.language_model": ("Generation", "LanguageModel", "LanguageModelError"),
    "models.resolution": ("load_catalogue", "resolve_model"),
    "report.load_results": ("Results", "ResultsError", "load_results"),
    "studies.thinking.modes": ("ThinkingMode",),
    "recipes.__main__": ("write_settings",),
    "recipes.recipe": ("Recipe", "RecipeError", "read_recipe", "resolve_recipe"),
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Chat",
    "ContextError",
    "ContextWindow",
    "Detokenizer",
    "Generation",
    "GgufTokenizer",
    "GgufTokenizerError",
    "LanguageModel",
    "LanguageModelError",
    "ModelText",
    "Recipe",
    "RecipeError",
    "Results",
    "ResultsError",
    "ThinkingMode",
    "count_tokens",
    "extract_eos_ids",
    "generation_cap",
    "load_catalogue",
    "load_gguf_tokenizer",
    "load_results",
    "named_strategy",
    "prompt_room",
    "read_recipe",
    "read_tokenizer_metadata",
    "resolve_model",
    "resolve_recipe",
    "text_and_offsets",
    "write_settings",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found: object = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
