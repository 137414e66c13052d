"""What a study's answers cost at each budget: money, time, and what a smaller limit saves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from pytest_tokenbudget.core.scoring import JudgedCut
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.core.trace import Outcome, Trace
from pytest_tokenbudget.report.limits import recommended_limits

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pytest_tokenbudget.core.cost import Cost, Saving
    from pytest_tokenbudget.models.prices import Price
    from pytest_tokenbudget.stats.timing import Times, Timing

    Floats = NDArray[np.float64]

# Money an answer is too small to be read.
THOUSAND = 1000
IN_STEP = "transformers"
RECOMMENDED, SATURATION = "recommended limit", "saturation point"


@dataclass(frozen=True)
class CostPoint:
    """What answers at one budget take and cost.

    Attributes:
        budget: The budget.
        prompt_tokens: Tokens of the prompts, all answers together.
        output_tokens: Tokens that were written, those of thinking among them.
        reasoning_tokens: Tokens of thinking among them.
        cost: What they cost; None without a price, and where nothing was answered.
    """

    budget: int
    prompt_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cost: Cost | None


@dataclass(frozen=True)
class CostReport:
    """What a study's answers cost.

    Attributes:
        price: The price; None where nobody has said it.
        points: One a budget.
        timing: How long answers take; None where that is not known.
        savings: What limits save against the largest budget, by what names them.
        unknown_prompts: Answers whose prompt's tokens are not known and cost nothing here.
    """

    price: Price | None
    points: tuple[CostPoint, ...]
    timing: Timing | None
    savings: dict[str, Saving]
    unknown_prompts: int

    def point(self, budget: int) -> CostPoint:
        """The point of a budget.

        Raises:
            StopIteration: If there is none.
        """
        return next(point for point in self.points if point.budget == budget)


class PaidAnswer(NamedTuple):
    """One answer as it is paid for; NaN for an error.

    Attributes:
        prompt: Tokens of its prompt.
        output: Tokens that were written.
        reasoning: Tokens of thinking among them.
        correct: Whether it is right.
    """

    prompt: float
    output: float
    reasoning: float
    correct: float


def prompt_tokens(trace: Trace) -> int:
    """Tokens of a trace's prompt, by its ids, else by its engine's count; 0 where unknown."""
    return len(trace.prompt_ids) or trace.usage.get("prompt_tokens", 0)


def row_of(judged: JudgedCut) -> PaidAnswer:
    """One answer of a study as it is paid for."""
    cut = judged.cut
    if judged.outcome is Outcome.ERROR:
        return PaidAnswer(*[float("nan")] * 4)
    # Without a block that was opened, what looks like thinking is what a format calls so.
    thought = cut.thinking_tokens if cut.format is not None and cut.opened else 0
    return PaidAnswer(prompt_tokens(cut.trace), cut.tokens_used, thought, judged.correct)


def table_of(rows: Sequence[PaidAnswer], problems: int) -> Floats:
    """Rows as fields x problems x samples."""
    import numpy as np

    return np.array(rows, dtype=np.float64).T.reshape(len(PaidAnswer._fields), problems, -1)


def cost_report(study: Study, target: float) -> CostReport:
    """What a study's answers cost; computed once."""
    return study.cached(_report, study, target, study.price)


def _report(study: Study, target: float, price: Price | None) -> CostReport:
    import numpy as np

    from pytest_tokenbudget.stats.timing import timing

    tables = {b: _table(study, b) for b in study.budgets}
    times = _times(study)
    points = [cost_point(b, table, price) for b, table in tables.items()]
    used = np.stack([table[1] for table in tables.values()], axis=-1)
    prompts = tables[study.largest][0]
    limits = {
        RECOMMENDED: recommended_limits(study, target)["all_tokens"].overall.limit,
        SATURATION: study.saturation.budget,
    }
    return CostReport(
        price=price,
        points=tuple(points),
        timing=timing(study.budgets, used, times),
        savings={
            name: saving(study, limit, study.largest, times)
            for name, limit in limits.items()
            if limit is not None and limit < study.largest and _can_cut(study, limit)
        },
        unknown_prompts=int((prompts == 0).sum()),
    )


