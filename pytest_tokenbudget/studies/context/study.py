"""A context study: conversations posed whole and truncated, and what became of the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from pytest_tokenbudget.core.context_plan import (
    WHOLE_CELL,
    Cell,
    ContextPlan,
    WindowFacts,
    WindowKey,
)
from pytest_tokenbudget.core.plan import Plan
from pytest_tokenbudget.core.scoring import JudgedCut, judge
from pytest_tokenbudget.core.store import StoredPrompt, TraceStore
from pytest_tokenbudget.core.study import Study, StudyCache
from pytest_tokenbudget.core.trace import Outcome, StopReason, Trace
from pytest_tokenbudget.engines.planning import Kind
from pytest_tokenbudget.studies.context.conversations import Arm, ConversationCase
from pytest_tokenbudget.studies.context.plan import all_cases, arms_task
from pytest_tokenbudget.tasks.base import Task
from pytest_tokenbudget.tasks.problem import Problem

if TYPE_CHECKING:
    from pytest_tokenbudget.models.resolution import ModelSpec
    from pytest_tokenbudget.session import Session


class ContextAnswer(NamedTuple):
    """One conversation posed in one way.

    Attributes:
        case: The conversation.
        facts: What is known of its window.
        judged: What the answer amounts to; None where there is no window to answer.
    """

    case: ConversationCase
    facts: WindowFacts
    judged: JudgedCut | None

    @property
    def correct(self) -> float:
        """1 or 0, 0 where there is no window; NaN for an error."""
        if self.judged is None:
            return 0.0
        failed = self.judged.outcome is Outcome.ERROR
        return float("nan") if failed else float(self.judged.correct)


@dataclass(eq=False)
class ContextStudy(StudyCache):
    """What a model answers where a conversation does not fit.

    Attributes:
        whole: The same conversations, not truncated.
        context_plan: What was planned.
        cases: The conversations, arm by arm.
        facts: What is known of each window that was made.
        traces: The answers that are there.
        tokens_in_run: Output tokens that this run generated.
        task_name: Name of the task that is posed after small talk.
    """

    whole: Study
    context_plan: ContextPlan
    cases: tuple[ConversationCase, ...]
    facts: Mapping[WindowKey, WindowFacts]
    traces: Mapping[WindowKey, Trace]
    tokens_in_run: int = 0
    task_name: str = ""

    def __post_init__(self) -> None:
        self.kind = self.whole.kind
        self.alias = self.whole.alias
        self.problems = self.whole.problems
        self.budgets = self.whole.budgets
        self.left_out: tuple[int, ...] = ()

    @property
    def main(self) -> Study:
        """The study of one answer a problem that this one is built on."""
        return self.whole

    @property
    def settings_digest(self) -> dict[str, object]:
        """Settings of its own that change its results."""
        return asdict(self.context_plan)

    @property
    def arms(self) -> tuple[Arm, ...]:
        """The arms that have complete conversations."""
        return tuple(dict.fromkeys(each.arm for each in self.complete))

    def arm_name(self, arm: Arm) -> str:
        """An arm as people know it: a task by its own name."""
        return self.task_name if arm is Arm.TASK else arm.value

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Every way in which conversations are posed, the whole one first."""
        return self.context_plan.cells

    @cached_property
    def complete(self) -> tuple[ConversationCase, ...]:
        """The conversations that are answered in every way in which they can be posed."""
        return tuple(
            each
            for each in self.cases
            if all(self._answered(WindowKey(each.problem.id, cell)) for cell in self.cells)
        )

    @property
    def answered(self) -> frozenset[str]:
        """Ids of complete conversations none of whose answers ended in an error."""
        failed = {
            place.problem_id
            for place, trace in self.traces.items()
            if trace.stop_reason is StopReason.ERROR
        }
        return frozenset({each.problem.id for each in self.complete} - failed)

    def _answered(self, place: WindowKey) -> bool:
        facts, trace = self.facts.get(place), self.traces.get(place)
        if facts is None:
            return False
        return bool(facts.impossible) or (trace is not None and trace.covers(self.whole.reach))

    @property
    def missing(self) -> int:
        """Conversations that lack an answer."""
        return len(self.cases) - len(self.complete)

    @cached_property
    def errors(self) -> tuple[Trace, ...]:
        """Answers that ended in an error, each once."""
        failed = {
            id(trace): trace
            for trace in self.traces.values()
            if trace.stop_reason is StopReason.ERROR
        }
        return tuple(failed.values())

    def answers(self, arm: Arm, cell: Cell) -> tuple[ContextAnswer, ...]:
        """The complete conversations of an arm, posed in one way and judged."""
        return self.cached(self._answers, arm, cell)

    def _answers(self, arm: Arm, cell: Cell) -> tuple[ContextAnswer, ...]:
        found = []
        for case in self.complete:
            if case.arm is not arm:
                continue
            place = WindowKey(case.problem.id, cell)
            facts = self.facts[place]
            # Many windows are the same prompt, of which there is one trace: judged once.
            judged = (
                None if facts.impossible else self.cached(self._judged, case.problem, facts.key)
            )
            found.append(ContextAnswer(case, facts, judged))
        return tuple(found)

    def _judged(self, problem: Problem, key: str) -> JudgedCut:
        trace = self._by_key[key]
        return judge(self.whole.task, problem, trace.cut(self.whole.reach, self.whole.thinking))

    @cached_property
    def _by_key(self) -> dict[str, Trace]:
        return {self.facts[place].key: trace for place, trace in self.traces.items()}

    def whole_answers(self, arm: Arm) -> tuple[ContextAnswer, ...]:
        """The same conversations, not truncated."""
        return self.answers(arm, WHOLE_CELL)


