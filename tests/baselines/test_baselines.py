"""Runs stored, found, read and compared, on studies made by hand."""

import json
import math
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from studies import NumberTask, answer_pieces, make_problem, make_study, trace_of

from pytest_tokenbudget.baselines import comparison as comparison_module
from pytest_tokenbudget.baselines.checks import BaselineGates
from pytest_tokenbudget.baselines.comparison import compare_runs, compare_with
from pytest_tokenbudget.baselines.reading import read_baseline
from pytest_tokenbudget.baselines.report import compared_annotations, write_compared_summary
from pytest_tokenbudget.baselines.run import BaselineError, record_of, run_of
from pytest_tokenbudget.baselines.storage import (
    commit_facts,
    find_baseline,
    machine_facts,
    save_baseline,
)
from pytest_tokenbudget.core.engine import Decoding
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.report.github import GithubJob
from pytest_tokenbudget.report.json_files import RunInfo
from pytest_tokenbudget.settings.option_values import tolerances
from pytest_tokenbudget.studies.saturation.report import write_results

INFO = RunInfo(versions={"torch": "2.13"}, started="2026-01-01T12:00:00+00:00")
BUDGETS = (16, 32, 64)


def study(answers, alias="m", budgets=BUDGETS, **changes):
    """A study of sums: for each the number that it comes to, and with how many tokens."""
    problems = tuple(make_problem(index) for index in range(len(answers)))
    traces = {}
    for problem, (answer, length) in zip(problems, answers, strict=True):
        pieces = answer_pieces(length, problem.answer if answer is True else str(answer))
        failed = "no answer" if answer is None else ""
        cap = max(budgets)
        traces[problem.id, 0] = trace_of(
            problem.id, pieces[:5] if failed else pieces, cap, 0, failed
        )
    values = {
        "identity": {"id": "some/model", "dtype": "float32"},
        "task": NumberTask(problems=problems),
        "samples": 1,
        "thinking": None,
        "mode": "plain",
    }
    return Study(
        alias=alias, problems=problems, traces=traces, budgets=budgets, **(values | changes)
    )


OLD = [(True, 20), (True, 20), (7, 20), (True, 40), (8, 20)]
NEW = [(True, 20), (9, 20), (True, 20), (True, 50), (8, 30)]


def stored(tmp_path: Path, *studies, name="main"):
    return save_baseline(tmp_path, name, [record_of(s, INFO) for s in studies], tmp_path)


def read(tmp_path, *studies):
    return read_baseline(stored(tmp_path, *studies))


# Saving and finding


def test_a_run_is_read_as_it_was_saved(tmp_path):
    one = make_study(30, errors=2, decoding=Decoding(0.7, 0.9, 3), samples=2)
    assert read(tmp_path, one).runs == (run_of(one, INFO),)


def test_results_as_they_lie_are_the_same_run(tmp_path):
    one = make_study(30, errors=2)
    write_results(one, INFO, tmp_path)
    combined = tmp_path / "results" / "phase1_combined_qwen-1.5b.json"
    for path in (combined, tmp_path, tmp_path / "results"):
        assert read_baseline(path).runs == (run_of(one, INFO),)


def test_texts_that_are_no_beginnings_and_broken_characters_are_kept(tmp_path):
    one = study(OLD)
    run = run_of(one, INFO)
    answer = replace(next(iter(run.answers.values())), texts=("other", "a\ud800", "a\ud800b"))
    record = {**record_of(one, INFO), "answers": [answer.to_json()]}
    path = save_baseline(tmp_path, "odd", [record], tmp_path)
    (again,) = read_baseline(path).runs[0].answers.values()
    assert again == answer


def test_no_path_of_the_machine_is_kept(tmp_path):
    info = RunInfo(settings={"reports": tmp_path, "recorded": (tmp_path,), "task": "sums", "x": ()})
    found = json.loads(
        save_baseline(tmp_path, "m", [record_of(study(OLD), info)], tmp_path).read_text()
    )
    assert found["runs"][0]["settings"] == {"task": "sums", "x": []}


