"""A gate held against what was measured: the verdict, and the sentence that says it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_tokenbudget.common.messages import nearest
from pytest_tokenbudget.core.trace import Outcome
from pytest_tokenbudget.gates.table import P95, Gate
from pytest_tokenbudget.gates.targets import GateTarget

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pytest_tokenbudget.core.answers import Answers
    from pytest_tokenbudget.core.saturation import Saturation
    from pytest_tokenbudget.stats.decision_rules import ThresholdDecision
    from pytest_tokenbudget.stats.evidence import Evidence


LONGER = 0.05


@dataclass(frozen=True)
class GateJudgement:
    """What a gate decided in one test.

    Attributes:
        gate: The gate's label.
        metric: What it is on.
        shown: Its threshold, for people.
        model: The model's name.
        task: The task's name.
        eval: The eval's name.
        test: Node id of the test that judged it.
        category: Categories that it was judged on; empty for all problems.
        budget: At which budget; None where there is none.
        mode: In which mode; empty for the eval's own.
        ruling: ``passed``, ``failed``, ``inconclusive`` or ``unknown``.
        kept: Whether it is kept.
        sentence: The verdict with its evidence.
        errors: Answers that are missing because of engine errors.
        rule: How it decided.
        threshold: The threshold.
        margin: By how much it may be missed.
        confidence: Two-sided confidence of the interval.
        value: The measured value, None where there is none; for saturation the difference of
            accuracy that it rests on.
        low: Lower end of its interval.
        high: Upper end.
        n: Problems behind it.
        unit: Unit of the value: ``share``, ``change`` (of a share) or ``tokens``; empty for a
            verdict in words.
        change_unit: Unit of what follows.
        detectable: The smallest change that would have been found with 80 % power.
        wanted: The change that was to be found.
        needed: Problems that finding it takes.
        by_chance: How often it would not be kept though the truth is at the threshold.
    """

    gate: str
    metric: str
    shown: str
    model: str
    task: str
    eval: str
    test: str
    category: str = ""
    budget: int | None = None
    mode: str = ""
    ruling: str = "unknown"
    kept: bool = False
    sentence: str = ""
    errors: int = 0
    rule: str = ""
    threshold: float | str | None = None
    margin: float | None = None
    confidence: float | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    unit: str = ""
    change_unit: str = ""
    detectable: float | None = None
    wanted: float | None = None
    needed: int | None = None
    by_chance: float | None = None


def with_verdict(
    judgement: GateJudgement, verdict: ThresholdDecision, sentence: str
) -> GateJudgement:
    """The judgement with all that a verdict says."""
    demand, estimate = verdict.demand, verdict.estimate
    return replace(
        judgement,
        ruling=verdict.ruling.value,
        kept=verdict.kept,
        sentence=sentence,
        rule=demand.rule.value,
        threshold=demand.threshold,
        margin=demand.margin or None,
        confidence=demand.confidence,
        value=None if estimate.value != estimate.value else estimate.value,
        low=estimate.low,
        high=estimate.high,
        n=estimate.n,
        detectable=verdict.detectable,
        wanted=verdict.wanted,
        needed=verdict.needed,
        by_chance=verdict.by_chance,
    )


def judge_answers(gate: Gate, answers: Answers, judgement: GateJudgement) -> GateJudgement:
    """A gate on answers."""
    from pytest_tokenbudget.stats.decision_rules import Decision, decide

    of = " or ".join(gate.categories)
    name = gate.measured.name + (f" of {of}" if of else "")
    chosen = answers.in_categories(gate.categories)
    judgement = replace(judgement, category=of, errors=chosen.errors)
    if not chosen.judged:
        return replace(judgement, sentence=f"{name} was not measured: {_no_problem(gate, answers)}")
    if gate.metric == P95:
        return _judge_p95(gate, chosen, name, judgement)
    verdict = decide(evidence_of(gate.metric, chosen), gate.demand())
    sentence = verdict.sentence(name, gate.unit, threshold_owner(gate))
    if verdict.ruling is Decision.UNKNOWN:
        sentence = f"{name} was not measured: {_nothing(chosen)}"
    elif chosen.errors and gate.metric != "max_error_rate":
        sentence += f", {chosen.errors:,} more ended in engine errors"
    return with_verdict(judgement, verdict, sentence)


def _judge_p95(gate: Gate, answers: Answers, name: str, judgement: GateJudgement) -> GateJudgement:
    """A gate on the 95th percentile, which is one on the share of answers that are longer."""
    from pytest_tokenbudget.stats.decision_rules import (
        Decision,
        DecisionRule,
        MetricUnit,
        Threshold,
        decide,
    )
    from pytest_tokenbudget.stats.evidence import Rate, quantile_estimate

    assert not isinstance(gate.threshold, str)
    tokens = longest_of(answers)
    if not len(tokens):
        return replace(judgement, sentence=f"{name} was not measured: {_nothing(answers)}")
    most = gate.threshold + gate.margin
    # What is not shown to be within the margin fails, as ever.
    rule = DecisionRule.CONFIDENT if gate.rule == "noninferior" else DecisionRule(gate.rule)
    longer = Rate(int((tokens > most).sum()), len(tokens))
    demand = Threshold(LONGER, False, rule, 0.0, gate.confidence, None, gate.allow_inconclusive)
    verdict = decide(longer, demand)
    if gate.rule == "noninferior" and verdict.ruling is Decision.INCONCLUSIVE:
        verdict = replace(verdict, ruling=Decision.FAILED)
    estimate = quantile_estimate(tokens, 1 - LONGER, gate.confidence, float(answers.max_tokens))
    value, low, high = (MetricUnit.TOKENS.number(each) for each in estimate[:3])
    verb = {Decision.PASSED: "is at most", Decision.FAILED: "is above"}.get(
        verdict.ruling, "is inconclusive about"
    )
    share = MetricUnit.SHARE.number(longer.value)
    return replace(
        with_verdict(judgement, replace(verdict, estimate=estimate), ""),
        rule=gate.rule,
        threshold=gate.threshold,
        margin=gate.margin or None,
        change_unit="share",
        sentence=(
            f"{name} {value} tokens [{low}, {high}] {verb} {threshold_owner(gate)} "
            f"{MetricUnit.TOKENS.limit(most)} tokens: {share} % of the answers are longer, 5 % may "
            f"be ({verdict.evidence(MetricUnit.SHARE)})"
        ),
    )


def evidence_of(metric: str, answers: Answers) -> Evidence:
    """What answers say of a metric. An engine's error is no answer, and in its own metric only."""
    import numpy as np

    from pytest_tokenbudget.stats.evidence import mean_evidence, rate_evidence

    def table(values: Sequence[float]) -> NDArray[np.float64]:
        return np.array(values, dtype=np.float64).reshape(-1, answers.samples)

    outcomes = [j.outcome for j in answers.judged]
    failed = table([o is Outcome.ERROR for o in outcomes])
    if metric == "max_error_rate":
        return rate_evidence(failed)
    cut = table([j.cut.truncated for j in answers.judged])
    used = table(answers.tokens)
    right = table([o is Outcome.CORRECT for o in outcomes])

    def valid(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(failed == 1, np.nan, values)

    match metric:
        case "min_accuracy":
            return rate_evidence(valid(right))
        case "min_accuracy_completed":
            return rate_evidence(valid(np.where(cut == 1, np.nan, right)))
        case "max_truncation":
            return rate_evidence(valid(cut))
        case "max_truncated_in_thinking":
            return rate_evidence(
                valid(table([o is Outcome.TRUNCATED_IN_THINKING for o in outcomes]))
            )
        case "max_mean_tokens":
            return mean_evidence(valid(used), 0.0, float(answers.max_tokens), scales=True)
    raise ValueError(f"answers say nothing of {metric}")


def longest_of(answers: Answers) -> NDArray[np.float64]:
    """Tokens of each problem's answer; of several samples, which are not independent, the longest.

    An engine's error is no answer.
    """
    import numpy as np

    used = [
        float("nan") if j.outcome is Outcome.ERROR else float(tokens)
        for j, tokens in zip(answers.judged, answers.tokens, strict=True)
    ]
    table = np.array(used, dtype=np.float64).reshape(-1, answers.samples)
    table = table[np.isfinite(table).any(axis=1)]
    longest: NDArray[np.float64] = np.nanmax(table, axis=1) if len(table) else table.ravel()
    return longest


def threshold_owner(gate: Gate) -> str:
    """Whose threshold it is, for a sentence."""
    return "the gate's" if gate.option else f"{gate.label}:"


def _no_problem(gate: Gate, answers: Answers) -> str:
    if not gate.categories:
        return "there are no answers"
    there = answers.labels
    close = nearest(gate.categories[0], there, count=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return (
        f"no problem is of category {' or '.join(gate.categories)}; there are "
        f"{', '.join(there) or 'none'}{hint}"
    )


def _nothing(answers: Answers) -> str:
    if answers.errors == len(answers.judged):
        return f"all {answers.errors:,} answers ended in engine errors"
    return "no answer was completed"


def judge_saturation(gate: Gate, saturation: Saturation, judgement: GateJudgement) -> GateJudgement:
    """A gate on the saturation point, which is a matter of a difference that was tested.

    Its budget at most must be shown to lose no more than the margin against the largest. Where that
    is not shown, ``confident`` fails only if more is shown to be lost.
    """
    from pytest_tokenbudget.stats.decision_rules import (
        Decision,
        DecisionRule,
        MetricUnit,
        Threshold,
        decide,
    )
    from pytest_tokenbudget.stats.evidence import Change
    from pytest_tokenbudget.stats.intervals import Estimate

    assert not isinstance(gate.threshold, str)
    judgement = replace(judgement, threshold=gate.threshold, rule=gate.rule, n=saturation.problems)
    most = int(gate.threshold)
    compared = [each for each in saturation.comparisons if each.budget <= most]
    found = saturation.budget
    kept = found is not None and found <= most
    if not compared:
        there = ", ".join(f"{c.budget:,}" for c in saturation.comparisons) or "no other"
        sentence = (
            f"saturation at most at {most:,} tokens was not measured: compared with "
            f"{saturation.largest:,} are {there}"
        )
        if not kept:
            return replace(judgement, sentence=sentence)
    ruling = Decision.PASSED if kept else Decision.FAILED
    evidence = ""
    if compared:
        best = max(compared, key=lambda each: each.budget)
        if gate.rule == "confident" and not kept and not best.worse:
            ruling = Decision.INCONCLUSIVE
        shown = Threshold(
            0.0, True, DecisionRule.NONINFERIOR, saturation.margin, 2 * saturation.confidence - 1
        )
        change = Change(best.lost, best.won, best.problems)
        known = Estimate(best.difference, best.lower_bound, best.upper_bound, best.problems)
        verdict = decide(change, shown, known)
        judgement = with_verdict(judgement, verdict, "")
        value, low, high = (MetricUnit.CHANGE.number(each) for each in verdict.estimate[:3])
        evidence = (
            f"; at {best.budget:,} accuracy is {value} points [{low}, {high}] from that at "
            f"{saturation.largest:,} ({verdict.evidence(MetricUnit.CHANGE)})"
        )
    allowed = ruling is Decision.INCONCLUSIVE and gate.allow_inconclusive
    limit = f"{threshold_owner(gate)} {most:,} tokens"
    if ruling is Decision.INCONCLUSIVE:
        said = f"whether saturation is at most {limit} is not resolved"
    elif found is None:
        said = f"saturation is not shown to be at most {limit}"
    else:
        said = f"saturation at {found:,} tokens is {'at most' if kept else 'above'} {limit}"
    return replace(
        judgement,
        ruling=ruling.value,
        kept=kept or allowed,
        rule=gate.rule,
        threshold=gate.threshold,
        margin=saturation.margin,
        unit="change",
        change_unit="share",
        sentence=f"{said}{evidence}",
    )


def records(judgements: Sequence[GateJudgement]) -> list[dict[str, Any]]:
    """Judgements as plain values."""
    from pytest_tokenbudget.report.files import to_record

    return [dict(to_record(asdict(each))) for each in judgements]


def judgement_at(
    gate: Gate, target: GateTarget, budget: int | None = None, mode: str = ""
) -> GateJudgement:
    """A judgement that is still to be made."""
    return GateJudgement(
        gate=gate.label,
        metric=gate.metric,
        shown=gate.shown(),
        model=target.model,
        task=target.task,
        eval=target.evals[0],
        test=target.test,
        budget=budget,
        mode=mode,
        unit=gate.measured.unit,
        change_unit=gate.measured.unit,
        threshold=gate.threshold,
    )


def keep_judgements(judgements: Sequence[GateJudgement], kept: list[GateJudgement]) -> None:
    """Keep judgements for the reports, and fail the test if one says so.

    Raises:
        pytest.fail.Exception: With the verdicts of all gates that are not kept.
    """
    __tracebackhide__ = True
    kept.extend(judgements)
    if broken := [each.sentence for each in judgements if not each.kept]:
        pytest.fail("; ".join(broken), pytrace=False)
