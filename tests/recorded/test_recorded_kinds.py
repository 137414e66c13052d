"""Recordings that other tools and studies left behind, as they are found in folders."""

from __future__ import annotations

import json
import tracemalloc
from decimal import Decimal

import pytest
from recordings import load, record, refused, words, write

from pytest_tokenbudget.core.cliff import cliff_budgets
from pytest_tokenbudget.core.trace import Outcome
from pytest_tokenbudget.recorded.files import load_recordings
from pytest_tokenbudget.report.limits import limit_answer, recommended_limits
from pytest_tokenbudget.studies.cliff.analysis import analyse_cliff
from pytest_tokenbudget.studies.scenarios.analysis import analyse_scenarios


def series(folder, name, budgets, word, count=12):
    """Files of one phase of a study, with texts of its own at each budget."""
    for budget in budgets:
        rows = [
            record(n, f"{word} {budget} #### {n + 7}", budget, correct=True) for n in range(count)
        ]
        write(folder / f"{name}_tiny_budget{budget}.json", rows)


# --- the study's own folder


def test_phases_that_share_budgets_and_not_answers_are_kept_apart(tmp_path):
    series(tmp_path, "phase1_main", (128, 256), "main")
    series(tmp_path, "phase3_cliff", (112, 128, 144), "cliff")
    study = load(tmp_path)
    assert study.budgets == (128, 256)
    assert study.judged(128)[0].cut.text.startswith("main")
    cliff = study.cliff_study
    assert cliff_budgets(study) == (112, 128, 144)
    assert {j.cut.text.split()[0] for b in (112, 128, 144) for j in cliff.judged(b)} == {"cliff"}
    assert [point.budget for point in analyse_cliff(study).points] == [112, 128, 144]


def test_samples_that_stand_in_their_problem_are_read(tmp_path):
    shared = {
        "question": "What is 11 + 7?",
        "ground_truth": "18",
        "budget": 512,
        "accuracy": 0.5,
        "samples": [
            {"sample_id": 1, "generated": "#### 18", "correct": True, "tokens_used": 5},
            {"sample_id": 2, "generated": "#### 19", "correct": False, "tokens_used": 5},
        ],
    }
    rows = [{"problem_id": number, **shared} for number in range(3)]
    (recording,) = load_recordings(
        [write(tmp_path / "phase1b_stochastic_tiny_budget512.json", rows)]
    ).recordings
    assert (recording.kind, recording.samples, len(recording.problems)) == ("stochastic", 2, 3)
    assert [r.tokens for r in recording.all_records()] == [5] * 6
    shared["samples"][1]["sample_id"] = 1
    path = write(tmp_path / "twice.json", [{"problem_id": 0, **shared}])
    assert "record 1, sample 2: 'sample_id' is 1 once more" in refused(path)


def test_unusable_files_of_a_folder_are_left_out_with_a_sentence(tmp_path):
    write(tmp_path / "phase1_main_tiny_budget64.json", [record(n, budget=64) for n in range(3)])
    write(tmp_path / "phase1_combined_tiny.json", {"curve": []})
    header = {"version": 2, "status": "success", "eval": {"model": "m", "task": "t"}, "plan": {}}
    write(tmp_path / "header.json", header)
    write(tmp_path / "blank.json", [record(0, ground_truth=" ")])
    choice = {"doc_id": 0, "doc": {}, "target": "0", "resps": [[["-1.5", "False"]]]}
    (tmp_path / "samples_arc_2026-01-01T00-00-00.1.jsonl").write_text(json.dumps(choice))
    (tmp_path / "log.eval").write_bytes(b"PK\x03\x04rest")
    (tmp_path / "rows.parquet").write_bytes(b"PAR1rest")
    (tmp_path / "half.jsonl").write_text('{"problem_id": 1, "gener')
    loaded = load_recordings([tmp_path])
    assert [r.budgets for r in loaded.recordings] == [(64,)]
    said = "\n".join(loaded.left_out)
    for part in (
        "header.json: the log holds no samples",
        "blank.json, record 1: 'ground_truth' is empty",
        "samples_arc_2026-01-01T00-00-00.1.jsonl, line 1: 'resps'",
        "log.eval: a zip archive, as Inspect's .eval logs are; write the log as JSON first",
        "rows.parquet: a Parquet file",
        "half.jsonl, line 1: not valid JSON",
        "no generations in phase1_combined_tiny.json",
    ):
        assert part in said
    for name in ("header.json", "blank.json", "log.eval", "rows.parquet", "half.jsonl"):
        assert name in refused(tmp_path / name)
    (tmp_path / "phase1_main_tiny_budget64.json").unlink()
    assert "no file in it can be used: " in refused(tmp_path)


# --- records


