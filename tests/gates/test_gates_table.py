"""Gates in settings files: what they may say, and where they are judged or said not to be."""

from __future__ import annotations

import json
import math
import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
from all_options import NAMES
from fake_engine import FakeEngine
from recordings import record, write
from runs import NO_ENGINE, Engines

from pytest_tokenbudget.core.engine import Generated
from pytest_tokenbudget.core.trace import StopReason
from pytest_tokenbudget.gates import Gate
from pytest_tokenbudget.gates.table import KEYS, METRICS, SELECTORS, gates_of
from pytest_tokenbudget.gates.targets import GateTarget, KnownNames
from pytest_tokenbudget.gates.unjudged import unjudged
from pytest_tokenbudget.gates.verdicts import GateJudgement
from pytest_tokenbudget.settings.config_file import ConfigError, UserConfig, read_config
from pytest_tokenbudget.settings.option_values import BudgetThreshold

pytest_plugins = ["run_fixtures"]

PAGE = Path(__file__).parents[2] / "docs" / "gates.md"


class OneFails(FakeEngine):
    """The first request of each batch fails."""

    def __init__(self, *given):
        super().__init__(rows=3)

    def generate(self, requests, decoding):
        yield Generated(requests[0], (), StopReason.ERROR, error="the server hung up")
        yield from super().generate(requests[1:], decoding)


class Given:
    """Settings as far as gates need them."""

    def __init__(self, **changes):
        values = {
            "gate_rule": "point",
            "gate_margin": None,
            "gate_confidence": 0.95,
            "allow_inconclusive": False,
            "min_accuracy": (),
            "max_truncation": (),
            "min_conformance": (),
        }
        self.__dict__.update(values | changes)


def read(*tables, **settings):
    return gates_of(Given(**settings), UserConfig(where="x.toml", gates=tables))


def refusal(table, **settings):
    with pytest.raises(ConfigError) as caught:
        read(table, **settings)
    assert str(caught.value).startswith("x.toml: gate 1: ")
    return str(caught.value)


def test_a_table_with_several_thresholds_is_several_gates():
    one, two = read({"model": "a*", "budget": [64, 32], "min_accuracy": 1, "max_mean_tokens": 9})
    assert (one.label, one.metric, one.threshold) == ("gate-1.min_accuracy", "min_accuracy", 1.0)
    assert (two.models, two.budgets, two.every) == (("a*",), (32, 64), False)
    [named] = read({"name": "mine", "budget": "all", "max_truncation": 0, "eval": ["a", "b"]})
    assert (named.label, named.every, named.evals) == ("mine", True, ("a", "b"))
    limits, way = read({"min_conformance": ["limits", "way:soft"]})
    assert (limits.threshold, way.threshold) == ("limits", "way:soft")
    assert limits.label != way.label


def test_options_are_gates_of_the_same_kind():
    found = read(min_accuracy=(BudgetThreshold(0.6, 512),), min_conformance=("limits",))
    accuracy, conformance = found
    assert (accuracy.label, accuracy.budgets) == ("--min-accuracy 512:0.6", (512,))
    assert (conformance.metric, conformance.threshold) == ("min_conformance", "limits")
    [confident] = read(max_truncation=(BudgetThreshold(0.1),), gate_rule="confident")
    assert confident.rule == "confident"


