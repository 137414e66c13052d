"""A study: every trace of one model on one task, judged at every budget.

All that a report shows is computed here, once, on first use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from pytest_tokenbudget.core.engine import Decoding
from pytest_tokenbudget.core.plan import Plan
from pytest_tokenbudget.core.scoring import JudgedCut, judge, scores, verdict_changes
from pytest_tokenbudget.core.store import StoredPrompt, TraceStore
from pytest_tokenbudget.core.trace import StopReason, ThinkingFormat, Trace, check_budgets
from pytest_tokenbudget.core.unknown_blocks import unknown_block_note
from pytest_tokenbudget.models.prices import Price
from pytest_tokenbudget.tasks.base import Task
from pytest_tokenbudget.tasks.problem import Problem

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pytest_tokenbudget.core.curve import Curve
    from pytest_tokenbudget.core.saturation import Saturation

Arguments = ParamSpec("Arguments")
Value = TypeVar("Value")


class StudyCache:
    """Keeps the results of analyses, and facts about a study that become known later."""

    def cached(
        self,
        make: Callable[Arguments, Value],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Value:
        """The result of ``make(*args, **kwargs)``, computed on the first call only.

        The function and all its arguments are the key, so a call with other arguments computes
        another result. Arguments that cannot be hashed are compared by identity. Pass a function
        that outlives the call: each lambda is a key of its own.
        """
        kept: dict[Hashable, tuple[Any, tuple[object, ...]]] = self.__dict__.setdefault("_made", {})
        given = (make, *args, *(part for pair in sorted(kwargs.items()) for part in pair))
        key = tuple(map(_key, given))
        if key not in kept:
            # The arguments are kept too: an identity is unique only while its object lives.
            kept[key] = make(*args, **kwargs), given
        made: Value = kept[key][0]
        return made

    def set_fact(self, name: str, value: object) -> None:
        """Store a fact about the study under a name; it replaces what was stored there."""
        self.__dict__.setdefault("_attached", {})[name] = value

    def fact(self, name: str) -> object:
        """The fact stored under a name; None if there is none."""
        facts: dict[str, object] = self.__dict__.get("_attached", {})
        return facts.get(name)


def _key(value: object) -> Hashable:
    try:
        hash(value)
    except TypeError:
        return type(value), id(value)
    # 1, 1.0 and True are equal, and different arguments.
    return type(value), value


PLAIN = "plain"


@dataclass(eq=False)
class Study(StudyCache):
    """Problems, samples and budgets of one model on one task.

    A problem counts once all its traces are there and reach to the largest budget; the others are
    `missing`. A trace that ended in an error is there: it is an outcome of its own.

    Attributes:
        alias: The model's name as people wrote it.
        identity: What exactly the model is: id and revision or hashes, quantisation, dtype, engine.
        traces: Traces by problem id and sample; may hold more than is asked for.
        samples: Samples a problem.
        thinking: How the model marks its thinking; None where it has none.
        mode: ``"plain"`` or ``"thinking"``.
        budgets: The budgets, in output tokens.
        margin: Loss of accuracy that saturation tolerates.
        left_out: Budgets that the model's context has no room for.
        reach: Output tokens that every trace can be cut at; at least the largest budget.
        kind: What it was made for.
        cliff_budgets: Budgets between which the cliff is looked for; empty means the default.
        price: What its tokens cost; None where nobody has said it.
        sample_study: A study of the same model and task with further samples, where there is one.
    """

    alias: str
    identity: Mapping[str, str]
    task: Task
    problems: tuple[Problem, ...]
    traces: Mapping[tuple[str, int], Trace]
    samples: int
    thinking: ThinkingFormat | None
    mode: str
    budgets: tuple[int, ...]
    margin: float = 0.02
    left_out: tuple[int, ...] = ()
    decoding: Decoding = field(default_factory=Decoding)
    reach: int = 0
    kind: str = "main"
    cliff_budgets: tuple[int, ...] = ()
    price: Price | None = None
    sample_study: Study | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.budgets = check_budgets(self.budgets)
        self.reach = max(self.reach, self.largest)
        if self.samples < 1:
            raise ValueError(f"a study has at least 1 sample a problem, not {self.samples}")
        self._judged: dict[int, tuple[JudgedCut, ...]] = {}

    @property
    def main(self) -> Study:
        """The study of one answer a problem that this one is built on: itself."""
        return self

    @property
    def settings_digest(self) -> dict[str, object]:
        """Settings of its own that change its results: none."""
        return {}

    @property
    def largest(self) -> int:
        return self.budgets[-1]

    @cached_property
    def complete(self) -> tuple[Problem, ...]:
        """Problems whose traces are all there and reach as far as is needed."""

        def is_complete(problem: Problem) -> bool:
            traces = (self.traces.get((problem.id, sample)) for sample in range(self.samples))
            return all(trace is not None and trace.covers(self.reach) for trace in traces)

        return tuple(filter(is_complete, self.problems))

    @property
    def missing(self) -> int:
        """Problems that lack a trace, or have one that is too short."""
        return len(self.problems) - len(self.complete)

    @property
    def cliff_study(self) -> Study:
        """The study that the cliff is looked for in: this one, unless the cliff has its own."""
        return self

    @property
    def by_token_available(self) -> bool:
        """Whether traces can be cut at any number of tokens up to the reach."""
        return True

    def usable(self, budgets: Iterable[int]) -> tuple[int, ...]:
        """Those of ``budgets`` that traces can be judged at, rising."""
        return tuple(sorted({b for b in budgets if 1 <= b <= self.reach}))

    @property
    def source(self) -> dict[str, object] | None:
        """Where traces come from that were not generated here; None for the others."""
        return None

    @property
    def notes(self) -> list[str]:
        """What a reader of the results must know, in sentences."""
        return [*self.origin, *self.unknown_blocks, *self._counting()]

    @property
    def origin(self) -> list[str]:
        """Where the traces come from and what was assumed about them, in sentences."""
        return []

    @property
    def unknown_blocks(self) -> list[str]:
        """A sentence if outputs begin with a block that the model's format does not cover."""
        texts = [judged.cut.trace.text for judged in self.judged(self.largest)]
        return unknown_block_note(texts, self.thinking, self._declaration)

    @property
    def _declaration(self) -> str:
        return '[formats.NAME], named by thinking = "NAME" in [models.ALIAS],'

    def _counting(self) -> list[str]:
        if not self.counted:
            return []
        said = f"{self.counted:,} of {len(self._rows):,} answers came without token ids: counted"
        own = [
            (len(trace.output_ids), trace.usage["completion_tokens"])
            for _, trace in self._rows
            if trace.counted and "completion_tokens" in trace.usage
        ]
        if not own:
            return [f"{said} from their text"]
        ours, theirs = (sum(each) for each in zip(*own, strict=True))
        return [f"{said} from their text are {ours:,} tokens, the server says {theirs:,}"]

    @property
    def counted(self) -> int:
        """Traces whose tokens were counted from text, since their engine gave no ids."""
        return sum(trace.counted for _, trace in self._rows)

    @property
    def usage(self) -> dict[str, int]:
        """Sums of the engine's own counts by name; empty where it gave none."""
        total: Counter[str] = Counter()
        for _, trace in self._rows:
            total.update(trace.usage)
        return dict(total)

    @property
    def errors(self) -> tuple[Trace, ...]:
        return tuple(t for _, t in self._rows if t.stop_reason is StopReason.ERROR)

    @property
    def scored(self) -> bool:
        """Whether there is a complete problem with a trace that did not end in an error."""
        return len(self.errors) < len(self._rows)

    def judged(self, budget: int) -> tuple[JudgedCut, ...]:
        """Every trace of the complete problems cut at ``budget`` and judged.

        The order is that of the problems, and of the samples within each.

        Raises:
            ValueError: If a trace does not reach to ``budget``.
        """
        if budget not in self._judged:
            self._judged[budget] = tuple(
                judge(self.task, problem, trace.cut(budget, self.thinking))
                for problem, trace in self._rows
            )
        return self._judged[budget]

    @cached_property
    def curve(self) -> Curve:
        """Accuracy, truncation and tokens used by budget; ValueError without a complete problem."""
        import numpy as np

        from pytest_tokenbudget.core.curve import build_curve

        self._need_data()
        judged = [self.judged(budget) for budget in self.budgets]
        shape = (len(self.complete), self.samples, len(self.budgets))

        def table(value: Callable[[JudgedCut], object]) -> NDArray[Any]:
            return np.array([[value(j) for j in column] for column in judged]).T.reshape(shape)

        return build_curve(
            self.budgets,
            table(lambda j: j.outcome.value),
            table(lambda j: j.cut.truncated),
            table(lambda j: j.cut.tokens_used),
        )

    @cached_property
    def saturation(self) -> Saturation:
        """The saturation point and its comparisons; ValueError without a complete problem."""
        from pytest_tokenbudget.core.saturation import saturation_point

        self._need_data()
        return saturation_point(self.budgets, self.correct_at(self.budgets), margin=self.margin)

    def correct_at(self, budgets: Sequence[int]) -> NDArray[np.float64]:
        """Whether answers are right, problems x samples x budgets; NaN where an error left none."""
        import numpy as np

        shape = (len(self.complete), self.samples)
        return np.stack([scores(self.judged(b)).reshape(shape) for b in budgets], axis=2)

    def accuracy_at(self, tokens: int) -> float:
        """Accuracy when generation stops at ``tokens`` output tokens, any number to the largest.

        Raises:
            ValueError: If ``tokens`` is below 1 or beyond the largest budget.
        """
        if not 1 <= tokens <= self.reach:
            raise ValueError(
                f"accuracy is known from 1 to {self.reach} tokens here, not at {tokens}"
            )
        return float(self.accuracy_by_token()[1][tokens - 1])

    def accuracy_by_token(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Every token count from 1 to the reach, and the accuracy there; NaN if all are errors."""
        import numpy as np

        tokens, right = self.correct_by_token()
        fine = [trace.stop_reason is not StopReason.ERROR for _, trace in self._rows]
        accuracy = right[fine].mean(axis=0) if any(fine) else np.full(self.reach, np.nan)
        return tokens, accuracy

    def correct_by_token(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Every token count from 1 to the reach, and which traces are right there.

        The second is an array of traces x token counts; the traces are those of the complete
        problems, in the order of :meth:`judged`. One that ended in an error is never right.
        """
        import numpy as np

        return np.arange(1, self.reach + 1, dtype=np.int64), self.cached(self._correct_by_token)

    @property
    def tokens_generated(self) -> int:
        """Tokens of all traces that are here, whenever they were generated."""
        asked = {problem.id for problem in self.problems}
        return sum(
            len(trace.output_ids)
            for (problem_id, sample), trace in self.traces.items()
            if problem_id in asked and sample < self.samples
        )

    @property
    def tokens_once(self) -> int:
        """Tokens that one pass at the largest budget takes, which serves every budget."""
        return self._tokens_at(self.largest)

    @property
    def tokens_if_separate(self) -> int:
        """Tokens that one generation for each budget would have taken."""
        return sum(self._tokens_at(budget) for budget in self.budgets)

    def _tokens_at(self, budget: int) -> int:
        return sum(min(budget, trace.tokens) for _, trace in self._rows)

    def _need_data(self) -> None:
        if not self.complete:
            raise ValueError(
                f"no problem of {self.task.name} has all its traces of {self.alias} to "
                f"{self.largest} tokens: there is nothing to judge"
            )

    @cached_property
    def _rows(self) -> tuple[tuple[Problem, Trace], ...]:
        return tuple(
            (problem, self.traces[problem.id, sample])
            for problem in self.complete
            for sample in range(self.samples)
        )

    def _correct_by_token(self) -> NDArray[np.bool_]:
        import numpy as np

        right = np.zeros((len(self._rows), self.reach), dtype=bool)
        for row, (problem, trace) in enumerate(self._rows):
            if trace.stop_reason is not StopReason.ERROR:
                changes = verdict_changes(self.task, problem, trace, self.thinking, self.reach)
                for tokens, now in changes:
                    right[row, tokens - 1 :] = now
        return right


def load_study(store: TraceStore, plan: Plan, task: Task, problems: Sequence[Problem]) -> Study:
    """The study of a plan with the traces that are there; ``task`` scores the answers."""
    prompts = _prompts(store, plan, problems)
    traces = store.load(plan.names(problems, prompts), prompts, plan.cap)
    return Study(
        alias=plan.alias,
        identity=plan.identity,
        task=task,
        problems=tuple(problems),
        traces=traces,
        samples=plan.samples,
        thinking=plan.format,
        mode=plan.mode,
        budgets=plan.budgets,
        margin=plan.margin,
        left_out=plan.left_out,
        decoding=plan.decoding,
        reach=plan.cap,
        kind=plan.kind,
        cliff_budgets=plan.cliff_budgets,
    )


def tokens_generated(store: TraceStore, plan: Plan, problems: Sequence[Problem]) -> int:
    """Output tokens that the store's run generated for a plan."""
    names = plan.names(problems, _prompts(store, plan, problems))
    return store.generated(plan.model, names)[1]


def _prompts(store: TraceStore, plan: Plan, problems: Sequence[Problem]) -> dict[str, StoredPrompt]:
    renders = plan.renders(problems)
    known = store.prompts(plan.model, list(dict.fromkeys(renders.values())))
    return {pid: known[key] for pid, key in renders.items() if key in known}
