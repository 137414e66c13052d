"""The formats of recorded generations, on real logs, and what is refused of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from recordings import DATA, load, record, refused, words, write
from runs import NANO
from studies import NumberTask, make_problem

from pytest_tokenbudget.core.trace import Outcome
from pytest_tokenbudget.models.resolution import load_catalogue
from pytest_tokenbudget.recorded.files import load_recordings
from pytest_tokenbudget.recorded.records import RecordingError, Runs
from pytest_tokenbudget.recorded.traces import load_counter
from pytest_tokenbudget.tasks.registry import load_task


@pytest.fixture(scope="module")
def nano(tmp_path_factory):
    return load_counter(str(NANO), load_catalogue(tmp_path_factory.mktemp("root")))


# --- lm-evaluation-harness


def test_lm_eval_samples_are_counted_once_whatever_the_filters(nano):
    study = load(DATA / "lm_eval_default", count=nano, tokenizer="nano-reasoner")
    assert (study.alias, study.task.name, len(study.complete)) == ("nano-reasoner", "sums", 8)
    assert study.budgets == (32, 64, 128, 256)
    assert study.source["truncation"] == {"from_record": 0, "inferred": 8, "limit_assumed": 8}
    assert any("256 is the tool's own" in note for note in study.notes)
    assert [(a.scorer, a.compared, a.differ) for a in study.agreements] == [
        ("strict-match", 8, 0),
        ("flexible-extract", 8, 0),
    ]
    assert "--tokenizer" in refused(DATA / "lm_eval_default")


def test_lm_eval_runs_at_two_limits_are_one_recording(nano):
    study = load(DATA / "lm_eval_plain", count=nano)
    assert (study.budgets, study.runs) == ((128, 256), Runs.CUTS)
    assert [p.accuracy.value for p in study.curve.points] == [0.5, 0.875]
    assert [p.truncation.value for p in study.curve.points] == [0.5, 0.125]
    assert study.decoding.greedy
    assert study.decoding.stop == ("</s>",)
    assert study.source["truncation"]["limit_assumed"] == 0


def test_lm_eval_is_judged_by_the_task_that_is_given(nano):
    """Its problems are those of word-problems, so both judge the same ones."""
    task = load_task("word-problems")
    study = load(DATA / "lm_eval_plain", count=nano, task=task)
    assert study.task is task
    assert {p.category for p in study.problems} == {p.category for p in task.problems(8)}
    assert [p.accuracy.value for p in study.curve.points] == [0.5, 0.875]
    other = NumberTask(problems=[make_problem(n) for n in range(3)])
    assert "leave --task out" in refused(DATA / "lm_eval_plain", count=nano, task=other)


def test_unfinished_thinking_of_a_recording_is_no_answer(nano):
    study = load(DATA / "lm_eval_thinking", count=nano)
    outcomes = study.curve.at(128).outcomes
    assert {k: v for k, v in outcomes.items() if v} == {"correct": 2, "truncated_in_thinking": 6}


def lm_eval_lines(name: str = "lm_eval_plain") -> list[dict]:
    path = sorted((DATA / name).rglob("samples*"))[0]
    return [json.loads(line) for line in path.read_text().splitlines()]


def lm_eval_file(tmp_path: Path, rows: list[dict]) -> Path:
    path = tmp_path / "samples_sums_2026-11-22T01-15-25.964229.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return path


def test_lm_eval_prompt_that_opens_thinking_is_seen(tmp_path, nano):
    """A text that never closes what the prompt opened holds no answer."""
    rows = lm_eval_lines()
    for row in rows:
        row["arguments"]["gen_args_0"]["arg_0"] = "<|im_start|>assistant\n<think>\n"
    study = load(lm_eval_file(tmp_path, rows), count=nano, budgets=(128,))
    assert set(study.curve.at(128).outcomes) == {o.value for o in Outcome}
    assert study.curve.at(128).outcomes["correct"] == 0
    assert study.curve.at(128).outcomes["truncated_in_thinking"] == 4


def test_lm_eval_repeats_are_samples(tmp_path, nano):
    rows = lm_eval_lines()
    for row in rows:
        row["resps"] = [[row["resps"][0][0], "#### 0"]]
    study = load(lm_eval_file(tmp_path, rows), count=nano)
    assert study.samples == 2
    assert study.curve.at(128).samples == 16
    assert study.agreements == ()  # the harness judged both texts together


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"resps": [[["-1.5", "False"]]]}, "'resps' is a list with a list; allowed is a list with"),
        ({"resps": [["a"], ["b"]]}, "'resps' is a list with 2 lists"),
        ({"resps": []}, "'resps' is missing"),
        ({"doc": None}, "'doc' is missing"),
        ({"doc": {"id": 1.5, "question": "?"}}, "'id' is 1.5; allowed is a string or a whole"),
        ({"target": None}, "'target' is missing"),
        ({"arguments": [["q", " a"]]}, "generate_until"),
        ({"resps": [[]]}, "'resps' is a list with an empty list"),
        ({"resps": [["other text"]]}, "with another text or question"),
        ({"filter": "flexible-extract"}, "under the same filter"),
    ],
)
def test_bad_lm_eval_lines_are_named(tmp_path, nano, change, said):
    rows = lm_eval_lines()
    assert rows[0]["filter"] == "strict-match"
    rows[0].update(change)
    message = refused(lm_eval_file(tmp_path, rows), count=nano)
    assert said in message
    assert ".jsonl, line " in message


def test_lm_eval_without_its_thinking_cannot_be_counted(tmp_path, nano):
    path = lm_eval_file(tmp_path, lm_eval_lines())
    summary = {"config": {"model_args": {"think_end_token": "</think>"}}}
    write(tmp_path / "results_2026-11-22T01-15-25.964229.json", summary)
    assert "has removed the thinking" in refused(path, count=nano)


def test_a_half_written_last_line_is_named(tmp_path, nano):
    path = lm_eval_file(tmp_path, lm_eval_lines())
    text = path.read_text()
    path.write_text(text[:-200])
    message = refused(path, count=nano)
    assert "line 16: not valid JSON" in message
    assert "half-written" in message
    path.write_text(text.replace('{"doc_id": 3', "{doc_id: 3", 1))
    message = refused(path, count=nano)
    assert "half-written" not in message


# --- Inspect


def test_an_inspect_log_brings_its_own_counts_and_stop_reasons():
    study = load(DATA / "inspect_sums.json")
    assert (study.alias, study.task.name, study.samples) == ("mockllm/model", "sums", 2)
    assert (study.budgets, len(study.complete)) == ((128,), 4)
    assert study.source["truncation"]["inferred"] == study.source["tokens"]["counted"] == 0
    assert study.decoding.temperature == 0.7
    assert {k: v for k, v in study.curve.at(128).outcomes.items() if v} == {
        "correct": 4,
        "wrong": 2,
        "truncated_in_thinking": 2,
    }
    assert [(a.scorer, a.compared, a.differ) for a in study.agreements] == [("match", 8, 0)]


def test_an_answer_inside_unfinished_reasoning_counts_for_no_one():
    """The log's third problem has the right number in reasoning that the budget cut."""
    study = load(DATA / "inspect_sums.json")
    cut = [j for j in study.judged(128) if j.outcome is Outcome.TRUNCATED_IN_THINKING]
    assert all(f"#### {j.problem.answer}" in j.cut.thinking for j in cut)
    assert all(j.cut.answer == "" for j in cut)


