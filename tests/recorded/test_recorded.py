"""Studies of recorded generations: what comes back, what is counted, and what is only inferred."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from recordings import load, record, refused, words, write
from runs import NANO
from studies import NumberTask, answer_pieces, make_problem, make_study, trace_of

from pytest_tokenbudget.core.trace import Outcome, StopReason, ThinkingFormat
from pytest_tokenbudget.models.resolution import load_catalogue
from pytest_tokenbudget.recorded.files import load_recordings
from pytest_tokenbudget.recorded.records import Runs
from pytest_tokenbudget.recorded.traces import TextTokens, load_counter
from pytest_tokenbudget.report.files import to_plain
from pytest_tokenbudget.report.json_files import RunInfo
from pytest_tokenbudget.studies.saturation.report import combined_record, write_results
from pytest_tokenbudget.tasks.registry import load_task

FOUND = ("curve", "saturation", "token_stats", "accuracy_by_token", "problems", "samples")
BUDGETS = (32, 64, 128, 256)


@pytest.fixture(scope="module")
def nano(tmp_path_factory):
    return load_counter(str(NANO), load_catalogue(tmp_path_factory.mktemp("root")))


def found(study, run=None) -> dict[str, object]:
    combined = json.loads(json.dumps(to_plain(combined_record(study, run or RunInfo()))))
    return {name: combined[name] for name in FOUND}


# --- this suite's own files


@pytest.fixture(params=[1, 3], ids=["1 sample", "3 samples"])
def own(request, tmp_path):
    study = make_study(40, BUDGETS, samples=request.param, errors=2)
    write_results(study, RunInfo(), tmp_path)
    return study, tmp_path / "results"


def test_own_results_come_back_to_the_last_digit(own):
    study, results = own
    again = load(results)
    same = [name for name in FOUND if name != "accuracy_by_token"]
    assert {n: found(again)[n] for n in same} == {n: found(study)[n] for n in same}
    assert again.runs is Runs.CUTS
    assert (again.alias, again.task.name, again.budgets) == ("qwen-1.5b", "sums", BUDGETS)
    assert [t.error for t in again.errors] == [t.error for t in study.errors] * len(BUDGETS)
    for budget in BUDGETS:
        ours, theirs = again.judged(budget), study.judged(budget)
        assert [j.outcome for j in ours] == [j.outcome for j in theirs]
        assert [j.cut.text for j in ours] == [j.cut.text for j in theirs]


def test_identity_says_recorded_and_keeps_what_the_model_was(own):
    _, results = own
    identity = load(results).identity
    assert identity["source"] == "recorded"
    assert identity["recorded_revision"] == "989aa79"
    before = identity["sha256"]
    path = results / "phase1_main_qwen-1.5b_budget32.json"
    path.write_text(path.read_text().replace('"branch": null', '"branch": ""'))
    assert load(results).identity["sha256"] != before


def test_without_a_tokenizer_only_recorded_budgets_are_known(own):
    study, results = own
    again = load(results)
    assert not again.by_token_available
    assert again.usable([16, 32, 100, 256, 512]) == (32, 256)
    with pytest.raises(ValueError, match="budget 100 was not recorded; there are 32, 64, 128, 256"):
        again.judged(100)
    with pytest.raises(ValueError, match="--tokenizer"):
        again.correct_by_token()
    assert again.source["tokens"]["placed"] == 0
    assert any("spread evenly" in note for note in again.notes)
    tokens, accuracy = again.accuracy_by_token()
    known = {int(t): a for t, a in zip(tokens, accuracy, strict=True) if a == a}
    assert known == {b: study.curve.at(b).accuracy.value for b in BUDGETS}
    assert "--tokenizer" in refused(results, budgets=(100,))


def own_counter(study):
    """The tokens that a study's traces really have."""
    places = {
        t.text: [o for i, o in enumerate(t.offsets) if i + 1 < len(t.offsets) or t.capped]
        for t in study.traces.values()
    }

    def count(text: str) -> TextTokens:
        ends = places[text]
        return TextTokens(tuple(range(len(ends))), tuple(ends))

    return count


def test_the_largest_budget_and_a_tokenizer_give_the_whole_curve_back(tmp_path):
    study = make_study(40, BUDGETS)
    write_results(study, RunInfo(), tmp_path)
    path = tmp_path / "results" / "phase1_main_qwen-1.5b_budget256.json"
    again = load(path, count=own_counter(study), tokenizer="words")
    assert again.runs is Runs.SINGLE
    assert again.budgets == BUDGETS
    assert found(again) == found(study)
    assert again.accuracy_at(100) == study.accuracy_at(100)
    assert any("counted tokens, not recorded: 32, 64, 128" in note for note in again.notes)
    assert load(path).budgets == (256,)
    assert "nothing beyond the largest" in refused(path, count=words, budgets=(32, 512))


