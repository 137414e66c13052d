"""The thinking eval: what is generated for it, what comes out, and that it is the same alone."""

import json
from pathlib import Path

import pytest
from runs import NO_ENGINE, QUIET, Engines, RealEngines, finish, read, rows, start
from studies import NumberTask, make_problem, trace_of
from thinking_engine import ThinkingEngine

from pytest_tokenbudget.core.plan import Forcing, Plan
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.report.json_files import RunInfo
from pytest_tokenbudget.studies.thinking.analysis import analyse_thinking
from pytest_tokenbudget.studies.thinking.forced_answers import (
    ForcedAnswerKey,
    ended_within,
    extended_prompt,
    force,
)
from pytest_tokenbudget.studies.thinking.report import thinking_lines
from pytest_tokenbudget.studies.thinking.study import ContinuedTrace, Enforcement, ThinkingStudy
from pytest_tokenbudget.texts.thinking_blocks import Closer, ThinkingFormat

pytest_plugins = ["run_fixtures"]

EVALS = ("--pyargs", "pytest_tokenbudget.evals", "-m", "thinking", *QUIET)
SMALL = ("--thinking-budgets=0,16,32,64", "--answer-tokens=16")
THINK = ThinkingFormat()
BARE = Closer("bare", "\n</think>\n\n")


def codes(text):
    return tuple(map(ord, text))


def trace(text, cap=None, opened=False):
    """A trace of one token a character, with an end-of-sequence token unless it is capped."""
    pieces = [*text, ""] if cap is None else [*text]
    return trace_of("p", pieces, cap or len(pieces), opened=opened)


# --- which prompts are forced ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "budget", "opened", "ended"),
    [
        ("<think>ab</think>cd", 7, False, None),
        ("<think>ab</think>cd", 16, False, None),
        ("<think>ab</think>cd", 17, False, 17),
        ("<think>ab</think>cd", 18, False, 17),
        ("ab</think>cd", 10, True, 10),
        ("ab</think>cd", 0, True, None),
        # It never thinks: there is nothing to end.
        ("just so", 0, False, 0),
        ("just so", 99, False, 0),
        # It will think, but has not begun.
        ("<think>ab</think>cd", 3, False, None),
        # It ended without closing: no engine would act.
        ("<think>ab", 10, False, 10),
        ("<think>ab", 9, False, None),
        # Opened again: what is open at the budget is ended there.
        ("<think>a</think>b<think>c</think>d", 17, False, 16),
        ("<think>a</think>b<think>c</think>d", 24, False, None),
        ("<think>a</think>b<think>c</think>d", 33, False, 33),
    ],
)
def test_what_ended_by_itself_is_not_forced(text, budget, opened, ended):
    assert ended_within(trace(text, opened=opened), budget, THINK) == ended


def test_a_capped_trace_can_be_forced_at_its_cap():
    one = trace("<think>abcdef", cap=12)
    assert ended_within(one, 12, THINK) is None
    branch = force(one, 12, THINK, BARE, codes)
    assert branch.prompt_ids == (1, 2, 3, *one.output_ids, *codes(BARE.text))
    assert branch.kept == 12


def test_a_block_that_is_not_open_yet_is_opened_and_closed():
    one = trace("<think>abc</think>d")
    for budget in (0, 3):
        branch = force(one, budget, THINK, BARE, codes)
        assert branch.prompt_ids == (1, 2, 3, *codes("<think>\n\n</think>\n\n"))
        assert branch.kept == 0
    opened = trace("abc</think>d", opened=True)
    branch = force(opened, 0, THINK, BARE, codes)
    assert branch.prompt_ids == (1, 2, 3, *codes("\n</think>\n\n"))


def test_channels_are_ended_as_channels():
    channels = ThinkingFormat(
        open="<a>", close="<e>", switch=None, answer=("<f>",), repeats=True, closers=(BARE,)
    )
    one = trace("<a>abc<e><f>42<e>")
    assert ended_within(one, 8, channels) is None
    assert ended_within(one, 9, channels) == 9
    assert ended_within(one, 16, channels) == 9


def test_thinking_is_sent_on_where_its_close_tag_was():
    one = trace("<think>ab\n</think>\n\n4")
    branch = extended_prompt(one, THINK, codes("Wait"))
    assert branch.prompt_ids == (1, 2, 3, *one.output_ids[:10], *codes("Wait"))
    assert branch.kept == 10
    assert extended_prompt(trace("<think>ab"), THINK, ()) is None
    assert extended_prompt(trace("no thinking"), THINK, ()) is None


def test_plans_come_back_from_json():
    from fake_engine import make_plan

    forcing = Forcing((0, 32), 16, (BARE,), waits=1, left_out=(64,))
    plan = make_plan(format=THINK, forcing=forcing)
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