def inspect_log(tmp_path: Path, change) -> Path:
    log = json.loads((DATA / "inspect_sums.json").read_text())
    change(log)
    return write(tmp_path / "log.json", log)


def test_inspect_errors_and_unknown_stops(tmp_path):
    def change(log):
        first, second, *_ = log["samples"]
        first["error"] = {"message": "server gone", "traceback": ""}
        second["output"]["choices"][0]["stop_reason"] = "unknown"
        second["output"]["usage"]["output_tokens"] = 128

    study = load(inspect_log(tmp_path, change))
    assert study.curve.at(128).outcomes["error"] == 1
    assert study.errors[0].error == "server gone"
    assert study.source["truncation"]["inferred"] == 1
    assert study.agreements[0].compared == 7


def test_inspect_hidden_reasoning_stands_before_the_text(tmp_path):
    def change(log):
        for sample in log["samples"]:
            sample["output"]["usage"] |= {"output_tokens": 100, "reasoning_tokens": 90}
            sample["output"]["choices"][0] |= {"stop_reason": "stop"}
            sample["output"]["choices"][0]["message"]["content"] = "a b c d e f g h #### 52"

    study = load(inspect_log(tmp_path, change), count=words, budgets=(90, 92, 128))
    assert {j.cut.text for j in study.judged(90)} == {""}
    assert {j.cut.truncated for j in study.judged(90)} == {True}
    assert {j.cut.text for j in study.judged(92)} == {"a b c "}


