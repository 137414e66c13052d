"""Two forms that thinking budgets are often written in, and what they are worth."""

from __future__ import annotations

import json
from typing import Final

from pytest_tokenbudget.recipes.chat_template import TemplateAtHand
from pytest_tokenbudget.recipes.engines import VLLM_DOCS, off_verdict
from pytest_tokenbudget.recipes.recipe import Serving
from pytest_tokenbudget.recipes.settings import EngineSettings, Keeping
from pytest_tokenbudget.settings.generation_config import generation_config_text

PUBLISHED: Final = (
    "https://github.com/sybil-solutions/vllm-studio (controller/thinking_config.py, commit 38dde45)"
)


def yaml_settings(serving: Serving, at_hand: TemplateAtHand | None) -> EngineSettings:
    """A ``generation_config`` in YAML: one cap for thinking and answer together."""
    recipe, family, tokens = serving.recipe, serving.family, serving.tokens
    card = (family.sampling_off if tokens == 0 else None) or family.sampling if family else None
    config: dict[str, object] = {
        "max_new_tokens": tokens + recipe.answer_tokens,
        "enable_thinking": tokens > 0,
    }
    for key, own, known in (
        ("temperature", recipe.temperature, card[0] if card else None),
        ("top_p", recipe.top_p, card[1] if card else None),
    ):
        value = own if own is not None else known
        if value is not None:
            config[key] = value
    keeping, because = (
        Keeping.IGNORED,
        (
            f"max_new_tokens caps thinking ({tokens:,}) and answer ({recipe.answer_tokens:,}) "
            f"together: a model that thinks longer takes it from its answer"
        ),
    )
    if tokens == 0:
        verdict = off_verdict(serving, at_hand)
        reads = (
            verdict is not None
            and verdict.is_off
            and not verdict.message
            and verdict.variables in ({}, {"enable_thinking": False})
        )
        keeping = Keeping.ENFORCED if reads else Keeping.IGNORED
        said = f"{at_hand.whose}: {verdict.sentence()}" if verdict and at_hand else "no template"
        because = f"enable_thinking is the template's to read. {said}"
    warnings = [] if card or recipe.temperature is not None else ["no sampling is known: set it"]
    text = generation_config_text(config)
    return EngineSettings(
        "yaml", keeping, because, text=text, warnings=tuple(warnings), sources=("model cards",)
    )


def chat_template_settings(serving: Serving, at_hand: TemplateAtHand | None) -> EngineSettings:
    """The published recipe: the budget as a variable of the chat template, on vLLM."""
    tokens = serving.tokens
    name = "max_thinking_tokens"
    kwargs: dict[str, object] = {name: tokens} if tokens else {"enable_thinking": False}
    command = ["vllm", "serve", serving.model, "--served-model-name", serving.recipe.id]
    if serving.family is not None and serving.family.vllm_parser:
        command += ["--reasoning-parser", serving.family.vllm_parser]
    command += ["--default-chat-template-kwargs", json.dumps(kwargs)]
    if at_hand is None:
        keeping = Keeping.UNPROVEN
        because = "no chat template of this model is at hand to see whether it reads the variable"
    elif tokens == 0:
        verdict = off_verdict(serving, at_hand)
        switched = (
            verdict is not None
            and verdict.is_off
            and not verdict.message
            and verdict.variables in ({}, {"enable_thinking": False})
        )
        keeping = Keeping.ENFORCED if switched else Keeping.IGNORED
        because = f"{at_hand.whose}: {verdict.sentence() if verdict else ''}"
    else:
        effect = next(each for each in at_hand.switches if each.name == name)
        keeping = Keeping.SOFT if effect.works else Keeping.IGNORED
        because = f"{at_hand.whose}: {effect.sentence()}"
        read = [each.name for each in at_hand.switches if each.works]
        because += f". It reads {', '.join(read) if read else 'no switch at all'}"
    return EngineSettings(
        "chat-template",
        keeping,
        because,
        command=tuple(command),
        warnings=(
            "variables that a template does not name are dropped without an error, and one that it "
            "does name is a request to the model, never a limit",
        ),
        sources=(PUBLISHED, VLLM_DOCS),
    )
