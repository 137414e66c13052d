"""From what a chat endpoint gives back to what the model wrote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pytest_tokenbudget.engines.server.dialects_base import End, Heard
from pytest_tokenbudget.thinking_formats import GENERIC, builtin_formats
from pytest_tokenbudget.traces.thinking import ThinkingFormat
from pytest_tokenbudget.traces.trace import StopReason


class Written(NamedTuple):
    """An output as the model wrote it, as far as that can be told.

    Attributes:
        text: Its text, reasoning between its tags.
        ended: Whether the text of an end-of-sequence token stood at its end.
        hidden_at: After which character reasoning that is not shown belongs.
    """

    text: str
    ended: bool = False
    hidden_at: int = 0


def as_written(
    heard: Heard, thinking: ThinkingFormat | None, prompt: str, ends: Sequence[str] = ()
) -> Written:
    """Put reasoning that came apart, or is only counted, back in its place.

    Where nothing follows reasoning it is left open: servers do not tell whether it was closed.

    Args:
        heard: What came.
        thinking: How the model marks its thinking; None where nobody has said it.
        prompt: Text of the rendered prompt, which may have opened or closed thinking.
        ends: Texts of the tokens that end sequences; some servers leave one in the text.
    """
    form = thinking or builtin_formats()[GENERIC]
    content, ended = _without_end(heard.content, ends)
    opened = form.left_open(prompt)
    opening = "" if opened else form.open
    if heard.reasoning is None:
        if not hidden_tokens(heard) or (opening and content.lstrip().startswith(opening)):
            return Written(content, ended)
        closing = form.close if content else ""
        return Written(opening + closing + content, ended, len(opening))
    reasoning = heard.reasoning
    if not content:
        reasoning, ended = _without_end(reasoning, ends)
        if not opened and prompt.rstrip().endswith(form.close):
            # A parser that calls everything reasoning until a close tag comes, after a prompt that
            # has closed thinking already.
            return Written(reasoning, ended)
    elif (said := _said_again(form, prompt, reasoning, content)) is not None:
        return Written(said, ended)
    if opening and reasoning.lstrip().startswith(opening):
        opening = ""
    closing = form.close if content else ""
    return Written(opening + reasoning + closing + content, ended)


def _said_again(form: ThinkingFormat, prompt: str, reasoning: str, content: str) -> str | None:
    """The content without the closed block that ends the prompt, where that comes as an output.

    transformers serve streams it so; None where it is not there.
    """
    block = prompt[prompt.rfind(form.open) :]
    inside, closed, after = block.removeprefix(form.open).partition(form.close)
    if not closed or after.strip() or form.open not in block:
        return None
    if reasoning.strip() != inside.strip() or not content.startswith(after):
        return None
    return content.removeprefix(after)


def hidden_tokens(heard: Heard) -> int:
    """Reasoning tokens that are counted and not shown."""
    return 0 if heard.reasoning is not None else heard.usage.get("reasoning_tokens", 0)


def stop_of(heard: Heard, written: Written) -> StopReason:
    """Why an output without ids ended: the end that stands in its text, else the server's word."""
    if written.ended:
        return StopReason.EOS
    if heard.end is End.LENGTH:
        return StopReason.LENGTH
    return StopReason.STOP if heard.end is End.STOP else StopReason.EOS


def _without_end(text: str, ends: Sequence[str]) -> tuple[str, bool]:
    for end in ends:
        if end and text.endswith(end):
            return text.removesuffix(end), True
    return text, False