def test_how_gates_decide_is_said_once_or_by_each():
    everywhere = {"gate_rule": "confident", "allow_inconclusive": True, "gate_confidence": 0.9}
    plain, own = read({"min_accuracy": 0.5}, {"max_truncation": 0.5, "rule": "point"}, **everywhere)
    assert (plain.rule, plain.allow_inconclusive, plain.confidence) == ("confident", True, 0.9)
    assert (own.rule, own.allow_inconclusive) == ("point", False)
    [margin] = read({"min_accuracy": 0.5}, gate_rule="noninferior", gate_margin=0.03)
    assert margin.demand().margin == 0.03
    assert "noninferior needs a margin above 0" in refusal(
        {"max_mean_tokens": 9}, gate_rule="noninferior", gate_margin=0.03
    ), "a share is no number of tokens"


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"min_acuracy": 0.5}, "unknown key 'min_acuracy' (did you mean 'min_accuracy'?)"),
        ({"bugdet": "a", "zzz": 1}, "unknown keys 'bugdet' (did you mean 'budget'?), 'zzz'"),
        ({"model": "a"}, "there is no threshold; allowed are min_accuracy, "),
        ({"min_accuracy": 60}, "allowed: a share from 0 to 1; for 60 % write 0.6"),
        ({"min_accuracy": "0.6"}, "the string '0.6' cannot be used; allowed: a share"),
        ({"min_accuracy": True}, "the boolean true cannot be used"),
        ({"max_mean_tokens": -1}, "allowed: a number of tokens"),
        ({"max_saturation_budget": math.inf}, "the number inf cannot be used; allowed: a number"),
        ({"min_accuracy": 0.6, "budget": "al"}, 'allowed: a token count, an array of them, or "'),
        ({"min_accuracy": 0.6, "model": 3}, "model: the number 3 cannot be used; allowed: text"),
        ({"min_accuracy": 0.6, "rule": "confidnt"}, "; did you mean 'confident'?"),
        ({"min_accuracy": 0.6, "rule": "noninferior"}, "noninferior needs a margin above 0"),
        ({"min_accuracy": 0.6, "margin": 0.1}, "a margin is for noninferior, not for point"),
        ({"min_accuracy": 0.6, "allow_inconclusive": True}, "only confident can be inconclusive"),
        ({"min_accuracy": 0.6, "required": 1}, "allowed: true or false"),
        ({"min_conformance": "limit"}, "; did you mean 'limits'?"),
        ({"min_conformance": "limits", "rule": "point"}, "rule cannot be used with min_conf"),
        ({"max_saturation_budget": 9, "margin": 0.1}, "whose margin is --saturation-margin"),
        ({"max_saturation_budget": 9, "category": "a"}, "category cannot be used with max_sat"),
        ({"max_saturation_budget": 9, "min_accuracy": 0, "budget": 9}, "; give it a table of its"),
        ({"min_conformance": "limits", "mode": "thinking"}, "mode cannot be used with min_conf"),
        ({"max_p95_tokens": 9, "change": 5}, "change cannot be used with max_p95_tokens"),
        ({"max_mean_tokens": 9, "rule": "noninferior"}, "needs a margin above 0, in tokens"),
    ],
)
def test_unusable_gates_are_refused_with_what_is_allowed(table, words):
    assert words in refusal(table)


def test_two_gates_of_one_name_cannot_be_told_apart():
    with pytest.raises(ConfigError, match="two gates are called 'a'; give each a name of its own"):
        read({"name": "a", "min_accuracy": 0.5}, {"name": "a", "max_truncation": 0.5})


@pytest.mark.parametrize("name", ["tokenbudget.toml", "pyproject.toml"])
def test_gates_know_their_line(tmp_path, name):
    header = "[[tool.tokenbudget.gates]]" if name == "pyproject.toml" else "[[gates]]"
    lines = ["# a comment", header, "min_accuracy = 0.5", "", f"  {header}", "max_truncation = 1"]
    (tmp_path / name).write_text("\n".join(lines), "utf-8")
    user = read_config(tmp_path, NAMES)
    assert [gate.line for gate in gates_of(Given(), user)] == [2, 5]


@pytest.mark.parametrize("text", ["gates = 3\n", "gates = [1]\n", "[gates]\nmin_accuracy = 1\n"])
def test_gates_are_an_array_of_tables(tmp_path, text):
    (tmp_path / "tokenbudget.toml").write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=r"gates must be an array of tables, such as \[\[gates\]"):
        read_config(tmp_path, NAMES)


def test_the_page_has_everything_that_there_is(tmp_path):
    page = PAGE.read_text("utf-8")
    for name in (*KEYS, *(field.name for field in fields(GateJudgement))):
        assert f"`{name}`" in page or f"{name} = " in page, name
    for table, names in (("what it is for", SELECTORS), ("threshold", METRICS)):
        rows = page.split(f"| {table} |")[1].split("\n\n")[0]
        assert re.findall(r"^\| `(\w+)`", rows, re.M) == list(names)
    [example] = re.findall(r"<!-- example: settings -->\n```toml\n(.*?)```", page, re.S)
    (tmp_path / "tokenbudget.toml").write_text(example, "utf-8")
    gates = gates_of(Given(), read_config(tmp_path, NAMES))
    assert {gate.metric for gate in gates} == set(METRICS)


