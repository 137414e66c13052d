"""The allocation eval: the table's budgets as measured, off or not, policies, and settings."""

import json
from dataclasses import replace

import pytest
from allocation_studies import THINK, make, pieces
from runs import NO_ENGINE, QUIET, Engines, RealEngines, read
from studies import trace_of
from text_snapshots import TextFile, text_of
from thinking_engine import ThinkingEngine

from pytest_tokenbudget.common.text_layout import cells
from pytest_tokenbudget.core.plan import ModeBudget
from pytest_tokenbudget.models.resolution import ModelSpec
from pytest_tokenbudget.recipes.recipe import read_recipe
from pytest_tokenbudget.report.json_files import RunInfo
from pytest_tokenbudget.studies.allocation.analysis import (
    OFF,
    analyse_allocation,
    attach_model,
    serving_of,
)
from pytest_tokenbudget.studies.allocation.report import (
    allocation_lines,
    answer_sentence,
    write_allocation,
)
from pytest_tokenbudget.studies.allocation.settings import evidence_of, limits_of, settings_record
from pytest_tokenbudget.studies.allocation.stored_traces import FEATURES, FIRST, replay_of

pytest_plugins = ["run_fixtures"]

EVALS = ("--pyargs", "pytest_tokenbudget.evals", "-m", "allocation", *QUIET)


def qwen(context=200):
    return ModelSpec(alias="m", source="Qwen/Qwen3-0.6B", context=context, thinking=THINK)


# --- what is replayed --------------------------------------------------------------------------


def test_the_replay_is_what_the_study_says():
    replay, off = replay_of(make(4))
    # 64 limits nothing here, so it stands for no limit; 0 is not among the limits.
    assert replay.budgets == (4, 8, 16, 32, 64)
    assert replay.correct[0].tolist() == [1, 1, 1, 1, 1]
    assert replay.correct[1].tolist() == [0, 0, 0, 0, 1]
    assert replay.tokens[0].tolist() == [8, 12, 20, 36, 44]
    # A probe costs its closer and its answer, and nothing once the thinking has ended.
    assert replay.probe_tokens[0].tolist() == [7, 7, 7, 7, 0]
    assert replay.natural_tokens.tolist() == [40, 62, 40, 62]
    assert replay.answers[1].tolist() == ["7"] * 4 + ["101"]
    # Without a switch, thinking that is ended at once stands for off.
    assert off.correct.tolist() == [0, 0, 0, 0]


def test_without_a_budget_that_limits_nothing_the_natural_answers_do():
    replay, _ = replay_of(make(4, budgets=(4, 32)))
    assert replay.budgets == (4, 32, 94)
    assert replay.correct[1].tolist() == [0, 0, 1]
    assert replay.probe_tokens[:, -1].tolist() == [0, 0, 0, 0]


def test_features_are_of_the_question_and_the_first_tokens_of_thinking():
    replay, _ = replay_of(make(2))
    assert replay.features_from == FIRST
    # "How much is 0 + 100?" and "<think>" and 31 times "so ".
    assert replay.features[0].tolist() == [3, 2, 32, 0, 7 + 31 * 3]
    assert len(FEATURES) == replay.features.shape[1]


def test_problems_with_an_error_are_left_out_and_counted():
    study = make(8, error=2)
    replay, off = replay_of(study)
    assert (replay.problems, replay.missing, off.correct.size) == (6, 2, 6)
    with pytest.raises(ValueError, match="1 problems without an error"):
        replay_of(make(4, error=3))
    with pytest.raises(ValueError, match="no thinking budget above 0"):
        replay_of(make(4, budgets=(0,)))


# --- policies ----------------------------------------------------------------------------------


