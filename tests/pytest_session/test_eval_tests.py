"""Which tests can ask for the plugin's fixtures, and what happens to fixtures that are replaced."""

import importlib
import json
import re
from pathlib import Path

import pytest
from runs import NO_ENGINE, QUIET, Engines, combined, finish, read, start

from pytest_tokenbudget import registry
from pytest_tokenbudget.collection import eval_fixtures

pytest_plugins = ["run_fixtures"]
pytestmark = pytest.mark.usefixtures("quick_figures")

PUBLIC = {
    name
    for module in registry.fixture_modules()
    for name, value in vars(importlib.import_module(module)).items()
    if type(value).__name__ == "FixtureFunctionDefinition" and not name.startswith("_")
}
OPTIONS = {name: each.option for name, each in registry.parameters().items()}
OPTIONS |= eval_fixtures.OPTIONS
GENERIC = sorted(PUBLIC - registry.distinctive())


@pytest.fixture
def elsewhere(pytester, no_worker):
    """A function that runs another project's tests; no model may be loaded."""

    def run(source, *arguments, conftest=None, **options):
        if conftest:
            pytester.makeconftest(conftest)
        pytester.makepyfile(test_elsewhere=source)
        return pytester.runpytest_inprocess(*QUIET, *arguments, plugins=[NO_ENGINE], **options)

    return run


def test_the_names_are_those_of_fixtures():
    assert {n for n in eval_fixtures.fixture_names() if n[0] != "_"} == PUBLIC
    assert registry.distinctive() <= PUBLIC
    assert {"model", "task", "errors", "context", "budget", "structure", "thinking"} <= {*GENERIC}


def test_the_guide_names_them():
    guide = (Path(__file__).parents[2] / "docs" / "guide.md").read_text(encoding="utf-8")
    part = guide.partition("through a fixture of yours:")[2].partition("; or")[0]
    assert set(re.findall(r"`(\w+)`", part)) == registry.distinctive()


# --- a name that nobody defined


def test_a_generic_name_that_nobody_defined_is_missing(elsewhere, pytester):
    tests = "\n".join(f"def test_{name}({name}): ..." for name in GENERIC)
    result = elsewhere(tests + "\ndef test_other(): ...", "-v")
    result.assert_outcomes(errors=len(GENERIC), passed=1)
    text = result.stdout.str()
    for name in GENERIC:
        assert f"::test_{name} ERROR" in text, "run once, with no parameters"
        assert f"fixture '{name}' not found" in text
        assert f"pytest-tokenbudget has a fixture '{name}', for evals only" in text
    assert "@pytest.mark.tokenbudget" in text
    [available] = {line for line in text.splitlines() if "available fixtures:" in line}
    there = available.partition(": ")[2].split(", ")
    assert "tmp_path" in there
    assert not {*GENERIC} & {*there}
    assert not (pytester.path / "reports").exists()


WAYS = """
import unittest
import pytest

@pytest.fixture
def client(model): ...

def test_through_a_fixture(client): ...

@pytest.mark.usefixtures("budget")
def test_by_name(): ...

class TestClass:
    @pytest.fixture(autouse=True)
    def setup(self, task): ...

    def test_autouse(self): ...

class TestUnit(unittest.TestCase):
    @pytest.mark.usefixtures("errors")
    def test_it(self): ...

def test_dynamic(request):
    with pytest.raises(pytest.FixtureLookupError):
        request.getfixturevalue("context")
    request.getfixturevalue("thinking")

def documented():
    '''
    >>> getfixture("structure")
    '''
"""


def test_however_it_is_asked_for(elsewhere):
    result = elsewhere(WAYS, "--doctest-modules")
    result.assert_outcomes(errors=4, failed=2)
    text = result.stdout.str()
    for name in ("model", "budget", "task", "errors", "thinking"):
        assert f"fixture '{name}' not found" in text
        assert f"has a fixture '{name}', for evals only" in text
    assert "def client(model): ..." in text, "pytest shows the chain of fixtures"


