"""What the allocation eval finds: the table's budgets as measured, off or not, and policies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_tokenbudget.common.text_layout import decimal, point_change, share
from pytest_tokenbudget.studies.thinking.analysis import (
    EnforcedAnswers,
    SwitchedOff,
    ThinkingPoint,
    analyse_thinking,
    point,
)
from pytest_tokenbudget.studies.thinking.forced_answers import ended_within
from pytest_tokenbudget.studies.thinking.study import Enforcement, ThinkingStudy

if TYPE_CHECKING:
    from pytest_tokenbudget.models.allocation_table import Allocation
    from pytest_tokenbudget.models.resolution import ModelSpec
    from pytest_tokenbudget.models.template_switches import SwitchEffect
    from pytest_tokenbudget.models.thinking_off import OffVerdict
    from pytest_tokenbudget.recipes.recipe import Serving
    from pytest_tokenbudget.session import Session
    from pytest_tokenbudget.studies.allocation.policies import PolicyStudy
    from pytest_tokenbudget.studies.allocation.policy_results import PolicyPoint
    from pytest_tokenbudget.studies.allocation.replay import Replay

OFF = "thinking off"
_MODEL = "allocation model"
_EXPLICIT = "explicit"
_SHOWN = "shown to be not worse than no limit"


@dataclass(frozen=True)
class ModeResult:
    """A mode of the allocation table on the model at hand.

    Attributes:
        mode: The mode, or ``explicit``.
        table: What the table gives the model, and why; None for ``off`` and ``on``.
        tokens: The budget scaled to the model's context; None where it cannot be.
        reason: How that came about.
        measured: What it came to; None where it was not tried.
        how: How it was tried, or why it was not.
    """

    mode: str
    table: Allocation | None
    tokens: int | None
    reason: str
    measured: ThinkingPoint | None
    how: str


@dataclass(frozen=True)
class Disabled:
    """Whether the mode ``disabled`` is off, in the prompt and in what the model writes.

    Attributes:
        whose: What the chat template is called; None where none is at hand.
        rendered: How far the template switches thinking off.
        switches: What its switches do to prompts, byte for byte.
        prompts: Problems whose prompts were rendered with and without thinking.
        unlike: Those whose prompts differ in a token.
        generated: What the model wrote with thinking switched off; None without a switch.
    """

    whose: str | None
    rendered: OffVerdict | None
    switches: tuple[SwitchEffect, ...]
    prompts: int
    unlike: int
    generated: SwitchedOff | None

    @property
    def is_off(self) -> bool | None:
        """What the model wrote decides, else the prompt; None where neither is known."""
        if self.generated is not None:
            return self.generated.is_off
        return None if self.rendered is None else self.rendered.is_off

    @property
    def has_switch(self) -> bool:
        """Whether there is anything that says it switches thinking off."""
        from pytest_tokenbudget.models.thinking_off import Off

        method = None if self.rendered is None else self.rendered.way
        return self.generated is not None or method not in (None, Off.CANNOT)

    def sentence(self) -> str:
        """What is known, for people."""
        if self.is_off is None:
            return "whether disabled is off is not known: there is no switch to try"
        said = []
        if self.rendered is not None:
            said.append(self.rendered.sentence().partition(": ")[2])
        if self.prompts and self.unlike < self.prompts:
            same = self.prompts - self.unlike
            said.append(f"the switch changes no token of {same:,} of {self.prompts:,} prompts")
        if self.generated is not None:
            found = self.generated
            thought = f"{found.thought:,}" if found.thought else "none"
            most = f", up to {found.most:,} tokens" if found.thought else ""
            said.append(f"the model thought in {thought} of {found.problems:,} answers{most}")
        return f"disabled is {'off' if self.is_off else 'not off'}: {'; '.join(said)}"


@dataclass(frozen=True)
class AllocationReport:
    """What the allocation eval found.

    Attributes:
        model: The resolved model id that the table was asked for.
        context: Tokens that prompt and output may have together; None if unknown.
        row: The row of the table that matched; None where none did.
        why: Which words matched, or why nothing did.
        modes: One for each mode of the table, the explicit budget if one was asked for, off and on.
        disabled: Whether disabled is off.
        policies: Policies replayed; None where they could not be.
        left_out: Why they could not be; empty where they were.
        off: Thinking switched off against one limit at its own mean tokens; None if not tried.
        no_limit: The budget that stands for no limit in the replay.
        reference_because: Why policies are compared at the limit that they are compared at.
        reference_shown: Whether that limit is shown to be not worse than no limit.
    """

    model: str
    context: int | None
    row: str | None
    why: str
    modes: tuple[ModeResult, ...]
    disabled: Disabled
    policies: PolicyStudy | None
    left_out: str
    off: PolicyPoint | None
    no_limit: int | None
    reference_because: str
    reference_shown: bool = False

    def mode(self, name: str) -> ModeResult:
        """The mode of that name.

        Raises:
            ValueError: If it is none, naming those there are.
        """
        for each in self.modes:
            if each.mode == name:
                return each
        there = ", ".join(each.mode for each in self.modes)
        raise ValueError(f"no mode {name!r}, only {there}")

    @property
    def table_sentence(self) -> str:
        """Which row of the table matched, for people."""
        if self.row is None:
            return f"the table does not know this model: {self.why}"
        return f"the table: {self.why}"

    @property
    def recommended(self) -> str | None:
        """What to set: a policy's name, or thinking off where that is shown to be better.

        Off is chosen where its advantage over one limit at the same tokens is shown, and it is
        at least as accurate as the best policy with no more tokens.
        """
        found = self.policies
        if found is None:
            return None
        best = found.policy(found.winner or found.policies[0].name)
        off = self.off
        if (
            off is not None
            and off.advantage.low > 0
            and off.accuracy.value >= best.working.accuracy.value
            and off.mean_tokens.value <= best.working.mean_tokens.value
        ):
            return OFF
        return best.name

    @property
    def evident(self) -> bool:
        """Whether evidence stands behind what would be set."""
        found = self.policies
        return found is not None and (
            self.recommended == OFF or found.winner is not None or self.reference_shown
        )

    def off_sentence(self) -> str:
        """How thinking off compares, for people."""
        if self.off is None:
            return "thinking off was not tried"
        gain = self.off.advantage
        value, interval = point_change(gain).split(" ", 1)
        shown = "" if gain.low > 0 or gain.high < 0 else ": no difference is shown"
        return (
            f"{OFF}: {share(self.off.accuracy.value)} at a mean of "
            f"{decimal(self.off.mean_tokens.value)} tokens, {value} points {interval} against one "
            f"thinking budget for all at this mean{shown} (n = {self.off.accuracy.n:,})"
        )


def attach_model(session: Session, spec: ModelSpec, study: ThinkingStudy) -> None:
    """Say which model a study is of: the table is asked for the id behind an alias."""
    study.set_fact(_MODEL, spec)


def model_of(study: ThinkingStudy) -> ModelSpec | None:
    """The model that was attached to a study, with what its files say; None where none was."""
    from pytest_tokenbudget.models.resolution import ModelSpec, complete

    spec = study.fact(_MODEL)
    return complete(spec) if isinstance(spec, ModelSpec) else None


def analyse_allocation(study: ThinkingStudy) -> AllocationReport:
    """What the allocation eval found; computed once a study.

    Raises:
        ValueError: If no problem has all its traces.
    """
    return study.cached(_analyse, study, study.fact(_MODEL), study.natural.margin)


def serving_of(study: ThinkingStudy, limit: int, backend: str = "vllm") -> Serving:
    """The study's model as a recipe serves it, with a thinking budget of ``limit``."""
    from pytest_tokenbudget.models.allocation_table import allocate
    from pytest_tokenbudget.recipes.families import find_family
    from pytest_tokenbudget.recipes.recipe import Recipe, Serving

    spec, model = model_of(study), _id_of(study)
    recipe = Recipe(
        id=study.alias,
        model_path=model,
        name=study.alias,
        backend=backend,
        max_thinking_tokens=limit,
        answer_tokens=study.forcing.answer_tokens,
    )
    return Serving(
        recipe, model, find_family(model), study.format, allocate(model, explicit=limit), spec
    )


