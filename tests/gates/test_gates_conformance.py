"""Gates on what an engine keeps."""

import pytest
from conformance_samples import LIMITS, make_report, way

from pytest_tokenbudget.gates import Gate, VerdictGates
from pytest_tokenbudget.gates.targets import GateTarget
from pytest_tokenbudget.studies.conformance.analysis import BudgetVerdict
from pytest_tokenbudget.studies.conformance.wording import verdicts

PLACE = GateTarget("t", "conformance", ("conformance",), "nano", "path", "sums")


def gates(*demands, kept=None, **selectors):
    listed = [Gate(demand, "min_conformance", demand, **selectors) for demand in demands]
    return VerdictGates(listed, PLACE, [] if kept is None else kept, verdicts)


def broken(judgements):
    return [each.sentence for each in judgements if not each.kept]


@pytest.mark.parametrize(
    ("demand", "verdict", "kept"),
    [
        ("enforced", "enforced", True),
        ("enforced", "soft", False),
        ("soft", "enforced", True),
        ("soft", "soft", True),
        *((d, v, False) for d in ("enforced", "soft") for v in ("ignored", "inverted")),
        *((d, v, False) for d in ("enforced", "soft") for v in ("refused", "not resolved")),
    ],
)
def test_which_verdicts_reach_a_demand(demand, verdict, kept):
    tried = way("w", BudgetVerdict(verdict))
    demanded = gates(demand, f"w:{demand}")
    assert (not broken(demanded.judge(tried))) is kept
    assert (not broken(demanded.judge(make_report(methods=(tried,))))) is kept


def test_a_demand_on_one_way_is_not_one_on_others():
    demanded = gates("w:enforced")
    assert demanded.judge(way("v", BudgetVerdict.IGNORED)) == []
    assert demanded.judge(make_report(methods=(way("w"), way("v", BudgetVerdict.IGNORED)))) == []
    with pytest.raises(pytest.fail.Exception, match=r"^w was to be enforced, and is ignored: as"):
        demanded.check(way("w", BudgetVerdict.IGNORED))


def test_limits_are_judged_and_nothing_judged_is_not_kept():
    demanded = gates("limits")
    assert broken(demanded.judge(make_report())) == [f"finish_reason: {LIMITS[8].sentence}"]
    differs = demanded.judge(make_report(limits=LIMITS[:8]))
    assert broken(differs) == [], "what differs is not broken"
    [nothing] = demanded.judge(make_report(limits=()))
    assert nothing.sentence == "the gate limits cannot be judged: no limit was probed"
    assert nothing.ruling == "unknown"
    [nothing] = broken(gates("enforced").judge(make_report(methods=())))
    assert nothing.endswith("in one way: no way to set a thinking budget was tried")


def test_a_way_that_was_not_measured_is_never_passed_over():
    demanded = gates("thinking_token_buget:enforced", "--reasoning-budget:soft", "later:soft")
    misspelt, untried, later = broken(demanded.judge(make_report(missing=("later",))))
    assert misspelt.endswith("; did you mean thinking_token_budget?")
    assert untried.endswith("it was not tried: only llama.cpp has it")
    assert later.endswith("it was not tried in this run")


def test_gates_of_another_model_demand_nothing_here():
    assert gates("limits", models=("qwen*",)).demands == ()
    assert gates("limits", models=("na*",)).demands == ("limits",)


def test_a_kept_demand_names_the_method_that_keeps_it():
    kept = []
    gates("w:soft", "enforced", kept=kept).check(way("w"))
    assert [(j.gate, j.ruling, j.kept) for j in kept] == [("w:soft", "passed", True)]
    assert kept[0].sentence == "w:soft is kept: w is enforced: as its evidence says"