def test_another_missing_fixture_is_not_explained(elsewhere):
    result = elsewhere("def test_it(modell): ...")
    result.stdout.fnmatch_lines(["*fixture 'modell' not found*"])
    result.stdout.no_fnmatch_line("*for evals only*")


def test_workers_say_the_same(pytester):
    pytester.makepyfile("def test_it(model): ...\ndef test_that(errors): ...")
    code, output = finish(start(pytester.path, *QUIET, "-n", "2"))
    assert code == pytest.ExitCode.TESTS_FAILED
    for name in ("model", "errors"):
        assert f"fixture '{name}' not found" in output
        assert f"has a fixture '{name}', for evals only" in output


def test_an_eval_beside_it_changes_nothing(own, pytester):
    """Also where the eval was first, so that its fixtures are registered and have values."""
    pytester.makepyfile(
        """
        def test_eval(curve, task, model, budget): ...
        def test_task(task): ...
        def test_dynamic(request): request.getfixturevalue("task")
        def test_model(model): ...
        """
    )
    result = own("-v", budgets="16")
    result.assert_outcomes(passed=1, errors=2, failed=1)
    result.stdout.fnmatch_lines(["*::test_eval[[]nano-reasoner-16[]] PASSED*"])
    result.stdout.fnmatch_lines(["*::test_model ERROR*"])


@pytest.mark.parametrize("marker", ["gpu", "skipif(False, reason='no')", "slow"])
def test_markers_of_other_projects_make_no_eval(elsewhere, pytester, marker):
    source = f"import pytest\n@pytest.mark.{marker}\ndef test_it(model): ..."
    pytester.makeini("[pytest]\nmarkers =\n  gpu: on the graphics card\n  slow: takes long\n")
    elsewhere(source).assert_outcomes(errors=1)


def test_the_list_of_fixtures_is_of_what_can_be_asked_for(elsewhere, pytester):
    def listed(*arguments):
        result = pytester.runpytest_inprocess(*QUIET, "--fixtures", *arguments)
        assert result.ret == 0
        text = result.stdout.str()
        return {name for name in PUBLIC if f"\n{name} " in text}

    elsewhere("def test_it(): ...")
    assert listed() == registry.distinctive()
    pytester.makepyfile(test_mine="def test_it(curve): ...")
    assert listed() == PUBLIC
    assert listed("test_mine.py") == PUBLIC


# --- a name that somebody else defined


def test_a_projects_own_fixtures_win(elsewhere):
    conftest = "import pytest\n" + "\n".join(
        f"@pytest.fixture\ndef {name}(): return 'own {name}'" for name in sorted(PUBLIC)
    )
    tests = "\n".join(f"def test_{n}({n}): assert {n} == 'own {n}'" for n in sorted(PUBLIC))
    elsewhere(tests, conftest=conftest).assert_outcomes(passed=len(PUBLIC))


def test_a_parameter_of_that_name_is_a_parameter(elsewhere):
    source = """
        import pytest

        @pytest.mark.parametrize("study", [1, 2])
        @pytest.mark.parametrize(("curve", "model"), [(3, 4)], indirect=False)
        @pytest.mark.parametrize(argnames=["gates"], argvalues=[[5]])
        def test_it(study, curve, model, gates):
            assert study in (1, 2) and (curve, model, gates) == (3, 4, 5)

        @pytest.mark.parametrize("study", [1])
        def test_model(study, model): ...
    """
    import textwrap

    elsewhere(textwrap.dedent(source)).assert_outcomes(passed=2, errors=1)


PLUGIN = """
import pytest

@pytest.fixture
def context(): return "a browser's"

@pytest.fixture
def study(): return "somebody's"
"""


@pytest.fixture
def other_plugin(pytester, monkeypatch):
    """A plugin installed in the usual way, whose fixtures have names of this one's."""
    pytester.makepyfile(another_plugin=PLUGIN)
    folder = pytester.mkdir("another-1.0.dist-info")
    (folder / "METADATA").write_text("Name: another\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[pytest11]\nanother = another_plugin\n")
    (folder / "RECORD").write_text("another_plugin.py,,\n")
    monkeypatch.syspath_prepend(pytester.path)
    monkeypatch.setenv("PYTHONPATH", str(pytester.path))
    return pytester