def _analyse(study: ThinkingStudy, attached: object, margin: float) -> AllocationReport:
    # `attached` is read from the study; as an argument it tells reports of other models apart.
    from pytest_tokenbudget.models.allocation_table import find_row
    from pytest_tokenbudget.studies.allocation.policies import compare_policies
    from pytest_tokenbudget.studies.allocation.policy_results import Judge
    from pytest_tokenbudget.studies.allocation.stored_traces import replay_of

    if not study.complete:
        raise ValueError(
            f"no problem of {study.task.name} has all its thinking traces of {study.alias}: there "
            "is nothing to allocate by"
        )
    model = _id_of(study)
    spec = model_of(study)
    context = None if spec is None else spec.context
    row, why = find_row(model)
    policies = off = no_limit = None
    left_out = because = ""
    try:
        replay, spent = replay_of(study)
        reference, because = _reference(study, replay)
        policies = compare_policies(replay, reference=reference, margin=margin)
        no_limit = replay.budgets[-1]
        if spent is not None:
            [off] = Judge(replay, policies.confidence).points([spent])
    except ValueError as error:
        left_out = str(error)
    return AllocationReport(
        model=model,
        context=context,
        row=row.name if row else None,
        why=why,
        modes=tuple(_modes(study, model, context)),
        disabled=_disabled(study),
        policies=policies,
        left_out=left_out,
        off=off,
        no_limit=no_limit,
        reference_because=because,
        reference_shown=because == _SHOWN,
    )


