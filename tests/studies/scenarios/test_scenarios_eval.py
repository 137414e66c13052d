"""The scenarios eval: what answers are, the report, settings in YAML, and runs of the model."""

import json
from collections import Counter
from pathlib import Path

import pytest
from runs import NO_ENGINE, QUIET, RealEngines, read
from scenario_studies import make
from studies import make_study, trace_of

from pytest_tokenbudget.common.text_layout import cells
from pytest_tokenbudget.report.json_files import RunInfo
from pytest_tokenbudget.settings.generation_config import FRAMINGS, read_generation_config
from pytest_tokenbudget.stats.truncation import LimitVerdict
from pytest_tokenbudget.studies.scenarios.analysis import (
    NoScenariosError,
    analyse_scenarios,
    splits_of,
    unknown_names,
)
from pytest_tokenbudget.studies.scenarios.answers import safest_options
from pytest_tokenbudget.studies.scenarios.report import (
    scenarios_lines,
    scenarios_record,
    write_scenarios,
)
from pytest_tokenbudget.studies.scenarios.settings import settings_files, settings_text
from pytest_tokenbudget.tasks.registry import load_task

pytest_plugins = ["run_fixtures"]

EVALS = ("--pyargs", "pytest_tokenbudget.evals", "-m", "scenarios", *QUIET)
SAMPLED = {"target_truncation": 0.05}


@pytest.fixture
def no_figures(monkeypatch):
    monkeypatch.setattr(
        "pytest_tokenbudget.report.drawing.save_figure", lambda draw, path, title: []
    )


# --- what answers are --------------------------------------------------------------------------


def test_valid_json_and_a_legal_choice_are_findings_of_their_own():
    report = analyse_scenarios(make())
    answers = report.overall.answers
    assert answers.findings == {
        "legal": 30,
        "illegal": 2,
        "no choice": 2,
        "no JSON": 2,
        "truncated": 0,
        "error": 0,
    }
    assert answers.valid_json.value == 34 / 36
    assert answers.legal.value == 30 / 36
    assert answers.legal_of_valid.value == 30 / 34
    # Prose around the object: valid, and not alone.
    assert answers.alone.value == 32 / 36
    assert sum(answers.choices.values()) == sum(answers.places) == 30
    assert answers.places[0] == 30


def test_cut_answers_and_errors_are_not_wrong_ones():
    study = make(36, cap=64, error=(0, 5), lengths=lambda p: 99)
    cut_early = {
        key: trace_of(key[0], [*list(t.text), *["x"] * 99], 8)
        for key, t in study.traces.items()
        if key[0] == study.problems[1].id
    }
    study.traces.update(cut_early)
    study.budgets, study.reach = (8,), 8
    report = analyse_scenarios(study)
    answers = report.overall.answers
    # Objects come whole with the first token; one was cut, and two that would have had none.
    assert answers.findings["truncated"] == 3
    assert answers.findings["error"] == 2
    assert answers.findings["legal"] == 27
    assert answers.valid_json.n == 34
    assert answers.valid_of_completed is None
    assert report.overall.truncation[8].value == 1
    assert report.overall.needs.capped == 34


def test_groups_part_the_problems():
    report = analyse_scenarios(make())
    assert {*report.groups} == {"game", "framing", "category"}
    for groups in report.groups.values():
        assert sum(group.needs.problems for group in groups) == 36
        total = sum((Counter(group.answers.findings) for group in groups), Counter())
        assert total == +Counter(report.overall.answers.findings)
    assert {group.name for group in report.groups["framing"]} == {*FRAMINGS}
    crossed = scenarios_record(make(), RunInfo())["choices"]
    assert sum(n for by in crossed.values() for own in by.values() for n in own.values()) == 30
    assert crossed["ultimatum"]["surprise"] == {"accept": 1}


