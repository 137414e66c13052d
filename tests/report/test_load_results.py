"""Results as pandas frames: what `load_results` reads and `--answers-table` writes."""

import json
import re
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
from studies import make_study

from pytest_tokenbudget import Results, ResultsError, load_results
from pytest_tokenbudget.recorded.files import load_recordings
from pytest_tokenbudget.report.files import write_json
from pytest_tokenbudget.report.json_files import RunInfo
from pytest_tokenbudget.report.load_results import write_answers_table
from pytest_tokenbudget.studies.cliff.report import write_cliff
from pytest_tokenbudget.studies.saturation.report import write_saturation
from pytest_tokenbudget.studies.stochastic.report import write_stochastic

pytest_plugins = ["run_fixtures"]

OLD = Path(__file__).parents[1] / "data" / "reports_schema1"
HOSTILE = '=1+1\r\n\x1b[31m\x00 \ud800 \u202e\tüñ, "q"'


def one(frame: pd.DataFrame, **wanted) -> pd.Series:
    rows = frame
    for name, value in wanted.items():
        rows = rows[rows[name] == value]
    assert len(rows) == 1
    return rows.iloc[0]


@pytest.fixture
def reports(tmp_path, quick_figures):
    """A reports folder of two models, one of which thinks, and of several samples."""
    study = make_study(6, (32, 64, 256), samples=3)
    write_stochastic(study, RunInfo(), tmp_path)
    for alias, mode in [("qwen_1.5b", "plain"), ("qwen_1.5b", "thinking"), ("a/b", "plain")]:
        study = make_study(6, (32, 64, 256), alias=alias, mode=mode, errors=1)
        write_saturation(study, RunInfo(), tmp_path)
    return tmp_path


def test_answers_and_curves_are_those_of_the_studies(reports):
    results = load_results(reports)
    assert isinstance(results, Results)
    counts = results.answers.groupby(["eval", "model", "mode"]).size().to_dict()
    assert counts == {
        ("phase1", "a/b", "plain"): 18,
        ("phase1", "qwen_1.5b", "plain"): 18,
        ("phase1", "qwen_1.5b", "thinking"): 18,
        ("phase1b", "qwen-1.5b", "plain"): 54,
    }
    study = make_study(6, (32, 64, 256), alias="a/b", errors=1)
    for budget in study.budgets:
        point = study.curve.at(budget)
        row = one(results.curve, model="a/b", eval="phase1", budget=budget)
        for name in ("accuracy", "truncation", "completed", "mean_tokens"):
            estimate = getattr(point, name)
            known = [row[name], row[f"{name}_low"], row[f"{name}_high"]]
            assert (
                known == [estimate.value, estimate.low, estimate.high]
                if estimate
                else pd.isna(known).all()
            )
        assert (row.best_case, row.worst_case) == (point.best_case, point.worst_case)
        assert (row.problems, row.samples) == (point.problems, point.samples)
        for judged in study.judged(budget):
            answer = one(results.answers, model="a/b", problem_id=judged.problem.id, budget=budget)
            assert answer.outcome == judged.outcome
            assert answer.correct == judged.correct
            assert answer.tokens_used == judged.cut.tokens_used
            assert answer.generated == judged.cut.text
            assert answer.category == judged.problem.category
            assert answer.task == "sums"
            assert answer.folder == ""
            assert pd.isna(answer.error) == (not judged.cut.trace.error)


def test_types_do_not_depend_on_what_is_there(reports, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    write_json(empty / "results" / "metrics.json", [{"test": "t", "outcome": "passed", "x": 1}])
    bare, full = load_results(empty), load_results(reports)
    assert bare.answers.dtypes.to_dict() == full.answers.dtypes.to_dict()
    assert bare.curve.dtypes.to_dict() == full.curve.dtypes.to_dict()
    assert bare.answers.empty
    assert bare.metrics.to_dict("records") == [
        {"folder": "", "test": "t", "outcome": "passed", "x": 1}
    ]
    assert full.metrics.empty


def test_phase_1b_and_the_cliff_have_curves_too(reports):
    study = make_study(6, (32, 64, 256))
    study.cliff_budgets = (32, 64)
    write_cliff(study, RunInfo(), reports)
    curve = load_results(reports).curve
    assert set(curve[curve["eval"] == "phase3"]["budget"]) == {32, 64}
    point = one(curve, eval="phase1b", budget=256)
    answers = load_results(reports).answers
    right = answers[(answers["eval"] == "phase1b") & (answers["budget"] == 256)]["correct"].mean()
    assert point.accuracy == pytest.approx(right)
    assert point.accuracy_low < point.accuracy <= point.accuracy_high


def test_answers_of_the_context_eval_have_their_window(tmp_path):
    header = {"schema": "tokenbudget-context/1", "model": "a_b", "task": "recall", "mode": "plain"}
    write_json(tmp_path / "results" / "context_a_b.json", {**header, "points": [{"limit": "50%"}]})
    window = {"arm": "all", "strategy": None, "limit": "50%", "turns": 8, "depth": 0.5}
    record = {**window, "window": {"tokens": 3}, "problem_id": "p", "correct": False}
    write_json(tmp_path / "results" / "context_a_b_answers.json", [record])
    results = load_results(tmp_path)
    answer = one(results.answers, eval="context", model="a_b", task="recall")
    assert (answer.limit, answer.turns, answer.depth) == ("50%", 8, 0.5)
    assert pd.isna(answer.budget)
    assert results.curve.empty


def test_results_of_the_first_schema_stay_readable():
    results = load_results(OLD)
    assert len(results.answers) == 40
    row = one(results.curve, budget=64)
    assert (row.accuracy, row.truncation, row.model) == (0.1, 0.9, "nano-reasoner")
    assert pd.isna(row.thinking_tokens)
    metrics = one(results.metrics, budget=64)
    assert metrics["accuracy.value"] == 0.1
    assert metrics.outcome == "passed"
    # The folder with the files will do as well.
    assert len(load_results(str(OLD / "results")).answers) == 40


def test_results_that_were_moved_apart_have_their_folder(reports):
    shutil.copytree(OLD, reports / "earlier" / "word-problems-20")
    shutil.copytree(OLD, reports / "baselines")
    results = load_results(reports)
    assert (results.answers["folder"] == "word-problems-20").sum() == 40
    assert (results.curve["folder"] == "word-problems-20").sum() == 2
    assert (results.metrics["folder"] == "word-problems-20").all()
    assert len(load_results(reports / "earlier" / "word-problems-20").answers) == 40


def test_an_estimate_that_some_records_lack_is_one_column(tmp_path):
    known = {"value": 0.5, "low": 0.1, "high": 0.9, "n": 4}
    records = [{"test": "a", "completed": None}, {"test": "b", "completed": known}]
    write_json(tmp_path / "results" / "metrics.json", records)
    metrics = load_results(tmp_path).metrics
    assert [name for name in metrics.columns if name.startswith("completed")] == [
        f"completed.{part}" for part in known
    ]


ANSWERS = "phase1_main_m_budget8.json"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (ANSWERS, "[{", [ANSWERS, "line 1", "not valid JSON", "repeat the run"]),
        (ANSWERS, "[1]", [ANSWERS, "record 1: there is no problem_id"]),
        (
            ANSWERS,
            '[{"problem_id": "a"}, {"problem_id": "b", "correct": 1}]',
            [ANSWERS, "record 2: correct is 1, which is no truth value"],
        ),
        (
            ANSWERS,
            '[{"problem_id": "a", "budget": true}]',
            ["budget is True, which is no whole number"],
        ),
        (
            "phase1_combined_m.json",
            '{"schema": "s", "model": "m", "curve": [{"budget": 8, "accuracy": {"value": "x"}}]}',
            ["phase1_combined_m.json, point 1: accuracy is 'x', which is no number"],
        ),
        ("metrics.json", '{"a": 1}', ["metrics.json: not a list of records"]),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, name, content, words):
    path = tmp_path / "results" / name
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(ResultsError) as error:
        load_results(tmp_path)
    for word in words:
        assert word in str(error.value)


