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
    settle,
)
from pytest_tokenbudget.registry import SESSION

if TYPE_CHECKING:
    from pytest_tokenbudget.core.answers import Answers, AnswersByBudget
    from pytest_tokenbudget.core.saturation import Saturation
    from pytest_tokenbudget.gates.verdict_gates import VerdictGates
    from pytest_tokenbudget.models.resolution import ModelSpec
    from pytest_tokenbudget.session import Session
    from pytest_tokenbudget.stats.points import AtBudget

GATES = pytest.StashKey[tuple[Gate, ...]]()
JUDGEMENTS = pytest.StashKey[list[GateJudgement]]()
Source = Callable[[int], "Answers"]


class Gates:
    """The gates of a run, as they apply to one test.

    Args:
        gates: All gates.
        place: The test.
        kept: Where judgements are kept.
        largest: The budget that a gate without one means.
        sources: By mode, a function from a budget to the answers there; the first mode is judged
            where a gate names none.
    """

    def __init__(
        self,
        gates: Sequence[Gate],
        place: GateTarget,
        kept: list[GateJudgement],
        largest: int,
        sources: Mapping[str, Source],
    ) -> None:
        self.gates = tuple(gates)
        self.place = place
        self.largest = largest
        self._sources = sources
        self._kept = kept

    def judge(self, budget: int) -> list[GateJudgement]:
        """Every gate on answers that applies to those at a budget, judged."""
        found = []
        for gate in self.gates:
            if applies(gate, self.place, budget, self.largest):
                found += [self._judge(gate, budget, mode) for mode in self._modes(gate)]
        return found

    def _judge(self, gate: Gate, budget: int, mode: str) -> GateJudgement:
        here = [m for m in gate.modes if m in self.place.modes]
        shown = self.place.mode or (mode if mode in gate.modes else " or ".join(here))
        at = self._at(gate, budget, shown)
        if mode not in self._sources:
            name = gate.measured.name
            there = f"{self.place.model} has no answers with {mode}"
            return replace(at, sentence=f"{name} was not measured: {there}")
        return judge_answers(gate, self._sources[mode](budget), at)

    def check(self, point: AtBudget) -> None:
        """Fail the test if a gate that applies to the answers at the point's budget is not kept.

        Args:
            point: Anything with a budget, such as a point of the curve.

        Raises:
            pytest.fail.Exception: With the verdicts of all gates that are not kept.
        """
        __tracebackhide__ = True
        self._settle(self.judge(point.budget))

    def check_saturation(self, saturation: Saturation) -> None:
        """Fail the test if a gate on the saturation point is not kept.

        Raises:
            pytest.fail.Exception: With the verdicts of all gates that are not kept.
        """
        __tracebackhide__ = True
        self._settle(self.judge_saturation(saturation))

    def judge_saturation(self, saturation: Saturation) -> list[GateJudgement]:
        """Every gate on the saturation point that applies here, judged."""
        return [
            judge_saturation(gate, saturation, self._at(gate, None))
            for gate in self.gates
            if gate.metric == SATURATION and goes_with(gate, self.place)
        ]

    def _modes(self, gate: Gate) -> list[str]:
        """The modes that a gate means here."""
        # Where a mode is under test, its answers are the only ones.
        own = self.place.mode
        known = registry.judged()[self.place.judged].modes
        named = [mode for mode in known if mode in gate.modes and mode != own]
        return named or [next(iter(self._sources))]

    def _at(self, gate: Gate, budget: int | None, mode: str = "") -> GateJudgement:
        return judgement_at(gate, self.place, budget, mode)

    def _settle(self, found: Sequence[GateJudgement]) -> None:
        __tracebackhide__ = True
        settle(found, self._kept)


def gates_of_test(
    request: pytest.FixtureRequest, session: Session, spec: ModelSpec
) -> Gates | VerdictGates:
    """The gates of a run as they apply to a test, by what its eval says is judged.

    Args:
        request: The request of the fixture.
        session: The state of this pytest process.
        spec: The model under test.
    """
    from pytest_tokenbudget.gates.verdict_gates import VerdictGates

    gates, place, kept = gates_for(request, spec)
    judged = registry.judged()[place.judged]
    if judged.verdicts is not None:
        return VerdictGates(gates, place, kept, registry.load(judged.verdicts))
    assert judged.answers is not None
    study = request.getfixturevalue(judged.fixture)
    # The shared study is that of the mode already.
    mode = request.getfixturevalue("mode") if place.mode and judged.modes else None
    answers: AnswersByBudget = registry.load(judged.answers)(session, spec, study, mode)
    return Gates(gates, place, kept, answers.largest, answers.by_mode)


def gates_for(
    request: pytest.FixtureRequest, spec: ModelSpec
) -> tuple[tuple[Gate, ...], GateTarget, list[GateJudgement]]:
    """The gates of a run, the test that asks, and where it keeps what it judges."""
    item, config = request.node, request.config
    session = config.stash[SESSION]
    place = target_of(item, session) or GateTarget(
        item.nodeid,
        next(iter(registry.judged())),
        evals_of(item),
        spec.alias,
        spec.source,
        recorded_as(session, spec)[0] or session.task.name,
    )
    return config.stash[GATES], place, item.stash.setdefault(JUDGEMENTS, [])
