"""Gates on answers: which apply where, what they say, and how a run ends."""

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from runs import NO_ENGINE, SUITE, Engines, finish, start
from studies import make_study

from pytest_tokenbudget.core.answers import study_answers
from pytest_tokenbudget.core.saturation import saturation_point
from pytest_tokenbudget.gates import Gate, Gates
from pytest_tokenbudget.gates.targets import GateTarget
from pytest_tokenbudget.gates.verdicts import judge_saturation

pytest_plugins = ["run_fixtures"]

PLACE = GateTarget("t.py::t", "study", ("saturation", "phase1"), "nano", "org/nano", "sums")


def gate(metric, threshold, **changes):
    return Gate(metric, metric, threshold, option="--given", **changes)


def judge(study, *gates, budget=None, place=PLACE, largest=None):
    largest = largest or study.largest
    return Gates(gates, place, [], largest, {"": study_answers(study)}).judge(budget or largest)


@pytest.fixture(scope="module")
def study():
    """60 sums of which 92 % are right, if they are not cut; lengths 45 to 560."""
    return make_study()


def test_each_metric_is_that_of_the_curve(study):
    for budget in (128, 2048):
        point = study.curve.at(budget)
        found = {
            j.metric: j
            for j in judge(
                study,
                *(
                    gate(metric, threshold, every=True)
                    for metric, threshold in {
                        "min_accuracy": 0.5,
                        "min_accuracy_completed": 0.5,
                        "max_truncation": 0.5,
                        "max_truncated_in_thinking": 0.5,
                        "max_mean_tokens": 200,
                        "max_p95_tokens": 400,
                        "max_error_rate": 0.1,
                    }.items()
                ),
                budget=budget,
            )
        }
        assert len(found) == 7
        assert found["min_accuracy"].value == point.accuracy.value
        assert found["min_accuracy_completed"].value == point.completed.value
        assert found["max_truncation"].value == point.truncation.value
        assert found["max_truncated_in_thinking"].value == 0.0
        assert found["max_error_rate"].value == 0.0
        mean = found["max_mean_tokens"]
        assert mean.value == point.mean_tokens.value
        for judgement, shown in (
            (found["min_accuracy"], point.accuracy),
            (found["min_accuracy_completed"], point.completed),
            (found["max_truncation"], point.truncation),
            (mean, point.mean_tokens),
        ):
            assert (judgement.low, judgement.high) == pytest.approx(shown[1:3])
        lengths = [j.cut.tokens_used for j in study.judged(budget)]
        assert found["max_p95_tokens"].value == sorted(lengths)[56]
        assert found["max_p95_tokens"].low <= sorted(lengths)[56] <= found["max_p95_tokens"].high


def test_a_threshold_is_kept_where_it_is_met_exactly(study):
    right = study.curve.at(2048).accuracy.value
    for threshold, kept in ((right, True), (right + 0.001, False)):
        [judgement] = judge(study, gate("min_accuracy", threshold))
        assert judgement.kept is kept


def test_a_percentile_is_judged_by_the_share_of_longer_answers(study):
    lengths = sorted(j.cut.tokens_used for j in study.judged(2048))
    for rule, threshold, ruling in (
        ("point", lengths[56], "passed"),
        ("point", lengths[56] - 1, "failed"),
        ("confident", lengths[56], "inconclusive"),
        ("confident", lengths[40], "failed"),
        ("noninferior", lengths[56], "failed"),
    ):
        margin = 1.0 if rule == "noninferior" else 0.0
        asked = gate("max_p95_tokens", threshold, rule=rule, margin=margin)
        [judgement] = judge(study, asked)
        assert judgement.ruling == ruling, (rule, threshold)
        assert f"longer, 5 % may be (n = {len(lengths)}; " in judgement.sentence


