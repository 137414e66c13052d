"""Which gates were not judged, and why: what nobody looked at is not kept."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_tokenbudget import registry
from pytest_tokenbudget.common.extensions import TASKS
from pytest_tokenbudget.common.names import EXPLICIT
from pytest_tokenbudget.common.package_files import suite
from pytest_tokenbudget.common.text_layout import plural
from pytest_tokenbudget.gates.partial_runs import Selection
from pytest_tokenbudget.gates.table import CONFORMANCE, SATURATION, Gate
from pytest_tokenbudget.gates.targets import (
    GateTarget,
    KnownNames,
    how_to_judge,
    judges,
    misspelt,
    why_nowhere,
)
from pytest_tokenbudget.gates.verdicts import GateJudgement
from pytest_tokenbudget.settings.option_values import MODES

if TYPE_CHECKING:
    from pytest_tokenbudget.session import Session


@dataclass(frozen=True)
class Unjudged:
    """A gate that was not judged, for a model or at all.

    Attributes:
        gate: The gate.
        reason: Why.
        model: The model; empty for all.
        fails: Whether that fails the run.
        selection: What left its tests out, if the run is one of selected tests.
    """

    gate: Gate
    reason: str
    model: str = ""
    fails: bool = True
    selection: str = ""

    @property
    def name(self) -> str:
        """The gate's name, and the model's."""
        return f"{self.gate.label}[{self.model}]" if self.model else self.gate.label

    def sentence(self) -> str:
        """What is said of it."""
        where = f" ({where})" if (where := self.gate.where()) else ""
        model = f" for {self.model}" if self.model else ""
        return f"{self.gate.label}{where} was not judged{model}: {self.reason}"


@dataclass(frozen=True)
class GateResults:
    """What became of the gates of a run.

    Attributes:
        gates: All gates.
        judgements: What tests judged.
        missing: What no test judged.
        complete: Whether the tests ran to their end.
    """

    gates: Sequence[Gate]
    judgements: Sequence[GateJudgement]
    missing: Sequence[Unjudged]
    complete: bool = True


def unjudged(
    gates: Sequence[Gate],
    targets: Sequence[GateTarget],
    judgements: Sequence[GateJudgement],
    outcomes: Mapping[str, str],
    known: KnownNames,
    *,
    selection: Selection | None = None,
) -> Iterator[Unjudged]:
    """Every gate that was not judged where it had to be.

    Args:
        gates: All gates of the run.
        targets: Tests that could judge gates and ran, or were skipped.
        judgements: What they judged.
        outcomes: What became of each test that judged nothing, in words, by node id.
        known: Names that gates may have.
        selection: What the run selects of the tests that there are; None for a whole run.
    """
    selection = selection or Selection()
    judged = {(j.gate, j.model, j.budget) for j in judgements}
    for gate in gates:
        here = [target for target in targets if judges(gate, target)]
        wrong = misspelt(gate, targets, known)
        if not here:
            reason = why_nowhere(gate, targets, known)
            excuse = "" if wrong or not gate.required else selection.excuse(gate)
            fails = wrong or (gate.required and not excuse)
            reason += selection.note(gate) if fails and not wrong else ""
            yield Unjudged(gate, reason, fails=fails, selection=excuse)
            continue
        if wrong:
            yield Unjudged(gate, f"a part of it is in no run: {gate.where()}")
        for model in dict.fromkeys(target.model for target in here):
            at = [target for target in here if target.model == model]
            for budget in _budgets(gate, at):
                if not any(
                    (label, name) == (gate.label, model) and budget in (None, b)
                    for label, name, b in judged
                ):
                    # Only what no selected test is for is due to the selection.
                    stopped = any(
                        outcomes.get(target.test, "").startswith(("was skipped", "failed"))
                        for target in at
                        if budget is None or target.budget in (None, budget)
                    )
                    excuse = "" if stopped or wrong else selection.excuse(gate, budget)
                    reason = _why(gate, budget, at, outcomes)
                    reason += "" if excuse or stopped or wrong else selection.note(gate)
                    yield Unjudged(gate, reason, model, not excuse, excuse)


def _budgets(gate: Gate, targets: Sequence[GateTarget]) -> Sequence[int | None]:
    """The budgets that must have been judged; None where any one will do."""
    if gate.metric in (CONFORMANCE, SATURATION):
        return (None,)
    if gate.every:
        return sorted({p.budget for p in targets if p.budget is not None}) or (None,)
    return gate.budgets or (None,)


def _why(
    gate: Gate, budget: int | None, targets: Sequence[GateTarget], outcomes: Mapping[str, str]
) -> str:
    at = [p for p in targets if budget is None or p.budget in (None, budget)]
    if not at:
        return f"no selected test looks at {budget:,} tokens"
    if gate.metric == CONFORMANCE:
        # Each way has a test of its own; what is demanded of the whole is judged in one only.
        at = [p for p in at if p.test in outcomes and "test_gates" in p.test]
        if not at:
            return how_to_judge(CONFORMANCE)
    what = outcomes.get(at[-1].test, "did not run")
    name = at[-1].test.rpartition("/")[2]
    return f"{name} {what}"


def known_names(session: Session, evals: Collection[str]) -> KnownNames:
    """All names that gates may have, in this run or another."""
    files = (path.stem.removeprefix("test_") for path in sorted(suite().glob("test_*.py")))
    specs = session.catalogue.values()
    further = (mode for each in registry.judged().values() for mode in each.modes)
    return KnownNames(
        evals=(*files, *evals),
        models=(*session.catalogue, *(spec.source for spec in specs)),
        tasks=TASKS.names,
        modes=("plain", "thinking", *further, *MODES, EXPLICIT),
    )


def broken(judgements: Sequence[GateJudgement], missing: Sequence[Unjudged]) -> int:
    """How many verdicts fail the run."""
    return sum(not j.kept for j in judgements) + sum(each.fails for each in missing)


def headline(judgements: Sequence[GateJudgement], missing: Sequence[Unjudged]) -> str:
    """How many verdicts there are, and how many of them fail."""
    total = len(judgements) + sum(not each.selection for each in missing)
    fails = broken(judgements, missing)
    if not fails:
        return f"gates: {plural(total, 'verdict')}, none fails"
    return f"gates: {fails:,} of {plural(total, 'verdict')} {'fails' if fails == 1 else 'fail'}"
