"""What the thinking eval has to generate: budgets, closers, modes, as the context has room."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_tokenbudget.collection.selection import NO_THINKING
from pytest_tokenbudget.common.names import EXPLICIT
from pytest_tokenbudget.core.plan import Forcing, ModeBudget
from pytest_tokenbudget.engines.planning import NotApplicableError, SetupError
from pytest_tokenbudget.settings.context_limits import generation_room
from pytest_tokenbudget.settings.option_values import MODES, THINKING_MODES
from pytest_tokenbudget.settings.options import DEFAULT_THINKING_BUDGETS, Settings
from pytest_tokenbudget.studies.thinking.options import ThinkingOptions
from pytest_tokenbudget.texts.thinking_blocks import Closer, ThinkingFormat

if TYPE_CHECKING:
    from pytest_tokenbudget.core.plan import Plan
    from pytest_tokenbudget.models.resolution import ModelSpec
    from pytest_tokenbudget.session import Session

LARGEST = 2**20
USUAL = ("bare", "sentence")


class NoThinkingError(NotApplicableError):
    """The model does not think; the message is for people."""


def asked_budgets(settings: Settings, spec: ModelSpec) -> tuple[int, ...]:
    """The thinking budgets that a model could have room for, rising.

    Without a list of one's own these are 0 and powers of two from 32, as far as a forced answer
    still fits into the context.
    """
    context = spec.context or LARGEST
    if settings.thinking_budgets:
        return tuple(b for b in settings.thinking_budgets if b < context)
    return tuple(
        budget
        for budget in DEFAULT_THINKING_BUDGETS
        if budget + min(settings.answer_tokens, budget) < context
    )


def thinking_settings(session: Session, spec: ModelSpec) -> Settings:
    """The settings of a model, with the modes and budgets that the selected tests need."""
    settings = session.settings_of(spec)
    if only_modes(session):
        settings = replace(settings, thinking_budgets=(0,))
    chosen = settings.modes or (MODES if needs_every_mode(session) else ())
    named = session.values_in_use.get("mode", set())
    return replace(settings, modes=tuple(m for m in MODES if m in chosen or m in named))


def largest_mode(session: Session, spec: ModelSpec) -> int | None:
    """The largest thinking budget that a mode may have; None for any.

    Whoever names small thinking budgets does not want the large ones of modes, unless they are
    named too.
    """
    settings = session.settings_of(spec)
    if settings.modes or needs_every_mode(session) or not settings.thinking_budgets:
        return None
    return settings.thinking_budgets[-1]


def needs_every_mode(session: Session) -> bool:
    """Whether a selected test needs the answers in every mode."""
    return "_every_mode" in session.fixtures_in_use


def only_modes(session: Session) -> bool:
    """Whether the selected tests need answers in modes and nothing else of the thinking study."""
    named = session.values_in_use.get("mode")
    return bool(named) and "thinking_study" not in session.fixtures_in_use


def thinking_budgets(session: Session, spec: ModelSpec) -> tuple[int | str, ...]:
    """The thinking budgets that tests run for."""
    if spec.thinking is None and not spec.detect:
        return (NO_THINKING,)
    return asked_budgets(session.settings_of(spec), spec)


def check_session(session: Session) -> None:
    """Check closers and ``--max-thinking-tokens`` before anything is loaded.

    Raises:
        pytest.UsageError: If a model cannot have them.
    """
    import pytest

    if session.recordings is None and session.settings.explicit & {
        "closers",
        "max_thinking_tokens",
    }:
        try:
            for spec in session.specs:
                check_asked(session.settings_of(spec), spec)
        except SetupError as error:
            raise pytest.UsageError(str(error)) from None


def check_asked(settings: Settings, spec: ModelSpec) -> None:
    """See to it that a model can have the closers and the budget that were asked for.

    What only the model's own files say is not looked at yet.

    Raises:
        SetupError: If it cannot.
    """
    from pytest_tokenbudget.models.allocation_table import AllocationError, allocate

    if spec.thinking is not None:
        choose_closers(settings, spec)
    try:
        if settings.max_thinking_tokens is not None:
            allocate(spec.model_id, explicit=settings.max_thinking_tokens, context=spec.context)
    except AllocationError as error:
        raise SetupError(f"--max-thinking-tokens: {error}") from error


def choose_closers(settings: Settings, spec: ModelSpec) -> tuple[Closer, ...]:
    """What ends thinking by force, the default first.

    Raises:
        NoThinkingError: If the model has no thinking that could be ended.
        SetupError: If a closer is unknown, or does not close.
    """
    form = spec.thinking
    if form is None:
        raise NoThinkingError(f"{spec.alias} has no thinking format: it is not known to think")
    known = {closer.name: closer for closer in form.closers}
    asked = settings.of_eval(ThinkingOptions).closers
    if not asked:
        return tuple(known[name] for name in USUAL if name in known) or form.closers[:1]
    return tuple(_closer(text, form, known) for text in asked)


def _closer(text: str, form: ThinkingFormat, known: Mapping[str, Closer]) -> Closer:
    name, own, words = text.partition("=")
    if not own:
        if name not in known:
            raise SetupError(
                f"--closers: {name!r} is no closer of this model; allowed: {', '.join(known)}, or "
                "NAME=TEXT for one's own"
            )
        return known[name]
    words = re.sub(r"\\(?:n|x2c)", lambda escape: {"n": "\n"}.get(escape[0][1:], ","), words)
    if form.close not in words:
        raise SetupError(f"--closers: {text!r} does not close thinking; it needs {form.close!r}")
    return Closer(name, words)


def fit_thinking(
    plan: Plan,
    spec: ModelSpec,
    settings: Settings,
    closers: Sequence[Closer],
    *,
    insert: int,
    longest: int,
    context: int,
    largest_mode: int | None = None,
) -> Plan:
    """The plan of the natural traces, with budgets and answers as the context has room.

    Args:
        plan: The plan.
        spec: The model.
        settings: What was asked for.
        closers: What ends thinking by force.
        insert: Tokens of the longest text that is put into prompts.
        longest: Tokens of the longest prompt.
        context: Tokens that prompt and output may have together.
        largest_mode: The largest budget of a mode that is tried; None for any.

    Raises:
        SetupError: If no budget fits.
    """
    room = generation_room(context, longest)
    # Half the room at most, so that short contexts have room for thinking as well.
    answer = min(settings.answer_tokens, (room - insert) // 2)
    top = room - insert - answer
    asked = asked_budgets(settings, spec)
    modes = _modes(settings, spec, longest + insert, max(answer, 1), context)
    fitting = {b for b in asked if b <= top} if answer > 0 else set()
    left_out = tuple(b for b in asked if b not in fitting)
    if not fitting:
        raise SetupError(
            f"{plan.alias}: no thinking budget of {', '.join(map(str, asked))} fits: its context "
            f"of {context:,} tokens leaves {max(room, 0):,} after the longest prompt of "
            f"{longest:,}, and an answer wants {settings.answer_tokens:,}. Choose smaller "
            "--thinking-budgets or --answer-tokens, or a task with shorter prompts."
        )
    modes = tuple(_tried(mode, top, largest_mode) for mode in modes)
    budgets = sorted(fitting | {m.tokens for m in modes if m.tokens is not None})
    forcing = Forcing(
        budgets=tuple(budgets),
        answer_tokens=answer,
        closers=tuple(closers),
        waits=settings.of_eval(ThinkingOptions).wait,
        modes=modes,
        left_out=left_out,
        target=settings.target_truncation,
    )
    reach = min(room, budgets[-1] + answer)
    return replace(
        plan,
        budgets=tuple(b for b in budgets if b > 0) or (reach,),
        left_out=left_out,
        reach=reach,
        forcing=forcing,
    )


def _tried(mode: ModeBudget, top: int, largest: int | None) -> ModeBudget:
    """A mode with its budget, or with the reason why it is not tried."""
    tokens = mode.tokens
    if tokens is not None and tokens > top:
        return replace(mode, tokens=None, reason=f"{mode.reason}; {tokens:,} do not fit")
    if tokens is not None and largest is not None and tokens > largest and mode.mode != EXPLICIT:
        reason = (
            f"its {tokens:,} tokens are above the largest of --thinking-budgets; "
            f"--modes={mode.mode} tries it all the same"
        )
        return replace(mode, tokens=None, reason=reason)
    return mode


def _modes(
    settings: Settings, spec: ModelSpec, prompt: int, answer: int, context: int
) -> tuple[ModeBudget, ...]:
    from pytest_tokenbudget.models.allocation_table import (
        AllocationError,
        allocate,
        scale_to_context,
    )

    found = []
    tried = [mode for mode in dict.fromkeys(settings.modes) if mode in THINKING_MODES]
    chosen = [allocate(spec.model_id, mode, context=context) for mode in tried]
    try:
        if settings.max_thinking_tokens is not None:
            chosen.append(
                allocate(spec.model_id, explicit=settings.max_thinking_tokens, context=context)
            )
        for each in chosen:
            scaled = scale_to_context(each, context, prompt, answer)
            found.append(ModeBudget(scaled.mode, scaled.tokens, scaled.reason))
    except AllocationError as error:
        option = "--max-thinking-tokens" if settings.max_thinking_tokens else "--modes"
        raise SetupError(f"{option}: {error}") from error
    return tuple(found)