# --- studies -----------------------------------------------------------------------------------


def study_of_one(forced_text="#### 100"):
    problem = make_problem(0)
    pieces = ["<think>", *["so "] * 6, "</think>", "####", " ", "100", "\n", ""]
    natural = Study(
        alias="m",
        identity={},
        task=NumberTask(problems=[problem]),
        problems=(problem,),
        traces={(problem.id, 0): trace_of(problem.id, pieces, 40)},
        samples=1,
        thinking=THINK,
        mode="thinking",
        budgets=(4, 16),
        reach=40,
        kind="thinking",
    )
    place = ForcedAnswerKey("bare", 4, problem.id)
    empty = ForcedAnswerKey("bare", 0, problem.id)
    answer = trace_of(problem.id, [*forced_text, ""], 30)
    return ThinkingStudy(
        natural=natural,
        off=None,
        forcing=Forcing((0, 4, 16), 30, (BARE,)),
        wanted=frozenset({place, empty}),
        forced={place: ContinuedTrace(answer, 4), empty: ContinuedTrace(answer, 0)},
        switchable=False,
    )


def test_each_enforcement_is_judged_and_counted():
    study = study_of_one()
    [hard], [forced], [late] = study.hard(4), study.ended(4), study.ended(16)
    assert (hard.judged.outcome, hard.thinking, hard.answer) == ("truncated_in_thinking", 4, 0)
    assert (forced.judged.outcome, forced.thinking, forced.answer) == ("correct", 4, 8)
    assert forced.forced
    assert not late.forced
    assert (late.judged.outcome, late.thinking, late.answer) == ("correct", 8, 4)
    report = analyse_thinking(study)
    assert [p.budget for p in report.points_of(Enforcement.HARD)] == [4, 16]
    assert report.forced(4).token_stats == {
        "avg_tokens": 12.0,
        "max_tokens": 12,
        "truncated_responses": 0,
    }
    assert report.points_of(Enforcement.OFF) == []
    assert report.off is None


def test_thinking_after_the_forced_close_is_counted():
    again = analyse_thinking(study_of_one("<think>hm</think>#### 100")).forced(4)
    assert (again.reopened, again.spilled) == (1, 0)
    assert again.thinking_tokens.mean.value == 4 + 17
    spilled = analyse_thinking(study_of_one("hm</think>#### 100")).forced(4)
    assert (spilled.reopened, spilled.spilled) == (0, 1)
    unclosed = analyse_thinking(study_of_one("<think>hm #### 100")).forced(4)
    assert unclosed.curve.outcomes["no_answer"] == 1


def test_a_problem_without_its_forced_answers_is_missing():
    study = study_of_one()
    study.forced = {}
    assert (study.complete, study.missing) == ((), 1)
    from pytest_tokenbudget.report.json_files import RunInfo

    assert "nothing to show" in "\n".join(thinking_lines(study, RunInfo()))


def test_figures_are_drawn_and_drawn_the_same(tmp_path):
    from pytest_tokenbudget.studies.thinking.figure import thinking_figures

    first = {path.name: path.read_bytes() for path in thinking_figures(study_of_one(), tmp_path)}
    assert sorted(name.split("_m.")[0] for name in first if name.endswith(".png")) == [
        "fig6_thinking_curve",
        "fig7_thinking_tokens",
        "fig8_thinking_usefulness",
    ]
    again = thinking_figures(study_of_one(), tmp_path)
    assert {path.name: path.read_bytes() for path in again} == first


# --- runs --------------------------------------------------------------------------------------


@pytest.fixture
def think(run, quick_figures):
    """A function that runs the thinking eval with the fake model."""

    def suite(*arguments, engines=None, **options):
        engines = engines or Engines(lambda *given: ThinkingEngine())
        return run(*SMALL, *arguments, base=EVALS, engines=engines, **options)

    return suite


def points(folder, model="nano-reasoner"):
    found = read(folder, f"thinking_{model}.json")["points"]
    return {(p["enforcement"], p["closer"], p["budget"]): p for p in found}


def test_what_is_generated_and_what_comes_out(think, run, pytester):
    run("-m", "phase1", base=EVALS[:2], engines=Engines(lambda *given: ThinkingEngine()))
    engines = Engines(lambda *given: ThinkingEngine())
    assert think(engines=engines).parseoutcomes()["passed"] == 11
    # Three problems that think 24, 34 and 44 tokens; thinking off is stored from phase 1. At 0
    # the bare closer is what thinking off renders, so that only the sentence is asked for there.
    natural = [r for r in engines.seen if r.cap == 80]
    assert len(natural) == 3
    forced = [r for r in engines.seen if r.cap == 16]
    assert len(forced) == 3 + 2 * (3 + 2)
    assert len(forced) + len(natural) == len(engines.seen)
    found = points(pytester.path)
    at = {b: found["forced", "bare", b] for b in (0, 16, 32, 64)}
    assert [at[b]["forced"] for b in at] == [3, 3, 2, 0]
    assert [at[b]["accuracy"]["value"] for b in at] == pytest.approx([1, 1 / 3, 1, 1])
    assert found["hard", None, 16]["in_thinking"]["value"] == 1.0
    assert found["hard", None, 64]["accuracy"]["value"] == 1.0
    assert found["off", None, None]["accuracy"]["value"] == 1.0