def test_categories_are_judged_by_their_own_problems(study):
    [one, both, none] = judge(
        study,
        gate("min_accuracy", 0.5, categories=("1-step",)),
        gate("min_accuracy", 0.5, categories=("*-step",)),
        gate("min_accuracy", 0.5, categories=("1-stp",)),
    )
    assert (one.n, both.n) == (30, 60)
    assert one.sentence.startswith("accuracy of 1-step ")
    assert (none.ruling, none.kept) == ("unknown", False)
    assert none.sentence == (
        "accuracy of 1-stp was not measured: no problem is of category 1-stp; there are 2-step, "
        "1-step; did you mean '1-step'?"
    )


def test_engine_errors_are_no_wrong_answers():
    some = make_study(errors=6)
    accuracy, rate = judge(some, gate("min_accuracy", 0.5), gate("max_error_rate", 0.05))
    assert (accuracy.n, accuracy.errors) == (54, 6)
    assert accuracy.sentence.endswith("), 6 more ended in engine errors")
    assert (rate.n, rate.value, rate.kept) == (60, 0.1, False)
    [nothing] = judge(make_study(3, errors=3), gate("min_accuracy", 0.0))
    assert (nothing.ruling, nothing.kept) == ("unknown", False)
    assert nothing.sentence == ("accuracy was not measured: all 3 answers ended in engine errors")


def test_gates_apply_to_their_budget_or_the_largest(study):
    gates = [
        gate("min_accuracy", 0.1),
        gate("min_accuracy", 0.2, budgets=(64,)),
        gate("min_accuracy", 0.3, budgets=(64, 128)),
        gate("min_accuracy", 0.4, every=True),
    ]
    for budget, applying in ((64, [0.2, 0.3, 0.4]), (128, [0.3, 0.4]), (2048, [0.1, 0.4])):
        assert [j.threshold for j in judge(study, *gates, budget=budget)] == applying
    # Where the context has no room for the larger ones.
    assert [j.threshold for j in judge(study, *gates, budget=512, largest=512)] == [0.1, 0.4]


@pytest.mark.parametrize(
    ("selectors", "meant"),
    [
        ({"models": ("na*",)}, True),
        ({"models": ("org/*",)}, True),
        ({"models": ("qwen*", "nano")}, True),
        ({"models": ("qwen*",)}, False),
        ({"evals": ("phase1",)}, True),
        ({"evals": ("saturation", "thinking")}, True),
        ({"evals": ("thinking",)}, False),
        ({"tasks": ("sums",)}, True),
        ({"tasks": ("gsm8k*",)}, False),
        ({"modes": ("plain",)}, False),
    ],
)
def test_gates_apply_to_what_they_name(study, selectors, meant):
    assert bool(judge(study, gate("min_accuracy", 0.5, **selectors))) is meant


def test_a_mode_that_a_model_does_not_have_is_not_measured(study):
    """Where no mode is named, the first is judged."""
    answers = study_answers(study)
    place = GateTarget(
        "t", "thinking_study", ("thinking",), "nano", "org/nano", "sums", 64,
        modes=("thinking", "forced", "hard", "natural", "off"),
    )  # fmt: skip
    gates = [
        gate("min_accuracy", 0.0),
        gate("min_accuracy", 0.0, modes=("hard", "off")),
        gate("min_accuracy", 0.0, modes=("thinking",)),
    ]
    sources = {"forced": answers, "hard": lambda budget: answers(32)}
    found = Gates(gates, place, [], 64, sources).judge(64)
    assert [(j.mode, j.kept) for j in found] == [
        ("", True), ("hard", True), ("off", False), ("thinking", True),
    ]  # fmt: skip
    right = [study.curve.at(budget).accuracy.value for budget in (64, 32)]
    assert [j.value for j in found] == [right[0], right[1], None, right[0]]
    assert found[2].sentence == "accuracy was not measured: nano has no answers with off"


