"""How many tokens a prompt and an output may have, and the error where none is left."""

from __future__ import annotations

import re
from typing import NamedTuple

from pytest_tokenbudget.common.messages import described, whole_number
from pytest_tokenbudget.common.outside_text import PrintableError

DEFAULT_NEW = 512
# Strategies that a share can be given to.
WITH_SHARE = ("ends", "summary")
LEAST_RESERVE = 64


class ContextError(PrintableError, ValueError):
    """A context window that cannot be made; the message is for people."""


class ContextLimit(NamedTuple):
    """How long a prompt may be: so many tokens, or a share of what it is.

    Attributes:
        tokens: Tokens; None where a share is meant.
        share: Share of the whole prompt, above 0 and below 1; None where tokens are meant.
    """

    tokens: int | None = None
    share: float | None = None

    @classmethod
    def read(cls, text: str) -> ContextLimit:
        """A limit such as ``512``, ``25%``, or ``0`` and ``100%`` for no truncation.

        Raises:
            ContextError: If it is none.
        """
        if not isinstance(text, str):
            raise ContextError(f"a context limit is read from a text, not from {described(text)}")
        found = re.fullmatch(r"(\d{1,9})|(\d{1,3}(?:\.\d{1,3})?) ?%", text.strip(), re.ASCII)
        share = float(found[2]) / 100 if found and found[2] else None
        if found is None or (share is not None and not 0 < share <= 1):
            raise ContextError(
                f"context limit {text!r}; allowed are tokens (512), shares of the conversation "
                f"(25%), and 0 or 100% for no truncation"
            )
        if share is None:
            return cls(tokens=int(found[1]))
        return WHOLE if share == 1 else cls(share=share)

    def __str__(self) -> str:
        if self.share is not None:
            return f"{100 * self.share:g}%"
        return str(self.tokens) if self.tokens else "100%"

    def tokens_of(self, length: int) -> int:
        """Tokens that a prompt may have which has ``length`` as a whole; 0 means all of them."""
        if self.share is not None:
            return max(1, round(self.share * length))
        return self.tokens or 0


WHOLE = ContextLimit(tokens=0)


def prompt_room(context: int, max_new: int | None = None) -> int:
    """Tokens that a prompt may have, at least 1, so that a useful output still fits behind it.

    Prompt and output may have ``context`` tokens together. Two fifths of them at most are reserved
    for the output, and 64 tokens at least; 512 tokens are wanted where ``max_new`` is None or 0. A
    context of 64 tokens or fewer promises no room for the output: `generation_cap` tells.

    Raises:
        ContextError: If ``context`` is below 1 or ``max_new`` below 0.
    """
    _check(context, max_new)
    # In integers: 0.4 is no binary fraction.
    reserve = max(LEAST_RESERVE, min(max_new or DEFAULT_NEW, context * 2 // 5))
    return max(1, context - reserve)


def generation_room(context: int, used: int) -> int:
    """Output tokens that fit behind a prompt; below 1 where none does.

    This is the one rule of the whole package, and what engines allow: prompt and output together
    fill the context to its last token.
    """
    return context - used


def generation_cap(context: int, used: int, max_new: int) -> int:
    """Output tokens that are really allowed where ``max_new`` are wanted, at least 1.

    Prompt (``used``) and output may have ``context`` tokens together.

    Raises:
        ContextError: If not one new token fits, or none is wanted.
    """
    _check(context, whole_number("max_new", max_new, error=ContextError))
    whole_number("used", used, 0, error=ContextError)
    if max_new < 1:
        raise ContextError("max_new is 0: at least one new token must be wanted")
    check_room(context, used)
    return min(max_new, generation_room(context, used))


def check_room(context: int, used: int) -> None:
    """Make sure that a new token fits behind a prompt.

    Raises:
        ContextError: If none does.
    """
    if generation_room(context, used) < 1:
        raise ContextError(
            f"the prompt has {used:,} tokens and the context {context:,}: no room is left for a "
            f"new token; a prompt may have {max(0, context - 1):,} tokens at most, "
            f"{prompt_room(max(1, context)):,} if a useful output is to fit behind it"
        )


def check_limit(limit: int) -> None:
    """Make sure that a limit is one.

    Raises:
        ContextError: If it is negative.
    """
    if whole_number("limit", limit, error=ContextError) < 0:
        raise ContextError(
            f"context limit {limit} is negative; allowed are 0 (no truncation) and any number of "
            f"tokens from 1"
        )


def _check(context: int, max_new: int | None) -> None:
    if whole_number("context", context, error=ContextError) < 1:
        raise ContextError(f"context of {context} tokens; at least 1 is needed")
    if max_new is not None and whole_number("max_new", max_new, error=ContextError) < 0:
        raise ContextError(f"max_new is {max_new}; it cannot be negative")
