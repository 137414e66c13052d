"""Two forms that thinking budgets are often written in, and what they are worth."""

from __future__ import annotations

import json
from typing import Final

from pytest_tokenbudget.recipes.engines import VLLM_DOCS, off_verdict
from pytest_tokenbudget.recipes.recipe import Serving
from pytest_tokenbudget.recipes.settings import ChatTemplate, EngineSettings, Keeping
from pytest_tokenbudget.settings.generation_config import generation_config_text

PUBLISHED: Final = (
    "https://github.com/sybil-solutions/vllm-studio (controller/thinking_config.py, commit 38dde45)"
)


def yaml_settings(serving: Serving, template: ChatTemplate | None) -> EngineSettings:
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
    keeping = Keeping.IGNORED
    because = (
        f"max_new_tokens caps thinking ({tokens:,}) and answer ({recipe.answer_tokens:,}) "
        f"together: a model that thinks longer takes it from its answer"
    )
    if tokens == 0:
        keeping, effect = _switched_off(serving, template)
        because = f"enable_thinking is the template's to read. {effect}"
    warnings = [] if card or recipe.temperature is not None else ["no sampling is known: set it"]
    text = generation_config_text(config)
    return EngineSettings(
        "yaml", keeping, because, text=text, warnings=tuple(warnings), sources=("model cards",)
    )


def chat_template_settings(serving: Serving, template: ChatTemplate | None) -> EngineSettings:
    """The published recipe: the budget as a variable of the chat template, on vLLM."""
    tokens = serving.tokens
    name = "max_thinking_tokens"
    kwargs: dict[str, object] = {name: tokens} if tokens else {"enable_thinking": False}
    command = ["vllm", "serve", serving.model, "--served-model-name", serving.recipe.id]
    if serving.family is not None and serving.family.vllm_parser:
        command += ["--reasoning-parser", serving.family.vllm_parser]
    command += ["--default-chat-template-kwargs", json.dumps(kwargs)]
    if template is None:
        keeping = Keeping.UNPROVEN
        because = "no chat template of this model is at hand to see whether it reads the variable"
    elif tokens == 0:
        keeping, because = _switched_off(serving, template)
    else:
        switch = next(switch for switch in template.switches if switch.name == name)
        keeping = Keeping.SOFT if switch.works else Keeping.IGNORED
        read = ", ".join(s.name for s in template.switches if s.works) or "no switch at all"
        because = f"{template.label}: {switch.sentence()}. It reads {read}"
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


def _switched_off(serving: Serving, template: ChatTemplate | None) -> tuple[Keeping, str]:
    """What comes of ``enable_thinking: false``, and why."""
    verdict = off_verdict(serving, template)
    if verdict is None or template is None:
        return Keeping.IGNORED, "no template"
    reads = verdict.is_off and not verdict.message
    reads = reads and verdict.variables in ({}, {"enable_thinking": False})
    keeping = Keeping.ENFORCED if reads else Keeping.IGNORED
    return keeping, f"{template.label}: {verdict.sentence()}"
