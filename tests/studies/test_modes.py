"""Tests that ask for ``mode``: what they learn, what their study is, and what that generates."""

import json
from dataclasses import replace

import pytest
from recorded_run import copy_store
from runs import NO_ENGINE, QUIET, Engines, read, rows
from studies import trace_of
from thinking_engine import ThinkingEngine

from pytest_tokenbudget.core.engine import Generated
from pytest_tokenbudget.core.trace import StopReason
from pytest_tokenbudget.models.resolution import load_catalogue
from pytest_tokenbudget.session import Session
from pytest_tokenbudget.studies.thinking.forced_answers import (
    ForcedTrace,
    closing_text,
    ended_trace,
    forced_trace,
)
from pytest_tokenbudget.texts.thinking_blocks import Closer, ThinkingFormat

pytest_plugins = ["run_fixtures"]
pytestmark = pytest.mark.usefixtures("quick_figures")

MODES = ("off", "on", "auto", "conservative", "balanced", "aggressive", "disabled")
THINK = ThinkingFormat()
BARE = Closer("bare", "\n</think>\n\n")


# --- traces that end by force


def natural(pieces, cap=40):
    return trace_of("p", pieces, cap)


def test_a_forced_trace_is_thinking_closer_and_answer():
    whole = natural(["<think>", *["so "] * 6, "</think>", "####", " ", "4", ""])
    kept, text = closing_text(whole, 4, THINK, BARE)
    assert (kept, text) == (4, BARE.text)
    answer = trace_of("p", ["####", " ", "4", "\n", ""], 30)
    forced = forced_trace(whole, answer, kept, text)
    assert forced.text == "<think>so so so \n</think>\n\n#### 4\n"
    assert len(forced.output_ids) == 4 + 5
    cut = forced.cut(500, THINK)
    assert (cut.thinking_tokens, cut.answer_tokens, cut.truncated) == (4, 4, False)
    assert cut.answer.strip() == "#### 4"
    inside = forced.cut(4, THINK)
    assert (inside.in_thinking, inside.truncated, inside.text) == (True, True, "<think>so so so ")


def test_an_answer_that_was_cut_stays_cut_at_any_budget():
    whole = natural(["<think>", *["so "] * 20])
    forced = forced_trace(whole, trace_of("p", ["so ", "it ", "is ", "a "], 3), 4, BARE.text)
    assert forced.capped
    for budget in (7, 500):
        cut = forced.cut(budget, THINK)
        assert (cut.tokens_used, cut.truncated, cut.in_thinking) == (7, True, False)


def test_thinking_that_is_not_open_yet_is_opened_and_closed():
    whole = natural(["<think>", "so ", "</think>", "4", ""])
    assert closing_text(whole, 0, THINK, BARE) == (0, "<think>\n\n</think>\n\n")
    assert closing_text(whole, 8, THINK, BARE) is None


def test_tags_that_are_tokens_are_told_from_spelled_ones():
    """A closer has no tokens in the trace, and is a tag all the same."""
    whole = natural(["<think>", *["so "] * 6])
    form = ThinkingFormat(ids=(("<think>", whole.output_ids[0]), ("</think>", 77)))
    spelled = trace_of("p", ["</th", "ink>", "4", ""], 30)
    cut = forced_trace(whole, spelled, 3, BARE.text).cut(99, form)
    assert (cut.closed, cut.answer.strip()) == (True, "</think>4")


def test_a_natural_answer_has_no_more_room_than_a_forced_one():
    whole = natural(["<think>", "so ", "</think>", "1", "2", "3", ""])
    assert ended_trace(whole, 40) is whole
    short = ended_trace(whole, 5)
    assert isinstance(short, ForcedTrace)
    assert (short.text, short.cut(99, THINK).truncated) == ("<think>so </think>12", True)


# --- runs


SMALL = ("--answer-tokens=16",)


