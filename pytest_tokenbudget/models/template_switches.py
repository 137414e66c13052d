"""What a chat template really reads: the same prompt with and without each switch, compared."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pytest_tokenbudget.common.outside_text import PrintableError

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
_ANY_VALUE: Final = (True, False, 0, 512)
# Dates would make two renderings differ for nothing.
_DATE: Final = "2026-01-01"


class TemplateError(PrintableError, ValueError):
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
        return bool(self.changing)

    def sentence(self) -> str:
        if self.changing:
            return f"{self.name} changes the prompt ({', '.join(map(repr, self.changing))})"
        if self.named:
            return f"{self.name} is named in the template, and changes no byte of the prompt"
        return f"{self.name} is not read: the prompt is the same, byte for byte"


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

    The source is the text of a template, or a tokenizer that has one.

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
    source: object, names: Iterable[str] = tuple(SWITCHES)
) -> tuple[SwitchEffect, ...]:
    """Which switches a template really reads.

    Each conversation is rendered without any switch and with each value of each one, and the
    prompts are compared byte for byte. A value that the template refuses counts as read.
    Conversations that it refuses without any switch (some know no system message) are left out. The
    source is the text of a template, or a tokenizer that has one.

    Raises:
        TemplateError: If there is no usable template.
    """
    render = renderer(source)
    named = template_variables(template_text(source))
    plain = renderings(render)
    effects = []
    for name in names:
        values = SWITCHES.get(name, _ANY_VALUE)
        changing = tuple(
            value
            for value in values
            if any(try_render(render, m, **{name: value}) != prompt for m, prompt in plain)
        )
        effects.append(SwitchEffect(name, name in named, values, changing))
    return tuple(effects)


def renderings(render: Render) -> list[tuple[Sequence[Message], str]]:
    """``CONVERSATIONS`` that a template accepts, with their prompts.

    Raises:
        TemplateError: If it accepts none.
    """
    done: list[tuple[Sequence[Message], str]] = []
    refusal: TemplateError | None = None
    for messages in CONVERSATIONS:
        try:
            done.append((messages, render(messages)))
        except TemplateError as error:
            refusal = error
    if not done and refusal:
        raise refusal
    return done


def try_render(render: Render, messages: Sequence[Message], **variables: object) -> str | None:
    """The prompt; None where the template refuses."""
    try:
        return render(messages, **variables)
    except TemplateError:
        return None


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