def test_check_fails_with_all_reasons(study):
    kept = []
    gates = Gates(
        [gate("min_accuracy", 0.99), gate("max_truncation", 0.0), gate("max_mean_tokens", 1)],
        PLACE,
        kept,
        2048,
        {"": study_answers(study)},
    )
    with pytest.raises(pytest.fail.Exception, match=r"^accuracy .*\); mean length .*\)$"):
        gates.check(study.curve.at(2048))
    assert [j.kept for j in kept] == [False, True, False]


def test_saturation_is_judged_by_its_own_evidence():
    rng = np.random.default_rng(0)
    solved = rng.random((400, 1)) < 0.9
    early = rng.random((400, 1)) < 0.7
    right = np.stack([solved & early, solved, solved], axis=2).astype(float)
    found = saturation_point((64, 128, 256), right)
    assert found.budget == 128
    few = saturation_point((64, 128, 256), right[:12])
    for saturation, limit, rule, ruling in (
        (found, 128, "point", "passed"),
        (found, 200, "noninferior", "passed"),
        (found, 64, "point", "failed"),
        (found, 64, "confident", "failed"),
        (found, 32, "point", "unknown"),
        (few, 128, "point", "failed"),
        (few, 128, "confident", "inconclusive"),
    ):
        asked = gate("max_saturation_budget", float(limit), rule=rule)
        [judgement] = Gates([asked], PLACE, [], 256, {}).judge_saturation(saturation)
        assert judgement.ruling == ruling, (limit, rule)
        assert judgement.kept is (ruling == "passed")
    assert "saturation at 128 tokens is above the gate's 64 tokens; at 64 accuracy is -" in (
        judge_saturation(gate("max_saturation_budget", 64.0), found, judgement).sentence
    )


def test_several_samples_of_a_problem_are_not_several_problems():
    some = make_study(20, samples=4)
    accuracy, longest = judge(some, gate("min_accuracy", 0.5), gate("max_p95_tokens", 900))
    assert (accuracy.n, longest.n) == (20, 20)


# In a run


def judgements(pytester):
    found = json.loads((pytester.path / "reports/results/gates.json").read_text("utf-8"))
    return [judgement for gate in found["gates"] for judgement in gate["judgements"]]


FAILED = "FAILED *_at_budget[[]nano-reasoner-{}] - Failed: {} * is {} the gate's {} % (n = 3*"


@pytest.fixture(autouse=True)
def whole_lines(monkeypatch):
    monkeypatch.setenv("CI", "1")


@pytest.mark.usefixtures("quick_figures")
def test_gates_fail_the_tests_of_their_budgets(run, pytester):
    """The fake model is never right and is sometimes cut at 16 tokens."""
    run().assert_outcomes(passed=3)
    for arguments, failed in (
        (["--min-accuracy=0.5"], [("32", "accuracy", "below", "50")]),
        (["--min-accuracy=16:0.25"], [("16", "accuracy", "below", "25")]),
        (["--max-truncation=16:0"], [("16", "truncation", "above", "0")]),
        (["--min-accuracy=16:1,0.5", "--max-truncation=32:0.9"],
         [("16", "accuracy", "below", "100"), ("32", "accuracy", "below", "50")]),
        (["--min-accuracy=0", "--max-truncation=16:1,1"], []),
    ):  # fmt: skip
        result = run(*arguments, "--junitxml=j.xml", "-o", "junit_family=xunit1", engines=NO_ENGINE)
        result.assert_outcomes(passed=3 - len(failed), failed=len(failed))
        assert result.ret == (pytest.ExitCode.TESTS_FAILED if failed else pytest.ExitCode.OK)
        result.stdout.fnmatch_lines([FAILED.format(*f) for f in failed], consecutive=True)
        result.stdout.no_fnmatch_line("*Traceback*")
        suite = ET.parse(pytester.path / "j.xml").getroot().find("testsuite")
        assert suite.get("failures") == str(len(failed))
        failures = [f.get("message") for f in suite.iter("failure")]
        assert [m.split()[1] for m in failures] == [f[1] for f in failed]
        properties = {p.get("name"): p.get("value") for p in suite.iter("property")}
        assert properties["accuracy"] == "0.0"
        assert {"budget", "truncation", "mean_tokens", "sentence"} <= set(properties)