def test_a_second_run_needs_no_model(think):
    think("--wait=1")
    again = think("--wait=1", engines=NO_ENGINE)
    assert "failed" not in again.parseoutcomes()
    again.stdout.fnmatch_lines(["this run generated no token: all were stored"])
    # Fewer budgets and shorter answers need none either.
    assert "failed" not in think("--thinking-budgets=16", engines=NO_ENGINE).parseoutcomes()


def test_what_was_interrupted_goes_on(think, pytester):
    def stop(request):
        if request.cap == 16 and sum(r.cap == 16 for r in first.seen) >= 5:
            raise KeyboardInterrupt

    first = Engines(lambda *given: ThinkingEngine(stop))
    assert think(engines=first, no_reraise_ctrlc=True).ret == pytest.ExitCode.INTERRUPTED
    second = Engines(lambda *given: ThinkingEngine())
    assert "failed" not in think(engines=second).parseoutcomes()
    generated = [r.key for r in (*first.seen, *second.seen)]
    assert len(generated) == len(set(generated)) == len(rows(pytester.path))


def test_every_field_of_the_results_is_explained(think, pytester):
    think()
    text = (Path(__file__).parents[3] / "docs" / "thinking.md").read_text(encoding="utf-8")
    text += (Path(__file__).parents[3] / "docs" / "saturation.md").read_text(encoding="utf-8")
    record = read(pytester.path, "thinking_nano-reasoner.json")
    at = read(pytester.path, "thinking_nano-reasoner_budget16.json")
    for name in {*record, *record["points"][0], *record["recommended_limits"], *at["answers"][0]}:
        assert f"`{name}`" in text, name
    assert set(record["token_stats"]["forced bare 16"]) == {
        "avg_tokens",
        "max_tokens",
        "truncated_responses",
    }


def test_wait_sends_thinking_on(think, pytester):
    think("--wait=2")
    found = points(pytester.path)
    means = [found["natural", None, None], found["wait", "1", None], found["wait", "2", None]]
    thinking = [p["thinking_tokens"]["mean"]["value"] for p in means]
    # "Wait", four tokens and a line break more each time.
    assert thinking == pytest.approx([thinking[0], thinking[0] + 8, thinking[0] + 17], abs=1.1)


def test_modes_join_under_their_names(think, pytester):
    result = think(
        "--modes=auto,disabled", "--max-thinking-tokens=24", "-v", "--thinking-budgets=32"
    )
    result.stdout.fnmatch_lines(
        ["*::test_accuracy_at_thinking_budget[[]nano-reasoner-32[]] PASSED*"]
    )
    for name in ("auto", "disabled", "explicit"):
        result.stdout.fnmatch_lines([f"*::test_accuracy_in_mode[[]nano-reasoner-{name}[]] PASSED*"])
    result.stdout.no_fnmatch_line("*test_accuracy_in_mode[[]nano-reasoner-on[]]*")
    record = read(pytester.path, "thinking_nano-reasoner.json")
    modes = {m["mode"]: m["tokens"] for m in record["modes"]}
    assert (modes["disabled"], modes["explicit"]) == (0, 24)
    assert set(modes.values()) <= set(record["budgets"])


def test_gates_judge_forced_answers(think):
    result = think("--min-accuracy=16:0.5", "--budgets=16,32")
    assert (result.parseoutcomes()["failed"], result.parseoutcomes()["passed"]) == (1, 10)
    result.stdout.fnmatch_lines(["*accuracy 33.3 %*is below the gate's 50 %*"])


def test_models_that_do_not_think_are_skipped(think, pytester):
    result = think("--model=qwen-0.5b", "-rs", engines=NO_ENGINE)
    assert result.parseoutcomes()["skipped"] == 6
    result.stdout.fnmatch_lines(["*qwen-0.5b has no thinking format*"])
    assert not rows(pytester.path)