def _reference(study: ThinkingStudy, replay: Replay) -> tuple[int, str]:
    """The limit at whose mean tokens policies are compared, and why it is this one.

    The largest accuracy squared over tokens would choose limits that cost a lot of accuracy.
    """
    explicit, useful = study.budget_of(_EXPLICIT), analyse_thinking(study).usefulness.budget
    if explicit in replay.budgets:
        return explicit, "it was asked for"
    if useful in replay.budgets:
        return useful, _SHOWN
    rates = replay.correct.mean(axis=0)
    place = next(i for i, rate in enumerate(rates) if rate >= rates[-1])
    return replay.budgets[place], "the smallest as accurate as no limit here, which shows nothing"


def _id_of(study: ThinkingStudy) -> str:
    spec = model_of(study)
    return spec.model_id if spec else study.natural.identity.get("model", study.alias)


def _modes(study: ThinkingStudy, model: str, context: int | None) -> Sequence[ModeResult]:
    from pytest_tokenbudget.models.allocation_table import allocate, modes

    found = []
    chosen = {each.mode: each for each in study.forcing.modes}
    for mode in (*modes(), *([_EXPLICIT] if _EXPLICIT in chosen else [])):
        if mode == _EXPLICIT:
            table = allocate(model, explicit=chosen[mode].tokens, context=context)
        else:
            table = allocate(model, mode, context=context)
        if mode in chosen:
            tokens, reason = chosen[mode].tokens, chosen[mode].reason
        else:
            tokens, reason = _scaled(study, table, context)
        found.append(ModeResult(mode, table, tokens, reason, *_measured(study, mode, tokens)))
    report = analyse_thinking(study)
    off = report.thinking_off
    how = "the chat template has no switch for thinking" if off is None else "switched off"
    found.append(ModeResult("off", None, None if off is None else 0, how, off, how))
    found.append(ModeResult("on", None, None, "no limit", report.natural, "no limit"))
    return found


def _scaled(study: ThinkingStudy, table: Allocation, context: int | None) -> tuple[int | None, str]:
    """As the thinking eval scales the modes that it is told to try."""
    from pytest_tokenbudget.models.allocation_table import AllocationError, scale_to_context

    if context is None:
        return table.tokens, f"{table.reason}; the model's context is not known"
    prompts = {p.id: len(study.natural.traces[p.id, 0].prompt_ids) for p in study.complete}
    inserts = [
        len(forced.trace.prompt_ids) - prompts[place.problem_id] - forced.before
        for place, forced in study.forced.items()
        if place.problem_id in prompts
    ]
    longest = max(prompts.values()) + max(inserts, default=0)
    try:
        scaled = scale_to_context(table, context, longest, study.forcing.answer_tokens)
    except AllocationError as error:
        return None, str(error)
    return scaled.tokens, scaled.reason


def _measured(
    study: ThinkingStudy, mode: str, tokens: int | None
) -> tuple[ThinkingPoint | None, str]:
    report = analyse_thinking(study)
    if mode == "disabled" and study.off is not None:
        return report.thinking_off, "switched off"
    if tokens is None:
        return None, "there is no budget to try"
    if tokens in study.budgets:
        return report.forced(tokens), "ended by force at the budget"
    traces = [study.natural.traces[p.id, 0] for p in study.complete]
    if all(ended_within(trace, tokens, study.format) is not None for trace in traces):
        most = tokens + study.forcing.answer_tokens
        enforced = EnforcedAnswers(
            Enforcement.FORCED, study.closers[0], tokens, most, study.ended(tokens)
        )
        return point(enforced), "all thinking had ended by itself"
    return None, f"not tried; --modes={mode} tries it"


def _disabled(study: ThinkingStudy) -> Disabled:
    from pytest_tokenbudget.models.template_switches import TemplateError
    from pytest_tokenbudget.recipes.engines import off_verdict
    from pytest_tokenbudget.recipes.settings import find_template

    serving = serving_of(study, 0)
    rendered: OffVerdict | None = None
    switches: tuple[SwitchEffect, ...] = ()
    template = find_template(serving)
    try:
        rendered = off_verdict(serving, template)
        switches = template.switches if template else ()
    except TemplateError:
        template = None
    pairs = []
    if study.off is not None:
        pairs = [
            (study.natural.traces[p.id, 0].prompt_ids, study.off.traces[p.id, 0].prompt_ids)
            for p in study.complete
        ]
    return Disabled(
        whose=template.label if template else None,
        rendered=rendered,
        switches=switches,
        prompts=len(pairs),
        unlike=sum(on != off for on, off in pairs),
        generated=analyse_thinking(study).off,
    )
