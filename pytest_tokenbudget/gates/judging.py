"""What a test judges gates by: the gates that apply to it, and the answers it stands on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_tokenbudget import registry
from pytest_tokenbudget.gates.table import SATURATION, Gate
from pytest_tokenbudget.gates.targets import (
    GateTarget,
    applies,
    evals_of,
    goes_with,
    recorded_as,
    target_of,
)
from pytest_tokenbudget.gates.verdicts import (
    GateJudgement,
    judge_answers,
    judge_saturation,
    judgement_at,
    keep_judgements,
)
from pytest_tokenbudget.registry import SESSION

if TYPE_CHECKING:
    from pytest_tokenbudget.core.answers import Answers, AnswersByBudget
    from pytest_tokenbudget.core.saturation import Saturation
    from pytest_tokenbudget.models.resolution import ModelSpec
    from pytest_tokenbudget.session import Session
    from pytest_tokenbudget.stats.points import AtBudget

GATES = pytest.StashKey[tuple[Gate, ...]]()
JUDGEMENTS = pytest.StashKey[list[GateJudgement]]()
Source = Callable[[int], "Answers"]
Verdicts = Callable[[Sequence[str], object], Sequence[tuple[str, str, str]]]


class Gates:
    """The gates of a run, as they apply to one test.

    Args:
        gates: All gates.
        target: The test.
        kept: Where judgements are kept.
        largest: The budget that a gate without one means.
        sources: By mode, a function from a budget to the answers there; the first mode is judged
            where a gate names none.
    """

    def __init__(
        self,
        gates: Sequence[Gate],
        target: GateTarget,
        kept: list[GateJudgement],
        largest: int,
        sources: Mapping[str, Source],
    ) -> None:
        self.gates = tuple(gates)
        self.target = target
        self.largest = largest
        self._sources = sources
        self._kept = kept

    def judge(self, budget: int) -> list[GateJudgement]:
        """Every gate on answers that applies to those at a budget, judged."""
        found = []
        for gate in self.gates:
            if applies(gate, self.target, budget, self.largest):
                found += [self._judge(gate, budget, mode) for mode in self._modes(gate)]
        return found

    def _judge(self, gate: Gate, budget: int, mode: str) -> GateJudgement:
        named = [m for m in gate.modes if m in self.target.modes]
        shown = self.target.mode or (mode if mode in gate.modes else " or ".join(named))
        judgement = judgement_at(gate, self.target, budget, shown)
        if mode not in self._sources:
            name = gate.measured.name
            there = f"{self.target.model} has no answers with {mode}"
            return replace(judgement, sentence=f"{name} was not measured: {there}")
        return judge_answers(gate, self._sources[mode](budget), judgement)

    def check(self, point: AtBudget) -> None:
        """Fail the test if a gate that applies to the answers at the point's budget is not kept.

        Args:
            point: Anything with a budget, such as a point of the curve.

        Raises:
            pytest.fail.Exception: With the verdicts of all gates that are not kept.
        """
        __tracebackhide__ = True
        keep_judgements(self.judge(point.budget), self._kept)

    def check_saturation(self, saturation: Saturation) -> None:
        """Fail the test if a gate on the saturation point is not kept.

        Raises:
            pytest.fail.Exception: With the verdicts of all gates that are not kept.
        """
        __tracebackhide__ = True
        keep_judgements(self.judge_saturation(saturation), self._kept)

    def judge_saturation(self, saturation: Saturation) -> list[GateJudgement]:
        """Every gate on the saturation point that applies here, judged."""
        return [
            judge_saturation(gate, saturation, judgement_at(gate, self.target))
            for gate in self.gates
            if gate.metric == SATURATION and goes_with(gate, self.target)
        ]

    def _modes(self, gate: Gate) -> list[str]:
        """The modes that a gate means here."""
        # Where a mode is under test, its answers are the only ones.
        own = self.target.mode
        known = registry.judged()[self.target.judged].modes
        named = [mode for mode in known if mode in gate.modes and mode != own]
        return named or [next(iter(self._sources))]


class VerdictGates:
    """The gates of a run on the findings of one eval."""

    def __init__(
        self,
        gates: Sequence[Gate],
        target: GateTarget,
        kept: list[GateJudgement],
        verdicts: Verdicts,
    ) -> None:
        metric = registry.judged()[target.judged].metric
        self.gates = tuple(g for g in gates if g.metric == metric and goes_with(g, target))
        self.target = target
        self._kept = kept
        self._verdicts = verdicts

    @property
    def demands(self) -> tuple[str, ...]:
        """The thresholds."""
        return tuple(str(gate.threshold) for gate in self.gates)

    def check(self, finding: object) -> None:
        """Fail the test if a finding does not keep a threshold that concerns it.

        Raises:
            pytest.fail.Exception: With a sentence for each threshold that is not kept.
        """
        __tracebackhide__ = True
        keep_judgements(self.judge(finding), self._kept)

    # The former name for findings on the whole.
    check_all = check

    def judge(self, finding: object) -> list[GateJudgement]:
        """Every threshold that concerns a finding, judged."""
        return [
            self._judgement(gate, fault, evidence)
            for gate in self.gates
            for _, fault, evidence in self._verdicts((str(gate.threshold),), finding)
        ]

    def _judgement(self, gate: Gate, fault: str, evidence: str) -> GateJudgement:
        unknown = "cannot be judged" in fault
        return replace(
            judgement_at(gate, self.target),
            ruling="unknown" if unknown else "failed" if fault else "passed",
            kept=not fault,
            sentence=fault or f"{gate.threshold} is kept: {evidence}",
        )


def gates_of_test(
    request: pytest.FixtureRequest, session: Session, spec: ModelSpec
) -> Gates | VerdictGates:
    """The gates of a run as they apply to a test, by what its eval says is judged."""
    gates, target, kept = gates_for(request, spec)
    judged = registry.judged()[target.judged]
    if judged.verdicts is not None:
        return VerdictGates(gates, target, kept, registry.load(judged.verdicts))
    assert judged.answers is not None
    study = request.getfixturevalue(judged.fixture)
    # The shared study is that of the mode already.
    mode = request.getfixturevalue("mode") if target.mode and judged.modes else None
    answers: AnswersByBudget = registry.load(judged.answers)(session, spec, study, mode)
    return Gates(gates, target, kept, answers.largest, answers.by_mode)


def gates_for(
    request: pytest.FixtureRequest, spec: ModelSpec
) -> tuple[tuple[Gate, ...], GateTarget, list[GateJudgement]]:
    """The gates of a run, the test that asks, and where it keeps what it judges."""
    item, config = request.node, request.config
    session = config.stash[SESSION]
    target = target_of(item, session) or GateTarget(
        item.nodeid,
        next(iter(registry.judged())),
        evals_of(item),
        spec.alias,
        spec.source,
        recorded_as(session, spec)[0] or session.task.name,
    )
    return config.stash[GATES], target, item.stash.setdefault(JUDGEMENTS, [])