@pytest.fixture
def mine(own, pytester):
    """A function that runs a test of one's own with the fake model that thinks."""

    def run(source, *arguments, engines=None, **options):
        pytester.makepyfile(test_mine=source)
        engines = engines or Engines(lambda *given: ThinkingEngine())
        return own("-v", *SMALL, *arguments, engines=engines, **options)

    return run


LEARNS = """
import pytest

@pytest.mark.tokenbudget
def test_learns(mode, model, record_metrics):
    assert str(mode) == mode.name
    with pytest.raises(AttributeError):
        mode.name = "mine"
    record_metrics(mode=mode.name, thinking=mode.thinking, budget=mode.thinking_budget)
"""


def learnt(folder):
    return {r["mode"]: (r["thinking"], r["budget"]) for r in read(folder, "metrics.json")}


def test_a_test_runs_for_every_mode_and_learns_it(mine, pytester):
    engines = Engines(lambda *given: ThinkingEngine())
    result = mine(LEARNS, engines=engines)
    result.assert_outcomes(passed=7)
    for name in MODES:
        result.stdout.fnmatch_lines([f"*::test_learns[[]nano-reasoner-{name}[]] PASSED*"])
    found = learnt(pytester.path)
    assert (found["off"], found["on"], found["disabled"]) == ((False, 0), (True, None), (False, 0))
    budgets = [found[n][1] for n in ("conservative", "balanced", "auto", "aggressive")]
    assert all(found[n][0] for n in ("conservative", "balanced", "auto", "aggressive"))
    assert 0 < budgets[0] < budgets[1] == budgets[2] < budgets[3] < 2048
    assert not engines.seen, "nothing is generated for a test that needs no answers"


@pytest.mark.parametrize("option", ["--modes=on,conservative", "--thinking-mode=on,conservative"])
def test_modes_are_chosen(mine, pytester, option):
    mine(LEARNS, option).assert_outcomes(passed=2)
    assert set(learnt(pytester.path)) == {"on", "conservative"}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("tokenbudget.toml", 'modes = ["off", "auto"]'),
        ("tokenbudget.toml", 'thinking_modes = "off,auto"'),
        ("pytest.ini", "[pytest]\ntokenbudget_modes = off,auto"),
        ("pytest.ini", "[pytest]\ntokenbudget_thinking_modes = off,auto"),
    ],
)
def test_a_settings_file_chooses_them_by_the_former_name_too(mine, pytester, file, text):
    (pytester.path / file).write_text(text + "\n")
    mine(LEARNS).assert_outcomes(passed=2)
    assert set(learnt(pytester.path)) == {"off", "auto"}


def test_an_explicit_budget_is_a_mode(mine, pytester):
    mine(LEARNS, "--modes=off", "--max-thinking-tokens=24").assert_outcomes(passed=2)
    assert learnt(pytester.path)["explicit"] == (True, 24)


def test_an_unknown_mode_is_told_at_once(mine):
    result = mine(LEARNS, "--modes=onn", engines=NO_ENGINE)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--modes: 'onn' cannot be used; allowed: off, on, auto*"])


STUDY = """
def test_curve(curve, study, saturation, cuts, traces, gates, mode, budget, record_metrics):
    assert curve is study.curve
    assert study.saturation is saturation
    point = curve.at(budget)
    assert len(cuts(budget)) == point.samples == len(traces) == 3
    record_metrics(point, mode=mode.name, thinks=any(j.cut.opened for j in cuts(budget)))
    gates.check(point)
"""


def by_mode(folder, budget):
    found = read(folder, "metrics.json")
    return {r["mode"]: r for r in found if r["budget"] == budget}


