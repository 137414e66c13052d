"""Runs of selected tests: what they cannot judge fails nothing; a whole run stays strict."""

import json

import pytest
from runs import NO_ENGINE, QUIET, Engines, finish, start

pytest_plugins = ["run_fixtures"]
pytestmark = pytest.mark.usefixtures("quick_figures")

WITHOUT_GATES = """
    def test_fits(curve): assert curve.points
    def test_no_answer_is_empty(cuts, curve): assert cuts(curve.budgets[-1])
"""
WITH_GATES = """
    def test_limit(curve, gates): gates.check(curve.at(32))
    def test_no_answer_is_empty(cuts, curve): assert cuts(curve.budgets[-1])
"""
NOT_SELECTED = "not judged in this selection ({}): --min-accuracy 0"


@pytest.fixture(autouse=True)
def whole_lines(monkeypatch):
    monkeypatch.setenv("CI", "1")
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)


@pytest.fixture
def project(pytester):
    """A function that writes settings and the project's test file."""

    def make(settings="min_accuracy = 0\n", test=WITHOUT_GATES, **others):
        (pytester.path / "tokenbudget.toml").write_text(settings, "utf-8")
        pytester.makepyfile(test_llm=test, **others)
        return pytester

    return make


def results(pytester):
    return json.loads((pytester.path / "reports/results/gates.json").read_text("utf-8"))


@pytest.mark.parametrize("test", [WITHOUT_GATES, WITH_GATES], ids=["without", "with"])
@pytest.mark.parametrize(
    ("arguments", "by"),
    [
        (("test_llm.py", "-k", "empty"), "-k 'empty'"),
        (("-k", "empty"), "-k 'empty'"),
        (("test_llm.py::test_no_answer_is_empty",), "tests by name"),
        (("test_llm.py::test_no_answer_is_empty[nano-reasoner]",), "tests by name"),
    ],
)
def test_a_selection_is_no_fault(own, project, test, arguments, by):
    pytester = project(test=test)
    result = own(*arguments)
    result.assert_outcomes(passed=1, deselected=1 if "-k" in arguments else 0)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines([NOT_SELECTED.format(by).replace("[", "[[]")])
    found = results(pytester)
    assert [gate["kept"] for gate in found["gates"]] == [None]
    [[missed]] = [gate["not_judged"] for gate in found["gates"]]
    assert (missed["fails"], missed["selection"]) == (False, by)


@pytest.mark.parametrize(
    ("option", "said"),
    [("--deselect=test_llm.py::test_limit", "its tests are deselected"),
     ("--lf", "--lf")],
)  # fmt: skip
def test_deselected_tests_are_no_fault(own, project, option, said):
    pytester = project(test=WITH_GATES)
    if option == "--lf":
        cache = pytester.path / ".pytest_cache" / "v" / "cache"
        cache.mkdir(parents=True)
        failed = "test_llm.py::test_no_answer_is_empty[nano-reasoner]"
        (cache / "lastfailed").write_text(json.dumps({failed: True}))
    result = own("-p", "cacheprovider", option)
    assert result.ret == pytest.ExitCode.OK
    assert result.parseoutcomes()["passed"] == 1
    result.stdout.fnmatch_lines([NOT_SELECTED.format(said)])


def test_lf_without_earlier_failures_is_a_whole_run(own, project):
    project()
    result = own("-p", "cacheprovider", "--lf")
    result.assert_outcomes(passed=2, failed=1)


@pytest.mark.parametrize("arguments", [(), ("test_llm.py",), ("-m", "not slow"), (".",)])
def test_a_whole_run_stays_strict_and_says_what_to_do(own, project, arguments):
    project()
    result = own(*arguments)
    result.assert_outcomes(passed=2, failed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        ["FAILED gates::--min-accuracy 0 - *judges it; call `gates.check(point)` in a test, "
         "or run `pytest --pyargs pytest_tokenbudget.evals -m phase1`"]
    )  # fmt: skip