def test_names_are_numbered_and_nothing_is_written_over(tmp_path):
    one, other = study(OLD), study(NEW)
    paths = [stored(tmp_path, one), stored(tmp_path, other), stored(tmp_path, one, name="side")]
    assert [p.name for p in paths] == ["0001_main.json", "0002_main.json", "0003_side.json"]
    assert read_baseline(paths[0]).runs == (run_of(one, INFO),)
    for asked, number in (
        ("latest", 3), ("main", 2), ("side", 3), ("1", 1), ("0002", 2), ("0001_main", 1),
    ):  # fmt: skip
        assert find_baseline(asked, tmp_path).path == paths[number - 1]
    paths[1].unlink()
    assert stored(tmp_path, one).name == "0004_main.json"
    assert not list(tmp_path.glob(".*"))


def test_runs_that_are_saved_at_once_do_not_meet(tmp_path):
    record = record_of(study(OLD), INFO)
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(save_baseline, tmp_path, "m", [record], tmp_path) for _ in range(16)]
    assert len({job.result() for job in jobs}) == 16
    assert len(list(tmp_path.glob("*.json"))) == 16


def test_a_file_system_without_links_is_no_obstacle(tmp_path, monkeypatch):
    def link(*_):
        raise OSError(95, "not supported")

    monkeypatch.setattr("os.link", link)
    assert read(tmp_path, study(OLD)).runs == (run_of(study(OLD), INFO),)


def test_unknown_baselines_are_refused_with_those_that_exist(tmp_path):
    with pytest.raises(BaselineError, match=r"nothing is saved in .*--tokenbudget-save NAME"):
        find_baseline("main", tmp_path / "nowhere")
    stored(tmp_path, study(OLD))
    with pytest.raises(BaselineError, match=r"no 'mian' in .*0001_main; did you mean 'main'\?"):
        find_baseline("mian", tmp_path)
    with pytest.raises(BaselineError, match=r"no '7' in .*; there is 0001_main; a path"):
        find_baseline("7", tmp_path)


def test_a_saved_run_says_where_it_comes_from(tmp_path):
    def git(*arguments):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True, capture_output=True)

    assert commit_facts(tmp_path / "nowhere") is None
    git("init", "-b", "trunk")
    assert commit_facts(tmp_path) is None, "there is no commit yet"
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("-c", "user.name=n", "-c", "user.email=e", "commit", "-m", "first")
    facts = commit_facts(tmp_path)
    assert (facts["branch"], facts["dirty"], len(facts["id"])) == ("trunk", False, 40)
    (tmp_path / "a").write_text("2")
    found = json.loads(stored(tmp_path, study(OLD)).read_text(encoding="utf-8"))
    assert found["commit"] == {**facts, "dirty": True}
    assert found["machine"] == machine_facts()
    assert found["machine"]["system"]
    assert found["runs"][0]["curve"][0]["budget"] == 16


# Reading what is damaged


def broken(tmp_path, change):
    path = stored(tmp_path, study(OLD))
    found = json.loads(path.read_text(encoding="utf-8"))
    change(found)
    path.write_text(json.dumps(found), encoding="utf-8")
    with pytest.raises(BaselineError) as caught:
        read_baseline(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.update(schema="tokenbudget-baseline/9"), "tokenbudget-baseline/9, not"),
        (lambda f: f.update(schema="tokenbudget-phase3/1"), "its schema is tokenbudget-phase3/1"),
        (lambda f: f.pop("schema"), "no stored run; allowed are"),
        (lambda f: f.update(runs=[]), "it holds no run"),
        (lambda f: f["runs"][0].update(answers=[]), "run 1: it holds no answer"),
        (lambda f: f["runs"][0].pop("task"), "run 1: 'task' is missing"),
        (lambda f: f["runs"][0].update(budgets=[32, 16]), "'budgets' is [32, 16]"),
        (lambda f: f["runs"][0]["answers"][1].pop("question"), "answer 2: 'question' is missing"),
        (lambda f: f["runs"][0]["answers"][1]["outcome"].pop(), "one of 3, one a budget"),
        (lambda f: f["runs"][0]["answers"][1].update(outcome=["good"] * 3), "'good'"),
        (lambda f: f["runs"][0]["answers"][1].update(tokens_used=[1.5, 2, 3]), "a whole number"),
        (lambda f: f["runs"][0]["answers"].append(f["runs"][0]["answers"][0]), "is there twice"),
    ],
)
def test_a_damaged_file_is_told_with_its_place(tmp_path, change, words):
    assert words in broken(tmp_path, change)