# What nobody judged

KNOWN = KnownNames(
    ("saturation", "thinking"), ("nano", "qwen"), ("sums", "gsm8k"), ("plain", "hard")
)
HERE = GateTarget(
    "t::point[64]", "study", ("saturation", "phase1"), "nano", "org/nano", "sums", 64, True,
    ("plain",),
)  # fmt: skip
SMALL = replace(HERE, test="t::point[32]", budget=32, largest=False)
POINT = replace(HERE, test="t::saturation", budget=None, answers=False, saturation=True)
PLACES = (SMALL, HERE, POINT)


def said(gate, judgements=(), places=PLACES, outcomes=None):
    found = unjudged([gate], places, judgements, outcomes or {}, KNOWN)
    return [(each.fails, each.model, each.reason) for each in found]


def gate(metric="min_accuracy", threshold=0.5, **changes):
    return Gate("g", metric, threshold, **changes)


def judged(budget=64, model="nano"):
    return GateJudgement("g", "min_accuracy", "", model, "sums", "saturation", "t", budget=budget)


def test_what_was_judged_is_not_missing():
    assert said(gate(), [judged()]) == []
    assert said(gate(budgets=(32, 64)), [judged(), judged(32)]) == []
    assert said(gate("max_saturation_budget", 64), [judged(None)]) == []


@pytest.mark.parametrize(
    ("selectors", "reason"),
    [
        ({"evals": ("saturaton",)}, "eval saturaton; of this run: saturation, phase1; did you "
         "mean 'saturation'?"),
        ({"models": ("nan",)}, "model nan; of this run: nano; did you mean 'nano'?"),
        ({"tasks": ("sms",)}, "task sms; of this run: sums; did you mean 'sums'?"),
        ({"modes": ("plan",)}, "mode plan; of this run: plain; did you mean 'plain'?"),
        ({"modes": ("hard",)}, "mode hard; of this run: plain"),
        ({"budgets": (65,)}, "no selected test looks at 65 tokens; the nearest is 64"),
    ],
)  # fmt: skip
def test_a_gate_that_matches_no_test_fails_and_names_the_nearest(selectors, reason):
    [(fails, model, found)] = said(gate(**selectors))
    assert (fails, model) == (True, "")
    assert found.endswith(reason)


def test_a_gate_whose_metric_nobody_measures_fails():
    [(fails, _, reason)] = said(gate("max_saturation_budget", 64), places=[HERE])
    assert (fails, reason) == (
        True,
        "no selected test judges it; call `gates.check_saturation(saturation)` in a test, "
        "or run `pytest --pyargs pytest_tokenbudget.evals -m phase1`",
    )
    [(_, _, reason)] = said(gate("min_conformance", "limits"))
    assert "`gates.check(conformance.whole())`" in reason
    assert "-m conformance`" in reason
    [(_, _, reason)] = said(gate(), places=[POINT])
    assert "judges it; call `gates.check(point)` in a test" in reason
    [(_, _, reason)] = said(gate(), places=[SMALL])
    assert reason == "no selected test looks at the largest budget; there are 32"


def test_a_gate_that_is_not_for_every_run_is_said_not_to_be_judged_unless_misspelt():
    assert [fails for fails, *_ in said(gate(models=("qwen",), required=False))] == [False]
    assert [fails for fails, *_ in said(gate(models=("qwn",), required=False))] == [True]
    assert [fails for fails, *_ in said(gate(evals=("thinking",), required=False))] == [False]
    # One of two names is right, and the other is not.
    reasons = [reason for *_, reason in said(gate(models=("nano", "qwn")), [judged()])]
    assert reasons == ["a part of it is in no run: model nano or qwn"]


def test_a_gate_whose_test_did_not_judge_it_fails_for_that_model():
    other = replace(HERE, model="qwen", test="x/t::point[qwen-64]")
    outcomes = {other.test: "was skipped: no room"}
    [(fails, model, reason)] = said(gate(), [judged()], (*PLACES, other), outcomes)
    assert (fails, model, reason) == (True, "qwen", "t::point[qwen-64] was skipped: no room")
    [(_, _, reason)] = said(gate(budgets=(32, 64)), [judged()])
    assert reason == "t::point[32] did not run"


