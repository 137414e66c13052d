"""--dry-run: what it promises is never exceeded by the run that follows, and nothing is loaded."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs import NO_ENGINE, QUIET, RealEngines, finish, rows, start
from server_scripted import ScriptedServer

from pytest_tokenbudget import registry
from pytest_tokenbudget.dry_run.memory import memory_of
from pytest_tokenbudget.dry_run.prompt_counts import LengthSource, PromptCounter
from pytest_tokenbudget.models.resolution import load_catalogue, resolve_model
from pytest_tokenbudget.stats.tokens import forecast, forecast_beyond, sum_forecasts
from pytest_tokenbudget.tasks.registry import load_task

pytest_plugins = ["run_fixtures"]

EVALS = ("--pyargs", "pytest_tokenbudget.evals", *QUIET)
PRICE = """
[models.nano-reasoner]
price = { input = 0.5, output = 2, reasoning = 1, currency = "EUR" }
"""


@pytest.fixture(scope="module")
def nano():
    return resolve_model("nano-reasoner", load_catalogue())


@pytest.fixture
def evals(run, quick_figures):
    """A function that runs evals with the real engine, or none where it is a dry run."""

    def of(expression, *arguments, **options):
        engines = NO_ENGINE if "--dry-run" in arguments else RealEngines()
        return run("-m", expression, *arguments, base=EVALS, engines=engines, **options)

    return of


def said(pytester):
    (model,) = json.loads((pytester.path / "reports/results/dry_run.json").read_text())["models"]
    return model


def generated(pytester):
    """Tokens of all traces that there are: what all runs so far have generated."""
    return sum(len(ids) // 4 for (ids,) in rows(pytester.path, "output_ids"))


def test_nothing_is_run_and_nothing_generated(evals, pytester):
    result = evals("phase1", "--dry-run")
    assert result.ret == 0
    result.assert_outcomes(deselected=result.parseoutcomes()["deselected"])
    assert rows(pytester.path) == []
    (part,) = said(pytester)["parts"]
    assert (part["traces"], part["stored"], part["to_generate"]) == (3, 0, 3)
    assert part["at_most_tokens"] == 3 * 32
    assert part["expected_tokens"] is part["expected_seconds"] is part["expected_cost"] is None
    assert part["prompts"] == "counted"
    out = " ".join(result.stdout.str().split())
    assert "3 traces needed, 0 stored, 3 to generate: at most 96 tokens; how many to expect" in out
    assert "memory: 6.8 MiB of weights" in out


@pytest.mark.slow
def test_the_run_that_follows_keeps_the_promise(evals, pytester):
    """Phase 1, its samples, the cliff: a first run, one that extends it, one that adds to it."""
    (pytester.path / "tokenbudget.toml").write_text(PRICE)
    steps = [
        ("phase1", (), {"problems": 2, "budgets": "16,24"}),
        ("phase1", (), {"problems": 3, "budgets": "16,200"}),
        ("phase1b or phase3", ("--samples", "2", "-k", "samples or cliff_window"), {}),
    ]
    more = ("--sample-budgets", "32", "--cliff-budgets", "200,260", "--rootdir", ".")
    before = 0
    for marks, given_, asked in steps:
        sizes = {"problems": 3, "budgets": "16,200", **asked}
        assert evals(marks, *given_, *more, "--dry-run", **sizes).ret == 0
        promise = said(pytester)["together"]
        assert evals(marks, *given_, *more, **sizes).ret == 0
        took = generated(pytester) - before
        assert 0 < took <= promise["at_most"]
        if before:
            assert promise["expected"]["tokens"] <= promise["at_most"]
            assert promise["seconds"] <= promise["most_seconds"]
            assert promise["cost"] <= promise["most_cost"]
        before += took
    # Afterwards everything is there.
    assert evals(marks, *given_, *more, "--dry-run", **sizes).ret == 0
    assert said(pytester)["together"]["at_most"] == 0


def test_traces_that_go_on_are_promised_from_where_they_are(evals, pytester):
    evals("phase1", budgets="8,16")
    evals("phase1", "--dry-run", budgets="8,40")
    (part,) = said(pytester)["parts"]
    assert (part["stored"], part["to_generate"], part["extended"]) == (0, 3, 3)
    assert part["at_most_tokens"] == 3 * (40 - 16)
    assert part["prompts"] == "stored"
    assert part["expected_tokens"]["at_least"]
    evals("phase1", "--dry-run", "--fresh", budgets="8,40")
    (part,) = said(pytester)["parts"]
    assert (part["stored"], part["extended"], part["at_most_tokens"]) == (0, 0, 3 * 40)


@pytest.mark.slow
def test_thinking_keeps_its_promise(evals, pytester):
    options = ("--thinking-budgets", "0,16,32", "--answer-tokens", "24", "--closers", "bare")
    promised, took = [], []
    for problems in (1, 2):
        assert evals("thinking", *options, "--dry-run", problems=problems).ret == 0
        promise = said(pytester)
        kinds = [part["kind"] for part in promise["parts"]]
        assert kinds == ["thinking", "off", "forced"]
        promised.append(promise["together"]["at_most"])
        evals("thinking", *options, problems=problems)
        took.append(generated(pytester) - sum(took))
    assert promised[0] == 56 + 56 + 3 * 24
    # What was thought before tells which forced answers there are; they are stored.
    assert promised[1] == promised[0]
    assert all(0 < one <= most for one, most in zip(took, promised, strict=True))
    evals("thinking", *options, "--dry-run", problems=2)
    assert said(pytester)["together"]["at_most"] == 0


def test_traces_that_two_parts_need_are_promised_once(evals, pytester):
    options = ("--thinking-budgets", "0,16", "--answer-tokens", "16", "--closers", "bare")
    evals("phase1 or thinking", *options, "--dry-run")
    main, _, off, _ = said(pytester)["parts"]
    assert main["at_most_tokens"] == 3 * 32
    # Thinking off asks for the very prompts and as many tokens.
    assert (off["cap"], off["to_generate"], off["at_most_tokens"]) == (32, 0, 0)


def test_context_keeps_its_promise(evals, pytester):
    options = (
        *("--context-turns", "1", "--context-limits", "50%", "--truncation", "newest,summary"),
        *("--answer-tokens", "8"),
    )
    assert evals("context", *options, "--dry-run", problems=1).ret == 0
    promise = said(pytester)
    assert {part["kind"] for part in promise["parts"]} == {"summary", "context"}
    evals("context", *options, problems=1)
    assert 0 < generated(pytester) <= promise["together"]["at_most"]


def test_what_is_known_of_conformance_is_said(evals, pytester):
    result = evals("conformance", "--dry-run")
    assert result.ret == 0
    assert said(pytester)["parts"] == []
    result.stdout.fnmatch_lines(["conformance: its probes are generated anew in every run*"])


def test_what_cannot_be_generated_fails(evals, pytester):
    result = evals("phase1", "--dry-run", "--model", "http://127.0.0.1:9/v1")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    (failure,) = said(pytester)["failures"]
    assert "127.0.0.1:9" in failure
    assert "cannot be generated: " in result.stdout.str()


def test_a_file_that_is_no_trace_store_is_a_sentence(evals, pytester):
    (pytester.path / "notes.txt").write_text("no store")
    result = evals("phase1", "--dry-run", "--trace-store=notes.txt")
    assert result.ret == 1
    assert "INTERNALERROR" not in str(result.stdout)
    (failure,) = said(pytester)["failures"]
    assert "notes.txt is not a trace store" in failure


@pytest.mark.parametrize(
    ("options", "known"),
    [(("--tokenizer", "nano-reasoner"), "counted"), (("--server-api", "chat"), "estimated")],
)
def test_a_server_is_asked_what_it_is_and_nothing_more(evals, pytester, options, known):
    with ScriptedServer() as server:
        (pytester.path / "tokenbudget.toml").write_text(
            f'[models.served]\nbase_url = "{server.url}"\nprice = {{ input = 1, output = 2 }}\n'
        )
        result = evals("phase1", "--dry-run", "--rootdir", ".", "--model", server.url, *options)
        assert server.bodies == []
    assert result.ret == 0
    (part,) = said(pytester)["parts"]
    assert part["prompts"] == known
    assert part["at_most_tokens"] == 3 * 32
    assert part["at_most_cost"] == pytest.approx((part["prompt_tokens"] + 2 * 3 * 32) / 1e6)
    assert said(pytester)["memory"] is None


def test_recorded_answers_need_nothing(evals, pytester):
    answer = {
        "problem_id": "a",
        "question": "2 + 2?",
        "ground_truth": "4",
        "generated": "#### 4",
        "tokens_used": 4,
        "budget": 32,
        "truncated": False,
        "correct": True,
    }
    (pytester.path / "phase1_main_m_budget32.json").write_text(json.dumps([answer]))
    recorded = ("--recorded", "phase1_main_m_budget32.json")
    result = evals("phase1", "--dry-run", *recorded, budgets="32")
    assert result.ret == 0
    assert "nothing is generated" in result.stdout.str()
    assert not (pytester.path / "reports" / "traces.sqlite").exists()


def test_tests_that_need_no_model_are_not_run_either(own, pytester):
    pytester.makepyfile("def test_own():\n    raise AssertionError('run')\n")
    result = own("--dry-run", engines=NO_ENGINE)
    assert result.ret == 0
    assert "no selected test needs a model" in result.stdout.str()


def test_a_collection_that_failed_is_told(own, pytester):
    pytester.makepyfile("import nowhere_to_be_found\n")
    result = own("--dry-run", engines=NO_ENGINE)
    assert result.ret == pytest.ExitCode.INTERRUPTED


NO_TORCH = """
import sys


