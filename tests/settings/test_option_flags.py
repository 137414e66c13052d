"""Names of options beside other plugins and conftest.py files that have the same ones."""

import sys

import pytest
from all_options import OPTIONS
from runs import NANO, QUIET, SUITE, Engines, combined, finish, start
from slow_cases import slow

from pytest_tokenbudget.settings.option_flags import TAKEN, working_names

pytest_plugins = ["run_fixtures"]

NEIGHBOUR = """
def pytest_addoption(parser):
    group = parser.getgroup("garage")
    group.addoption("--model", default="car", help="Which car.")
    group.addoption("--fresh", action="store_true", help="Wash it first.")
    parser.addoption("--dtype", action="append", default=[], help="Kind of date.")
"""
# What is theirs and what is ours, looked at where the test runs: in a worker, if there are workers.
LOOKS = """
from pathlib import Path
from pytest_tokenbudget.pytest_session.activation import activate

def test_options(pytestconfig):
    assert pytestconfig.getoption("--model") == "bike"
    assert pytestconfig.getoption("model") == "bike"
    assert pytestconfig.getoption("--fresh") is True
    assert pytestconfig.getoption("--dtype") == ["date"]
    settings = activate(pytestconfig).settings
    assert settings.models == ("NANO", "nano-reasoner")
    assert (settings.dtype, settings.fresh, settings.num_samples) == ("float32", False, 3)
    assert pytestconfig.getoption("--num-samples") == "3"
""".replace("NANO", str(NANO))
GIVEN = (
    *("--model", "bike", "--fresh", "--dtype=date"),
    # By its directory, as the controller of workers looks for models of the hub.
    *("--tokenbudget-model", str(NANO), "--tokenbudget-model=nano-reasoner"),
    *("--tokenbudget-dtype=float32", "--num-samples", "3"),
)


def entry_point(folder, module: str) -> None:
    """Install a plugin of one module in a folder of packages."""
    info = folder / "garage-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: garage\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[pytest11]\ngarage = {module}\n")


@pytest.fixture(params=["plugin", "entry point before", "entry point after", "conftest"])
def neighbour(request, pytester, monkeypatch, no_worker):
    """Arguments for a session with a neighbour that is registered before this plugin or later."""
    how = request.param
    if how == "conftest":
        pytester.makeconftest(NEIGHBOUR)
        pytester.makepyfile(LOOKS)
        return ()
    packages = pytester.mkdir("packages")
    (packages / "garage.py").write_text(NEIGHBOUR)
    pytester.makepyfile(LOOKS)
    monkeypatch.setenv("PYTHONPATH", str(packages))
    if how == "plugin":
        return ("-p", "garage")
    entry_point(packages, "garage")
    if how == "entry point after":
        # The last directory in which distributions are looked for.
        monkeypatch.setenv("PYTHONPATH", "")
        monkeypatch.setenv("LATE_PACKAGES", str(packages))
    return ()