def test_the_category_that_tells_difficulty_wins():
    study = make(60)
    report = analyse_allocation(study)
    assert report.policies.winner == "per category"
    assert report.recommended == "per category"
    record = settings_record(study, report)
    assert record["thinking_token_limits"] == {"easy": 4, "hard": 64}
    requests = record["engines"]["vllm"]["requests"]
    assert requests["easy"]["thinking_token_budget"] == 4
    assert requests["hard"]["thinking_token_budget"] == 64
    assert requests["hard"]["max_tokens"] == 64 + 30
    assert json.dumps(record["engines"]["transformers"])


def test_thinking_off_is_recommended_only_where_it_is_better():
    better = analyse_allocation(make(60, off=60))
    assert better.off.advantage.low > 0
    assert better.recommended == OFF
    worse = analyse_allocation(make(60, off=6))
    assert worse.recommended == "per category"


def test_off_is_written_as_a_switch_for_the_template():
    study = make(60, off=60)
    attach_model(None, qwen(), study)
    record = settings_record(study, analyse_allocation(study))
    request = record["engines"]["vllm"]["requests"]["all"]
    assert request["chat_template_kwargs"] == {"enable_thinking": False}
    assert request["thinking_token_budget"] == 0


def test_policies_are_compared_where_no_accuracy_is_lost():
    report = analyse_allocation(make(60))
    # Accuracy squared over tokens is largest at 4, where half of the answers are wrong.
    assert report.policies.limits[4].e3 > report.policies.limits[64].e3
    assert report.policies.reference == 64
    # No budget is shown to be enough with so few problems: the smallest that loses nothing.
    few = analyse_allocation(make(4))
    assert (few.policies.reference, few.policies.winner) == (64, None)


def test_an_explicit_budget_is_what_policies_are_compared_at():
    modes = (ModeBudget("explicit", 16, "asked"),)
    assert analyse_allocation(make(60, modes=modes)).policies.reference == 16


def test_too_few_problems_replay_nothing(tmp_path):
    study = make(1)
    report = analyse_allocation(study)
    assert (report.policies, report.recommended, report.off) == (None, None, None)
    assert "1 problems" in report.left_out
    [only] = write_allocation(study, RunInfo(), tmp_path)
    assert json.loads(only.read_text())["policies"] == {"left_out": report.left_out}


def test_limits_of_every_form_of_settings():
    assert limits_of({"limit": 8}) == {"all": 8}
    assert limits_of({"edges": [1], "groups": {"0": {"limit": 4}, "1": {"limit": 8}}}) == {
        "0": 4,
        "1": 8,
    }
    assert limits_of({"same": 2, "probe_at": [4, 8]}) == {}


# --- the table ---------------------------------------------------------------------------------


def test_an_unknown_model_is_said_to_be_unknown():
    report = analyse_allocation(make())
    assert (report.row, report.model) == (None, "m")
    assert report.mode("auto").table.tokens is None
    assert report.mode("disabled").table.tokens == 0
    with pytest.raises(ValueError, match="only auto, conservative"):
        report.mode("brave")


def test_budgets_are_scaled_and_measured_where_they_can_be():
    study = make()
    attach_model(None, qwen(context=200), study)
    report = analyse_allocation(study)
    assert report.row == "Qwen3"
    # 200 less a prompt of 3, a closer of 3, an answer of 30 and one more.
    tokens = {each.mode: each.tokens for each in report.modes}
    assert tokens == {
        "auto": 81,
        "conservative": 20,
        "balanced": 81,
        "aggressive": 163,
        "disabled": 0,
        "off": None,
        "on": None,
    }
    assert (report.mode("off").measured, report.mode("on").how) == (None, "no limit")
    assert report.mode("on").measured.budget is None
    auto = report.mode("auto")
    assert (auto.table.tokens, auto.how) == (32_000, "all thinking had ended by itself")
    assert auto.measured.accuracy.value == 1.0
    assert auto.measured.curve.mean_tokens.value == pytest.approx((44 + 66) / 2)
    few = report.mode("conservative")
    assert few.measured is None
    assert "--modes=conservative tries it" in few.how
    assert report.mode("disabled").measured.budget == 0
    assert "explicit" not in tokens


