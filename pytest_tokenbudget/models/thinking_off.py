"""How far a chat template can switch thinking off, and how its prompts mark thinking."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pytest_tokenbudget.models.template_switches import (
    CONVERSATIONS,
    QUESTION,
    Message,
    Render,
    renderings,
    try_render,
)

# Ways in which templates are told not to think.
OFF: Final[tuple[tuple[str, object], ...]] = (
    ("enable_thinking", False),
    ("thinking", False),
    ("thinking_budget", 0),
    ("max_thinking_tokens", 0),
    ("reasoning_budget", 0),
    ("reasoning_effort", "none"),
)
# Variables that tell a model to think whose template does not ask for it by default.
ON: Final[tuple[tuple[str, object], ...]] = (
    ("enable_thinking", True),
    ("thinking", True),
    ("reasoning", True),
)
# Words that some templates look for in a message, and the roles of the messages they look in.
OFF_WORDS: Final = ("/no_think", "/nothink")
_ROLES: Final = ("system", "user")


class Off(enum.StrEnum):
    """How far a template can switch thinking off."""

    CLOSED = "closed"
    NOT_OPENED = "not_opened"
    ONLY_WHEN_TOLD = "only_when_told"
    ASKED = "asked"
    CANNOT = "cannot"


@dataclass(frozen=True)
class OffVerdict:
    """Whether and how the prompt says that thinking is off.

    Attributes:
        way: How far it goes.
        switch: Name and value that did it, or that tells the model to think where it thinks only
            when told to; None where there is none, or none is needed.
        tail: The end of the prompt, from the user's last words on.
        message: The word and the role of the message that did it, such as ``("/no_think",
            "system")``; None where a variable did, or nothing is needed.
    """

    way: Off
    switch: tuple[str, object] | None
    tail: str
    message: tuple[str, str] | None = None

    @property
    def is_off(self) -> bool:
        """Whether the block is closed before the first token, or nothing asks for thinking."""
        return self.way in (Off.CLOSED, Off.ONLY_WHEN_TOLD)

    @property
    def variables(self) -> Mapping[str, object]:
        """The template variables to send, so that the model does not think."""
        return {} if self.switch is None or self.way is Off.ONLY_WHEN_TOLD else dict([self.switch])

    def sentence(self) -> str:
        name = f"{self.switch[0]}={self.switch[1]!r}" if self.switch else "the template"
        if self.message:
            name = f"{self.message[0]} in the {self.message[1]} message"
        if self.way is Off.ONLY_WHEN_TOLD:
            return f"off: the model thinks only when told to, with {name}"
        if self.way is Off.CLOSED:
            by_itself = "" if self.switch or self.message else " by itself"
            return f"off: {name}{by_itself} writes a closed, empty thinking block into the prompt"
        if self.way is Off.NOT_OPENED:
            return (
                f"off in the prompt: {name} leaves the thinking block unopened; the model can "
                f"still open one"
            )
        if self.way is Off.ASKED:
            return (
                f"not off: {name} only asks the model not to think; no closed block is written, "
                f"and nothing keeps it from thinking"
            )
        return "not off: this template cannot switch thinking off"


def thinking_disabled(
    render: Render, open_tag: str = "<think>", close_tag: str = "</think>"
) -> OffVerdict:
    """Which way the prompt says that thinking is off.

    Raises:
        TemplateError: If nothing can be rendered.
    """
    (messages, prompt), *_ = renderings(render)
    tail = _tail(prompt)
    if _closed(tail, close_tag):
        return OffVerdict(Off.CLOSED, None, tail)
    opened = _left_open(tail, open_tag, close_tag)
    found: dict[Off, OffVerdict] = {}

    def note(
        end: str, switch: tuple[str, object] | None, message: tuple[str, str] | None = None
    ) -> None:
        if _closed(end, close_tag):
            way = Off.CLOSED
        elif opened and not _left_open(end, open_tag, close_tag):
            way = Off.NOT_OPENED
        else:
            way = Off.ASKED
        found.setdefault(way, OffVerdict(way, switch, end, message))

    for name, value in OFF:
        other = try_render(render, messages, **{name: value})
        if other not in (None, prompt):
            note(_tail(str(other)), (name, value))
    for name, value in ON:
        told = try_render(render, messages, **{name: value})
        if not opened and told not in (None, prompt) and not found:
            found[Off.ONLY_WHEN_TOLD] = OffVerdict(Off.ONLY_WHEN_TOLD, (name, value), tail)
    for word, role in itertools.product(OFF_WORDS, _ROLES):
        other = try_render(render, _with_word(messages, word, role))
        # A template that shows the word to the model does not act on it.
        if other is not None and word not in other and other != prompt:
            note(_tail(other), None, (word, role))
    return next((found[way] for way in Off if way in found), OffVerdict(Off.CANNOT, None, tail))


def opens_thinking(
    render: Render, open_tag: str, close_tag: str, variables: Mapping[str, object]
) -> bool:
    """Whether prompts end inside a thinking block that the template opened."""
    prompt = try_render(render, CONVERSATIONS[0], **variables)
    return prompt is not None and _left_open(_tail(prompt), open_tag, close_tag)


def shows_thinking(render: Render, open_tag: str = "<think>", close_tag: str = "</think>") -> bool:
    """Whether prompts say how thinking is marked.

    Either the prompt opens the block, or a thought of the history stands between the tags.
    llama.cpp knows the tags from there, and from nowhere else.

    Raises:
        TemplateError: If nothing can be rendered.
    """
    (_, prompt), *_ = renderings(render)
    if _left_open(_tail(prompt), open_tag, close_tag):
        return True
    thought = "Two and two."
    told = ({"role": "assistant", "content": "4", "reasoning_content": thought},)
    history = try_render(render, (*CONVERSATIONS[0], *told), add_generation_prompt=False) or ""
    before, found, after = history.partition(thought)
    return bool(found) and open_tag in before and close_tag in after


def _with_word(messages: Sequence[Message], word: str, role: str) -> Sequence[Message]:
    """The messages with a word added to the one of a role, which is made where it is missing."""
    if all(message["role"] != role for message in messages):
        return ({"role": role, "content": word}, *messages)
    return [
        {**message, "content": f"{message['content']} {word}"}
        if message["role"] == role
        else message
        for message in messages
    ]


def _tail(prompt: str) -> str:
    return prompt.rpartition(QUESTION)[2]


def _closed(tail: str, close_tag: str) -> bool:
    return tail.rstrip().endswith(close_tag)


def _left_open(tail: str, open_tag: str, close_tag: str) -> bool:
    return tail.rfind(open_tag) > tail.rfind(close_tag)
