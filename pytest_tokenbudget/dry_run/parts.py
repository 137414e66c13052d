"""What a run would generate, part by part: known from plans, files and the store, no model loaded.

``at_most`` is a promise: what is generated for a part never exceeds it, as long as nothing of it is
lost (a killed process's unfinished traces are generated again).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pytest_tokenbudget.core.plan import Plan
from pytest_tokenbudget.core.store import StoredPrompt
from pytest_tokenbudget.core.trace import StopReason, Trace
from pytest_tokenbudget.dry_run.prompt_counts import LengthSource, PromptCounter, PromptLength
from pytest_tokenbudget.engines.planning import Kind, Need, SetupError, decoding_of, fit, make_plan
from pytest_tokenbudget.models.spec import ModelSpec
from pytest_tokenbudget.settings.endpoints import speaks_ids
from pytest_tokenbudget.stats.timing import times_of, token_rate
from pytest_tokenbudget.stats.tokens import Forecast, forecast, forecast_beyond, sum_forecasts

if TYPE_CHECKING:
    from pytest_tokenbudget.core.engine import Engine
    from pytest_tokenbudget.dry_run.memory import Memory
    from pytest_tokenbudget.session import Session
    from pytest_tokenbudget.settings.options import Settings
    from pytest_tokenbudget.tasks.problem import Problem

FEW = 3


@dataclass(frozen=True)
class Wanted:
    """A trace that a part needs.

    Attributes:
        key: What it is known by; equal for equal traces.
        prompt: Tokens of its prompt.
        cap: Output tokens that must be allowed.
        trace: What is there of it; None for nothing.
    """

    key: str
    prompt: int
    cap: int
    trace: Trace | None = None


@dataclass(frozen=True)
class EarlierTraces:
    """What earlier traces of a model and a task say.

    Attributes:
        lengths: Their tokens.
        ended: Whether each ended by itself.
        tokens_per_second: How fast they came, all together; None where that is not known.
        reasoning: Share of their tokens that are thinking; None where that is not known.
        note: Where they come from, if not from the very same plan.
    """

    lengths: tuple[int, ...] = ()
    ended: tuple[bool, ...] = ()
    tokens_per_second: float | None = None
    reasoning: float | None = None
    note: str = ""


@dataclass(frozen=True)
class PlannedPart:
    """What one part of a run would generate.

    Attributes:
        plan: The plan; of one that is estimated, as far as it is known.
        traces: Traces that are needed.
        stored: Those that are there, or that an earlier part of the same run makes.
        extended: Those of the missing ones that go on from what is there.
        at_most: Output tokens at the most.
        forecast: Output tokens that are to be expected; None where nothing tells.
        prompt_tokens: Tokens of the prompts that are posed, at the most.
        expected_prompt_tokens: Those that are to be expected.
        longest: Tokens of the longest prompt.
        known: How the prompts are known, the least surely known of them.
        past: What earlier traces say.
        notes: What else is to be known, in sentences.
    """

    plan: Plan
    traces: int
    stored: int
    extended: int
    at_most: int
    forecast: Forecast | None
    prompt_tokens: int
    expected_prompt_tokens: float
    longest: int
    known: LengthSource
    past: EarlierTraces = field(default_factory=EarlierTraces)
    notes: tuple[str, ...] = ()

    @property
    def missing(self) -> int:
        """Traces that are to be generated."""
        return self.traces - self.stored


class DryRunPlanner:
    """Everything that the parts of one model need to be told.

    Args:
        session: The state of this pytest process.
        spec: The model, its servers asked already if it has some.
    """

    def __init__(self, session: Session, spec: ModelSpec) -> None:
        self.session, self.spec = session, spec
        self.settings, self.store = session.settings_of(spec), session.store
        self.counter = PromptCounter(spec)
        self.goes_on = spec.endpoint is None or speaks_ids(spec.endpoint)
        # Traces that several parts need are generated once.
        self._promised: dict[str, int] = {}

    def plan(self, kind: Kind, need: Need | None = None, settings: Settings | None = None) -> Plan:
        """The plan of a kind of study, with settings of its own if there are any."""
        return make_plan(
            settings or self.settings,
            self.spec,
            kind,
            need or Need(),
            store=self.store,
            run=self.session.run,
        )

    def rendered(self, plan: Plan, problems: Sequence[Problem]) -> dict[str, StoredPrompt]:
        """Prompts that were rendered before, by problem id."""
        renders = plan.renders(problems)
        known = self.store.prompts(plan.model, list(dict.fromkeys(renders.values())))
        return {pid: known[key] for pid, key in renders.items() if key in known}

    def lengths(
        self, plan: Plan, problems: Sequence[Problem], rendered: Mapping[str, StoredPrompt]
    ) -> dict[str, PromptLength]:
        """Tokens of the prompts of problems, by id."""
        return {
            p.id: PromptLength(len(rendered[p.id].ids), LengthSource.STORED)
            if p.id in rendered
            else self.counter.length(p.messages, plan.thinking)
            for p in problems
        }

    def fitted(self, plan: Plan, lengths: Mapping[str, PromptLength]) -> Plan:
        """The plan as the context has room, where that and the prompts are known.

        Raises:
            SetupError: If no budget is left.
        """
        if self.spec.context is None or weakest(lengths.values()) is LengthSource.ESTIMATED:
            return plan
        prompts = {
            pid: StoredPrompt((0,) * length.tokens, False) for pid, length in lengths.items()
        }
        return fit(plan, self.spec, prompts, _no_engine)

    def wanted(
        self,
        plan: Plan,
        problems: Sequence[Problem],
        rendered: Mapping[str, StoredPrompt],
        lengths: Mapping[str, PromptLength],
    ) -> list[Wanted]:
        """The traces of a plan, with what is there of each."""
        there = self.store.load(plan.names(problems, rendered), rendered, plan.cap)
        found: dict[str, Wanted] = {}
        renders = plan.renders(problems)
        for problem in problems:
            for sample in range(plan.samples):
                key = f"{renders[problem.id]} {plan.decoding.identity()} {sample}"
                trace = there.get((problem.id, sample))
                if key not in found or trace is not None:
                    tokens = lengths[problem.id].tokens
                    found[key] = Wanted(key, tokens, plan.cap, trace)
        return list(found.values())

    def part(
        self,
        plan: Plan,
        wanted: Sequence[Wanted],
        *,
        known: LengthSource,
        past: EarlierTraces,
        notes: Iterable[str] = (),
    ) -> PlannedPart:
        """A part of the run: what of its traces is missing, and what that takes."""
        begun: list[int] = []
        prompts = later_prompts = 0
        at_most = 0
        # Traces that an earlier part makes, and that may have to go on from there.
        later: Counter[int] = Counter()
        for each in wanted:
            start = self._begun(each)
            if start is None:
                continue
            at_most += each.cap - start
            if each.key in self._promised:
                later[start] += 1
                later_prompts += each.prompt + start
            else:
                begun.append(start)
                prompts += each.prompt + start
            self._promised[each.key] = each.cap
        cap = max((each.cap for each in wanted), default=0)
        expected = [
            forecast_beyond(times, start, cap, past.lengths, past.ended)
            for start, times in later.items()
        ]
        if begun or not later:
            expected.append(forecast(begun, cap, past.lengths, past.ended))
        start = min(later, default=0)
        longer = sum(length > start for length in past.lengths)
        share = longer / len(past.lengths) if past.lengths else 1.0
        return PlannedPart(
            plan=plan,
            traces=len(wanted),
            stored=len(wanted) - len(begun) - later.total(),
            extended=sum(start > 0 for start in begun) + later.total(),
            at_most=at_most,
            forecast=sum_forecasts(expected),
            prompt_tokens=prompts + later_prompts,
            expected_prompt_tokens=prompts + share * later_prompts,
            longest=max((each.prompt for each in wanted), default=0),
            known=known,
            past=past,
            notes=tuple(notes),
        )

    def _begun(self, wanted: Wanted) -> int | None:
        """Tokens that a trace has when it is generated; None where it need not be."""
        promised = self._promised.get(wanted.key)
        if promised is not None:
            return None if promised >= wanted.cap else (promised if self.goes_on else 0)
        trace = wanted.trace
        if trace is None or self.settings.fresh:
            return 0
        if trace.stop_reason is not StopReason.ERROR and trace.covers(wanted.cap):
            return None
        return min(len(trace.output_ids), wanted.cap) if self.goes_on else 0

    def past(self, plan: Plan, problems: Sequence[Problem] | None = None) -> EarlierTraces:
        """What earlier traces of the plan's model and task say, with its decoding if there are any.

        Without ``problems`` those of the task count.
        """
        if problems is None:
            problems = (*self.session.task.problems(None), *self.session.problems)
        unique = list({problem.id: problem for problem in problems}.values())
        rendered = self.rendered(plan, unique)
        for other in self._similar(plan):
            loaded = self.store.load(other.names(unique, rendered), rendered)
            traces = [t for t in loaded.values() if t.stop_reason is not StopReason.ERROR]
            if len(traces) >= FEW or (traces and other.decoding == plan.decoding):
                return past_of(traces, plan, same_decoding=other.decoding == plan.decoding)
        return EarlierTraces()

    def _similar(self, plan: Plan) -> list[Plan]:
        """The plan, and the same with the decoding of other kinds."""
        plans = [plan]
        for kind in (Kind.MAIN, Kind.STOCHASTIC):
            try:
                decoding = decoding_of(self.settings, kind)
            except SetupError:
                continue
            samples = max(plan.samples, self.settings.samples if kind is Kind.STOCHASTIC else 1)
            plans.append(replace(plan, decoding=decoding, samples=samples))
        return plans


def past_of(traces: Sequence[Trace], plan: Plan, same_decoding: bool = True) -> EarlierTraces:
    """What traces say of those that are still to come.

    Args:
        traces: Traces without an error.
        plan: What is to come.
        same_decoding: Whether they were made with the decoding of the plan.
    """
    times = times_of(
        [len(t.output_ids) for t in traces],
        [t.seconds for t in traces],
        [t.timed for t in traces],
        [t.ended for t in traces],
    )
    return EarlierTraces(
        lengths=tuple(len(trace.output_ids) for trace in traces),
        ended=tuple(not trace.capped for trace in traces),
        tokens_per_second=token_rate(times),
        reasoning=_reasoning(traces, plan),
        note="" if same_decoding else "from traces with another decoding",
    )


def _reasoning(traces: Sequence[Trace], plan: Plan) -> float | None:
    tokens = sum(len(trace.output_ids) for trace in traces)
    if plan.format is None or not tokens:
        return 0.0 if plan.format is None else None
    cuts = [t.cut(len(t.output_ids), plan.format) for t in traces if t.output_ids]
    return sum(cut.thinking_tokens for cut in cuts if cut.opened) / tokens


def main_part(planner: DryRunPlanner, kind: Kind, need: Need) -> PlannedPart:
    """The part of a kind of study whose budgets are cuts of its traces.

    Raises:
        SetupError: If it cannot be made.
    """
    problems = planner.session.problems
    plan = planner.plan(kind, need)
    rendered = planner.rendered(plan, problems)
    lengths = planner.lengths(plan, problems, rendered)
    plan = planner.fitted(plan, lengths)
    wanted = planner.wanted(plan, problems, rendered, lengths)
    return planner.part(plan, wanted, known=weakest(lengths.values()), past=planner.past(plan))


def weakest(lengths: Iterable[PromptLength]) -> LengthSource:
    """How lengths are known, the least surely known of them."""
    sources = {length.known for length in lengths}
    return next(
        (known for known in (LengthSource.ESTIMATED, LengthSource.COUNTED) if known in sources),
        LengthSource.STORED,
    )


def _no_engine() -> Engine:
    raise SetupError("nothing is loaded to say what would be generated")


@dataclass
class ModelRun:
    """What a run would do with one model.

    Attributes:
        spec: The model, with what is known of it.
        parts: What it would generate.
        memory: What it would take in this process; None where that cannot be told.
        failures: Why a part cannot be generated, in sentences.
        notes: What else is to be known, in sentences.
    """

    spec: ModelSpec
    parts: list[PlannedPart] = field(default_factory=list)
    memory: Memory | None = None
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