def test_the_safest_option_has_the_best_worst_case():
    for problem in load_task("games").problems(60):
        worst = [min(row) for row in problem.metadata["payoffs"]]
        named = dict(zip(problem.metadata["options"], worst, strict=True))
        assert {named[option] for option in safest_options(problem)} == {max(worst)}


def test_other_tasks_have_categories_at_most():
    study = make_study(40, (64, 512))
    assert {*splits_of(study.complete)} == {"category"}
    report = analyse_scenarios(study)
    assert report.overall.answers is None
    assert [rule.guideline.words for rule in report.guidelines] == ["440", "600", "thinking: 1,500"]
    assert not report.guidelines[-1].applies
    lines = scenarios_lines(study, RunInfo())
    assert "legal" not in "".join(lines)
    assert "can be recommended" in lines[1]
    assert report.more is None
    alike = make_study(1, (64, 512))
    with pytest.raises(NoScenariosError, match="all of one kind"):
        analyse_scenarios(alike)
    assert "all of one kind" in scenarios_lines(alike, RunInfo())[1]


# --- limits and rules --------------------------------------------------------------------------


def long_when_angry(problem):
    return 40 if problem.metadata["framing"] == "anger" else 12


def test_rules_of_thumb_are_judged_on_the_scenarios_that_they_are_meant_for():
    study = make(430, lengths=long_when_angry, texts=lambda problem, index: "{}")
    report = analyse_scenarios(study, 0.05)
    found = {rule.guideline.words: rule for rule in report.guidelines}
    assert found["anger: 1,800"].truncation.problems == 62
    assert found["sequential: 1,200"].truncation.problems == 172
    assert found["440"].verdict is LimitVerdict.HOLDS
    assert found["anger: 1,800"].recommended == 40
    assert found["anger: 1,800"].times_recommended == 45
    assert (report.more.more, report.more.less) == ("anger", "happiness")
    assert report.more.difference.value == pytest.approx(28)
    assert report.more.verdict is LimitVerdict.HOLDS
    split = {each.split: each for each in report.differ}
    assert split["framing"].p_holm < 0.01
    # Within a framing all lengths are the same: there is nothing to compare games by.
    assert "game" not in split


def test_where_anger_alone_is_long_it_gets_a_limit_of_its_own(tmp_path, no_figures):
    study = make(430, lengths=long_when_angry)
    run = RunInfo(settings=SAMPLED)
    report = analyse_scenarios(study, 0.05)
    assert report.replay.better == "per framing"
    write_scenarios(study, run, tmp_path)
    chosen = read_generation_config(tmp_path / "results" / "scenarios_settings_some-model.yaml")
    limits = chosen.limits["framing"]
    assert limits.pop("anger") == 40
    assert {*limits.values()} == {12}
    assert {*chosen.limits} == {"framing"}
    other = read_generation_config(
        tmp_path / "results" / "scenarios_settings_some-model+category.yaml"
    )
    own = report.learned.groups["category"]
    assert other.limits == {"category": {name: choice.limit for name, choice in own.items()}}


def test_capped_traces_leave_rules_unmeasured():
    report = analyse_scenarios(make(lengths=lambda p: 99))
    assert {rule.verdict for rule in report.guidelines} == {LimitVerdict.UNMEASURED}
    assert report.more.verdict is LimitVerdict.UNMEASURED
    assert report.learned.overall.limit == 64


def test_names_that_no_problem_has(tmp_path):
    path = tmp_path / "limits.yaml"
    path.write_text(
        "categories: {sequental: {max_new_tokens: 9}, zzz: {max_new_tokens: 9}}\n"
        "emotions: {anger: {max_new_tokens: 9}}\n"
    )
    given = read_generation_config(path)
    problems = load_task("games").problems()
    assert unknown_names(given, problems) == {"sequental": "sequential", "zzz": None}


