"""Phases 1 to 3 in one session: what is generated for which, and what comes out."""

import shutil

import pytest
from recorded_run import copy_store
from recordings import DATA
from runs import NO_ENGINE, QUIET, Engines, combined, read, rows

from pytest_tokenbudget.common.package_files import suite
from pytest_tokenbudget.core.saturation import saturation_point

pytest_plugins = ["run_fixtures"]

EVALS = ("--pyargs", "pytest_tokenbudget.evals", *QUIET)
ORDER = ("saturation", "stochastic", "error_taxonomy", "cliff", "structure")
PHASES = ("-m", "phase1 or phase1b or phase2 or phase3")
ALL = ("--samples=2", "--sample-budgets=16,32", "--cliff-budgets=8,16,24", "--error-samples=16:2")


@pytest.fixture
def whole(run):
    """A function that runs the evals of all phases."""
    return lambda *arguments, **options: run(*ALL, *PHASES, *arguments, base=EVALS, **options)


def test_only_phase_1b_generates_beyond_phase_1(whole, run, pytester, quick_figures):
    engines = Engines()
    result = whole(engines=engines)
    result.assert_outcomes(passed=17, skipped=1)
    shown = [line.split()[0] for line in result.outlines if line.startswith("test_")]
    # Lines about progress come when they come, and a file is then named again after them.
    assert list(dict.fromkeys(shown)) == [f"test_{name}.py" for name in ORDER]
    by_sample = [request.sample for request in engines.seen]
    # Three problems once for phases 1, 2 and 3, and two samples of each for phase 1b.
    assert sorted(by_sample) == [0, 0, 0, 0, 0, 0, 1, 1, 1]
    assert {request.cap for request in engines.seen} == {32}
    again = run(*ALL, "-m", "phase1 or phase2 or phase3", base=EVALS, engines=NO_ENGINE)
    assert "failed" not in again.parseoutcomes()
    third = whole(engines=NO_ENGINE)
    third.stdout.fnmatch_lines(["*all traces are in *: no model is loaded"])


def test_later_phases_alone_take_the_traces_of_phase_1(run, pytester, quick_figures):
    engines = Engines()
    run(*ALL, "-m", "phase3", base=EVALS, engines=engines)
    assert len(engines.seen) == 3
    again = run("-m", "phase1", base=EVALS, engines=NO_ENGINE).parseoutcomes()
    assert again["passed"] == 3
    assert not {"failed", "skipped", "errors"} & set(again)


def test_the_report_computes_nothing_again(run, monkeypatch, quick_figures):
    computed = []

    def watched(*arguments, **options):
        computed.append(1)
        return saturation_point(*arguments, **options)

    monkeypatch.setattr("pytest_tokenbudget.core.saturation.saturation_point", watched)
    for engines in (Engines(), NO_ENGINE):
        run(engines=engines).assert_outcomes(passed=3)
        assert len(computed) == 1
        computed.clear()


def test_the_suite_is_found_where_the_package_has_it():
    assert (suite() / "test_saturation.py").is_file()


def test_phases_run_in_their_order(pytester, no_worker):
    pytester.makepyfile(test_own="import pytest\n@pytest.mark.phase1\ndef test_own(): ...\n")
    result = pytester.runpytest_inprocess("test_own.py", *EVALS, *ALL, "--co", "-q")
    found = [line.split("::")[0].split("/")[-1] for line in result.outlines if "::test_" in line]
    order = ["test_own.py", *(f"test_{name}.py" for name in (*ORDER, "thinking"))]
    assert [name for name in dict.fromkeys(found) if name in order] == order


def test_cliff_budgets_beyond_the_others_are_reached(run, pytester, quick_figures):
    engines = Engines()
    run("-m", "phase1", base=EVALS, engines=engines)
    assert {request.cap for request in engines.seen} == {32}
    more = Engines()
    result = run("-m", "phase3", "--cliff-budgets=24,33,48", base=EVALS, engines=more)
    assert "failed" not in result.parseoutcomes()
    extended = [request for request in more.seen if request.prefix_ids]
    assert extended == more.seen
    assert {request.cap for request in more.seen} <= {48}
    assert combined(pytester.path)["budgets"] == [16, 32]
    results = pytester.path / "reports" / "results"
    assert (results / "phase3_cliff_nano-reasoner_budget48.json").is_file()