@pytest.mark.usefixtures("quick_figures")
def test_junitxml_is_valid_and_without_warnings_by_default(run, pytester):
    result = run("--junitxml=j.xml", "--min-accuracy=0.5")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.no_fnmatch_line("*record_property*")
    root = ET.parse(pytester.path / "j.xml").getroot()
    assert not list(root.iter("property")), "xunit2 knows none in a test case"
    assert "is below the gate's 50 %" in next(root.iter("failure")).get("message")


@pytest.mark.usefixtures("quick_figures")
@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["alone", "xdist"])
@pytest.mark.slow
def test_gates_that_judged_nothing_fail(run, pytester, workers):
    """They are reported as tests that failed, wherever tests ran."""
    given = ("--min-accuracy=0.5,16:0", "--max-truncation=32:0", "--junitxml=j.xml")
    if workers:
        code, text = finish(
            start(pytester.path, *SUITE, "--num-samples=2", "--budgets=16,32", "-k", "16", *given,
                  *workers)
        )  # fmt: skip
        lines = text.splitlines()
    else:
        result = run("-k", "16", *given)
        result.assert_outcomes(passed=1, failed=2)
        code, lines = result.ret, result.outlines
    assert code == pytest.ExitCode.TESTS_FAILED
    failed = [line for line in lines if line.startswith("FAILED")]
    for line, gate, why in zip(
        failed,
        ("--min-accuracy 0.5", "--max-truncation 32:0"),
        ("at the largest budget; there are 16", "at 32 tokens; the nearest is 16"),
        strict=True,
    ):
        assert line.startswith(f"FAILED gates::{gate} - {gate}")
        assert f" was not judged: no selected test looks {why}; -k '16' selects some " in line
    suite = ET.parse(pytester.path / "j.xml").getroot().find("testsuite")
    assert (suite.get("tests"), suite.get("failures")) == ("3", "2")
    found = json.loads((pytester.path / "reports/results/gates.json").read_text("utf-8"))
    assert [gate["kept"] for gate in found["gates"]] == [False, True, False]


@pytest.mark.usefixtures("quick_figures")
def test_each_model_is_judged_by_its_own_gates(run, pytester):
    (pytester.path / "tokenbudget.toml").write_text(
        '[[gates]]\nname = "all"\nmax_truncation = 1\n[[gates]]\nname = "one"\n'
        'model = "qwen*"\nmin_accuracy = 0.5\nbudget = [16, 32]\n',
        encoding="utf-8",
    )
    result = run("--model=nano-reasoner,qwen-0.5b")
    result.assert_outcomes(passed=4, failed=2)
    result.stdout.fnmatch_lines(["FAILED *[[]qwen-0.5b-16[]] - *", "FAILED *[[]qwen-0.5b-32[]] *"])
    assert [(j["gate"], j["model"], j["budget"]) for j in judgements(pytester)] == [
        ("all", "nano-reasoner", 32),
        ("all", "qwen-0.5b", 32),
        ("one", "qwen-0.5b", 16),
        ("one", "qwen-0.5b", 32),
    ]


@pytest.mark.usefixtures("quick_figures")
def test_a_gate_whose_budget_the_context_has_no_room_for_fails(run, pytester):
    result = run("--min-accuracy=2040:0.5,4096:0.5,0", budgets="16,32,2040,4096", engines=Engines())
    result.assert_outcomes(passed=3, failed=2, skipped=1)
    result.stdout.fnmatch_lines(
        [
            "FAILED gates::--min-accuracy 2040:0.5* was skipped: budget 2,040 is left out: *",
            "FAILED gates::--min-accuracy 4096:0.5 - *no selected test looks at 4,096 tokens; *",
        ]
    )
    [kept] = [j for j in judgements(pytester) if j["gate"] == "--min-accuracy 0"]
    assert kept["budget"] == 32, "the largest that there is room for"