def test_files_that_are_no_runs_are_told_with_what_is_allowed(tmp_path):
    def told(path):
        with pytest.raises(BaselineError) as caught:
            read_baseline(path)
        return str(caught.value)

    assert told(tmp_path / "no.json") == f"there is no file or directory {tmp_path / 'no.json'}"
    assert "no phase1_combined_MODEL.json in it; allowed are" in told(tmp_path)
    (tmp_path / "half.json").write_text('{"schema": ')
    assert "not valid JSON" in told(tmp_path / "half.json")
    (tmp_path / "list.json").write_text("[]")
    assert "an object is needed" in told(tmp_path / "list.json")
    write_results(study(OLD), INFO, tmp_path)
    results = tmp_path / "results"
    other = (results / "phase1_combined_m.json").rename(results / "renamed.json")
    assert "it must be called phase1_combined_MODEL.json" in told(other)
    other.rename(results / "phase1_combined_m.json")
    smallest = results / "phase1_main_m_budget16.json"
    smallest.write_text(json.dumps(json.loads(smallest.read_text())[1:]))
    assert "has other problems or samples than at 16 tokens" in told(tmp_path)
    smallest.unlink()
    assert "phase1_main_m_budget16.json" in told(tmp_path)


# Comparing


def test_lost_and_won_problems_with_their_texts(tmp_path):
    found = compare_with(read(tmp_path, study(OLD)), run_of(study(NEW), INFO))
    assert found.budgets == BUDGETS
    point = found.at(64)
    assert (point.accuracy.before, point.accuracy.after) == (0.6, 0.6)
    (lost,), (won,) = found.lost(64), found.won(64)
    assert lost.before.problem_id == "sum-001"
    assert (lost.before.predicted[2], lost.after.predicted[2]) == ("101", "9")
    assert lost.after.texts[2].endswith("#### 9\n")
    assert won.after.problem_id == "sum-002"
    # At 32 tokens the longer answers are cut in both runs.
    assert found.at(32).truncation.before == found.at(32).truncation.after == 0.2
    assert found.at(64).tokens.difference.value == pytest.approx(4)
    assert found.notes() == []


def test_what_differs_beside_the_answers_is_named(tmp_path):
    baseline = read(tmp_path, study(OLD))
    new = study(
        NEW[:4], "other", (32, 64, 128), identity={"id": "some/model", "dtype": "bfloat16"},
        decoding=Decoding(0.7, 0.9, 3),
    )  # fmt: skip
    new.task.name = "sums"
    found = compare_with(baseline, run_of(new, RunInfo(versions={"torch": "2.14", "numpy": "2"})))
    assert [str(each) for each in found.differs] == [
        "model m -> other",
        "temperature 0 -> 0.7",
        "top_p none -> 0.9",
        "seed none -> 3",
        "dtype float32 -> bfloat16",
        "version of torch 2.13 -> 2.14",
    ]
    differ, problems, budgets = found.notes()
    assert differ.startswith("the runs differ in model m -> other; temperature")
    assert problems == (
        "compared are the 4 problems that both have: 1 of 0001_main are not in this run, and 0 of "
        "this run are not in it"
    )
    assert budgets == "0001_main has no budget of 128 tokens: not compared"
    assert found.only_before == ("sum-004",)