@pytest.mark.parametrize(
    ("given", "temperature", "top_p"),
    [
        ([], 0.7, 0.9),
        (["--temperature=1.5"], 1.5, 0.9),
        (["--top-p=0.5"], 0.7, 0.5),
        (["--temperature=1.1", "--top-p=1"], 1.1, 1.0),
    ],
)
def test_phase_1b_has_its_own_noise(run, pytester, quick_figures, given, temperature, top_p):
    run("-m", "phase1b", "--samples=2", "--sample-budgets=16", *given, base=EVALS)
    decoding = read(pytester.path, "phase1b_combined_nano-reasoner.json")["decoding"]
    assert (decoding["temperature"], decoding["top_p"]) == (temperature, top_p)


def test_samples_without_noise_are_refused(run, pytester):
    result = run("-m", "phase1b", "--temperature=0", "--samples=2", base=EVALS)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*--temperature: 0 cannot be used with --samples 2*"])


@pytest.mark.slow
def test_several_models_also_have_one_figure(run, pytester):
    result = run("--model=nano-reasoner,qwen-0.5b", problems=2)
    result.assert_outcomes(passed=6)
    figures = {path.name for path in (pytester.path / "reports" / "figures").iterdir()}
    for name in ("nano-reasoner", "qwen-0.5b", "overlay"):
        assert f"fig1_saturation_curve_{name}.png" in figures
        assert f"fig1_saturation_curve_{name}.svg" in figures


def test_figures_are_drawn_again_without_a_model(run, pytester):
    run()
    figures = pytester.path / "reports" / "figures"
    before = {path.name: path.read_bytes() for path in figures.iterdir()}
    assert len(before) == 2
    shutil.rmtree(figures)
    run(engines=NO_ENGINE)
    assert {path.name: path.read_bytes() for path in figures.iterdir()} == before


def test_recorded_results_are_as_good(run, pytester, quick_figures):
    """All phases on what a run with the embedded model wrote, and the same numbers."""
    copy_store(pytester.path)
    first = run(budgets="64,128,512", problems=6, engines=NO_ENGINE)
    first.assert_outcomes(passed=4)
    was = combined(pytester.path)
    (pytester.path / "reports" / "results").rename(pytester.path / "kept")
    stored = rows(pytester.path)
    result = pytester.runpytest_inprocess(
        *EVALS,
        "-m",
        "phase1 or phase2 or phase3",
        "--recorded=kept",
        "--tokenizer=nano-reasoner",
        plugins=[NO_ENGINE],
    )
    assert "failed" not in result.parseoutcomes()
    again = combined(pytester.path)
    assert again["curve"] == was["curve"]
    assert again["accuracy_by_token"] == was["accuracy_by_token"]
    assert again["source"]["source"] == "recorded"
    assert again["source"]["tokens"]["tokenizer"] == "nano-reasoner"
    result.stdout.fnmatch_lines(["recorded generations (tokenbudget), none was generated"])
    assert rows(pytester.path) == stored


def test_recordings_are_not_written_over(run, pytester, quick_figures):
    run(budgets="16")
    before = (pytester.path / "reports" / "results").stat().st_mtime_ns
    result = run("--recorded=reports/results", engines=NO_ENGINE)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--recorded: *lies where results are written to*--reports*"])
    assert (pytester.path / "reports" / "results").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--recorded=nowhere"], "--recorded: there is no file or directory"),
        (["--annotations=nowhere"], "--annotations: there is no directory "),
        (["--cliff-budgets=96"], "--cliff-budgets: 96 alone has no step"),
        (["--error-samples=128"], "BUDGET:COUNT"),
        (["--error-samples=0:5"], "BUDGET:COUNT"),
        (["--samples=0"], "allowed: a whole number from 1"),
    ],
)
def test_unusable_options_are_named(pytester, no_worker, arguments, words):
    result = pytester.runpytest_inprocess(*EVALS, *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert words in result.stderr.str()


def test_recordings_that_need_a_tokenizer_say_so_without_a_trace(pytester, no_worker):
    result = pytester.runpytest_inprocess(*EVALS, f"--recorded={DATA / 'lm_eval_plain'}")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    output = result.stdout.str()
    assert "give the model's tokenizer with --tokenizer" in output
    assert "selection.py" not in output