def test_the_study_is_that_of_the_mode(mine, pytester):
    """The fake model thinks 24, 34 and 44 tokens."""
    engines = Engines(lambda *given: ThinkingEngine())
    result = mine(STUDY, "--max-thinking-tokens=30", engines=engines, budgets="16,32,128")
    result.assert_outcomes(passed=24)
    found = by_mode(pytester.path, 128)
    thinks = {name: each["thinks"] for name, each in found.items()}
    assert thinks.pop("off") is thinks.pop("disabled") is False
    assert all(thinks.values())
    assert all(each["truncation"]["value"] == 0 for each in found.values())
    # Two of three are ended at 30, and less is used than where nothing is ended.
    assert found["explicit"]["mean_tokens"]["value"] < found["on"]["mean_tokens"]["value"]
    assert found["on"]["mean_tokens"] == found["aggressive"]["mean_tokens"]
    assert by_mode(pytester.path, 16)["explicit"]["truncation"]["value"] == 1
    # The same again, also one mode of them alone, is stored.
    mine(STUDY, "--max-thinking-tokens=30", engines=NO_ENGINE, budgets="16,32,128")
    again = mine(STUDY, "-k", "aggressive and 32", engines=NO_ENGINE, budgets="16,32,128")
    assert again.parseoutcomes()["passed"] == 1


def test_only_what_the_selected_modes_need_is_generated(mine, pytester):
    engines = Engines(lambda *given: ThinkingEngine())
    mine(STUDY, "--modes=off", engines=engines, budgets="16").assert_outcomes(passed=1)
    assert [request.cap for request in engines.seen] == [16] * 3
    engines = Engines(lambda *given: ThinkingEngine())
    mine(STUDY, "--modes=on", engines=engines, budgets="16").assert_outcomes(passed=1)
    assert [request.cap for request in engines.seen] == [16] * 3
    # Thinking goes on, and only at the budget of the mode it is ended by force: in two of three.
    engines = Engines(lambda *given: ThinkingEngine())
    result = mine(
        STUDY,
        "--modes=off",
        "--max-thinking-tokens=30",
        "-k=explicit",
        engines=engines,
        budgets="16",
    )
    assert result.parseoutcomes()["passed"] == 1
    assert sorted(request.cap for request in engines.seen) == [16, 16, 46, 46, 46]


def test_off_is_the_main_study_unless_thinking_is_on(mine, pytester):
    mine(STUDY, "--modes=on", "--thinking=on", budgets="64").assert_outcomes(passed=1)
    record = read(pytester.path, "phase1_combined_nano-reasoner+thinking.json")
    assert record["mode"] == "thinking"
    engines = Engines(lambda *given: ThinkingEngine())
    mine(STUDY, "--modes=off", "--thinking=on", engines=engines, budgets="64")
    assert len(engines.seen) == 3


def test_several_modes_in_a_run_with_tests_that_ask_for_none(mine, pytester):
    source = STUDY + "\n\ndef test_plain(curve, budget):\n    assert curve.at(budget)\n"
    mine(source, "--modes=on,off", budgets="16,32").assert_outcomes(passed=6)
    record = read(pytester.path, "phase1_combined_nano-reasoner.json")
    assert (record["mode"], record["budgets"]) == ("plain", [16, 32])


def test_gates_judge_the_mode_under_test(mine, pytester):
    (pytester.path / "tokenbudget.toml").write_text(
        '[[gates]]\nmode = "on"\nmax_mean_tokens = 1\nbudget = 128\n'
        '[[gates]]\nmode = "off"\nmax_mean_tokens = 1000\nbudget = 128\n'
    )
    result = mine(STUDY, "--modes=off,on,conservative", budgets="128")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["FAILED *nano-reasoner-128-on*"])
    judged = [j for gate in read(pytester.path, "gates.json")["gates"] for j in gate["judgements"]]
    assert {(j["mode"], j["kept"]) for j in judged} == {("on", False), ("off", True)}