def test_modes_that_were_tried_are_taken_as_they_were():
    modes = (ModeBudget("conservative", 32, "as tried"), ModeBudget("explicit", 8, "asked for"))
    study = make(modes=modes)
    attach_model(None, qwen(), study)
    report = analyse_allocation(study)
    few, mine = report.mode("conservative"), report.mode("explicit")
    assert (few.tokens, few.reason, few.measured.accuracy.value) == (32, "as tried", 0.5)
    assert (mine.table.tokens, mine.measured.curve.mean_tokens.value) == (8, 12)


# --- off ---------------------------------------------------------------------------------------


def test_disabled_is_judged_in_the_prompt_and_in_what_was_written():
    study = make(off=40)
    attach_model(None, qwen(), study)
    found = analyse_allocation(study).disabled
    assert (found.is_off, found.has_switch, found.prompts, found.unlike) == (True, True, 40, 40)


def test_a_model_that_thinks_all_the_same_is_found_out():
    study = make(off=40)
    attach_model(None, qwen(), study)
    stubborn = study.problems[3]
    study.off.traces[stubborn.id, 0] = trace_of(stubborn.id, pieces(stubborn, 20), 94)
    found = analyse_allocation(study).disabled
    assert found.is_off is False
    # Its prompt is the one with thinking.
    assert (found.prompts, found.unlike) == (40, 39)


def test_sentences_on_thinking_switched_off(snapshot):
    off, stubborn, never = make(off=40), make(off=40), make()
    for study in (off, stubborn):
        attach_model(None, qwen(), study)
    problem = stubborn.problems[3]
    stubborn.off.traces[problem.id, 0] = trace_of(problem.id, pieces(problem, 20), 94)
    attach_model(
        None, ModelSpec(alias="m", source="deepseek-ai/DeepSeek-R1", thinking=THINK), never
    )
    studies = {
        "disabled is off": off,
        "a model that thinks all the same": stubborn,
        "a template that cannot": never,
        "no template": make(),
    }
    reports = {name: analyse_allocation(study) for name, study in studies.items()}
    said = {name: (each.disabled.sentence(), each.table_sentence) for name, each in reports.items()}
    said["thinking off is worse"] = (analyse_allocation(make(60, off=6)).off_sentence(),)
    said["too few problems"] = allocation_lines(make(1), RunInfo())
    assert text_of(said) == snapshot(extension_class=TextFile)


def test_a_template_that_cannot_and_one_that_is_not_there():
    study = make()
    attach_model(
        None, ModelSpec(alias="m", source="deepseek-ai/DeepSeek-R1", thinking=THINK), study
    )
    found = analyse_allocation(study).disabled
    assert (found.is_off, found.has_switch) == (False, False)
    unknown = analyse_allocation(make()).disabled
    assert (unknown.is_off, unknown.has_switch, unknown.rendered) == (None, False, None)


def test_settings_are_for_the_model_behind_the_alias():
    study = make()
    attach_model(None, qwen(), study)
    serving = serving_of(study, 64)
    assert (serving.model, serving.family.name, serving.tokens) == ("Qwen/Qwen3-0.6B", "qwen3", 64)


# --- files and lines ---------------------------------------------------------------------------