# --- files and lines ---------------------------------------------------------------------------


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("study", [make(), make(2), make(error=range(36)), make_study(30)])
def test_lines_fit_the_terminal(study, width):
    lines = scenarios_lines(study, RunInfo(settings=SAMPLED), width)
    assert max(map(cells, lines)) <= 80


def test_the_files(tmp_path):
    written = write_scenarios(make(), RunInfo(), tmp_path)
    names = [path.name for path in written]
    assert names[:4] == [
        "scenarios_some-model.json",
        "scenarios_settings_some-model.yaml",
        "scenarios_settings_some-model+framing.yaml",
        "scenarios_settings_some-model+category.yaml",
    ]
    assert [name.partition("_some")[0] for name in names[4:]] == [
        "scenarios_limits",
        "scenarios_limits",
        "scenarios_choices",
        "scenarios_choices",
    ]
    record = json.loads(written[0].read_text())
    assert record["schema"] == "tokenbudget-scenarios/1"
    assert record["limits"]["framing"]["anger"]["promised"] is False
    assert record["groups"]["category"][0]["truncation"] == {
        "16": record["groups"]["category"][0]["truncation"]["16"],
        "64": {"value": 0, "low": 0, "high": pytest.approx(0.17, abs=0.05), "n": 19},
    }
    assert written[4].read_bytes()[:4] == b"\x89PNG"
    text = written[2].read_text()
    first = text.splitlines()[0]
    assert first.startswith("# NO EVIDENCE stands behind these limits: not a recommendation")
    assert "  # anger: too few traces to promise 1 %: 299 needed, 5 there; the limit" in text


def test_settings_with_evidence_say_what_is_shown():
    study = make(430, lengths=long_when_angry, texts=lambda problem, index: "{}")
    report = analyse_scenarios(study, 0.05)
    shown = "# Evidence: every limit below is shown to truncate at most 5 % of the answers"
    assert settings_files(study, report, RunInfo())[""].startswith(shown)
    study = make(430, lengths=long_when_angry, texts=lambda problem, index: "{}")
    few = analyse_scenarios(study, 0.01)
    one = settings_text(study, few, RunInfo())
    own = settings_text(study, few, RunInfo(), "framing")
    assert few.learned.overall.promised
    assert one.startswith("# Evidence: ")
    assert own.startswith("# NO EVIDENCE stands behind ")
    assert " limits below" in own.splitlines()[0]


def test_a_study_without_complete_problems_says_so(tmp_path):
    study = make_study(3, missing=3)
    [only] = write_scenarios(study, RunInfo(), tmp_path)
    assert "has all its traces" in json.loads(only.read_text())["left_out"]


# --- runs --------------------------------------------------------------------------------------


@pytest.fixture
def eval_of(run, no_figures):
    """A function that runs the eval on games with the embedded model, without figures."""

    def suite(*arguments, engines=None, budgets="32,64", **options):
        engines = engines or RealEngines()
        return run(
            "--task=games", *arguments, base=EVALS, engines=engines, budgets=budgets, **options
        )

    return suite