@pytest.mark.slow
def test_a_fixture_of_another_plugin(other_plugin):
    """It is what other projects get; an eval gets this plugin's, or no eval could run beside it."""
    other_plugin.makepyfile(
        test_it="""
        import pytest

        def test_other(context, study):
            assert (context, study) == ("a browser's", "somebody's")

        def test_eval(study, curve, record_metrics):
            assert study.curve is curve

        @pytest.mark.tokenbudget
        def test_marked(study):
            assert study.alias == "nano-reasoner"
        """
    )
    given = ("--num-samples=2", "--budgets=16", "test_it.py")
    code, output = finish(start(other_plugin.path, *QUIET, *given))
    assert code == 0, output
    assert "another" in output
    assert "3 passed" in output


# --- evals


def test_what_makes_an_eval(own, pytester):
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.tokenbudget
        def test_marked(model, task, budget):
            assert (model.alias, task.name) == ("nano-reasoner", "word-problems")

        @pytest.mark.phase2
        class TestMarked:
            def test_it(self, errors): ...

        @pytest.fixture
        def accuracy(curve): return curve.points[-1].accuracy

        def test_through_a_fixture(accuracy, model, cuts, budget):
            assert len(cuts(budget)) == accuracy.n

        @pytest.mark.usefixtures("record_metrics")
        def test_by_name(model): ...

        class TestSetUp:
            @pytest.fixture(autouse=True)
            def record(self, record_metrics): self.record = record_metrics

            def test_it(self, model): self.record(alias=model.alias)

        @pytest.mark.tokenbudget
        def test_dynamic(request):
            assert request.getfixturevalue("task").name == "word-problems"
            assert request.getfixturevalue("curve").points

        @pytest.fixture
        def curve(curve): return curve

        def test_wrapped(curve, budget): assert curve.at(budget)
        """
    )
    result = own("-v", budgets="16,32")
    result.assert_outcomes(passed=10)
    for name in ("test_marked[nano-reasoner-16]", "TestSetUp::test_it[nano-reasoner]"):
        assert f"{name} PASSED" in result.stdout.str()


def test_what_a_test_asks_for_by_getfixturevalue(own, pytester):
    pytester.makepyfile(
        """
        def test_record(request): request.getfixturevalue("record_metrics")(speed=0.5)
        def test_curve(request): request.getfixturevalue("curve")
        """
    )
    result = own(engines=NO_ENGINE)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*fixture 'model' not found*", "*@pytest.mark.tokenbudget*"])
    assert [record["speed"] for record in read(pytester.path, "metrics.json")] == [0.5]


def test_unittest_and_doctests_that_are_evals(own, pytester):
    pytester.makeini("[pytest]\nusefixtures = tokenbudget\n")
    pytester.makepyfile(
        """
        import unittest
        import pytest

        class TestUnit(unittest.TestCase):
            @pytest.fixture(autouse=True)
            def setup(self, curve): self.curve = curve

            def test_it(self): assert len(self.curve.points) == 2

        def documented():
            '''
            >>> getfixture("curve").budgets
            (16, 32)
            '''
        """
    )
    own("--doctest-modules").assert_outcomes(passed=2)
    result = own("--doctest-modules", "--model=nano-reasoner,qwen-0.5b", engines=NO_ENGINE)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*there are 2 models*among its arguments, or name one model*"])


def test_parameters_of_an_evals_own_fixtures(own, pytester):
    """Fixtures that only the plugin's lead to are parametrised as all others are."""
    pytester.makeconftest(
        """
        import pytest

        @pytest.fixture(params=[7, 12])
        def budget(request): return request.param
        """
    )
    pytester.makepyfile("def test_it(curve, budget): assert curve.at(budget).budget == budget")
    engines = Engines()
    own(engines=engines).assert_outcomes(passed=2)
    assert {request.cap for request in engines.seen} == {12}


# --- fixtures that are replaced


