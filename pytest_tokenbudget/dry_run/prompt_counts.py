"""Prompts before anything is loaded: rendered and encoded from a model's files, without torch.

What prompts have been rendered once is in the trace store. The others are rendered from the chat
template and encoded by the tokenizer's own file where these are here. Where they are not, their
length is estimated from their characters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_tokenbudget.common.outside_files import read_json
from pytest_tokenbudget.models.files import find_snapshot, read_chat_template
from pytest_tokenbudget.models.resolution import resolve_commit
from pytest_tokenbudget.models.spec import ModelSpec
from pytest_tokenbudget.models.template_switches import Render, TemplateError, renderer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from pytest_tokenbudget.tasks.problem import Message

# Characters a token of plain English, as tokenizers of large vocabularies have it.
CHARACTERS = 4
# What a template writes around each message.
AROUND = 8


class LengthSource(StrEnum):
    """How lengths of prompts are known, from surely to hardly."""

    STORED = "stored"
    COUNTED = "counted"
    ESTIMATED = "estimated"


@dataclass(frozen=True)
class PromptLength:
    """Tokens of one prompt.

    Attributes:
        tokens: How many.
        known: How they are known.
    """

    tokens: int
    known: LengthSource


class PromptCounter:
    """Counts the tokens of a model's prompts from its files; estimates them where it cannot.

    Args:
        spec: The model.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec

    @property
    def exact(self) -> bool:
        """Whether prompts are counted and not estimated."""
        return self._parts is not None

    def length(self, messages: Sequence[Message], thinking: bool | None) -> PromptLength:
        """Tokens of the prompt that chat messages make.

        Args:
            messages: Chat messages with ``role`` and ``content``.
            thinking: What is asked of the chat template; None leaves it to the template.
        """
        if self._parts is not None:
            tokenizer, render, special = self._parts
            switch = self.spec.thinking.switch if self.spec.thinking else None
            given: dict[str, Any] = {**special, "add_generation_prompt": True}
            if switch and thinking is not None:
                given[switch] = thinking
            try:
                text = render([dict(message) for message in messages], **given)
            except TemplateError:
                return self._estimate(messages)
            return PromptLength(_count(tokenizer, text), LengthSource.COUNTED)
        return self._estimate(messages)

    def text(self, text: str) -> PromptLength:
        """Tokens of a text that is put into a prompt."""
        if self._parts is not None:
            return PromptLength(_count(self._parts[0], text), LengthSource.COUNTED)
        return PromptLength(-(-len(text) // CHARACTERS), LengthSource.ESTIMATED)

    @staticmethod
    def _estimate(messages: Sequence[Message]) -> PromptLength:
        characters = sum(len(message["content"]) for message in messages)
        return PromptLength(
            -(-characters // CHARACTERS) + AROUND * len(messages), LengthSource.ESTIMATED
        )

    @cached_property
    def _parts(self) -> tuple[Tokenizer, Render, Mapping[str, str]] | None:
        directory = self._directory()
        if directory is None or not (directory / "tokenizer.json").is_file():
            return None
        from tokenizers import Tokenizer

        try:
            template = read_chat_template(directory)
            tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
            return tokenizer, renderer(template), _special(directory)
        except Exception:
            # Whatever is amiss, a run will say; until then lengths are estimates.
            return None

    def _directory(self) -> Path | None:
        spec = self.spec
        if spec.kind == "directory":
            return Path(spec.source)
        commit = resolve_commit(spec) if spec.kind == "hub" else None
        return find_snapshot(spec.source, commit) if commit else None


def _count(tokenizer: Tokenizer, text: str) -> int:
    return len(tokenizer.encode(text, add_special_tokens=False).ids)


def _special(directory: Path) -> dict[str, str]:
    """Texts of the special tokens that templates name."""
    file = directory / "tokenizer_config.json"
    config = read_json(file) if file.is_file() else {}
    found = {}
    for name in ("bos_token", "eos_token", "pad_token", "unk_token"):
        value = config.get(name)
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            found[name] = text
    return found