def test_real_answers_of_the_embedded_model_are_counted_as_they_were_generated(tmp_path, nano):
    from pytest_tokenbudget.core.engine import Decoding, Request
    from pytest_tokenbudget.core.study import Study
    from pytest_tokenbudget.core.trace import Trace
    from pytest_tokenbudget.engines.transformers.engine import TransformersEngine
    from pytest_tokenbudget.models.resolution import resolve_model

    spec = resolve_model(str(NANO), load_catalogue(tmp_path))
    engine = TransformersEngine(spec, device="cpu", dtype="float32")
    task = load_task("word-problems")
    problems = task.problems(6)
    traces = {}
    asked = [Request(p.id, engine.render(p.messages, thinking=False).ids, 160, 0) for p in problems]
    from pytest_tokenbudget.texts.detokenizer import text_and_offsets

    for made in engine.generate(asked, Decoding()):
        text, offsets = text_and_offsets(engine.decode, made.output_ids)
        traces[made.request.key, 0] = Trace(
            made.request.key,
            0,
            made.request.prompt_ids,
            made.output_ids,
            made.stop_reason,
            160,
            text,
            offsets,
        )
    engine.close()
    study = Study(
        "nano", {"id": "nano"}, task, problems, traces, 1, None, "plain", (32, 64, 100, 160)
    )
    assert {t.stop_reason for t in traces.values()} == {StopReason.EOS, StopReason.LENGTH}
    write_results(study, RunInfo(), tmp_path)
    path = tmp_path / "results" / "phase1_main_nano_budget160.json"
    again = load(path, count=nano, tokenizer="nano", budgets=(32, 64, 100, 160), task=task)
    assert found(again) == found(study)
    assert again.source["tokens"]["counts_differ"] == 0


def test_the_cliff_of_the_same_run_adds_budgets_but_not_to_the_curve(tmp_path):
    study = make_study(20, BUDGETS)
    write_results(study, RunInfo(), tmp_path)
    results = tmp_path / "results"
    text = (results / "phase1_main_qwen-1.5b_budget128.json").read_text()
    (results / "phase3_cliff_qwen-1.5b_budget128.json").write_text(text)
    smaller = replace(study, budgets=(96,))
    write_results(smaller, RunInfo(), tmp_path / "b")
    (tmp_path / "b/results/phase1_main_qwen-1.5b_budget96.json").rename(
        results / "phase3_cliff_qwen-1.5b_budget96.json"
    )
    (results / "phase3_combined_qwen-1.5b.json").write_text(
        (results / "phase1_combined_qwen-1.5b.json").read_text()
    )
    again = load(results)
    assert again.budgets == BUDGETS
    assert again.usable([96, 112, 128]) == (96, 128)
    assert [j.cut.text for j in again.judged(96)] == [j.cut.text for j in study.judged(96)]


def test_several_models_and_samples_are_several_recordings(tmp_path):
    one, two = make_study(5, (32, 64)), make_study(5, (32, 64), alias="other/model")
    several = make_study(5, (32, 64), samples=3)
    for study in (one, two):
        write_results(study, RunInfo(), tmp_path)
    write_results(several, RunInfo(), tmp_path / "b")
    for path in (tmp_path / "b/results").glob("phase1_main*"):
        name = path.name.replace("phase1_main", "phase1b_stochastic")
        path.rename(tmp_path / "results" / name)
    recordings = load_recordings([tmp_path]).recordings
    assert sorted((r.alias, r.kind, r.samples) for r in recordings) == [
        ("other/model", "main", 1),
        ("qwen-1.5b", "main", 1),
        ("qwen-1.5b", "stochastic", 3),
    ]


def thinking_study(budgets=(8, 64)):
    """Prompts open the thinking, so no text shows where it begins."""
    problems = tuple(make_problem(n) for n in range(12))
    traces = {}
    for n, problem in enumerate(problems):
        pieces = [f"#### {problem.answer} "] * (4 + n) + ["</think>"]
        pieces += answer_pieces(12, problem.answer if n % 3 else "7")
        traces[problem.id, 0] = trace_of(problem.id, pieces, max(budgets), opened=True)
    return replace(
        make_study(1, budgets, mode="thinking", thinking=ThinkingFormat()),
        problems=problems,
        traces=traces,
    )