def test_files_hold_everything(tmp_path):
    study = make(60, off=20)
    attach_model(None, qwen(), study)
    names = [path.name for path in write_allocation(study, RunInfo(), tmp_path)]
    assert names == [
        "allocation_m.json",
        "allocation_settings_m.json",
        "allocation_policies_m.png",
        "allocation_policies_m.svg",
    ]
    record = json.loads((tmp_path / "results" / names[0]).read_text())
    assert (record["problems"], record["table"]["row"]) == (60, "Qwen3")
    assert record["policies"]["winner"] == "per category"
    assert [claim["saving"] for claim in record["policies"]["claims"]] == [0.61, 0.48, 0.39]
    assert record["modes"][4]["measured"]["accuracy"]["n"] == 60
    assert (tmp_path / "figures" / names[2]).read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_lines_fit_the_terminal(width):
    study = make(60, off=60)
    attach_model(None, qwen(), study)
    lines = allocation_lines(study, RunInfo(), width)
    assert max(map(cells, lines)) <= min(width, 80)
    assert lines[1].startswith("recommended: thinking off: ")
    rows = {line.split()[0]: line.split() for line in lines if line.split()}
    # Where there is no room for a table its rows are sentences.
    assert "forced" in (rows["mode"] if width > 60 else "".join(lines))
    forced = analyse_allocation(study).mode("conservative").measured
    if forced is not None and width > 60:
        assert f"{100 * forced.forced / forced.curve.problems:.1f}" in rows["conservative"]
    text = " ".join(line.strip() for line in lines)
    for part in ("row Qwen3", "disabled is off", "recommended: thinking off: ", "61 %, 48 %, 39 %"):
        assert part in text


def test_settings_without_evidence_say_so_in_their_first_line(tmp_path):
    study = make(6)
    attach_model(None, qwen(), study)
    report = analyse_allocation(study)
    assert report.recommended == "one limit"
    assert not report.evident
    assert answer_sentence(report).startswith(
        "no thinking budget can be recommended from 6 problems"
    )
    write_allocation(study, RunInfo(), tmp_path)
    [path] = (tmp_path / "results").glob("allocation_settings_*.json")
    first = path.read_text().splitlines()[1].strip()
    assert first.startswith('"evidence": "NONE: not a recommendation; ')
    text = " ".join(line.strip() for line in allocation_lines(study, RunInfo()))
    assert f"settings, which no evidence stands behind: results/{path.name}" in text
    assert "recommended:" not in text
    shown = replace(report, reference_shown=True)
    assert answer_sentence(shown).startswith("recommended limit ")
    assert evidence_of(shown).startswith(f"limit {report.policies.reference}: ")


def test_a_study_without_complete_problems_says_so(tmp_path):
    study = make(2, missing=2)
    assert "nothing to show" in allocation_lines(study, RunInfo())[-1]
    [only] = write_allocation(study, RunInfo(), tmp_path)
    record = json.loads(only.read_text())
    assert (record["problems"], record["missing"], record["policies"]) == (0, 2, None)
    with pytest.raises(ValueError, match="nothing to allocate by"):
        analyse_allocation(study)


# --- runs --------------------------------------------------------------------------------------


@pytest.fixture
def allocate(run, quick_figures, monkeypatch):
    """A function that runs the allocation eval with the fake model that thinks."""

    def save(draw, path, title):
        return []

    monkeypatch.setattr("pytest_tokenbudget.report.drawing.save_figure", save)

    def suite(*arguments, engines=None, **options):
        engines = engines or Engines(lambda *given: ThinkingEngine())
        small = ("--thinking-budgets=0,16,32,64", "--answer-tokens=16")
        return run(*small, *arguments, base=EVALS, engines=engines, **options)

    return suite


def test_the_eval_measures_modes_and_writes_settings(allocate, pytester):
    result = allocate("--modes=conservative,auto", "--max-thinking-tokens=24")
    # Three modes, whether disabled is off, four policies, and the recommendation.
    assert result.parseoutcomes()["passed"] == 9
    result.stdout.fnmatch_lines(["the table does not know this model*", "disabled is off:*"])
    record = read(pytester.path, "allocation_nano-reasoner.json")
    measured = {mode["mode"]: mode["measured"] is not None for mode in record["modes"]}
    assert measured["conservative"]
    assert measured["explicit"]
    settings = read(pytester.path, "allocation_settings_nano-reasoner.json")
    assert settings["policy"] == record["policies"]["recommended"]
    path = pytester.path / "reports" / "results" / "allocation_settings_nano-reasoner.json"
    assert read_recipe(path).max_thinking_tokens == max(settings["thinking_token_limits"].values())


