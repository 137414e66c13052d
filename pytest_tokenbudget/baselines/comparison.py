"""A run against a stored one: what differs beside the model, and every budget compared."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from pytest_tokenbudget.baselines.run import BaselineError, Run, RunAnswer
from pytest_tokenbudget.baselines.run_statistics import PointChange, Scores, compare, problem_means
from pytest_tokenbudget.baselines.storage import machine_facts
from pytest_tokenbudget.common.outside_text import printable
from pytest_tokenbudget.common.text_layout import plural, shorten
from pytest_tokenbudget.stats.intervals import Estimate, Floats, clustered_rate, mean_estimate
from pytest_tokenbudget.stats.points import ByBudget

if TYPE_CHECKING:
    from pytest_tokenbudget.baselines.reading import Baseline

ROUNDING = 1e-9
RECORDED = "recorded"


class Difference(NamedTuple):
    """Something in which two runs differ.

    Attributes:
        what: What it is.
        before: How it was in the stored run.
        after: How it is now.
    """

    what: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.what} {_shown(self.before, 26)} -> {_shown(self.after, 26)}"


class Changed(NamedTuple):
    """A problem whose answer became right, or is so no longer.

    Attributes:
        before: The stored answer.
        after: The answer of this run.
    """

    before: RunAnswer
    after: RunAnswer


class Curves(NamedTuple):
    """One run over the budgets of a comparison, on the problems of both; for figures.

    Attributes:
        accuracy: Accuracy at each budget.
        truncation: Truncation rate.
        tokens: Mean output tokens.
    """

    accuracy: tuple[Estimate, ...]
    truncation: tuple[Estimate, ...]
    tokens: tuple[Estimate, ...]


@dataclass(frozen=True)
class BaselineComparison(ByBudget[PointChange]):
    """One model's run against a stored one.

    Attributes:
        points: How far they are apart at each budget that both have.
        label: What the stored runs are called.
        before: The stored run.
        after: This run.
        differs: What differs beside the answers, such as the model; never the task or the
            extractor, since runs that differ in these are not compared.
        only_before: Problems of the stored run that this one has not.
        only_after: Problems of this run that the stored one has not.
    """

    WHAT: ClassVar[str] = "the comparison"

    points: tuple[PointChange, ...]
    label: str
    before: Run
    after: Run
    differs: tuple[Difference, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]

    @property
    def largest(self) -> int:
        """The largest budget that both runs have."""
        return self.budgets[-1]

    @cached_property
    def problems(self) -> tuple[str, ...]:
        """Ids of the problems that both runs have."""
        return _common(self.before, self.after)

    def scores(self, budget: int) -> tuple[Scores, Scores]:
        """The answers of both runs at one budget, for those who judge them."""
        both = (run.scores(self.problems, [budget]) for run in (self.before, self.after))
        before, after = (Scores(*(array[:, :, 0] for array in scores)) for scores in both)
        return before, after

    def curves(self) -> tuple[Curves, Curves]:
        """Both runs, the stored one first."""
        before, after = (
            _curves(run.scores(self.problems, self.budgets)) for run in (self.before, self.after)
        )
        return before, after

    def places(self, budget: int) -> tuple[int, int]:
        """Where a budget stands in the answers of the stored run and of this one."""
        return self.before.budgets.index(budget), self.after.budgets.index(budget)

    def lost(self, budget: int) -> tuple[Changed, ...]:
        """Problems that this run does worse at a budget, each with a sample that shows it."""
        return self._changed(budget, -1)

    def won(self, budget: int) -> tuple[Changed, ...]:
        """Problems that this run does better at a budget."""
        return self._changed(budget, 1)

    def _changed(self, budget: int, sign: int) -> tuple[Changed, ...]:
        before, after = self.scores(budget)
        values = problem_means(after.correct) - problem_means(before.correct)
        found = []
        for problem, value in zip(self.problems, values.tolist(), strict=True):
            if value * sign > ROUNDING:
                one = _example(self.before, problem, budget, right=sign < 0)
                found.append(Changed(one, _example(self.after, problem, budget, right=sign > 0)))
        return tuple(found)

    def notes(self) -> list[str]:
        """What a reader must know beside the numbers, in sentences."""
        said = []
        if self.differs:
            said.append(f"the runs differ in {'; '.join(map(str, self.differs))}")
        both = plural(len(self.problems), "problem")
        if self.only_before or self.only_after:
            said.append(
                f"compared are the {both} that both have: {len(self.only_before):,} of "
                f"{self.label} are not in this run, and {len(self.only_after):,} of this run are "
                "not in it"
            )
        left = sorted(set(self.after.budgets) - set(self.budgets))
        if left:
            said.append(
                f"{self.label} has no budget of {', '.join(f'{b:,}' for b in left)} tokens: "
                "not compared"
            )
        scored = self.points[-1].problems
        if scored < len(self.problems):
            said.append(
                f"{plural(len(self.problems) - scored, 'problem')} without an answer in one of "
                "the runs, because of an error, are left out"
            )
        return said


def _curves(scores: Scores) -> Curves:
    def over(array: Floats, estimate: Callable[[Floats], Estimate]) -> tuple[Estimate, ...]:
        return tuple(estimate(array[:, :, place]) for place in range(array.shape[2]))

    return Curves(
        over(scores.correct, clustered_rate),
        over(scores.truncated, clustered_rate),
        over(scores.tokens, mean_estimate),
    )


def _example(run: Run, problem: str, budget: int, right: bool) -> RunAnswer:
    """A sample of a problem that is right, or is not, at a budget; else the first there is."""
    place = run.budgets.index(budget)
    keys = ((problem, sample) for sample in range(run.samples))
    samples = [run.answers[key] for key in keys if key in run.answers]
    return next((each for each in samples if each.right(place) is right), samples[0])


def compare_with(baseline: Baseline, after: Run) -> BaselineComparison:
    """Compare a run with the stored one of its model.

    Raises:
        BaselineError: If they cannot be compared, saying in what they differ.
    """
    before = baseline.run_for(after.model)
    differs = _differences(before, after)
    machine = {k: v for k, v in baseline.machine.items() if k in ("processor", "gpus")}
    now = machine_facts()
    if machine and any(now.get(name, value) != value for name, value in machine.items()):
        names = (str(facts.get("gpus") or facts.get("processor")) for facts in (machine, now))
        differs = (*differs, Difference("machine", *names))
    return compare_runs(before, after, baseline.label, differs)


def compare_runs(
    before: Run,
    after: Run,
    label: str,
    differs: tuple[Difference, ...] = (),
    chosen_budgets: Collection[int] | None = None,
) -> BaselineComparison:
    """Compare two runs.

    Args:
        before: One run.
        after: The other.
        label: What the first is called in messages.
        differs: What is known to differ.
        chosen_budgets: The budgets to compare at; None for all that both have.

    Raises:
        BaselineError: If they differ in the task, the problems or the extractor, or have no
            problem or budget in common.
    """
    check_alike(before, after.task, after.extractor, label)
    if not after.answers:
        raise BaselineError(f"this run has no answer to compare with {label}")
    common = _common(before, after)
    if not common:
        raise BaselineError(
            f"{label} and this run have no problem in common: other problems were chosen"
        )
    _check_problems(before, after, common, label)
    both = (b for b in after.budgets if b in before.budgets)
    budgets = tuple(b for b in both if chosen_budgets is None or b in chosen_budgets)
    if not budgets:
        theirs, ours = (", ".join(map(str, run.budgets)) for run in (before, after))
        raise BaselineError(
            f"{label} has the budgets {theirs} and this run has {ours}: none in common"
        )
    return BaselineComparison(
        points=compare(budgets, before.scores(common, budgets), after.scores(common, budgets)),
        label=label,
        before=before,
        after=after,
        differs=differs,
        only_before=_only(before, after),
        only_after=_only(after, before),
    )


def check_alike(before: Run, task: str, extractor: str, label: str) -> None:
    """See to it that a stored run is of a task, and was scored by the same rules.

    Raises:
        BaselineError: If it is not.
    """
    if before.task != task:
        raise BaselineError(
            f"{label} is of task {before.task} and this run of {task}: they cannot be compared"
        )
    if before.extractor != extractor:
        raise BaselineError(
            f"{label} was scored by {before.extractor} and this run by {extractor}: the difference "
            "would be that of the rules. Where its traces are still there, save it again with this "
            "version; nothing has to be generated for that"
        )


def _check_problems(before: Run, after: Run, common: tuple[str, ...], label: str) -> None:
    first = {answer.problem_id: answer for answer in before.answers.values()}
    now = {answer.problem_id: answer for answer in after.answers.values()}
    for problem in common:
        for what in ("question", "expected"):
            one, other = (str(getattr(known[problem], what)) for known in (first, now))
            if one != other:
                name = "expected answer" if what == "expected" else what
                raise BaselineError(
                    f"problem {problem!r} has another {name} in {label}: {_shown(one)!r} there, "
                    f"{_shown(other)!r} here; the task's problems have changed"
                )


def _common(before: Run, after: Run) -> tuple[str, ...]:
    there = set(before.problems)
    return tuple(problem for problem in after.problems if problem in there)


def _only(one: Run, other: Run) -> tuple[str, ...]:
    there = set(other.problems)
    return tuple(problem for problem in one.problems if problem not in there)


def _differences(before: Run, after: Run) -> tuple[Difference, ...]:
    """What differs between two runs of one task, what matters most first."""
    pairs: list[tuple[str, object, object]] = [
        ("model", before.model, after.model),
        ("mode", before.mode, after.mode),
        ("samples a problem", before.samples, after.samples),
    ]
    identities = before.identity, after.identity
    if (before.identity.get("source") == RECORDED) != (after.identity.get("source") == RECORDED):
        identities = _as_it_was(before), _as_it_was(after)
    for one, other in ((before.decoding, after.decoding), identities):
        pairs += [
            (name, one.get(name, "none"), other.get(name, "none"))
            for name in dict.fromkeys([*one, *other])
        ]
    pairs += [
        (f"version of {name}", version, after.versions[name])
        for name, version in before.versions.items()
        if name in after.versions
    ]
    return tuple(
        Difference(what, str(one), str(other)) for what, one, other in pairs if one != other
    )


def _as_it_was(run: Run) -> dict[str, str]:
    """What a model was; of recorded answers, what it was when it gave them."""
    if run.identity.get("source") != RECORDED:
        return dict(run.identity)
    then = {
        name.removeprefix(f"{RECORDED}_"): value
        for name, value in run.identity.items()
        if name.startswith(f"{RECORDED}_")
    }
    return {**then, "source": RECORDED}


def _shown(value: str, width: int = 48) -> str:
    return shorten(printable(value).strip(), width) or "nothing"