def test_a_model_that_always_thinks_has_no_off(think, pytester):
    engines = Engines(lambda *given: ThinkingEngine(opens=True))
    result = think("--model=deepseek-r1-1.5b", "-rs", engines=engines)
    # Off; and four modes whose budgets are above the largest that was asked for.
    assert result.parseoutcomes()["skipped"] == 1 + 1 + 4
    result.stdout.fnmatch_lines(["*cannot be switched off: the template has no switch*"])
    found = points(pytester.path, "deepseek-r1-1.5b")
    assert not [key for key in found if key[0] == "off"]
    assert found["forced", "bare", 0]["thinking_tokens"]["mean"]["value"] == 0


def test_switched_off_that_is_not_off_fails(think):
    engines = Engines(lambda *given: ThinkingEngine(ignores_off=True))
    result = think(engines=engines)
    assert result.parseoutcomes()["failed"] == 1
    result.stdout.fnmatch_lines(["*thinking switched off is not off: the model thought in 3 of 3*"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--closers=bear", "*'bear' is no closer of this model; allowed: bare, sentence, s1*"),
        ("--closers=mine=stop", "*does not close thinking; it needs '</think>'*"),
        ("--max-thinking-tokens=2049", "*--max-thinking-tokens: *2,049*2,048*"),
    ],
)
def test_what_cannot_be_used_says_so_at_once(think, given, said):
    result = think(given, engines=NO_ENGINE)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([said])


def test_a_budget_that_leaves_no_room_for_the_prompt_says_so(think):
    result = think("--max-thinking-tokens=2000")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*--max-thinking-tokens: 2,000 thinking tokens*"])


def test_ones_own_closer(think, pytester):
    think(r"--closers=mine=\nEnough\x2c I say.\n</think>\n\n")
    [closer] = read(pytester.path, "thinking_nano-reasoner.json")["closers"]
    assert closer == {"name": "mine", "text": "\nEnough, I say.\n</think>\n\n"}


def test_the_first_line_and_the_table_say_what_was_forced():
    study = study_of_one()
    report = analyse_thinking(study)
    lines = thinking_lines(study, RunInfo())
    assert "(thinking included)" in " ".join(lines[1:3])
    assert "ended" in lines[3] or "ended" in lines[2]
    closers = [line for line in lines if line.startswith("closer ")]
    for line, point in zip(
        closers, report.points_of(Enforcement.FORCED, study.closers[0]), strict=True
    ):
        assert f" {100 * point.forced / point.curve.problems:.1f} % " in line
    assert all(line.split("]")[1].split()[0] == "-" for line in lines if line.startswith("the cut"))


def test_a_recommended_limit_holds_the_whole_trace():
    """The token that ends the sequence counts, as in every limit."""
    study = study_of_one()
    lengths = [len(trace.output_ids) for trace in study.natural.traces.values()]
    assert analyse_thinking(study).limits.overall.needs.max == max(lengths)


# --- the embedded model ------------------------------------------------------------------------


@pytest.mark.slow
def test_forced_answers_and_cuts_are_the_same_alone(run, pytester, quick_figures):
    from pytest_tokenbudget.core.engine import Decoding, Request
    from pytest_tokenbudget.core.store_tables import unpack
    from pytest_tokenbudget.engines.transformers.engine import TransformersEngine
    from pytest_tokenbudget.models.resolution import load_catalogue, resolve_model

    engines = RealEngines()
    result = run("--thinking-budgets=0,32,96,160", base=EVALS, engines=engines, problems=6)
    assert "failed" not in result.parseoutcomes()
    stored = dict(rows(pytester.path, "key, output_ids"))
    spec = resolve_model("nano-reasoner", load_catalogue())
    alone = TransformersEngine(spec, device="cpu", dtype="float32", batch_size=1)
    forced = [r for r in engines.seen if r.cap == 256]
    assert len(forced) > 12
    for request in forced[::5]:
        [again] = alone.generate([request], Decoding())
        assert again.output_ids == unpack(stored[request.key])
    natural = next(r for r in engines.seen if r.cap == 416)
    [short] = alone.generate([Request("k", natural.prompt_ids, 32)], Decoding())
    assert short.output_ids == unpack(stored[natural.key])[:32]
    found = points(pytester.path)
    for budget in (96, 160):
        hard, bare = found["hard", None, budget], found["forced", "bare", budget]
        assert bare["accuracy"]["value"] >= hard["accuracy"]["value"]


@pytest.mark.slow
def test_workers_share_it_and_get_the_same(run, pytester, quick_figures, tmp_path):
    given = (*EVALS, "--num-samples=4", "--thinking-budgets=32,96", "--closers=bare")
    code, output = finish(start(tmp_path, *given, "-n", "2"))
    assert code == 0, output
    run("--thinking-budgets=32,96", "--closers=bare", base=EVALS, problems=4, engines=RealEngines())
    columns = "key, output_ids, stop_reason"
    assert rows(tmp_path, columns) == rows(pytester.path, columns)
    assert points(tmp_path) == points(pytester.path)