def pytest_unconfigure(config):
    heavy = [name for name in ("torch", "transformers", "matplotlib", "xdist.workermanage")
             if name in sys.modules]
    print("loaded:", heavy)
"""


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_no_torch_is_imported_and_no_worker_started(tmp_path, workers):
    (tmp_path / "conftest.py").write_text(NO_TORCH)
    process = start(
        tmp_path,
        *EVALS,
        *("-m", " or ".join(name for name in registry.markers() if name != "gpu")),
        *("--dry-run", "--num-samples=2", "--rootdir", ".", "-p", "conftest", *workers),
        PYTHONPATH=str(tmp_path),
    )
    code, output = finish(process)
    assert code == 0, output
    assert "loaded: []" in output
    assert output.count("dry run, nothing is loaded") == 1
    kinds = [part["kind"] for part in json.loads(
        (tmp_path / "reports/results/dry_run.json").read_text())["models"][0]["parts"]
    ]  # fmt: skip
    assert {"main", "stochastic", "thinking", "off", "forced", "context"} <= {*kinds}


def test_prompts_are_counted_as_the_engine_renders_them(nano, warm):
    from pytest_tokenbudget.engines.text import ModelText

    counter, engine = PromptCounter(nano), ModelText(nano)
    assert counter.exact
    for problem in load_task("word-problems").problems(5):
        for thinking in (True, False, None):
            length = counter.length(problem.messages, thinking)
            assert length.known is LengthSource.COUNTED
            assert length.tokens == len(engine.render(problem.messages, thinking).ids)


def test_prompts_without_a_tokenizer_are_estimated(tmp_path, nano):
    from dataclasses import replace

    counter = PromptCounter(replace(nano, source=str(tmp_path)))
    (problem,) = load_task("word-problems").problems(1)
    assert not counter.exact
    length = counter.length(problem.messages, None)
    assert length.known is LengthSource.ESTIMATED
    assert length.tokens > 20


def test_memory_is_that_of_the_estimate(nano):
    from pytest_tokenbudget.engines.loading import load_config
    from pytest_tokenbudget.engines.memory_estimate import estimate_memory

    identity = {"engine": "transformers", "dtype": "float32", "quantization": "none"}
    found = memory_of(nano, identity, prompt=100, cap=500, rows=4, missing=9, device="cpu")
    other = estimate_memory(load_config(nano), budget=500, prompt=100, rows=4, dtype="float32")
    assert found.rows == 4
    assert found.row == other.cache_row + other.working_row
    # But for the table of positions, which is in no file.
    assert found.weights == pytest.approx(other.weights, rel=1e-3)
    assert found.total == found.weights + 4 * found.row


def test_memory_of_other_engines_is_not_told(nano):
    identity = {"engine": "vllm", "dtype": "bfloat16"}
    assert memory_of(nano, identity, prompt=1, cap=1, rows=1, missing=1, device="cpu") is None


# The forecast


def test_forecast_by_hand():
    found = forecast([0, 0], 100, [10, 30, 50], [True] * 3)
    assert found.tokens == pytest.approx(60)
    assert found.low < 60 < found.high <= 200
    assert (found.traces, found.at_least) == (3, False)


def test_a_trace_that_goes_on_is_known_to_be_long():
    # Those beyond 20 are 30 and 50: 10 and 30 more.
    assert forecast([20], 100, [10, 30, 50], [True] * 3).tokens == pytest.approx(20)
    # None was ever longer than 60: it goes on to the cap.
    assert forecast([60], 100, [10, 30, 50], [True] * 3).tokens == pytest.approx(40)


def test_capped_traces_say_at_least():
    assert forecast([0], 100, [10, 50], [True, False]).at_least
    assert not forecast([0], 50, [10, 50], [True, False]).at_least
    assert forecast([0], 100, [], []) is None


def test_beyond_what_is_counted_elsewhere():
    # Beyond 20: 0, 10 and 30 tokens.
    assert forecast_beyond(3, 20, 100, [10, 30, 50], [True] * 3).tokens == pytest.approx(40)
    assert forecast_beyond(3, 60, 100, [10, 30, 50], [True] * 3).tokens == 0


def test_a_sum_is_known_where_all_of_it_is():
    one = forecast([0], 100, [10, 30, 50], [True] * 3)
    assert sum_forecasts([one, None]) is None
    assert sum_forecasts([]) is None
    both = sum_forecasts([one, one])
    assert both.tokens == 2 * one.tokens
    assert both.high - both.tokens == pytest.approx(2**0.5 * (one.high - one.tokens))


@given(
    st.lists(st.integers(0, 200), max_size=9),
    st.lists(st.tuples(st.integers(1, 300), st.booleans()), min_size=1, max_size=9),
)
def test_no_more_is_expected_than_is_allowed(begun, past):
    lengths, ended = zip(*past, strict=True)
    found = forecast(begun, 200, lengths, ended)
    assert 0 <= found.low <= found.tokens * (1 + 1e-9) <= found.high * (1 + 1e-9) + 1e-9
    assert found.high <= sum(200 - start for start in begun)