def test_the_eval_generates_nothing_that_the_thinking_eval_has(allocate, run):
    small = ("--thinking-budgets=0,16,32,64", "--answer-tokens=16")
    thinking = ("--pyargs", "pytest_tokenbudget.evals", "-m", "thinking", *QUIET)
    run(*small, base=thinking, engines=Engines(lambda *given: ThinkingEngine()))
    assert "failed" not in allocate(engines=NO_ENGINE).parseoutcomes()


def test_the_eval_fails_where_disabled_is_not_off(allocate):
    result = allocate(engines=Engines(lambda *given: ThinkingEngine(ignores_off=True)))
    assert result.parseoutcomes()["failed"] == 1
    result.stdout.fnmatch_lines(["*disabled is not off*thought in 3 of 3 answers*"])


def test_a_model_of_the_table_that_always_thinks(allocate, pytester):
    engines = Engines(lambda *given: ThinkingEngine(opens=True))
    result = allocate("--model=deepseek-r1-1.5b", "-rs", engines=engines)
    assert "failed" not in result.parseoutcomes()
    result.stdout.fnmatch_lines(
        ["the table: row DeepSeek-R1 distills:*", "*this template cannot switch thinking off*"]
    )
    record = read(pytester.path, "allocation_deepseek-r1-1.5b.json")
    assert (record["table"]["row"], record["disabled"]["generated"]) == (
        "DeepSeek-R1 distills",
        None,
    )
    budgets = {mode["mode"]: mode["table"]["tokens"] for mode in record["modes"] if mode["table"]}
    assert budgets == {
        "auto": 64_000,
        "conservative": 16_000,
        "balanced": 64_000,
        "aggressive": 128_000,
        "disabled": 0,
    }


@pytest.mark.slow
def test_the_embedded_model(run, pytester, quick_figures, monkeypatch):
    monkeypatch.setattr(
        "pytest_tokenbudget.report.drawing.save_figure", lambda draw, path, title: []
    )
    result = run(
        "--thinking-budgets=64,160",
        "--modes=conservative",
        base=EVALS,
        engines=RealEngines(),
        problems=6,
    )
    assert "failed" not in result.parseoutcomes()
    record = read(pytester.path, "allocation_nano-reasoner.json")
    assert record["table"]["context"] == 2048
    off = record["disabled"]
    assert (off["is_off"], off["rendered"]["way"], off["unlike"]) == (True, "closed", 6)
    assert off["whose"] == "the template of nano-reasoner"
    [few] = [mode for mode in record["modes"] if mode["mode"] == "conservative"]
    assert few["measured"]["budget"] == few["tokens"]
    assert record["policies"]["problems"] == 6
    settings = read(pytester.path, "allocation_settings_nano-reasoner.json")
    assert settings["engines"]["vllm"]["requests"]


@pytest.mark.slow
def test_the_first_line_has_the_numbers_of_the_limit_it_names(run, pytester, quick_figures):
    """As a policy, one limit is learned without some problems, and then is another one."""
    limits = ("--thinking-budgets=0,64", "--modes=conservative", "--max-thinking-tokens=100")
    result = run(*limits, base=EVALS, engines=RealEngines(), problems=20)
    record = read(pytester.path, "allocation_nano-reasoner.json")
    [explicit] = [mode["measured"] for mode in record["modes"] if mode["mode"] == "explicit"]
    accuracy, tokens = 100 * explicit["accuracy"]["value"], explicit["mean_tokens"]["value"]
    text = " ".join(line.strip() for line in result.outlines)
    assert f"100 thinking tokens give {accuracy:.1f} % accuracy with {tokens:,.0f} tokens" in text