def test_the_embedded_model_plays_and_its_settings_are_run_with(eval_of, pytester):
    engines = RealEngines()
    result = eval_of("--target-truncation=0.2", engines=engines, problems=36)
    # pytester may warn that a module was imported before; that is no outcome of a test.
    outcomes = result.parseoutcomes()
    assert {name: outcomes.get(name, 0) for name in ("passed", "skipped", "failed", "errors")} == {
        "passed": 7,
        "skipped": 1,
        "failed": 0,
        "errors": 0,
    }
    record = read(pytester.path, "scenarios_nano-reasoner.json")
    assert len(engines.seen) == record["problems"] == 36
    assert record["overall"]["answers"]["valid_json"]["value"] > 0.9
    assert {group["name"] for group in record["groups"]["framing"]} == {*FRAMINGS}
    assert record["replay"]["outcomes"][0]["name"] == "one limit"
    assert record["given"] is None
    result.stdout.fnmatch_lines(["*scenarios of games, n = 36*", "rules of thumb at 20 %: 440*"])

    # The settings that were recommended, on the same traces: nothing is generated.
    settings = (
        pytester.path / "reports" / "results" / "scenarios_settings_nano-reasoner+framing.yaml"
    )
    limits = read_generation_config(settings)
    own = {name: entry["limit"] for name, entry in record["limits"]["framing"].items()}
    assert limits.limits == {"framing": own}
    again = pytester.runpytest_inprocess(
        *EVALS,
        "--task=games",
        f"--generation-config={settings}",
        "--num-samples=36",
        plugins=[NO_ENGINE],
    )
    assert again.parseoutcomes()["passed"] == 8
    given = read(pytester.path, "scenarios_nano-reasoner.json")
    assert given["budget"] == limits.largest
    assert {kept["name"]: kept["limits"][0] for kept in given["given"]["framing"]} == own
    assert given["given"]["all"][0]["truncation"]["truncated"] <= 0.2 * 36
    again.stdout.fnmatch_lines(["the limits that were given (36 problems): all *"])


@pytest.mark.slow
def test_each_stage_extends_the_one_before(eval_of, pytester):
    seen = []
    for stage in ("minimal", "quick"):
        engines = RealEngines()
        result = pytester.runpytest_inprocess(
            *EVALS,
            "--task=games",
            f"--stage={stage}",
            "--budgets=48",
            plugins=[engines],
        )
        assert "failed" not in result.parseoutcomes()
        seen.append(len(engines.seen))
        record = read(pytester.path, "scenarios_nano-reasoner.json")
        assert record["replay"] is None
    assert seen == [2, 3]
    assert record["problems"] == 5


def test_thinking_has_a_rule_of_its_own_and_temperature_is_taken_from_the_file(eval_of, pytester):
    pytester.path.joinpath("form.yaml").write_text(
        "llm: {generation_config: {max_new_tokens: 200, enable_thinking: true, temperature: 0.5}}\n"
        "categories: {sequental: {max_new_tokens: 20}}\n"
    )
    engines = RealEngines()
    result = pytester.runpytest_inprocess(
        *EVALS,
        "--task=games",
        "--num-samples=3",
        "--generation-config=form.yaml",
        "--reports=other",
        plugins=[engines],
    )
    assert result.parseoutcomes()["failed"] == 1
    result.stdout.fnmatch_lines(
        ["*form.yaml: no problem is of kind sequental (did you mean sequential?)*"]
    )
    assert {request.cap for request in engines.seen} == {200}
    found = pytester.path / "other" / "results" / "scenarios_nano-reasoner+thinking.json"
    record = json.loads(found.read_text())
    assert record["decoding"]["temperature"] == 0.5
    assert (record["mode"], record["budget"]) == ("thinking", 200)
    applies = {rule["guideline"]["words"]: rule["applies"] for rule in record["guidelines"]}
    assert applies["thinking: 1,500"]
    settings = found.with_name("scenarios_settings_nano-reasoner+thinking.yaml").read_text()
    assert "enable_thinking: true" in settings
    assert "do_sample: true\n    temperature: 0.5" in settings


def test_a_task_of_one_kind_is_skipped(run):
    result = run("--task=games", base=EVALS, engines=RealEngines(), problems=1)
    assert result.parseoutcomes()["skipped"] == 8


def test_every_field_of_the_results_is_explained():
    text = (Path(__file__).parents[3] / "docs" / "scenarios.md").read_text(encoding="utf-8")
    record = scenarios_record(make(lengths=long_when_angry), RunInfo())
    names = {*record, *record["overall"], *record["overall"]["answers"], *record["limits"]["all"]}
    names |= {*record["differ"][0], *record["replay"], *record["overall"]["answers"]["findings"]}
    names -= {"name", "split", "p", "problems", "confidence", "findings"}
    for name in names:
        assert f"`{name}`" in text, name