def stored_context(
    session: Session, spec: ModelSpec, plan: Plan, plans: Sequence[Plan]
) -> tuple[ContextStudy, int]:
    """The context study of a plan as it is stored, and the tokens generated for it in this run."""
    made = session.cached_study(spec, Kind.CONTEXT)
    study: ContextStudy = made or load_context(session.store, plan, session.task)
    return study, study.tokens_in_run


def load_context(store: TraceStore, plan: Plan, task: Task) -> ContextStudy:
    """The context study of a plan with the traces that are there, all or not.

    Raises:
        TaskError: If the task's problems cannot be had.
    """
    assert plan.context_plan is not None
    cases = all_cases(plan.context_plan, task)
    facts = window_facts(store, plan, cases)
    opens = {each.key: each.opens for each in facts.values() if each.key}
    summaries = {each.written for each in facts.values() if each.written}
    traces = store.load(
        {key: (key, 0) for key in opens},
        # What was asked is known from the window; its ids are not needed to judge an answer.
        {key: StoredPrompt((), opened) for key, opened in opens.items()},
        plan.cap,
    )
    answered = {
        place: traces[each.key, 0] for place, each in facts.items() if (each.key, 0) in traces
    }
    return ContextStudy(
        whole=_whole(plan, task, answered),
        context_plan=plan.context_plan,
        cases=cases,
        facts=facts,
        traces=answered,
        tokens_in_run=store.generated(plan.model, {*opens, *summaries})[1],
        task_name=task.name,
    )


def window_facts(
    store: TraceStore, plan: Plan, cases: Sequence[ConversationCase]
) -> dict[WindowKey, WindowFacts]:
    """What is kept of windows that were made before."""
    assert plan.context_plan is not None
    keys = {
        plan.window_key(each.problem, cell): WindowKey(each.problem.id, cell)
        for each in cases
        for cell in plan.context_plan.cells
    }
    noted = store.windows(plan.model, list(keys))
    return {keys[key]: WindowFacts(**values) for key, values in noted.items()}


def _whole(plan: Plan, task: Task, answered: dict[WindowKey, Trace]) -> Study:
    assert plan.context_plan is not None
    arms = arms_task(plan.context_plan, task)
    return Study(
        alias=plan.alias,
        identity=plan.identity,
        task=arms,
        problems=arms.problems(),
        traces={
            (place.problem_id, 0): trace
            for place, trace in answered.items()
            if place.cell == WHOLE_CELL
        },
        samples=1,
        thinking=plan.format,
        mode=plan.mode,
        budgets=plan.budgets,
        margin=plan.margin,
        decoding=plan.decoding,
        kind=plan.kind,
    )