def test_another_machine_is_named(tmp_path, monkeypatch):
    baseline = read(tmp_path, study(OLD))
    monkeypatch.setattr(comparison_module, "machine_facts", lambda: {"processor": "another"})
    (differ,) = compare_with(baseline, run_of(study(NEW), INFO)).differs
    assert (differ.what, differ.after) == ("machine", "another")


def test_errors_are_left_out_and_named(tmp_path):
    failed = [(None, 20), *NEW[1:]]
    found = compare_with(read(tmp_path, study(OLD)), run_of(study(failed), INFO))
    assert found.at(64).problems == 4
    assert found.notes()[-1].startswith("1 problem without an answer in one of the runs")


def refusal(before, after):
    with pytest.raises(BaselineError) as caught:
        compare_runs(run_of(before, INFO), run_of(after, INFO), "0001_main")
    return str(caught.value)


def test_runs_that_cannot_be_compared_are_refused():
    old = study(OLD)
    other = study(NEW, task=NumberTask("products", old.problems))
    assert refusal(old, other) == (
        "0001_main is of task sums and this run of products: they cannot be compared"
    )
    rules = study(NEW)
    rules.task.extractor = "numbers/4"
    assert "was scored by numbers/3 and this run by numbers/4" in refusal(old, rules)
    assert "has the budgets 16, 32, 64 and this run has 8: none in" in refusal(
        old, study(NEW, budgets=(8,))
    )
    assert refusal(old, study([])) == "this run has no answer to compare with 0001_main"
    for name, change in (("question", "How many?"), ("answer", "5")):
        problems = tuple(replace(p, **{name: change}) for p in old.problems)
        said = refusal(old, replace_problems(study(NEW), problems))
        assert f"has another {'expected answer' if name == 'answer' else name}" in said
        assert repr(change) in said
    ids = tuple(replace(p, id=f"x{p.id}") for p in old.problems)
    assert "no problem in common" in refusal(old, replace_problems(study(NEW), ids))


def replace_problems(one, problems):
    names = dict(zip((p.id for p in one.problems), (p.id for p in problems), strict=True))
    one.traces = {
        (names[pid], sample): replace(trace, problem_id=names[pid])
        for (pid, sample), trace in one.traces.items()
    }
    one.problems = problems
    return one


def test_of_several_models_the_one_of_the_name_is_compared(tmp_path):
    baseline = read(tmp_path, study(OLD, "a"), study(NEW, "b"))
    assert baseline.run_for("b").model == "b"
    with pytest.raises(BaselineError, match=r"several models, and c is not among them.* a, b$"):
        baseline.run_for("c")
    alone = read(tmp_path, study(OLD, "a"))
    assert alone.run_for("c").model == "a"


# Judging


def gates(text, old=OLD, new=NEW):
    found = compare_runs(run_of(study(old), INFO), run_of(study(new), INFO), "0001_main")
    return BaselineGates(tolerances(text), found)


def many(lost, won, rest):
    old = [(True, 20)] * lost + [(7, 20)] * won + [(True, 20)] * rest
    new = [(7, 20)] * lost + [(True, 22)] * (won + rest)
    return old, new


@pytest.mark.parametrize(
    ("text", "failed"),
    [
        ("accuracy:-0.02", False),  # 3 points lost, but the interval reaches -2
        ("accuracy:-0.02:point", True),
        ("accuracy:-0.02:noninferior", True),
        ("accuracy:-0.2:noninferior", False),
        ("accuracy:0:noninferior", True),
        ("completed:-0.02:point", True),
        ("truncation:+0.1", False),
        ("truncation:+0.1:noninferior", False),
        ("truncation:+0:point", False),
        ("tokens:+5%", True),
        ("tokens:+5%:noninferior", True),
        ("tokens:+20%:noninferior", False),
        ("tokens:+1", True),
        ("tokens:+3", False),
        ("16:tokens:+0:point", False),  # cut at 16 tokens all are alike
    ],
)
def test_tolerances_are_judged(text, failed):
    judged = gates(text, *many(6, 3, 91))
    (check,) = [c for budget in BUDGETS for c in judged.judge(budget)]
    assert check.failed is failed, check.sentence()
    assert check.budget == (16 if text.startswith("16") else 64)
    record = check.record()
    assert (record["check"], record["failed"]) == (str(tolerances(text)[0]), failed)