def replace(pytester, name, body="return 'mine'", where="conftest", scope="session"):
    source = f"import pytest\n@pytest.fixture(scope={scope!r})\ndef {name}(tokenbudget): {body}\n"
    if where == "conftest":
        pytester.makeconftest(source)
        source = "\n"
    pytester.makepyfile(test_mine=source + "def test_it(curve, saturation, gates): ...")


@pytest.mark.parametrize("where", ["conftest", "module"])
def test_another_task_is_refused_with_the_way_that_works(own, pytester, where):
    replace(pytester, "task", where=where)
    result = own("--min-accuracy=0", engines=NO_ENGINE)
    result.assert_outcomes(errors=1, failed=1)
    file = "conftest.py" if where == "conftest" else "test_mine.py"
    result.stdout.fnmatch_lines([f"*the fixture in {file}:2 replaces 'task'*--task*"])
    assert not (pytester.path / "reports" / "traces.sqlite").exists()
    # What it says works.
    (pytester.path / "my.jsonl").write_text(json.dumps({"question": "1+1?", "answer": "2"}))
    pytester.makepyfile(test_mine="def test_it(curve, saturation, gates, task): ...")
    (pytester.path / "conftest.py").write_text("")
    (pytester.path / "tokenbudget.toml").write_text('task = "my.jsonl"\n')
    own("--rootdir=.", problems=1).assert_outcomes(passed=1)
    assert combined(pytester.path)["task"] == "my"


@pytest.mark.parametrize("name", ["task", "model", "budget"])
def test_shipped_evals_refuse_it_too(run, pytester, name):
    replace(pytester, name)
    result = run("--rootdir=.", "-k", "budget", engines=NO_ENGINE)
    assert "passed" not in result.parseoutcomes()
    result.stdout.fnmatch_lines(
        [f"*the fixture in conftest.py:2 replaces '{name}'*{OPTIONS[name]}*"]
    )
    result.stdout.fnmatch_lines(["*--noconftest*"])
    again = run("--rootdir=.", "--noconftest", "-k", "budget").parseoutcomes()
    assert (again["passed"], "errors" in again) == (2, False)


def test_a_replaced_study_is_refused_where_something_is_built_on_it(own, pytester):
    replace(pytester, "study")
    result = own(engines=NO_ENGINE)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*write a fixture of another name that asks for 'study'*"])


def test_gates_do_not_judge_another_curve(own, pytester):
    source = "import pytest\n@pytest.fixture\ndef curve(study): return study.curve\n"
    pytester.makepyfile(test_mine=source + "def test_it(curve, gates): ...")
    own(engines=NO_ENGINE).assert_outcomes(errors=1)
    pytester.makepyfile(test_mine=source + "def test_it(curve, budget): curve.at(budget)")
    own(budgets="16").assert_outcomes(passed=1)


def test_one_that_nothing_is_built_on_is_the_tests_own_affair(own, pytester):
    replace(pytester, "task")
    pytester.makepyfile(test_mine="def test_it(task, record_metrics): assert task == 'mine'")
    own(engines=NO_ENGINE).assert_outcomes(passed=1)
    pytester.makepyfile(
        test_mine="""
        import pytest

        @pytest.fixture
        def errors(): return "own"

        @pytest.fixture
        def task(task): return task

        def test_it(errors, record_metrics): assert errors == "own"
        """
    )
    own(engines=NO_ENGINE).assert_outcomes(passed=1)
    assert not (pytester.path / "reports" / "traces.sqlite").exists()


@pytest.mark.parametrize("indirect", [True, False])
@pytest.mark.parametrize("name", ["task", "model"])
def test_parameters_that_would_change_nothing_are_refused(own, pytester, name, indirect):
    pytester.makepyfile(
        f"""
        import pytest

        @pytest.mark.parametrize({name!r}, ["mine"], indirect={indirect})
        def test_it(curve, {name}): ...
        """
    )
    result = own(engines=NO_ENGINE)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"*'{name}'*--{name}*"])


def test_a_dry_run_says_nothing_of_evals_that_are_refused(own, pytester):
    replace(pytester, "task")
    result = own("--dry-run", engines=NO_ENGINE)
    result.stdout.no_fnmatch_line("*traces to generate*")