def test_models_that_cannot_are_skipped_with_a_reason(mine, pytester):
    result = mine(STUDY, "--model=qwen-0.5b", "-rs", engines=NO_ENGINE, budgets="16")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*qwen-0.5b has no thinking format: it is not known to think*"])
    engines = Engines(lambda *given: ThinkingEngine(opens=True))
    result = mine(STUDY, "--model=deepseek-r1-1.5b", "-rs", engines=engines, budgets="64")
    result.stdout.fnmatch_lines(["*mode off: deepseek-r1-1.5b always thinks*no switch*"])
    outcomes = result.parseoutcomes()
    # It cannot be switched off, but ended before it begins: disabled is that.
    assert (outcomes["skipped"], outcomes["passed"]) == (1, 6)
    assert not by_mode(pytester.path, 64)["disabled"]["truncation"]["value"]


def test_a_small_list_of_thinking_budgets_bounds_the_modes(mine):
    result = mine(STUDY, "--thinking-budgets=0,64", "-rs", budgets="16")
    result.stdout.fnmatch_lines(["*mode aggressive*above the largest of --thinking-budgets*"])
    assert result.parseoutcomes()["skipped"] == 4
    named = mine(STUDY, "--thinking-budgets=0,64", "--modes=aggressive", budgets="16")
    named.assert_outcomes(passed=1)


def test_what_was_recorded_has_one_mode(mine, pytester):
    mine(STUDY, "--modes=off", budgets="16").assert_outcomes(passed=1)
    given = ("--recorded=reports/results", "--reports=again", "--tokenizer=nano-reasoner", "-rs")
    result = mine(STUDY, *given, engines=NO_ENGINE, budgets="16")
    assert result.parseoutcomes()["passed"] == 1
    assert result.parseoutcomes()["skipped"] == 6
    result.stdout.fnmatch_lines(["*recorded with thinking off*"])


def test_a_dry_run_counts_what_modes_generate(mine, pytester):
    mine(STUDY, "--modes=on,off", "--dry-run", engines=NO_ENGINE, budgets="16")
    [run] = json.loads((pytester.path / "reports/results/dry_run.json").read_text())["models"]
    assert [part["traces"] for part in run["parts"]] == [3, 3]
    assert not rows(pytester.path)


class Failing(ThinkingEngine):
    """Fails on the first of its requests."""

    def generate(self, requests, decoding):
        first, *others = requests
        yield Generated(first, (), StopReason.ERROR, error="the server hung up")
        yield from super().generate(others, decoding)


@pytest.mark.parametrize("mode", ["off", "on"])
def test_a_model_that_is_looked_up_first_has_the_same_studies(mine, pytester, monkeypatch, mode):
    """As a server or the hub says how a model thinks, which is not known at collection."""
    real = load_catalogue()["nano-reasoner"]
    unknown = replace(real, thinking=None, detect=True)
    monkeypatch.setattr(Session, "specs", (unknown,))
    monkeypatch.setattr(Session, "_look_up", lambda self, spec: real)
    source = "def test_it(mode, curve, budget):\n    assert curve.at(budget)\n"
    result = mine(
        source, f"--modes={mode}", engines=Engines(lambda *given: Failing()), budgets="16,32"
    )
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*1 trace is missing for nano-reasoner*the server hung up*"])
    engines = Engines(lambda *given: ThinkingEngine())
    result = mine(source, f"--modes={mode}", "-k=16", engines=engines, budgets="16,32")
    assert result.parseoutcomes()["passed"] == 1
    assert len(rows(pytester.path)) == 3
    assert [request.cap for request in engines.seen] == [16]


def test_modes_need_a_parameter(mine):
    source = "def test_it(request, study):\n    request.getfixturevalue('mode')\n"
    result = mine(source, budgets="16")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*name modes with --modes*"])


FOLLOWS = """
import pytest

@pytest.fixture
def both(mode, curve):
    return mode, curve

@pytest.mark.parametrize("mode", ["off", "on", "conservative"], indirect=True)
def test_chosen(both, record_metrics):
    mode, curve = both
    record_metrics(curve.at(16), mode=mode.name, thinking_budget=mode.thinking_budget)
"""