def test_a_clear_loss_fails_the_confident_way():
    judged = gates("accuracy:-0.02,truncation:+0.01", *many(20, 1, 79))
    with pytest.raises(pytest.fail.Exception) as caught:
        judged.check(64)
    said = str(caught.value)
    assert said.startswith("against 0001_main: change of accuracy -19.0 points [-28")
    assert "is below the tolerated -2 points (n = 100; " in said
    assert said.endswith("at 64 tokens")
    assert "truncation" not in said
    judged.check(16)


def test_a_job_on_github_is_told(tmp_path):
    judged = gates("accuracy:-0.02,accuracy:-0.2,truncation:+0.001", *many(20, 1, 79))
    record = {**judged.record(64), "label": "0001_main|x"}
    error, warning, other = compared_annotations([record])
    assert error.startswith(
        "::error title=tokenbudget%3A accuracy%3A-0.02 against 0001_main|x::m: "
    )
    assert warning.startswith("::warning title=tokenbudget%3A accuracy%3A-0.2 against")
    assert other.startswith("::warning title=tokenbudget%3A truncation%3A+0.001 against")
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    write_compared_summary(GithubJob(tmp_path, summary), [record])
    lines = summary.read_text().split("\n")
    assert lines[:2] == ["before", r"## Token budgets against 0001\_main\|x"]
    assert lines[5].startswith("| m | 64 | accuracy 99.0 -&gt; 80.0 %, -19.0 points ")
    assert [line.split()[1] for line in lines[7:10]] == [":x:", *[":grey_question:"] * 2]
    write_compared_summary(None, [record])
    write_compared_summary(GithubJob(tmp_path), [record])


def test_what_could_not_be_measured_is_not_kept():
    (check,) = gates("completed:-0.5", [(True, 99)] * 4, [(True, 99)] * 4).judge(64)
    assert check.failed
    assert math.isnan(check.verdict.estimate.value)
    assert "was not measured (n = 0)" in check.sentence()


def test_several_samples_are_judged_by_problem():
    one = make_study(20, BUDGETS, samples=3, lengths=lambda rng: 20)
    other = make_study(20, BUDGETS, samples=3, lengths=lambda rng: 20, accuracy=0.2)
    found = compare_runs(run_of(one, INFO), run_of(other, INFO), "old")
    point = found.at(64)
    assert point.problems == 20
    assert point.accuracy.difference.high < -0.4
    (check,) = BaselineGates(tolerances("accuracy:-0.1"), found).judge(64)
    assert check.failed
    assert len(found.lost(64)) == point.accuracy.fell
    interval = check.verdict.estimate
    assert (interval.low, interval.high) == pytest.approx(point.accuracy.difference[1:3])


def test_samples_that_all_agree_prove_no_more_than_their_number():
    one = make_study(5, BUDGETS, samples=3, lengths=lambda rng: 20, accuracy=1.0)
    found = compare_runs(run_of(one, INFO), run_of(one, INFO), "old")
    loose, strict = BaselineGates(
        tolerances("accuracy:-0.02,accuracy:-0.02:noninferior"), found
    ).judge(64)
    assert (loose.failed, loose.verdict.ruling) == (False, "inconclusive")
    assert strict.failed
    assert loose.verdict.estimate.low < -0.3
    assert loose.verdict.detectable > 0.3