@pytest.mark.parametrize(
    "change",
    [
        {"generated": None, "error": "out of memory"},
        {"generated": None},
        {"generated": "half of", "error": "connection lost"},
    ],
)
def test_a_generation_that_failed_is_an_error_and_no_wrong_answer(tmp_path, change):
    study = load(write(tmp_path / "a.json", [record(0), {**record(1), **change}]))
    assert [j.outcome for j in study.judged(128)] == [Outcome.CORRECT, Outcome.ERROR]
    assert study.errors[0].error == change.get("error", "nothing was generated")


def test_claimed_tokens_allocate_nothing(tmp_path):
    path = write(tmp_path / "a.json", [record(0, tokens_used=10**8)])
    tracemalloc.start()
    said = refused(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "'tokens_used' is 100,000,000; allowed is a number of tokens up to 1,000,000" in said
    assert peak < 5_000_000
    assert "'budget' is 100,000,000" in refused(
        write(tmp_path / "b.json", [record(0, budget=10**8)])
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[{"problem_id": 1, "problem_id": 2}]', "the key 'problem_id' stands twice"),
        ('[{"problem_id": 1, "generated": {"a": 1, "a": 1}}]', "the key 'a' stands twice"),
        ('[{"problem_id": ' + "4" * 5000 + "}]", "a number with too many digits"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_json_that_could_mean_several_things_is_refused(tmp_path, text, said):
    path = tmp_path / "a.json"
    path.write_text(text)
    assert said in refused(path)


def harness(number, text, *, prompt="<|im_start|>assistant\n", **settings):
    return {
        "doc_id": number,
        "doc": {"question": f"What is {number} + 7?"},
        "target": str(number + 7),
        "arguments": {"gen_args_0": {"arg_0": prompt, "arg_1": settings}},
        "resps": [[text]],
        "filter": "none",
        "metrics": ["exact_match"],
        "exact_match": 1.0,
    }


def lines(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_a_stray_tag_in_one_record_opens_no_other(tmp_path):
    texts = ["so </think> #### 7", "#### 8", "#### 9", "#### 10"]
    rows = [harness(n, text, max_gen_toks=50) for n, text in enumerate(texts)]
    study = load(lines(tmp_path / "samples_sums.jsonl", rows), count=words)
    assert [j.outcome for j in study.judged(50)] == [Outcome.CORRECT] * 4
    own = [record(n, text) for n, text in enumerate(texts)]
    study = load(write(tmp_path / "a.json", own))
    assert [j.outcome for j in study.judged(128)] == [Outcome.CORRECT] * 4


@pytest.mark.parametrize(
    ("opens", "closes"),
    [
        ("<think>", "</think>"),
        ("<seed:think>", "</seed:think>"),
        ("<|channel|>analysis<|message|>", "<|end|><|channel|>final<|message|>"),
    ],
)
def test_tags_of_every_known_format_are_read(tmp_path, opens, closes):
    rows = [
        record(0, f"{opens} 3 #### 5 {closes} #### 7"),
        record(1, f"{opens} 3 #### 8", truncated=True),
    ]
    study = load(write(tmp_path / "a.json", rows))
    assert [j.outcome for j in study.judged(128)] == [
        Outcome.CORRECT,
        Outcome.TRUNCATED_IN_THINKING,
    ]


def test_an_empty_text_of_unknown_length_is_no_answer_of_one_token(tmp_path):
    rows = [harness(n, "", max_gen_toks=10) for n in range(3)] + [
        harness(3, "#### 10", max_gen_toks=10)
    ]
    study = load(lines(tmp_path / "samples_sums.jsonl", rows), count=words)
    assert [j.outcome for j in study.judged(10)] == [Outcome.ERROR] * 3 + [Outcome.CORRECT]
    assert "reasoning that is not shown may have been cut" in study.errors[0].error


def test_decoding_that_nobody_recorded_is_not_greedy(tmp_path):
    own = load(write(tmp_path / "a.json", [record(0)]))
    assert not own.decoding.known
    assert own.decoding.identity() == {"recorded": False}
    assert "how tokens were chosen is not recorded" in own.notes
    plain = load(lines(tmp_path / "s.jsonl", [harness(0, "#### 7", max_gen_toks=9)]), count=words)
    assert not plain.decoding.known
    greedy = [harness(0, "#### 7", max_gen_toks=9, do_sample=False)]
    assert load(lines(tmp_path / "g.jsonl", greedy), count=words).decoding.greedy
    noisy = [harness(0, "#### 7", max_gen_toks=9, temperature=0.6)]
    assert load(lines(tmp_path / "n.jsonl", noisy), count=words).decoding.temperature == 0.6


def test_a_text_one_token_short_that_breaks_off_was_cut(tmp_path):
    """Encoded again a cut text can lose a token; what ended lacks the one that ended it."""
    cut = "one two three four five six seven"
    ended = "so it is #### 8"
    rows = [
        record(0, cut, budget=8, tokens_used=7),
        record(1, ended, budget=8, tokens_used=len(words(ended).ids)),
        record(2, "it is #### 9", budget=8, tokens_used=4),
        record(3, "a b c d e done.\n#### 10", budget=8, tokens_used=7),
    ]
    study = load(write(tmp_path / "a.json", rows), count=words)
    assert [j.cut.truncated for j in study.judged(8)] == [True, False, False, False]
    # Counts that hold the end token need no such rule.
    rows[1]["tokens_used"] += 1
    rows[2]["tokens_used"] += 1
    study = load(write(tmp_path / "b.json", rows), count=words)
    assert [j.cut.truncated for j in study.judged(8)] == [False] * 4


def inspect_log(scorer, samples, **sample):
    return {
        "version": 2,
        "status": "success",
        "eval": {"model": "m/one", "task": "graded", "model_generate_config": {}},
        "plan": {"config": {}},
        "samples": [
            {
                "id": number,
                "epoch": 1,
                "input": f"Why {number}?",
                "target": "A good reason, said well.",
                "messages": [],
                "output": {
                    "choices": [
                        {
                            "message": {"role": "assistant", "content": text},
                            "stop_reason": stop,
                        }
                    ],
                    "usage": {"output_tokens": tokens},
                },
                "scores": {scorer: {"value": grade}},
                **sample,
            }
            for number, (text, stop, tokens, grade) in enumerate(samples)
        ],
    }


GRADED = [
    ("Because of this.", "stop", 5, "C"),
    ("No idea.", "stop", 4, "I"),
    ("Because it is so", "length", 9, "I"),
]


@pytest.mark.parametrize("scorer", ["model_graded_qa", "verify", "match"])
def test_the_records_own_verdict_is_used_where_this_suite_cannot_judge(tmp_path, scorer):
    study = load(write(tmp_path / "log.json", inspect_log(scorer, GRADED)))
    budget = study.budgets[-1]
    assert [j.outcome for j in study.judged(budget)] == [
        Outcome.CORRECT,
        Outcome.WRONG,
        Outcome.TRUNCATED_IN_ANSWER,
    ]
    assert study.task.extractor == f"recorded {scorer}"
    assert f"verdicts of the record's scorer '{scorer}' are used" in " ".join(study.notes)
    # Without a limit the longest answer stands for it.
    assert budget == 9
    assert "the longest answer, 9 tokens, stands for it" in " ".join(study.notes)


def test_a_recorded_verdict_holds_from_the_end_of_the_text_on(tmp_path):
    log = inspect_log("model_graded_qa", GRADED)
    log["plan"]["config"]["max_tokens"] = 9
    study = load(write(tmp_path / "log.json", log), count=words)
    tokens, right = study.correct_by_token()
    assert tokens.tolist() == list(range(1, 10))
    assert right.tolist() == [[False] * 4 + [True] * 5, [False] * 9, [False] * 9]


def test_answers_that_can_be_judged_are_judged_here(tmp_path):
    log = inspect_log("match", [("#### 5", "stop", 5, "C"), ("#### 4", "stop", 4, "C")], target="5")
    study = load(write(tmp_path / "log.json", log))
    assert [j.outcome for j in study.judged(study.budgets[-1])] == [Outcome.CORRECT, Outcome.WRONG]
    assert study.scorer == ""
    assert Decimal(study.agreements[0].theirs_only) == 1


@pytest.mark.parametrize("count", [None, words])
def test_what_a_record_says_was_cut_below_its_limit_is_no_cap(tmp_path, count):
    """The limit that it was allowed counts, and where it stopped is said."""
    log = inspect_log(
        "match", [("#### 5", "stop", 20, "C"), ("#### 4", "length", 20, "I")], target="5"
    )
    for sample, category in zip(log["samples"], "ab", strict=True):
        sample["metadata"] = {"category": category}
    log["plan"]["config"]["max_tokens"] = 64
    study = load(write(tmp_path / "log.json", log), count=count)
    assert [point.mean_tokens.value for point in study.curve.points] == [20] * len(study.budgets)
    found = recommended_limits(study)["all_tokens"].overall
    assert (found.best.limit, found.earliest_stop) == (64, (20, 64))
    assert "1 of 2 traces was cut after 20 tokens although 64 were allowed" in found.finding()
    assert "generate with a cap above 64" in found.finding()
    assert limit_answer(study, found).startswith("no limit up to 64 tokens")
    assert analyse_scenarios(study).overall.truncation[64].value == 0.5