# In a run


def settings(pytester, text):
    (pytester.path / "tokenbudget.toml").write_text(text, "utf-8")


@pytest.fixture(autouse=True)
def whole_lines(monkeypatch):
    monkeypatch.setenv("CI", "1")
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)


def results(pytester):
    return json.loads((pytester.path / "reports/results/gates.json").read_text("utf-8"))


@pytest.mark.usefixtures("quick_figures")
def test_gates_of_a_settings_file(run, pytester, monkeypatch):
    settings(
        pytester,
        """
        [[gates]]
        name = "kept"
        max_truncation = 1
        max_error_rate = 0
        [[gates]]
        max_mean_tokens = 1
        budget = 16
        [[gates]]
        max_saturation_budget = 16
        rule = "confident"
        allow_inconclusive = true
        [[gates]]
        category = "1-stp"
        min_accuracy = 0
        [[gates]]
        task = "word-problms"
        min_accuracy = 0
        [[gates]]
        eval = "thinking"
        min_accuracy = 0
        required = false
        """.replace("        ", ""),
    )
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(pytester.path))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(pytester.path / "summary.md"))
    result = run()
    result.assert_outcomes(passed=1, failed=3)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "*- gates: 3 of 7 verdicts fail -*",
            "kept: nano-reasoner, saturation at 32: truncation *",
            "FAILED: nano-reasoner, saturation at 16: mean length *",
            "inconclusive, which is allowed: nano-reasoner, saturation: whether *",
            "NOT MEASURED: nano-reasoner, saturation at 32: accuracy of 1-stp *",
            "NOT JUDGED: gate-5.min_accuracy (task word-problms) *",
            "not judged, not required: gate-6.min_accuracy (eval thinking) *",
            "::error file=tokenbudget.toml,line=6,title=tokenbudget%3A gate-2.max_mean_tokens::*",
            "::warning file=tokenbudget.toml,line=9,*",
            "::error file=tokenbudget.toml,line=13,title=tokenbudget%3A not measured%3A gate-4*",
            "::error file=tokenbudget.toml,line=16,title=tokenbudget%3A not judged::*",
            "::warning file=tokenbudget.toml,line=19,title=tokenbudget%3A not judged::*",
            "FAILED *-32] - Failed: accuracy of 1-stp *; did you mean '1-step'?",
            "FAILED gates::gate-5.min_accuracy - *; did you mean 'word-problems'?",
        ]
    )
    found = results(pytester)
    assert found["kept"] is False
    kept = {each["label"]: each["kept"] for each in found["gates"]}
    assert list(kept.values()) == [True, True, False, True, False, False, True]
    assert found["rulings"] == {"passed": 2, "failed": 1, "inconclusive": 1, "unknown": 1}
    assert "| :x: | gate-2.max\\_mean\\_tokens |" in (pytester.path / "summary.md").read_text()


@pytest.mark.usefixtures("quick_figures")
def test_a_run_that_was_stopped_does_not_say_that_gates_are_kept(own, pytester):
    settings(pytester, "[[gates]]\nmin_accuracy = 0\n")
    pytester.makepyfile(
        """
        def test_it(curve, gates): gates.check(curve.at(32))
        def test_other(): assert False
        """
    )
    result = own("-x", engines=Engines())
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["the run was stopped: gates that are not named here were not *"])
    found = results(pytester)
    assert (found["kept"], found["complete"]) == (None, False)


