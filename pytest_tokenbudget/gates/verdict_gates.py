"""Gates on findings that are no answers: thresholds that an eval holds against them itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from pytest_tokenbudget import registry
from pytest_tokenbudget.gates.table import Gate
from pytest_tokenbudget.gates.targets import GateTarget, goes_with
from pytest_tokenbudget.gates.verdicts import GateJudgement, judgement_at, settle

Verdicts = Callable[[Sequence[str], object], Sequence[tuple[str, str, str]]]


class VerdictGates:
    """The gates of a run on the findings of one eval.

    Args:
        gates: All gates.
        place: The test.
        kept: Where judgements are kept.
        verdicts: Holds thresholds against a finding; see :class:`registry.GateSubject`.
    """

    def __init__(
        self,
        gates: Sequence[Gate],
        place: GateTarget,
        kept: list[GateJudgement],
        verdicts: Verdicts,
    ) -> None:
        metric = registry.judged()[place.judged].metric
        self.gates = tuple(g for g in gates if g.metric == metric and goes_with(g, place))
        self.place = place
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
        settle(self.judge(finding), self._kept)

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
            judgement_at(gate, self.place),
            ruling="unknown" if unknown else "failed" if fault else "passed",
            kept=not fault,
            sentence=fault or f"{gate.threshold} is kept: {evidence}",
        )
