"""What a chat template really reads: the same prompt with and without each switch, compared."""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from jinja2.environment import Template
    from jinja2.nodes import Node
    from jinja2.parser import Parser
    from jinja2.sandbox import SandboxedEnvironment

Message = Mapping[str, str]
Render = Callable[..., str]

QUESTION: Final = "What is 17 + 25?"
# One turn, and a history with a thought in it: some switches only touch one of them.
CONVERSATIONS: Final[tuple[tuple[Message, ...], ...]] = (
    ({"role": "user", "content": QUESTION},),
    (
        {"role": "system", "content": "Answer briefly."},
        {"role": "user", "content": "What is 2 + 2?"},
        {"role": "assistant", "content": "4", "reasoning_content": "Two and two."},
        {"role": "user", "content": QUESTION},
    ),
)
SWITCHES: Final[Mapping[str, tuple[object, ...]]] = {
    "enable_thinking": (True, False),
    "thinking": (True, False),
    "thinking_budget": (0, 512, 64_000),
    "max_thinking_tokens": (0, 512, 64_000),
    "reasoning_budget": (0, 512, 64_000),
    "reasoning_effort": ("low", "high"),
}
# Ways in which templates are told not to think.
OFF: Final[tuple[tuple[str, object], ...]] = (
    ("enable_thinking", False),
    ("thinking", False),
    ("thinking_budget", 0),
    ("max_thinking_tokens", 0),
    ("reasoning_budget", 0),
    ("reasoning_effort", "none"),
)
_ANY_VALUE: Final = (True, False, 0, 512)
# Dates would make two renderings differ for nothing.
_DATE: Final = "2026-01-01"


class TemplateError(ValueError):
    """A chat template that cannot be used; the message is for people."""


@dataclass(frozen=True)
class SwitchEffect:
    """What one variable does to the prompt.

    Attributes:
        name: The variable.
        named: Whether the template has a variable of this name at all.
        tried: The values that were rendered.
        changing: Those whose prompt differs, in any byte, from the one without the variable.
    """

    name: str
    named: bool
    tried: tuple[object, ...]
    changing: tuple[object, ...]

    @property
    def works(self) -> bool:
        """Whether it changes the prompt at all."""
        return bool(self.changing)

    def sentence(self) -> str:
        """The same for people."""
        if self.changing:
            return f"{self.name} changes the prompt ({', '.join(map(repr, self.changing))})"
        if self.named:
            return f"{self.name} is named in the template, and changes no byte of the prompt"
        return f"{self.name} is not read: the prompt is the same, byte for byte"


class Off(enum.StrEnum):
    """How far a template can switch thinking off."""

    CLOSED = "closed"
    NOT_OPENED = "not_opened"
    ASKED = "asked"
    CANNOT = "cannot"


@dataclass(frozen=True)
class OffVerdict:
    """Whether and how the prompt says that thinking is off.

    Attributes:
        way: How far it goes.
        switch: Name and value that did it; None where none does, or none is needed.
        tail: The end of the prompt, from the user's last words on.
    """

    way: Off
    switch: tuple[str, object] | None
    tail: str

    @property
    def is_off(self) -> bool:
        """Whether the block is closed before the model writes its first token."""
        return self.way is Off.CLOSED

    def sentence(self) -> str:
        """The same for people."""
        name = f"{self.switch[0]}={self.switch[1]!r}" if self.switch else "the template"
        if self.way is Off.CLOSED:
            by_itself = "" if self.switch else " by itself"
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


def template_variables(template: str) -> frozenset[str]:
    """The names that a template reads from outside, messages and the like included.

    Raises:
        TemplateError: If it is not a template.
    """
    from jinja2 import meta

    environment = _environment()
    _compiled(template)
    return frozenset(meta.find_undeclared_variables(environment.parse(template)))


def renderer(source: object) -> Render:
    """A function that renders messages with variables, as the engines do.

    Args:
        source: A template's text, or a tokenizer that has one.

    Raises:
        TemplateError: If there is none, or it is broken.
    """
    text = template_text(source)
    tokens = {
        name: getattr(source, name, None) or "" for name in ("bos_token", "eos_token", "pad_token")
    }
    template = _compiled(text)

    def render(messages: Sequence[Message], **variables: object) -> str:
        given = [dict(message) for message in messages]
        try:
            return template.render(
                **(tokens | {"messages": given, "add_generation_prompt": True} | variables)
            )
        except Exception as error:
            raise TemplateError(f"the chat template refuses the messages: {error}") from error

    return render


def template_text(source: object) -> str:
    """The text of a template, given as itself or as a tokenizer that holds it.

    Raises:
        TemplateError: If there is none.
    """
    if isinstance(source, str):
        return source
    held: Any = getattr(source, "chat_template", None)
    if isinstance(held, Mapping):
        held = held.get("default")
    if not isinstance(held, str) or not held:
        raise TemplateError(f"{type(source).__name__} has no chat template")
    return held