def test_thinking_that_the_prompt_opened_comes_back(tmp_path):
    study = thinking_study()
    assert study.curve.at(8).outcomes["truncated_in_thinking"] > 6
    write_results(study, RunInfo(), tmp_path)
    again = load(tmp_path)
    same = [name for name in FOUND if name != "accuracy_by_token"]
    assert {n: found(again)[n] for n in same} == {n: found(study)[n] for n in same}
    assert again.mode == "thinking"


def test_thinking_that_no_text_ends_is_known_from_the_outcome(tmp_path):
    write_results(thinking_study((3, 64)), RunInfo(), tmp_path)
    study = load(tmp_path / "results" / "phase1_main_qwen-1.5b+thinking_budget3.json")
    assert study.curve.at(3).outcomes["truncated_in_thinking"] == 12


def test_a_text_without_tags_is_thinking_where_others_end_theirs(tmp_path):
    """As in logs that show neither the prompt nor an outcome."""
    rows = [
        record(0, "I think </think> #### 7"),
        record(1, "#### 8 or", truncated=True),
        record(2, "#### 9"),
    ]
    study = load(write(tmp_path / "a.json", rows))
    assert [j.outcome for j in study.judged(128)] == [
        Outcome.CORRECT,
        Outcome.TRUNCATED_IN_THINKING,
        Outcome.NO_ANSWER,
    ]


def test_the_original_studys_records_need_no_more_than_eight_keys(tmp_path):
    """No stop reason there: truncation is inferred from the count, and said to be."""
    short = record(0, "#### 7", budget=8)
    long = record(1, "one two three four five six seven eight", budget=8, tokens_used=8)
    study = load(write(tmp_path / "phase1_main_qwen-1.5b_budget8.json", [short, long]))
    assert [j.outcome for j in study.judged(8)] == [Outcome.CORRECT, Outcome.TRUNCATED_IN_ANSWER]
    assert study.source["truncation"] == {"from_record": 0, "inferred": 2, "limit_assumed": 0}
    assert "truncation inferred from the token count for 2 of 2" in study.notes
    assert study.alias == "qwen-1.5b"


def test_truncation_is_what_the_record_says_before_the_count(tmp_path):
    """The end-of-sequence token exactly at the cap is no truncation."""
    rows = [
        record(0, tokens_used=128, truncated=False),
        record(1, tokens_used=90, truncated=True),
        record(2, tokens_used=128, stop_reason="eos"),
        record(3, tokens_used=128, finish_reason="length"),
        record(4, tokens_used=128),
    ]
    study = load(write(tmp_path / "a.json", rows))
    assert [j.cut.truncated for j in study.judged(128)] == [False, True, False, True, True]
    assert [j.cut.tokens_used for j in study.judged(128)] == [128, 90, 128, 128, 128]
    assert study.source["truncation"]["inferred"] == 1


def test_tokens_are_counted_where_the_record_has_no_count(tmp_path):
    rows = [
        record(0, "a b c #### 7", budget=6, tokens_used=None),
        record(1, "a b c d e f", budget=6, tokens_used=None),
    ]
    path = write(tmp_path / "a.json", rows)
    assert "record 1" in refused(path)
    assert "--tokenizer NAME|PATH" in refused(path)
    study = load(path, count=words, tokenizer="words")
    cuts = [j.cut for j in study.judged(6)]
    assert [(c.tokens_used, c.truncated) for c in cuts] == [(6, False), (6, True)]
    assert study.source["tokens"]["counted"] == 2
    assert study.identity["tokenizer"] == "words"
    assert any("tokens counted with words for 2 of 2" in note for note in study.notes)


def test_places_are_stretched_to_the_records_own_count_and_that_is_said(tmp_path):
    text = "a b c d e f g #### 7"
    study = load(
        write(tmp_path / "a.json", [record(0, text, tokens_used=19, truncated=False)]),
        count=words,
        budgets=(6, 128),
    )
    assert study.judged(128)[0].cut.tokens_used == 19
    assert study.judged(6)[0].cut.text == "a b c "  # 18 tokens of text, counted as 9
    assert study.source["tokens"]["counts_differ"] == 1
    assert study.source["tokens"]["largest_difference"] == 9


# --- independent runs


def two_runs(tmp_path: Path) -> Path:
    for budget, text in ((64, "I say 3 + 4 = 7 #### 7"), (128, "Well: 7, so #### 8")):
        rows = [record(n, text, budget=budget, truncated=False) for n in range(4)]
        write(tmp_path / f"run_budget{budget}.json", rows)
    return tmp_path