def test_a_test_can_have_modes_of_its_own(mine, pytester):
    mine(FOLLOWS, "--modes=disabled", budgets="16").assert_outcomes(passed=3)
    found = {
        r["mode"]: (r["outcomes"], r["thinking_budget"])
        for r in read(pytester.path, "metrics.json")
    }
    assert list(found) == ["off", "on", "conservative"]
    assert found["off"][0]["truncated_in_thinking"] == 0
    assert found["on"][0]["truncated_in_thinking"] == 3
    assert found["conservative"][1] > 0


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            FOLLOWS.replace("conservative", "fast"),
            "there is no mode 'fast'; allowed: off, on",
        ),
        (FOLLOWS.replace("conservative", "explicit"), "there is no mode 'explicit'; allowed: off"),
        (FOLLOWS.replace('"on"', "None"), "there is no mode None; allowed: off, on, auto"),
        (FOLLOWS.replace('"on"', "[1]"), "there is no mode [[]1]; allowed: off, on, auto"),
        (
            FOLLOWS.replace(", indirect=True", "").replace("both,", "mode, curve,"),
            "*parametrize('mode', ...) needs indirect=True*",
        ),
        (
            "def test_it(mode, stochastic, sample_budget): ...",
            "'stochastic_study' is the same in every mode, because --thinking decides*",
        ),
        ("def test_it(mode, study, context_study): ...", "'context_study' is the same in every*"),
        ("def test_it(mode, study, errors): ...", "'errors' is the same in every mode*"),
    ],
)
def test_what_would_not_follow_the_mode_is_refused(mine, pytester, source, message):
    result = mine(source, engines=NO_ENGINE, budgets="16")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"*test_mine.py::test_*: {message}*"])
    assert not rows(pytester.path)


def test_a_parameter_of_that_name_can_be_ones_own(mine):
    source = """
import pytest

@pytest.mark.parametrize("mode", ["fast", "slow"])
def test_it(mode, curve):
    assert mode in ("fast", "slow")
"""
    mine(source, budgets="16").assert_outcomes(passed=2)


def test_the_cliff_is_that_of_the_mode(mine):
    source = """
def test_it(mode, cliff, cliff_budget):
    assert [point.budget for point in cliff.points] == [16, 32, 64]
"""
    given = ("--modes=off,on,conservative", "--cliff-budgets=16,32,64")
    mine(source, *given, budgets="16").assert_outcomes(passed=9)


def test_one_setting_with_two_names_is_refused(mine, pytester):
    (pytester.path / "tokenbudget.toml").write_text('modes = "on"\nthinking_modes = "off"\n')
    result = mine(LEARNS, engines=NO_ENGINE)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*modes and thinking_modes are one setting: keep one"])


def test_a_model_has_modes_of_its_own(mine, pytester):
    (pytester.path / "tokenbudget.toml").write_text(
        '[models.mine]\nbase = "nano-reasoner"\n[models.mine.generation]\nmodes = ["off"]\n'
    )
    result = mine(LEARNS, "--model=mine,nano-reasoner")
    result.assert_outcomes(passed=1 + len(MODES))
    result.stdout.fnmatch_lines(["*::test_learns[[]mine-off[]] PASSED*"])
    assert mine(LEARNS, "--model=mine", "--modes=on,auto").parseoutcomes()["passed"] == 2


# --- the embedded model


EQUAL = """
def test_equal(curve, allocation, mode):
    point, measured = curve.points[-1], allocation.mode(mode.name).measured.curve
    assert point.outcomes == measured.outcomes
    # The end of the sequence is counted in phase 1, and not in the thinking eval.
    assert 0 <= point.mean_tokens.value - measured.mean_tokens.value <= 1
"""


def test_a_mode_is_what_the_allocation_eval_measures(own, pytester):
    pytester.makepyfile(EQUAL)
    copy_store(pytester.path)
    result = own(*QUIET, engines=NO_ENGINE, problems=6, budgets="64,1024")
    result.assert_outcomes(passed=7)