def template_switches(
    source: object,
    names: Iterable[str] = tuple(SWITCHES),
    conversations: Sequence[Sequence[Message]] = CONVERSATIONS,
) -> tuple[SwitchEffect, ...]:
    """Which switches a template really reads.

    Each conversation is rendered without any switch and with each value of each one, and the
    prompts are compared byte for byte. A value that the template refuses counts as read.

    Args:
        source: A template's text, or a tokenizer that has one.
        names: The variables to try.
        conversations: The messages to render; those that the template refuses without any switch
            (some know no system message) are left out.

    Raises:
        TemplateError: If there is no usable template.
    """
    render = renderer(source)
    named = template_variables(template_text(source))
    plain = _renderings(render, conversations)
    effects = []
    for name in names:
        values = SWITCHES.get(name, _ANY_VALUE)
        changing = tuple(
            value
            for value in values
            if any(_differs(render, messages, name, value, prompt) for messages, prompt in plain)
        )
        effects.append(SwitchEffect(name, name in named, values, changing))
    return tuple(effects)


def thinking_disabled(
    render: Render, open_tag: str = "<think>", close_tag: str = "</think>"
) -> OffVerdict:
    """Which way the prompt says that thinking is off.

    Args:
        render: From :func:`renderer`, or any function of messages and variables.
        open_tag: Text that opens a thinking block.
        close_tag: Text that closes it.

    Raises:
        TemplateError: If nothing can be rendered.
    """
    (messages, prompt), *_ = _renderings(render, CONVERSATIONS)
    tail = _tail(prompt)
    if _closed(tail, close_tag):
        return OffVerdict(Off.CLOSED, None, tail)
    opened = _left_open(tail, open_tag, close_tag)
    found: dict[Off, OffVerdict] = {}
    for name, value in OFF:
        try:
            other = render(messages, **{name: value})
        except TemplateError:
            continue
        if other.encode() == prompt.encode():
            continue
        end = _tail(other)
        if _closed(end, close_tag):
            way = Off.CLOSED
        elif opened and not _left_open(end, open_tag, close_tag):
            way = Off.NOT_OPENED
        else:
            way = Off.ASKED
        found.setdefault(way, OffVerdict(way, (name, value), end))
    return next(
        (found[way] for way in (Off.CLOSED, Off.NOT_OPENED, Off.ASKED) if way in found),
        OffVerdict(Off.CANNOT, None, tail),
    )


def shows_thinking(render: Render, open_tag: str = "<think>", close_tag: str = "</think>") -> bool:
    """Whether prompts say how thinking is marked.

    Either the prompt opens the block, or a thought of the history stands between the tags.
    llama.cpp knows the tags from there, and from nowhere else.

    Args:
        render: From :func:`renderer`, or any function of messages and variables.
        open_tag: Text that opens a thinking block.
        close_tag: Text that closes it.

    Raises:
        TemplateError: If nothing can be rendered.
    """
    (_, prompt), *_ = _renderings(render, CONVERSATIONS)
    if _left_open(_tail(prompt), open_tag, close_tag):
        return True
    thought = "Two and two."
    told = ({"role": "assistant", "content": "4", "reasoning_content": thought},)
    try:
        history = render((*CONVERSATIONS[0], *told), add_generation_prompt=False)
    except TemplateError:
        return False
    before, found, after = history.partition(thought)
    return bool(found) and open_tag in before and close_tag in after


def _renderings(
    render: Render, conversations: Sequence[Sequence[Message]]
) -> list[tuple[Sequence[Message], str]]:
    """Conversations that a template accepts, with their prompts."""
    done: list[tuple[Sequence[Message], str]] = []
    refusal: TemplateError | None = None
    for messages in conversations:
        try:
            done.append((messages, render(messages)))
        except TemplateError as error:
            refusal = error
    if not done:
        raise refusal or TemplateError("there are no messages to render")
    return done


def _differs(
    render: Render, messages: Sequence[Message], name: str, value: object, prompt: str
) -> bool:
    try:
        return render(messages, **{name: value}).encode() != prompt.encode()
    except TemplateError:
        return True


def _tail(prompt: str) -> str:
    return prompt.rpartition(QUESTION)[2]


def _closed(tail: str, close_tag: str) -> bool:
    return tail.rstrip().endswith(close_tag)


def _left_open(tail: str, open_tag: str, close_tag: str) -> bool:
    return tail.rfind(open_tag) > tail.rfind(close_tag)


@functools.lru_cache(maxsize=32)
def _compiled(template: str) -> Template:
    from jinja2 import TemplateError as Broken

    try:
        return _environment().from_string(template)
    except Broken as error:
        line = getattr(error, "lineno", None)
        where = f", line {line}" if line else ""
        raise TemplateError(f"the chat template cannot be read{where}: {error}") from error


@functools.cache
def _environment() -> SandboxedEnvironment:
    """Jinja as chat templates are written for: sandboxed, with the names that they expect."""
    import json

    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """``{% generation %}`` marks what an assistant wrote, and prints it as it is."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Parser) -> list[Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: object, ensure_ascii: bool = False, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals |= {
        "raise_exception": raise_exception,
        "strftime_now": lambda _format: _DATE,
    }
    return environment