def test_a_folder_without_results_is_named_with_what_is_there(tmp_path):
    (tmp_path / "mine.txt").touch()
    words = f"{tmp_path}: no results in it; there is mine.txt. Name the folder that --reports names"
    with pytest.raises(ResultsError, match=re.escape(words)):
        load_results(tmp_path)
    with pytest.raises(ResultsError, match="nowhere: there is no such directory"):
        load_results(tmp_path / "nowhere")
    with pytest.raises(ResultsError, match="it is a file"):
        load_results(tmp_path / "mine.txt")


def read(path: Path) -> pd.DataFrame:
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    texts = {"predicted": str, "ground_truth": str}
    return pd.read_csv(path, keep_default_na=False, na_values=[""], dtype=texts)


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_the_table_holds_what_load_results_gives(reports, form):
    written = sorted((reports / "results").glob("*.json"))
    assert write_answers_table(written, reports, "none") == []
    [path] = write_answers_table(written, reports, form)
    assert path == reports / "results" / f"answers.{form}"
    expected = load_results(reports).answers.drop(columns="folder")
    pd.testing.assert_frame_equal(
        read(path).reindex(columns=expected.columns).astype(expected.dtypes), expected
    )
    other = {"parquet": "csv", "csv": "parquet"}[form]
    assert write_answers_table(written, reports, other) == [path.with_suffix(f".{other}")]
    assert not path.exists()
    # Nor does it stand in the way where recordings are read.
    assert not any("answers." in line for line in load_recordings([reports]).left_out)


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_hostile_texts_break_no_row(tmp_path, form):
    record = {"problem_id": HOSTILE, "generated": HOSTILE, "correct": False, "budget": 8}
    path = write_json(tmp_path / "results" / ANSWERS, [record, {**record, "problem_id": "b"}])
    [table] = write_answers_table([path], tmp_path, form)
    frame = read(table)
    assert len(frame) == 2
    text = frame["generated"][0]
    if form == "parquet":
        assert text == load_results(tmp_path).answers["generated"][0]
        assert text == HOSTILE.replace("\ud800", r"\ud800")
    else:
        assert text == '=1+1\n\\x1b[31m\\x00 \\ud800 \\u202e\tüñ, "q"'
        assert b"\x1b" not in table.read_bytes()


def test_a_run_writes_one_table_of_all_its_models(own, pytester, quick_figures):
    pytester.makepyfile("def test_mine(curve): pass")
    pytester.path.joinpath("tokenbudget.toml").write_text(
        '[models.other]\nbase = "nano-reasoner"\n', encoding="utf-8"
    )
    result = own("--answers-table=csv", "--model=nano-reasoner,other")
    assert result.ret == pytest.ExitCode.OK
    table = read(pytester.path / "reports" / "results" / "answers.csv")
    expected = load_results(pytester.path / "reports").answers
    assert len(table) == len(expected) == 2 * 3 * 2
    assert set(table["model"]) == {"nano-reasoner", "other"}
    manifest = json.loads((pytester.path / "reports" / "MANIFEST").read_text())
    assert [e["files"] for e in manifest["entries"] if e["section"] == "answers"] == [
        ["results/answers.csv"]
    ]


def test_parquet_without_pyarrow_is_refused_before_the_run(pytester, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = pytester.runpytest_inprocess("--answers-table=parquet")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "--answers-table: 'parquet' cannot be used; it needs pyarrow" in result.stderr.str()