RUN = """
import os, sys
if late := os.environ.get("LATE_PACKAGES"):
    sys.path.append(late)
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("workers", [(), slow(("-n", "1"))])
def test_an_option_of_another_plugin_wins_and_ours_keeps_its_long_name(
    pytester, neighbour, workers
):
    if workers:
        pytest.importorskip("xdist")
    script = pytester.mkdir("script") / "run.py"
    script.write_text(RUN)
    result = pytester.run(sys.executable, script, *QUIET, *GIVEN, *workers, *neighbour)
    result.assert_outcomes(passed=1)


def test_help_shows_both_names_and_only_the_long_one_of_what_is_taken(pytester, no_worker):
    text = " ".join(pytester.runpytest_inprocess("--help").stdout.str().split())
    for option in OPTIONS:
        for name in (*option.flags, option.long):
            assert f" {name}" in text
    assert "--model=MODEL, --tokenbudget-model=MODEL" in text
    pytester.makeconftest(NEIGHBOUR)
    text = " ".join(pytester.runpytest_inprocess("--help").stdout.str().split())
    assert "--model=MODEL, --tokenbudget-model=MODEL" not in text
    assert "--tokenbudget-model=MODEL Alias" in text
    assert "--model=MODEL Which car." in text


def test_long_names_alone_stay_in_the_parser(pytester, no_worker):
    config = pytester.parseconfigure(*QUIET)
    names = set(config._parser.optparser._option_string_actions)
    for option in OPTIONS:
        assert option.long in names
        assert option.long.startswith("--tokenbudget-")
        assert not names & set(option.short) - set(config.stash[TAKEN])
    config._ensure_unconfigure()


def test_a_conftest_below_may_register_the_same_names(pytester, no_worker):
    below = pytester.mkpydir("below")
    (below / "conftest.py").write_text(NEIGHBOUR)
    (below / "test_below.py").write_text(
        "def test_it(pytestconfig): assert pytestconfig.getoption('--model') == 'car'"
    )
    result = pytester.runpytest_inprocess(*QUIET, "--num-samples=3")
    result.assert_outcomes(passed=1)


def test_a_conftest_may_load_the_plugin(pytester, no_worker, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeconftest("pytest_plugins = ['pytest_tokenbudget.plugin']")
    pytester.makepyfile(
        """
        from pytest_tokenbudget.pytest_session.activation import activate

        def test_it(pytestconfig):
            assert activate(pytestconfig).settings.num_samples == 3
        """
    )
    pytester.runpytest_subprocess("--num-samples", "3").assert_outcomes(passed=1)


@pytest.mark.parametrize("name", ["--tokenbudget-mod", "--mode", "--tokenbudget-num-sample"])
def test_names_are_not_abbreviated(pytester, no_worker, name):
    result = pytester.runpytest_inprocess(f"{name}=nano-reasoner")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"unrecognized arguments: {name}" in result.stderr.str()


def test_both_names_add_up_and_a_file_of_arguments_has_them_too(pytester, no_worker):
    (pytester.path / "arguments").write_text("--model=a\n--tokenbudget-model=b\n--budgets=64\n")
    config = pytester.parseconfig("@arguments", "--model=c", "--tokenbudget-budgets=32")
    assert config.getoption("tokenbudget_model") == ["a", "b", "c"]
    assert config.getoption("--budgets") == ["64", "32"]


def test_values_of_options_are_no_places_of_conftest_files(pytester, no_worker, monkeypatch):
    other = pytester.mkdir("other")
    (other / "conftest.py").write_text("raise RuntimeError('not to be loaded')")
    mine = pytester.mkdir("mine")
    (mine / "test_mine.py").write_text("def test_it(): ...")
    monkeypatch.chdir(mine)
    pytester.runpytest_inprocess(*QUIET, "--reports", "../other").assert_outcomes(passed=1)


# What is said of it


def taken(pytester) -> None:
    pytester.makeconftest(NEIGHBOUR)


def test_usage_errors_name_the_option_that_works(pytester, no_worker):
    taken(pytester)
    result = pytester.runpytest_inprocess("--tokenbudget-model=nano")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "ERROR: --tokenbudget-model: " in result.stderr.str()
    result = pytester.runpytest_inprocess("--tokenbudget-dtype=half", "--tokenbudget-num-samples=0")
    assert "ERROR: --num-samples: " in result.stderr.str()
    result = pytester.runpytest_inprocess("--tokenbudget-dtype=half")
    assert "ERROR: --tokenbudget-dtype: 'half'" in result.stderr.str()


@pytest.mark.parametrize("workers", [(), ("-n", "1")])
@pytest.mark.slow
def test_an_eval_says_that_a_value_went_to_somebody_else(pytester, run, workers):
    taken(pytester)
    arguments = ("--model=qwen-1.5b", "--dtype=bfloat16", *workers)
    if workers:
        pytest.importorskip("xdist")
        given = ("--num-samples=3", "--budgets=16,32", *arguments)
        code, text = finish(start(pytester.path, *SUITE, *given))
        assert code == 0, text
    else:
        result = run(*arguments, engines=Engines())
        result.assert_outcomes(passed=3)
        text = result.stdout.str()
    text = " ".join(text.split())
    for short in ("--model", "--dtype"):
        line = f"{short} is an option of another plugin or a conftest.py in this session"
        assert line in text
        assert f"use --tokenbudget-{short[2:]}" in text
        # While traces are generated, and below the results.
        assert text.count(f"tokenbudget: {line}") == 2
        assert f"--tokenbudget-{short[2:]} is an option" not in text
    assert "--fresh is" not in text
    assert combined(pytester.path)["model"] == "nano-reasoner"


def test_a_dry_run_says_it_too(pytester, run):
    taken(pytester)
    text = run("--model=qwen-1.5b", "--dry-run").stdout.str()
    assert "tokenbudget: --model is an option of another plugin" in text
    assert "nano-reasoner: dry run" in text


def test_a_session_without_evals_says_nothing(pytester, no_worker):
    taken(pytester)
    pytester.makepyfile("def test_it(): ...")
    result = pytester.runpytest_inprocess(*QUIET, "--model=qwen-1.5b", "--num-samples=3")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*another plugin*")


def test_reasons_of_failures_name_the_option_that_works(pytester, run):
    pytester.makeconftest("def pytest_addoption(parser): parser.addoption('--budgets')")
    result = run("--tokenbudget-budgets=2040", budgets="16", problems=2)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    text = " ".join(result.stdout.str().split())
    assert "Choose smaller --tokenbudget-budgets" in text
    assert "smaller --budgets" not in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("--model: 'x'", "--tokenbudget-model: 'x'"),
        ("use --model, or --models", "use --tokenbudget-model, or --models"),
        ("--tokenbudget-model and --my--model", "--tokenbudget-model and --my--model"),
        ("(--model=NAME)", "(--tokenbudget-model=NAME)"),
        ("``--model-x`` --dtype", "``--model-x`` --tokenbudget-dtype"),
    ],
)
def test_only_whole_names_are_replaced(pytester, no_worker, text, shown):
    taken(pytester)
    assert working_names(pytester.parseconfig(), text) == shown