def test_what_is_demanded_is_demanded_of_a_selection(own, project):
    pytester = project("min_accuracy = 0\nrequire_all_gates = true\n", WITH_GATES)
    own("-k", "empty").assert_outcomes(passed=1, failed=1, deselected=1)
    project(test=WITH_GATES)
    own("-k", "empty", "--require-all-gates").assert_outcomes(passed=1, failed=1, deselected=1)
    # The same command names a gate and leaves out its test.
    result = own("-k", "empty", "--min-accuracy=0")
    result.assert_outcomes(passed=1, failed=1, deselected=1)
    why = "*-k 'empty' selects some tests only, and --min-accuracy demands a verdict of this run*"
    result.stdout.fnmatch_lines([why])
    (pytester.path / "pytest.ini").write_text("[pytest]\naddopts = --min-accuracy=0\n")
    (pytester.path / "tokenbudget.toml").unlink()
    assert own("-k", "empty").ret == pytest.ExitCode.OK


@pytest.mark.parametrize("gate", ['model = "nano-reasonr"', 'eval = "lm"', 'task = "gsm8"'])
def test_a_misspelt_gate_fails_in_a_selection_too(own, project, gate):
    project(f"[[gates]]\nmin_accuracy = 0\n{gate}\n", WITH_GATES)
    result = own("-k", "empty")
    result.assert_outcomes(passed=1, failed=1, deselected=1)
    result.stdout.fnmatch_lines(["FAILED gates::*did you mean*"])


@pytest.mark.parametrize(
    ("settings", "arguments", "code"),
    [
        ('[[gates]]\neval = "other"\nmin_accuracy = 0\n', ("test_llm.py",), 0),
        ('[[gates]]\neval = "other"\nmin_accuracy = 1\n', ("test_other.py",), 1),
        ('[[gates]]\neval = "other"\nmin_accuracy = 0\n', ("-k", "empty"), 0),
        ('[[gates]]\neval = "othr"\nmin_accuracy = 0\n', ("test_llm.py",), 1),
        ("min_accuracy = 0\n", ("test_llm.py",), 0),
        ("min_accuracy = 1\n", (), 1),
        ("min_accuracy = 0\n", (), 0),
        ("max_truncation = '16:1'\n", (), 1),
        ("max_truncation = '16:1'\n", ("-k", "no_answer"), 0),
    ],
)
def test_files_that_are_not_collected_may_judge_what_these_do_not(
    own, project, settings, arguments, code
):
    project(settings, test_other="def test_limit(curve, gates): gates.check(curve.at(32))")
    assert own(*arguments).ret == code


def test_a_skipped_test_is_no_matter_of_the_selection(own, project):
    project(
        test="""
        import pytest

        @pytest.mark.skip(reason="no time")
        def test_limit(curve, gates): gates.check(curve.at(32))
        def test_limits(curve): pass
        """
    )
    result = own("-k", "limit")
    result.assert_outcomes(passed=1, skipped=1, failed=1)
    result.stdout.fnmatch_lines(["FAILED gates::*was skipped: no time"])


def test_the_suite_is_judged_as_it_is_selected(run, pytester):
    (pytester.path / "tokenbudget.toml").write_text(
        '[[gates]]\neval = "thinking"\nmin_accuracy = 0\n[[gates]]\nmax_truncation = 1\n', "utf-8"
    )
    result = run()
    result.assert_outcomes(passed=3)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        ["not judged in this selection (its tests are deselected): gate-1.min_accuracy"]
    )
    (pytester.path / "tokenbudget.toml").write_text("[[gates]]\nmin_accuracy = 0\nbudget = 48\n")
    result = run()
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["FAILED gates::*at 48 tokens; the nearest is 32"])