def test_gates_that_cannot_be_used_end_the_run(run, pytester):
    settings(pytester, "[[gates]]\nmin_acc = 0.5\n")
    result = run(engines=NO_ENGINE)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *gate 1 (line 1): unknown key 'min_acc' (did you mean *"])


def test_the_list_says_what_would_be_judged(run, pytester):
    settings(pytester, '[[gates]]\nname = "a"\nmax_truncation = 0.5\nbudget = "all"\n')
    result = run("--tokenbudget-gates", "--min-accuracy=16:0.5", engines=NO_ENGINE)
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "a: truncation <= 50 %; budget all; decided by the estimate",
            "    judged by *::test_accuracy_at_budget[[]nano-reasoner-16[]]",
            "    judged by *::test_accuracy_at_budget[[]nano-reasoner-32[]]",
            "--min-accuracy 16:0.5: accuracy >= 50 %; budget 16; decided by the estimate",
            "    judged by *::test_accuracy_at_budget[[]nano-reasoner-16[]]",
        ],
        consecutive=True,
    )
    assert not (pytester.path / "reports").exists()
    result = run("--tokenbudget-gates", "-k", "32", "--min-accuracy=16:0.5", engines=NO_ENGINE)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    line = "    --min-accuracy 16:0.5 * is not judged: *; the nearest is 32; -k '32' selects some *"
    result.stdout.fnmatch_lines([line])


def test_gates_leave_other_tests_alone(own, pytester):
    """A project's own tests that measure nothing are no run that gates are for."""
    settings(pytester, "[[gates]]\nmin_accuracy = 1.0\n")
    pytester.makepyfile("def test_mine(): pass")
    result = own(engines=NO_ENGINE)
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*gates:*")
    assert not (pytester.path / "reports").exists()


@pytest.mark.usefixtures("quick_figures")
def test_a_test_of_ones_own_judges_gates_by_its_file(own, pytester):
    settings(pytester, '[[gates]]\neval = "mine"\nmin_accuracy = 0.5\nbudget = 16\n')
    pytester.makepyfile(
        test_mine="def test_it(curve, gates): gates.check(curve.at(16))",
        test_other="def test_it(curve, gates): gates.check(curve.at(16))",
    )
    result = own(engines=Engines())
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["FAILED test_mine.py::*accuracy 0.0 %*"])
    pytester.makepyfile(test_mine="def test_it(curve, gates): pass")
    result = own(engines=Engines())
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["FAILED gates::*test_it[[]nano* passed without judging it"])


@pytest.mark.usefixtures("quick_figures")
def test_a_gate_on_engine_errors_decides_how_many_may_be_missing(own, pytester):
    settings(pytester, "[[gates]]\nmax_error_rate = 0.4\n")
    pytester.makepyfile("def test_it(curve, gates): gates.check(curve.at(32))")
    result = own(engines=Engines(OneFails))
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["kept: nano*: engine errors 33.3 % *<= 40 %"])
    result = own("-v", engines=Engines(OneFails))
    result.stdout.fnmatch_lines(["kept: nano*", "*engine errors 33.3 % * is at most *"])
    settings(pytester, "[[gates]]\nmax_error_rate = 0.1\n")
    own(engines=Engines(OneFails)).assert_outcomes(failed=1)


@pytest.mark.usefixtures("quick_figures")
@pytest.mark.parametrize("selector", ['category = "8-step"', 'eval = "phase1b"\nrequired = false'])
def test_missing_answers_that_no_gate_looks_at_fail(own, pytester, selector):
    settings(pytester, f"[[gates]]\nmax_error_rate = 1\n{selector}\n")
    pytester.makepyfile("def test_it(curve, gates): gates.check(curve.at(32))")
    result = own(engines=Engines(OneFails))
    result.stdout.fnmatch_lines(["FAILED *test_it* missing for nano-reasoner, *hung up*"])


@pytest.mark.usefixtures("quick_figures")
def test_recorded_answers_have_the_task_they_were_recorded_with(run, pytester):
    write(pytester.path / "phase1_main_m_budget32.json", [record(n, budget=32) for n in range(3)])
    write(pytester.path / "phase1_combined_m.json", {"task": "sums"})
    gates = '[[gates]]\ntask = "{}"\nmode = "{}"\nmin_accuracy = 0\n'
    recorded = "--recorded=phase1_main_m_budget32.json"
    settings(pytester, gates.format("sums", "plain"))
    run(recorded, budgets="32", engines=NO_ENGINE).assert_outcomes(passed=2)
    found = json.loads((pytester.path / "reports/results/gates.json").read_text("utf-8"))
    assert (found["task"], found["models"]) == ("sums", ["m"])
    settings(pytester, gates.format("word-problems", "plain"))
    result = run(recorded, budgets="32", engines=NO_ENGINE)
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*no selected test is of task word-problems; of this run: sums*"])
