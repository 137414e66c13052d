"""A thinking study: natural traces, forced answers and thinking switched off, judged side by side.

Everything is one sample a problem. What is compared is compared over the same problems: those that
have all their traces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Final, NamedTuple

from pytest_tokenbudget.core.answers import Answers, AnswersByBudget
from pytest_tokenbudget.core.engine import Decoding
from pytest_tokenbudget.core.plan import Forcing
from pytest_tokenbudget.core.scoring import JudgedCut, judge
from pytest_tokenbudget.core.study import Study, StudyCache
from pytest_tokenbudget.core.trace import Outcome, StopReason, ThinkingFormat, Trace
from pytest_tokenbudget.studies.thinking.forced_answers import ForcedAnswerKey, ended_within
from pytest_tokenbudget.tasks.base import Task
from pytest_tokenbudget.tasks.problem import Problem

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pytest_tokenbudget.models.resolution import ModelSpec
    from pytest_tokenbudget.session import Session
    from pytest_tokenbudget.studies.thinking.modes import ThinkingMode


class Enforcement(StrEnum):
    """What is done about a budget."""

    HARD = "hard"  # the output is cut there, thinking and answer together
    FORCED = "forced"  # thinking is ended there, and an answer follows
    NATURAL = "natural"  # nothing
    OFF = "off"  # thinking is switched off; the output is cut there
    WAIT = "wait"  # thinking is sent on where it ends


class ContinuedTrace(NamedTuple):
    """A trace that goes on from a natural one.

    Attributes:
        before: Output tokens before it: thinking that was kept, and what was put in to send it on.
        cap: Its output tokens allowed; 0 for those of a forced answer.
    """

    trace: Trace
    before: int
    cap: int = 0


class ThinkingAnswer(NamedTuple):
    """One problem under one enforcement.

    Attributes:
        judged: What it amounts to.
        thinking: Its thinking tokens, tags among them.
        answer: Its answer tokens.
        forced: Whether thinking was ended by force.
        reopened: Whether it was opened again after it had been closed.
        spilled: Whether it went on after its close, up to another close tag.
    """

    judged: JudgedCut
    thinking: int
    answer: int
    forced: bool = False
    reopened: bool = False
    spilled: bool = False

    @property
    def tokens(self) -> int:
        return self.thinking + self.answer

    @property
    def correct(self) -> float:
        """1 or 0; NaN for an error."""
        return float("nan") if self.judged.outcome is Outcome.ERROR else float(self.judged.correct)


@dataclass(eq=False)
class ThinkingStudy(StudyCache):
    """What a model does with its thinking, under every enforcement.

    Attributes:
        natural: The traces that nothing was done about.
        off: Those with thinking switched off, where the template has a switch.
        forcing: Budgets, closers, and how long forced answers may be.
        wanted: The forced answers that belong to the natural traces there are.
        forced: Those that are there.
        waits: Thinking that was sent on, round by round, by problem id.
        tokens_in_run: Output tokens that this run generated.
        switchable: Whether the template has a switch for thinking.
    """

    natural: Study
    off: Study | None
    forcing: Forcing
    wanted: frozenset[ForcedAnswerKey]
    forced: Mapping[ForcedAnswerKey, ContinuedTrace]
    waits: tuple[Mapping[str, ContinuedTrace], ...] = ()
    tokens_in_run: int = 0
    switchable: bool = True

    def __post_init__(self) -> None:
        self.kind = self.natural.kind
        self.alias = self.natural.alias
        self.task: Task = self.natural.task
        self.problems = self.natural.problems
        self.left_out = self.forcing.left_out
        self.budgets = self.forcing.budgets
        self.decoding: Decoding = self.natural.decoding

    @property
    def main(self) -> Study:
        """The study of one answer a problem that this one is built on."""
        return self.natural

    @property
    def settings_digest(self) -> dict[str, object]:
        """Settings of its own that change its results."""
        return asdict(self.forcing)

    @property
    def format(self) -> ThinkingFormat:
        assert self.natural.thinking is not None
        return self.natural.thinking

    @property
    def closers(self) -> tuple[str, ...]:
        """Names of the closers, the default first."""
        return tuple(closer.name for closer in self.forcing.closers)

    @property
    def positive(self) -> tuple[int, ...]:
        """The budgets that something can be cut at."""
        return tuple(b for b in self.budgets if b > 0)

    @cached_property
    def complete(self) -> tuple[Problem, ...]:
        """Problems that have all their traces."""
        lacking = {place.problem_id for place in self.wanted - self.forced.keys()}
        there = {p.id for p in self.natural.complete} - lacking
        if self.off is not None:
            there &= {p.id for p in self.off.complete}
        return tuple(p for p in self.problems if p.id in there)

    @property
    def missing(self) -> int:
        """Problems that lack a trace."""
        return len(self.problems) - len(self.complete)

    @cached_property
    def errors(self) -> tuple[Trace, ...]:
        """Traces that ended in an error, of whatever enforcement."""
        going = [*self.forced.values(), *(each for one in self.waits for each in one.values())]
        traces = [*self.natural.errors, *(self.off.errors if self.off else ())]
        traces += [each.trace for each in going]
        return tuple(trace for trace in traces if trace.stop_reason is StopReason.ERROR)

    def budget_of(self, mode: str) -> int | None:
        """The budget of a mode of the allocation table; None where it cannot be tried."""
        return next((m.tokens for m in self.forcing.modes if m.mode == mode), None)

    def modes_of(self, budget: int) -> tuple[str, ...]:
        """The modes that have this budget."""
        return tuple(m.mode for m in self.forcing.modes if m.tokens == budget)

    # Answers, one for each complete problem in order

    def hard(self, budget: int) -> tuple[ThinkingAnswer, ...]:
        """Everything cut at a budget of 1 or more."""
        return self.cached(self._cut, self.natural, budget)

    def unlimited(self) -> tuple[ThinkingAnswer, ...]:
        """The natural answers; those that met their cap are cut there."""
        return self.cached(self._cut, self.natural, self.natural.reach)

    def switched_off(self, budget: int | None = None) -> tuple[ThinkingAnswer, ...]:
        """Answers without thinking, cut at a budget; None for no limit.

        Raises:
            ValueError: If there are none.
        """
        if self.off is None:
            raise ValueError(f"{self.alias}: thinking cannot be switched off")
        return self.cached(self._cut, self.off, budget or self.off.reach)

    def ended(self, budget: int, closer: str | None = None) -> tuple[ThinkingAnswer, ...]:
        """Answers after at most ``budget`` tokens of thinking; the default closer unless named."""
        return self.cached(self._of_each, self._ended, budget, closer or self.closers[0])

    def in_mode(self, mode: ThinkingMode) -> tuple[ThinkingAnswer, ...]:
        """Answers in a mode: thinking switched off, without a limit, or ended at a budget."""
        if not mode.thinking:
            return self.switched_off()
        if mode.thinking_budget is None:
            return self.unlimited()
        return self.ended(mode.thinking_budget)

    def extended(self, number: int) -> tuple[ThinkingAnswer, ...]:
        """Answers after thinking that was extended so many times, or as often as it ended."""
        return self.cached(self._of_each, self._extended, number)

    def _of_each(
        self, answer: Callable[..., ThinkingAnswer], *given: object
    ) -> tuple[ThinkingAnswer, ...]:
        return tuple(answer(problem, *given) for problem in self.complete)

    def _cut(self, study: Study, budget: int) -> tuple[ThinkingAnswer, ...]:
        return tuple(
            _answer(judge(self.task, p, study.traces[p.id, 0].cut(budget, study.thinking)))
            for p in self.complete
        )

    def _ended(self, problem: Problem, budget: int, closer: str) -> ThinkingAnswer:
        place = ForcedAnswerKey(closer, budget, problem.id)
        room = self.forcing.answer_tokens
        if place in self.wanted:
            continuation = self.forced[place]
            judged = judge(self.task, problem, continuation.trace.cut(room, self.format))
            cut = judged.cut
            return ThinkingAnswer(
                judged,
                continuation.before + cut.thinking_tokens,
                cut.answer_tokens,
                forced=True,
                reopened=cut.opened,
                spilled=cut.spilled or (cut.closed and not cut.opened),
            )
        trace = self.natural.traces[problem.id, 0]
        end = ended_within(trace, budget, self.format) or 0
        # An answer after thinking that ended by itself has no more room than a forced one.
        limit = min(end + room, self.natural.reach)
        return _answer(judge(self.task, problem, trace.cut(limit, self.format)))

    def _extended(self, problem: Problem, number: int) -> ThinkingAnswer:
        before = 0
        found: ContinuedTrace | None = None
        for one in self.waits[:number]:
            if problem.id not in one:
                break
            found = one[problem.id]
            before = found.before
        if found is None:
            trace = self.natural.traces[problem.id, 0]
            return _answer(judge(self.task, problem, trace.cut(self.natural.reach, self.format)))
        judged = judge(self.task, problem, found.trace.cut(found.cap, self.format))
        return _answer(judged, before)

    # Arrays for the analysis

    def correct(self, columns: Sequence[tuple[ThinkingAnswer, ...]]) -> NDArray[np.float64]:
        """Problems x columns: 1, 0, or NaN for an error."""
        import numpy as np

        return np.array([[a.correct for a in column] for column in columns]).T

    def forced_correct(self, closer: str | None = None) -> NDArray[np.float64]:
        """Problems x budgets, under force."""
        return self.correct([self.ended(budget, closer) for budget in self.budgets])

    @cached_property
    def unended(self) -> tuple[bool, ...]:
        """For each problem whether its natural thinking met the cap."""
        return tuple(
            a.judged.outcome is Outcome.TRUNCATED_IN_THINKING
            or (a.judged.cut.truncated and a.judged.cut.in_thinking)
            for a in self.unlimited()
        )


def _answer(judged: JudgedCut, before: int = 0) -> ThinkingAnswer:
    cut = judged.cut
    return ThinkingAnswer(
        judged,
        before + cut.thinking_tokens,
        cut.answer_tokens,
        reopened=cut.reopened,
        spilled=cut.spilled,
    )


# The forced answers are judged if a gate names no mode.
ENFORCEMENTS: Final = ("forced", "hard", "natural", "off")


def thinking_answers(
    session: Session, spec: ModelSpec, study: ThinkingStudy, mode: ThinkingMode | None
) -> AnswersByBudget:
    """The answers of a thinking study by enforcement, the forced ones first.

    Those of the mode under test are the only ones where there is one.
    """
    most = study.natural.reach + study.forcing.answer_tokens

    def answers_of(answers: Sequence[ThinkingAnswer]) -> Answers:
        return Answers([a.judged for a in answers], 1, [a.tokens for a in answers], most)

    if mode is not None:
        chosen = mode
        return AnswersByBudget(
            study.budgets[-1], {"": lambda budget: answers_of(study.in_mode(chosen))}
        )
    by_enforcement: dict[str, Callable[[int], Sequence[ThinkingAnswer]]] = {
        "forced": study.ended,
        "hard": study.hard,
        "natural": lambda budget: study.unlimited(),
        "off": study.switched_off,
    }

    def source(name: str) -> Callable[[int], Answers]:
        def answers_at(budget: int) -> Answers:
            # Nothing can be cut at 0 tokens, and no limit is what an engine means by it.
            known = budget or name in ("forced", "natural")
            return answers_of(by_enforcement[name](budget) if known else ())

        return answers_at

    there = [name for name in ENFORCEMENTS if name != "off" or study.off is not None]
    return AnswersByBudget(study.budgets[-1], {name: source(name) for name in there})