@pytest.mark.parametrize("selected", [True, False])
@pytest.mark.slow
def test_workers_tell_what_was_deselected(project, selected):
    pytester = project("[[gates]]\nname = 'limit'\nmin_accuracy = 0\n", WITH_GATES)
    pytester.makepyfile(conftest="def pytest_configure(config): config.addinivalue_line("
                        "'markers', 'quick')")  # fmt: skip
    text = (pytester.path / "test_llm.py").read_text()
    mark = "import pytest\n@pytest.mark.quick\ndef test_no_answer"
    (pytester.path / "test_llm.py").write_text(text.replace("def test_no_answer", mark))
    expression = "quick" if selected else "not quick"
    code, output = finish(
        start(pytester.path, "--num-samples=1", "--budgets=16,32", "-m", expression, "-n", "1",
              *QUIET)
    )  # fmt: skip
    assert code == pytest.ExitCode.OK, output
    assert ("not judged in this selection (its tests are deselected): limit" in output) == selected


def test_the_list_of_gates_tells_a_selection_apart(own, project):
    project(test=WITH_GATES)
    result = own("--tokenbudget-gates", "-k", "empty", engines=NO_ENGINE)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["    not in this selection (-k 'empty'): * is not judged: *"])


def test_a_gate_at_a_budget_of_another_eval_ends_the_run_before_it_generates(own, project):
    project("", WITH_GATES.replace("at(32)", "at(budget)").replace("gates):", "gates, budget):"))
    result = own("--min-accuracy=64:0", engines=NO_ENGINE)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --min-accuracy: '64:0' names budget 64, *nearest is 32"])


@pytest.mark.parametrize("option", ["--min-accuracy=64:0.5", "--max-truncation=16384:0.5"])
def test_a_default_thinking_budget_is_one_that_gates_may_name(run, option):
    base = ("--pyargs", "pytest_tokenbudget.evals", "-m", "thinking", *QUIET)
    thinks = "--model=qwen3-0.6b"
    result = run(option, thinks, "--co", "-q", base=base, budgets="512", engines=NO_ENGINE)
    assert result.ret == pytest.ExitCode.OK
    result = run(option, thinks, "--tokenbudget-gates", base=base, budgets="512", engines=NO_ENGINE)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["    judged by *test_accuracy_at_thinking_budget*"])


@pytest.mark.parametrize("option", ["--setup-plan", "--setup-only", "--fixtures-per-test"])
def test_showing_set_ups_generates_nothing_and_judges_nothing(own, project, option):
    pytester = project(
        test="""
        import pytest

        @pytest.fixture
        def best(curve): return curve.points[-1]
        def test_limit(best, curve, gates): gates.check(best)
        def test_plain(tmp_path): pass
        """
    )
    result = own(option, "--min-accuracy=0.5", engines=NO_ENGINE)
    assert result.ret == pytest.ExitCode.OK
    assert "study" in result.stdout.str()
    assert not (pytester.path / "reports").exists()


def test_a_baseline_is_not_missed_in_a_selection(own, project):
    project("", WITHOUT_GATES)
    pytester = project("compare = 'main'\n", WITHOUT_GATES)
    (pytester.path / "tokenbudget.toml").write_text("")
    own("--pyargs", "pytest_tokenbudget.evals", "-m", "phase1", "--tokenbudget-save=main")
    (pytester.path / "tokenbudget.toml").write_text("compare = 'main'\n")
    result = own("test_llm.py", "-k", "empty", engines=Engines())
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["baseline: not compared in this selection (-k 'empty')"])
    assert own("test_llm.py").ret == pytest.ExitCode.TESTS_FAILED


def test_gates_that_nothing_judges_are_said_once_and_fail_one_by_one(own, project):
    pytester = project("[[gates]]\nmin_accuracy = 0\nmax_truncation = 1\nmax_mean_tokens = 99\n")
    result = own("--junitxml=j.xml")
    result.assert_outcomes(passed=2, failed=3)
    result.stdout.fnmatch_lines(
        [
            "gate-1.min_accuracy was not judged: no selected test judges it; call *",
            "*- 2 more failures for the same reason -*",
            "NOT JUDGED: gate-1.min_accuracy, gate-1.max_truncation, gate-1.max_mean_tokens:",
        ]
    )
    shown = [line for line in result.outlines if "was not judged: no" in line]
    assert len(shown) == 2, "in the list of failures and in the summary's line"
    assert (pytester.path / "j.xml").read_text().count("was not judged: no selected test") >= 3