def test_independent_runs_are_never_cut(tmp_path):
    study = load(two_runs(tmp_path), count=words)
    assert study.runs is Runs.INDEPENDENT
    assert not study.by_token_available
    assert study.usable([32, 64, 128]) == (64, 128)
    # As a cut, the text at 64 would be a part of the one at 128 and never be right.
    assert [j.correct for j in study.judged(64)] == [True, False, False, False]
    assert [j.correct for j in study.judged(128)] == [False, True, False, False]
    with pytest.raises(ValueError, match="independently"):
        study.correct_by_token()
    assert "generated independently" in refused(tmp_path, count=words, budgets=(32,))
    assert any("0 of 4 texts are prefixes" in note for note in study.notes)
    comparison = study.saturation.comparisons[0]
    assert (comparison.lost, comparison.won) == (1, 1)
    used = [len(words(t).ids) + 1 for t in ("I say 3 + 4 = 7 #### 7", "Well: 7, so #### 8")]
    assert study.tokens_if_separate == study.tokens_generated == 4 * sum(used)


def test_one_text_that_is_no_prefix_makes_runs_independent(tmp_path):
    long = "a b c d e f g #### 7"
    rows = [record(n, long, budget=64, truncated=False, tokens_used=10) for n in range(3)]
    cut = [record(n, "a b c ", budget=3, truncated=True, tokens_used=3) for n in range(3)]
    write(tmp_path / "x_budget64.json", rows)
    write(tmp_path / "x_budget3.json", cut)
    assert load(tmp_path).runs is Runs.CUTS
    cut[1]["generated"] = "a b d "
    write(tmp_path / "x_budget3.json", cut)
    study = load(tmp_path)
    assert study.runs is Runs.INDEPENDENT
    assert study.source["prefixes"] == {"held": 2, "pairs": 3}


def test_a_finished_text_that_goes_on_at_a_larger_budget_is_no_cut(tmp_path):
    write(tmp_path / "x_budget3.json", [record(0, "a b", budget=3, truncated=False)])
    write(tmp_path / "x_budget9.json", [record(0, "a b #### 7", budget=9, truncated=False)])
    assert load(tmp_path).runs is Runs.INDEPENDENT


def test_problems_that_lack_a_budget_are_missing(tmp_path):
    write(tmp_path / "x_budget64.json", [record(n, budget=64) for n in range(3)])
    write(tmp_path / "x_budget128.json", [record(n, budget=128) for n in range(1, 5)])
    study = load(tmp_path)
    assert ([p.id for p in study.complete], study.missing) == (["p1", "p2"], 3)
    write(tmp_path / "x_budget128.json", [record(n, budget=128) for n in range(7, 9)])
    assert "nothing can be compared" in refused(tmp_path)


# --- judging and counting


def test_another_task_with_other_answers_is_refused(tmp_path):
    path = write(tmp_path / "a.json", [record(1)])
    problem = replace(make_problem(1), question="What is 1 + 7?", answer="9")
    assert "the answer is '9' in task sums, but '8'" in refused(
        path, task=NumberTask(problems=[problem])
    )


def test_own_verdicts_that_differ_are_counted(tmp_path):
    rows = [record(0, correct=False), record(1, correct=True), record(2), record(3)]
    (agreement,) = load(write(tmp_path / "a.json", rows)).agreements
    assert agreement == ("recorded", 4, 1, 1)
    assert agreement.differ == 2


def test_a_budget_that_was_not_kept_is_said(tmp_path):
    rows = [record(n, tokens_used=200, truncated=False) for n in range(2)]
    study = load(write(tmp_path / "a.json", rows))
    assert study.curve.at(128).mean_tokens.value == 200
    assert "2 of 2 used more tokens than their budget" in study.notes


def test_an_answer_cut_by_the_context_is_truncated_at_the_budget(tmp_path):
    rows = [record(0, "a b c d", tokens_used=4, truncated=True), record(1, truncated=False)]
    study = load(write(tmp_path / "a.json", rows), count=words, budgets=(2, 64, 128))
    assert study.missing == 0
    assert [j.cut.truncated for j in study.judged(64)] == [True, False]
    assert study.accuracy_by_token()[1][-1] == study.curve.at(128).accuracy.value


def test_counter_places_every_token(nano):
    for text in ("", "A shop has 34 lemons.\n#### 14", "né 🙂 ", "\ud800 half"):
        tokens = nano(text)
        assert list(tokens.offsets) == sorted(tokens.offsets)
        assert len(tokens.ids) == len(tokens.offsets)
        assert not text or tokens.offsets[-1] == len(text)


def test_traces_of_the_fixture_have_the_length_they_say():
    """A check of the tests' own tools: a token a piece, and an end."""
    trace = trace_of("p", answer_pieces(12, "7"), 20)
    assert len(trace.output_ids) == 12
    assert not trace.capped
