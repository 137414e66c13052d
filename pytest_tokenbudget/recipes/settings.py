"""What settings for an engine are made of: their form, and the model's chat template."""

from __future__ import annotations

import enum
import json
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
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


class Keeping(enum.StrEnum):
    """What an engine does with a thinking budget, by its documentation and its source."""

    ENFORCED = "enforced"
    SOFT = "soft"
    IGNORED = "ignored"
    # Written so that it should work, and documented by nobody: only a measurement can tell.
    UNPROVEN = "unproven"


@dataclass(frozen=True)
class EngineSettings:
    """Settings for one engine.

    Attributes:
        engine: The engine, or the form that the settings take.
        keeping: What it does with the budget.
        because: Why, in a sentence.
        command: The command line that starts it, word by word; empty where there is none.
        environment: Variables that the command needs.
        request: Fields of a request's body, at its top level.
        text: A file's contents, or steps for people.
        warnings: What can go wrong.
        sources: Where all this is written.
    """

    engine: str
    keeping: Keeping
    because: str
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    request: Mapping[str, object] = field(default_factory=dict)
    text: str = ""
    warnings: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    def shell(self) -> str:
        """The command for a POSIX shell, an option a line."""
        lines: list[list[str]] = [[]]
        for word in self.command:
            # The module is part of what is started.
            if word.startswith("-") and lines[-1] not in ([], ["python"]):
                lines.append([])
            lines[-1].append(word)
        before = "".join(f"{name}={shlex.quote(v)} " for name, v in self.environment.items())
        return before + " \\\n    ".join(shlex.join(line) for line in lines)

    def body(self) -> str:
        """The request's body as JSON, with a message to replace."""
        messages = {"messages": [{"role": "user", "content": "..."}]}
        return json.dumps(messages | dict(self.request), ensure_ascii=False, indent=2)

    def show(self) -> str:
        """All of it, for people: what is not a setting stands behind a #."""
        parts = [f"# {self.engine}: {self.keeping}. {self.because}"]
        if self.command:
            parts.append(self.shell())
        if self.request:
            parts += ["# each request's body:", self.body()]
        if self.text:
            parts.append(self.text.rstrip("\n"))
        parts += [f"# beware: {warning}" for warning in self.warnings]
        parts += [f"# source: {source}" for source in self.sources]
        return "\n".join(parts)


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template, and whose it is.

    Attributes:
        text: The template.
        label: Its name in messages.
        own: Whether it is the model's own, not the packaged one of its family.
    """

    text: str
    label: str
    own: bool

    @cached_property
    def render(self) -> Render:
        """Renders messages with it."""
        return renderer(self.text)

    @cached_property
    def switches(self) -> tuple[SwitchEffect, ...]:
        """What its switches do."""
        return template_switches(self.text)


def find_template(serving: Serving) -> ChatTemplate | None:
    """The model's own template if its files are on this machine, else its family's.

    Nothing is downloaded.
    """
    spec = serving.spec
    if spec is not None and (spec.kind != "hub" or _has_snapshot(spec)):
        from pytest_tokenbudget.engines.loading import load_tokenizer

        with suppress(EngineError, TemplateError):
            text = template_text(load_tokenizer(spec))
            return ChatTemplate(text, f"the template of {spec.alias}", own=True)
    if serving.family is None:
        return None
    name = f"this project's model of the {serving.family.name} template"
    return ChatTemplate(packaged_template(serving.family.template), name, own=False)


def _has_snapshot(spec: ModelSpec) -> bool:
    commit = resolve_commit(spec)
    return commit is not None and find_snapshot(spec.source, commit) is not None
