"""What a conformance probe asks of an engine, and what it gets: the engine's own words, unmended.

A trace says what a model wrote. A reply also says how the engine put it: which fields it took, what
it called the end, what it counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast, runtime_checkable

from pytest_tokenbudget.core.engine import Engine, EngineError


class NoAnswerError(EngineError):
    """An engine that failed or did not answer, so that nothing is known of it."""


@dataclass(frozen=True)
class Ask:
    """One request of a probe.

    Attributes:
        messages: Chat messages; empty where ``prompt_ids``, those of a rendered prompt, are given.
        n: How many outputs of the one prompt.
        seed: Seed of the sampling noise; None sends none.
        fields: Further fields of the request, as they are sent: top level of the body of a request
            to a server, sampling parameters in-process.
        template: Variables for the chat template (``chat_template_kwargs``); with messages only.
    """

    max_tokens: int
    messages: tuple[Mapping[str, str], ...] = ()
    prompt_ids: tuple[int, ...] = ()
    n: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    template: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ProbeOutput:
    """One output.

    Attributes:
        ids: Output token ids, the end-of-sequence id included if the engine gives it; None where
            it gives none.
        content: Text of the answer as the engine calls it (``content`` or ``text``).
        finish_reason: The engine's own word.
        reasoning: Text that came apart as reasoning; None where nothing came apart.
        text: All that was written, with the reasoning put back between its tags.
        opened: Whether the prompt had opened a thinking block.
    """

    ids: tuple[int, ...] | None
    content: str
    finish_reason: str
    reasoning: str | None = None
    text: str = ""
    opened: bool = False


@dataclass(frozen=True)
class Reply:
    """What came of a request.

    Attributes:
        sent: The request as it was sent, without its key; long prompts shortened.
        choices: Its outputs; empty where it failed.
        usage: The engine's own counts by name (``prompt_tokens``, ``completion_tokens``,
            ``reasoning_tokens``); empty where it gives none.
        error: What went wrong, for people.
        status: HTTP status of an error; an in-process engine that takes no such field says 400 as
            a server would. None elsewhere.
        prompt_tokens: Length of the prompt by its ids, None where they are not known.
    """

    sent: Mapping[str, Any]
    choices: tuple[ProbeOutput, ...] = ()
    usage: Mapping[str, int] = field(default_factory=dict)
    error: str = ""
    status: int | None = None
    prompt_tokens: int | None = None

    @property
    def refused(self) -> bool:
        """Whether the engine said no to the request itself, and would say so again."""
        status = self.status
        return bool(self.error) and status in (400, 405, 406, 409, 413, 415, 422, 501)


@runtime_checkable
class Askable(Protocol):
    """An engine that can be probed."""

    @property
    def engine_name(self) -> str:
        """Short name, fit for file names: transformers, vllm, llamacpp, sglang, serve, server."""

    @property
    def eos_ids(self) -> frozenset[int]:
        """Ids that end a sequence; empty where they are not known."""

    def ask(self, asks: Sequence[Ask], at_once: int = 1) -> list[Reply]:
        """Ask all, ``at_once`` at a time, and give the replies in the order of the asks.

        What goes wrong with one is in its reply. In-process engines put as many into one batch.
        """

    def count(self, text: str) -> int | None:
        """Tokens of a text by the model's tokenizer; None where none is known."""


class Probed(Askable, Engine, Protocol):
    """An engine that renders prompts and can be probed."""


def probed(engine: Engine) -> Probed:
    """An engine as one that can be probed.

    Raises:
        EngineError: If it cannot be.
    """
    if not isinstance(engine, Askable):
        raise EngineError(
            f"the engine {type(engine).__name__} cannot be asked for conformance; serve the model "
            "and give the server's address as --model"
        )
    return cast(Probed, engine)
