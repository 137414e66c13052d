"""What ``llm.generate`` takes and gives: prompts, their checks, answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from pytest_tokenbudget.common.messages import described
from pytest_tokenbudget.common.outside_text import PrintableError

if TYPE_CHECKING:
    from pytest_tokenbudget.core.trace import Cut, StopReason
    from pytest_tokenbudget.tasks.problem import Problem

Conversation: TypeAlias = str | Sequence[Mapping[str, str]]


class LanguageModelError(PrintableError, ValueError):
    """A model cannot do what a test asks of it; the message is for people."""


@dataclass(frozen=True)
class Generation:
    """One answer of a model.

    Attributes:
        text: All that the model wrote, thinking and its tags included.
        ids: Output token ids, the end-of-sequence id included if it came. A server that gives text
            only has its tokens counted, and ``counted`` is True.
        stop_reason: ``eos``, ``stop`` (a stop string) or ``length`` (``max_new_tokens``).
        thinking: Text of the thinking without its tags; empty where the model did not think.
        answer: What follows the thinking; empty while the thinking is unfinished.
        seconds: Wall time that the stored trace took to generate.
        prompt_tokens: Tokens of the prompt.
        max_new_tokens: Output tokens that were allowed.
        sample: Number of the sample, from 0.
        counted: Whether ``ids`` were counted from text and are not the model's own.
        cut: The stored trace at ``max_new_tokens``, as the evals of this plugin see it.
    """

    text: str
    ids: tuple[int, ...]
    stop_reason: StopReason
    thinking: str
    answer: str
    seconds: float
    prompt_tokens: int
    max_new_tokens: int
    sample: int = 0
    counted: bool = False
    cut: Cut | None = field(default=None, compare=False, repr=False)

    @property
    def truncated(self) -> bool:
        """Whether ``max_new_tokens`` cut it off."""
        return self.stop_reason == "length"

    @classmethod
    def of_cut(cls, cut: Cut) -> Generation:
        """What a trace is at a budget."""
        from pytest_tokenbudget.core.trace import StopReason

        trace = cut.trace
        return cls(
            text=cut.text,
            ids=trace.output_ids[: cut.tokens_used],
            stop_reason=StopReason.LENGTH if cut.truncated else trace.stop_reason,
            # Blank lines around the tags belong to neither.
            thinking=cut.thinking.strip("\n"),
            answer=cut.answer.strip("\n"),
            seconds=trace.seconds,
            prompt_tokens=len(trace.prompt_ids),
            max_new_tokens=cut.budget,
            sample=trace.sample,
            counted=trace.counted,
            cut=cut,
        )


def problem_of(prompt: object) -> Problem:
    """A prompt in the form in which prompts are rendered and generated for."""
    __tracebackhide__ = True
    from pytest_tokenbudget.tasks.jsonl import ROLES
    from pytest_tokenbudget.tasks.problem import Problem, content_id

    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    allowed = "a text, or a list of chat messages with role and content"
    if not isinstance(messages, Sequence) or isinstance(messages, bytes) or not messages:
        actual = "an empty list" if messages in ([], ()) else described(messages)
        raise LanguageModelError(f"the prompt must be {allowed}, not {actual}")
    for place, message in enumerate(messages, 1):
        where = f"message {place} of the prompt"
        if not isinstance(message, Mapping):
            raise LanguageModelError(
                f"{where} must be a dict with role and content, not {described(message)}"
            )
        for key in ("role", "content"):
            value = message.get(key)
            if not isinstance(value, str):
                raise LanguageModelError(f"{where}: {key} must be a text, not {described(value)}")
        if message["role"] not in ROLES:
            raise LanguageModelError(
                f"{where}: role must be one of {', '.join(ROLES)}, not {described(message['role'])}"
            )
    chat = tuple(dict(message) for message in messages)
    return Problem(content_id("prompt", chat, ""), chat[-1]["content"], "", "", chat)


def question_of(prompt: object) -> Problem:
    """A prompt that a model shall answer; see :func:`problem_of`."""
    __tracebackhide__ = True
    problem = problem_of(prompt)
    if not problem.question.strip():
        place = len(problem.messages)
        what = (
            "the prompt" if isinstance(prompt, str) else f"message {place} of the prompt, its last,"
        )
        raise LanguageModelError(
            f"{what} must have text for the model to answer, not {described(problem.question)}"
        )
    return problem


def stop_texts(stop: object) -> tuple[str, ...]:
    __tracebackhide__ = True
    given = (stop,) if isinstance(stop, str) else stop
    if not isinstance(given, Sequence) or isinstance(given, bytes):
        raise LanguageModelError(f"stop must be a text or a list of texts, not {described(stop)}")
    for text in given:
        if not isinstance(text, str) or not text:
            raise LanguageModelError(
                f"stop: each text must have at least one character, not {described(text)}"
            )
    return tuple(given)