def test_inspect_limit_in_force_is_the_generations_own(tmp_path):
    def change(log):
        for sample in log["samples"]:
            for event in sample["events"]:
                event["config"]["max_tokens"] = 200

    assert load(inspect_log(tmp_path, change)).budgets == (200,)


def test_inspect_without_a_limit_stands_at_the_largest_count(tmp_path):
    def change(log):
        log["plan"]["config"].pop("max_tokens")
        for sample in log["samples"]:
            sample["events"] = []

    assert load(inspect_log(tmp_path, change)).budgets == (128,)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda log: log.update(samples=[]), "holds no samples"),
        (lambda log: log["samples"][1].pop("id"), "sample 2: 'id' is missing"),
        (lambda log: log["samples"][1].update(target=[]), "sample 2: 'target' is an empty list"),
        (lambda log: log["samples"][1].update(input=[]), "sample 2: 'input' is empty"),
        (lambda log: log["samples"][1].update(epoch=0), "sample 2: 'epoch' is 0; allowed is a"),
        (
            lambda log: log["samples"][1]["output"]["choices"][0].update(stop_reason="tired"),
            "sample 2: 'stop_reason' is 'tired'; allowed is stop, length, max_tokens",
        ),
        (
            lambda log: log["samples"][1]["messages"].append({"role": "tool"}),
            "sample 2: the model called tools",
        ),
    ],
)
def test_bad_inspect_logs_are_named(tmp_path, change, said):
    assert said in refused(inspect_log(tmp_path, change))


def test_any_of_several_targets_is_right(tmp_path):
    def change(log):
        for sample in log["samples"]:
            sample["target"] = ["nonsense", sample["target"]]

    assert load(inspect_log(tmp_path, change)).curve.at(128).outcomes["correct"] == 4


# --- what is refused


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tokens_used": "many"}, "'tokens_used' is a string; allowed is a whole number from 0"),
        ({"tokens_used": 1.5}, "'tokens_used' is 1.5"),
        ({"tokens_used": True}, "'tokens_used' is true; allowed"),
        ({"tokens_used": 0}, "0 tokens are recorded for a text that is not empty"),
        ({"budget": 0}, "'budget' is 0; allowed is a whole number from 1"),
        ({"generated": ["a"]}, "'generated' is a list; allowed is a string"),
        ({"question": " "}, "'question' is empty"),
        ({"ground_truth": []}, "'ground_truth' is a list"),
        ({"correct": "yes"}, "'correct' is a string; allowed is true or false"),
        ({"stop_reason": "bored"}, "'stop_reason' is 'bored'; allowed is eos, stop"),
        ({"stop_reason": "length", "truncated": False}, "what stop_reason 'length' says as well"),
        ({"problem_id": "p0"}, "problem 'p0', sample 0 at budget 128 is there already"),
        ({"budget": None}, "no budget is given, but other records"),
    ],
)
def test_bad_records_are_named(tmp_path, change, said):
    rows = [record(0), {**record(1), **change}]
    message = refused(write(tmp_path / "a.json", rows))
    assert said in message
    assert "a.json, record 2" in message


def test_one_id_is_one_problem(tmp_path):
    write(tmp_path / "x_budget64.json", [record(0, budget=64)])
    write(tmp_path / "x_budget128.json", [record(0, budget=128, ground_truth="9")])
    message = refused(tmp_path)
    assert "problem 'p0' has the answer '7', but '9'" in message or "'9', but '7'" in message


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", "[{", "a.json, line 1: not valid JSON"),
        ("a.json", "[1]", "there is no record in it"),
        ("a.json", "[]", "there is no record in it"),
        ("a.json", '{"curve": 1}', "a JSON object with 'curve'; allowed are"),
        ("a.json", '[{"text": 1}]', "record 1: this is no recorded generation; there is 'text'"),
        ("a.jsonl", '{"text": 1}\n', "line 1: this is no recorded generation"),
        ("a.json", "[" * 100_000, "nested too deeply"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path, name, text, said):
    path = tmp_path / name
    path.write_text(text)
    assert said in refused(path)


def test_nothing_to_read_says_what_was_found(tmp_path):
    assert "there is no .json or .jsonl file" in refused(tmp_path)
    write(tmp_path / "metrics.json", {"a": 1})
    assert "there is metrics.json" in refused(tmp_path)
    with pytest.raises(RecordingError, match="there is no file or directory"):
        load_recordings([tmp_path / "none"])
