"""The chat template of the model that a recipe serves, where one is at hand."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from pytest_tokenbudget.core.engine import EngineError
from pytest_tokenbudget.models.files import find_snapshot
from pytest_tokenbudget.models.resolution import ModelSpec, resolve_commit
from pytest_tokenbudget.models.template_switches import (
    Render,
    SwitchEffect,
    TemplateError,
    renderer,
    template_switches,
    template_text,
)
from pytest_tokenbudget.recipes.families import packaged_template
from pytest_tokenbudget.recipes.recipe import Serving

_BUDGETS = ("max_thinking_tokens", "thinking_budget", "reasoning_budget")


@dataclass(frozen=True)
class TemplateAtHand:
    """A chat template, and whose it is.

    Attributes:
        text: The template.
        whose: What messages call it.
        own: Whether it is the model's own, not the packaged one of its family.
    """

    text: str
    whose: str
    own: bool

    @cached_property
    def render(self) -> Render:
        """Renders messages with it."""
        return renderer(self.text)

    @cached_property
    def switches(self) -> tuple[SwitchEffect, ...]:
        """What its switches do."""
        return template_switches(self.text)

    def budget_switches(self) -> tuple[str, ...]:
        """Names of budgets that it writes into the prompt."""
        return tuple(each.name for each in self.switches if each.name in _BUDGETS and each.works)


def find_template(serving: Serving) -> TemplateAtHand | None:
    """The model's own template if its files are on this machine, else its family's.

    Nothing is downloaded.
    """
    spec = serving.spec
    if spec is not None and _on_disk(spec):
        from pytest_tokenbudget.engines.loading import load_tokenizer

        try:
            text = template_text(load_tokenizer(spec))
            return TemplateAtHand(text, f"the template of {spec.alias}", own=True)
        except (EngineError, TemplateError):
            pass
    if serving.family is None or serving.family.template is None:
        return None
    text = packaged_template(serving.family.template)
    return TemplateAtHand(
        text, f"this project's model of the {serving.family.name} template", False
    )


def _on_disk(spec: ModelSpec) -> bool:
    if spec.kind != "hub":
        return True
    commit = resolve_commit(spec)
    return commit is not None and find_snapshot(spec.source, commit) is not None