def cost_point(budget: int, table: Floats, price: Price | None) -> CostPoint:
    """What answers at one budget take and cost.

    Args:
        budget: The budget.
        table: Fields of :class:`PaidAnswer` x problems x samples.
        price: The price, None for none.
    """
    import numpy as np

    from pytest_tokenbudget.core.cost import cost_of

    prompt, output, reasoning, correct = table
    return CostPoint(
        budget=budget,
        prompt_tokens=int(np.nansum(prompt)),
        output_tokens=int(np.nansum(output)),
        reasoning_tokens=int(np.nansum(reasoning)),
        cost=None if price is None else cost_of(price, prompt, output, correct, reasoning),
    )


def saving(study: Study, limit: int, against: int, times: Times | None = None) -> Saving:
    """What a limit saves a request against a larger one."""
    import numpy as np

    from pytest_tokenbudget.core.cost import Saving, answer_costs, mean_saving
    from pytest_tokenbudget.stats.resampling import bootstrap_mean
    from pytest_tokenbudget.stats.timing import timing

    times = times or _times(study)
    largest, smaller = _table(study, against), _table(study, limit)
    price, money, seconds, machine = study.price, None, None, None
    if price is not None:
        more, less = (answer_costs(price, *table[:3]) for table in (largest, smaller))
        money = mean_saving(more, less)
    seconds = mean_saving(times.cut(largest[1]), times.cut(smaller[1]))
    found = timing((against, limit), np.stack([largest[1], smaller[1]], axis=-1), times)
    answers = int(np.isfinite(largest[1]).sum())
    if found is not None:
        before, after = (point.run_seconds for point in found.points)
        if before is not None and after is not None:
            machine = max(0.0, before - after) / answers
    gains = smaller[3] - largest[3]
    there = np.isfinite(gains)
    asked = there.any(axis=1)
    gains = np.where(there, gains, 0.0).sum(axis=1)[asked] / there.sum(axis=1)[asked]
    tokens = mean_saving(largest[1], smaller[1])
    assert tokens is not None
    return Saving(
        limit=limit,
        against=against,
        answers=answers,
        spent=float(np.nansum(largest[1])) / answers,
        tokens=tokens,
        money=money,
        seconds=seconds,
        machine_seconds=machine,
        accuracy=bootstrap_mean(gains),
        truncated=_newly_cut(study, limit, against) / answers,
    )


def _can_cut(study: Study, limit: int) -> bool:
    """Whether answers at a limit are known; independent records know only their own budgets."""
    return study.by_token_available or limit in study.budgets


def _newly_cut(study: Study, limit: int, against: int) -> int:
    pairs = zip(study.judged(limit), study.judged(against), strict=True)
    return sum(
        one.cut.truncated and not other.cut.truncated
        for one, other in pairs
        if other.outcome is not Outcome.ERROR
    )


def _table(study: Study, budget: int) -> Floats:
    return table_of([row_of(judged) for judged in study.judged(budget)], len(study.complete))


def _times(study: Study) -> Times:
    from pytest_tokenbudget.stats.timing import times_of

    traces = [judged.cut.trace for judged in study.judged(study.largest)]
    problems = len(study.complete)

    def table(value: Callable[[Trace], float]) -> Floats:
        import numpy as np

        return np.array([value(trace) for trace in traces], np.float64).reshape(problems, -1)

    return times_of(
        table(lambda t: float("nan") if t.error else len(t.output_ids)),
        table(lambda t: t.seconds),
        table(lambda t: t.timed),
        table(lambda t: t.ended),
        in_batches=study.identity.get("engine") == IN_STEP,
    )
