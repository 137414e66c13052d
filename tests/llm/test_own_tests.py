"""The plugin beside other people's tests: those that use it, and those that do not."""

import json
import os
import sqlite3
import xml.etree.ElementTree as ET

import pytest
from fake_engine import FakeEngine
from runs import NO_ENGINE, QUIET, SUITE, Engines, combined, read, rows

from pytest_tokenbudget import registry
from pytest_tokenbudget.core.engine import EngineError

pytest_plugins = ["run_fixtures"]
pytestmark = pytest.mark.usefixtures("quick_figures")


def hook(each):
    """Engines that call ``each`` for every request."""
    return Engines(lambda *given: FakeEngine(each=each))


# Tests that use it


def test_a_test_of_ones_own(own, pytester):
    pytester.makepyfile(
        """
        import numpy

        def test_mine(curve, record_metrics):
            assert curve.budgets == (16, 32)
            record_metrics(curve.at(32), share=numpy.float64(0.5), many=numpy.int64(3),
                           nothing=float("nan"), words="some")
            record_metrics({"second": True})
        """
    )
    engines = Engines()
    result = own("-v", "--junitxml=j.xml", "-o", "junit_family=legacy", engines=engines)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*::test_mine[[]nano-reasoner[]] PASSED*"])
    assert len(engines.seen) == 3
    first, second = read(pytester.path, "metrics.json")
    assert first["test"].endswith("::test_mine[nano-reasoner]")
    assert (first["outcome"], first["budget"], first["share"], first["many"]) == (
        "passed", 32, 0.5, 3,
    )  # fmt: skip
    assert (first["nothing"], first["words"], second["second"]) == (None, "some", True)
    assert first["accuracy"]["value"] == 0.0
    properties = {
        p.get("name"): p.get("value") for p in ET.parse(pytester.path / "j.xml").iter("property")
    }
    assert properties["share"] == "0.5"
    assert properties["accuracy"] == "0.0"
    assert combined(pytester.path)["budgets"] == [16, 32]


def test_everything_that_can_be_asked_for(own, pytester):
    pytester.makepyfile(
        """
        import pytest
        from pytest_tokenbudget.gates import Gates

        @pytest.mark.phase1
        class TestAll:
            def test_it(self, model, task, study, traces, cuts, curve, saturation, gates,
                        tokenbudget, record_metrics):
                assert model.alias == "nano-reasoner"
                assert task.name == "word-problems"
                assert len(traces) == len(study.problems) == len(cuts(16)) == 3
                assert set(traces) == {(p.id, 0) for p in study.problems}
                assert all(j.cut.budget == 16 for j in cuts(16))
                assert curve is study.curve and saturation is study.saturation
                assert isinstance(gates, Gates) and gates.largest == 32
                assert tokenbudget.settings.num_samples == 3

            def test_budget_alone(self, budget):
                assert budget in (16, 32)

        def test_nothing():
            pass
        """
    )
    own("-m", "phase1").assert_outcomes(passed=3, deselected=1)


def test_budgets_of_ones_own(own, pytester):
    """Only what the tests name is generated, and not to the default budgets."""
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("budget", [7, 12])
        def test_mine(curve, budget):
            assert curve.at(budget).max_tokens <= budget

        @pytest.mark.parametrize("budget", [3], indirect=True)
        def test_indirect(curve, budget):
            assert curve.at(budget).max_tokens == 3
        """
    )
    engines = Engines()
    result = own("-v", engines=engines, budgets="16,500")
    result.assert_outcomes(passed=3)
    assert {request.cap for request in engines.seen} == {12}
    result.stdout.fnmatch_lines(["*::test_mine[[]7-nano-reasoner[]] PASSED*"])
    assert combined(pytester.path)["budgets"] == [3, 7, 12]


def test_one_test_of_a_budget_generates_to_that_budget_only(run, pytester):
    first, second, third = Engines(), Engines(), Engines()
    assert run("-k", "16", engines=first).parseoutcomes()["passed"] == 1
    assert {request.cap for request in first.seen} == {16}
    run(engines=second).assert_outcomes(passed=3)
    assert {request.cap for request in second.seen} == {32}
    assert {len(request.prefix_ids) for request in second.seen} == {16}
    short = [key for key, *_, ids in rows(pytester.path) if len(ids) // 4 <= 16]
    assert {request.key for request in second.seen}.isdisjoint(short)
    assert run("-k", "16", engines=NO_ENGINE).parseoutcomes()["passed"] == 1
    # --fresh looks at none of it, and keeps it.
    run("--fresh", engines=third).assert_outcomes(passed=3)
    assert len(third.seen) == len(rows(pytester.path, table="replaced")) == 3
    assert not any(request.prefix_ids for request in third.seen)
    run(engines=NO_ENGINE).assert_outcomes(passed=3)


def test_more_problems_and_another_task_cost_only_what_is_new(run, pytester):
    run(problems=2).assert_outcomes(passed=3)
    engines = Engines()
    run(engines=engines, problems=5).assert_outcomes(passed=3)
    assert len(engines.seen) == 3
    lines = [{"question": f"{i} + {i}?", "answer": str(2 * i)} for i in range(4)]
    (pytester.path / "my.jsonl").write_text("\n".join(map(json.dumps, lines)))
    engines = Engines()
    result = run("--task=my.jsonl", engines=engines, problems=2)
    result.assert_outcomes(passed=3)
    assert len(engines.seen) == 2
    result.stdout.fnmatch_lines(["* on my, n = 2 *"])


def test_skipped_tests_generate_nothing(own, pytester):
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.skip(reason="not now")
        def test_skipped(curve): ...

        @pytest.mark.skipif(True, reason="never here")
        def test_skipped_too(curve): ...
        """
    )
    own(engines=NO_ENGINE).assert_outcomes(skipped=2)
    assert not (pytester.path / "reports").exists()


def test_record_metrics_takes_no_bare_values(own, pytester):
    pytester.makepyfile("def test_mine(record_metrics): record_metrics(0.5)")
    result = own(engines=NO_ENGINE)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*record_metrics takes a dataclass or a mapping, not float*"])


def test_metrics_need_no_model(own, pytester):
    pytester.makepyfile("def test_mine(record_metrics): record_metrics(speed=0.5)")
    own(engines=NO_ENGINE).assert_outcomes(passed=1)
    (record,) = read(pytester.path, "metrics.json")
    assert record["speed"] == 0.5


def test_markers_are_known(pytester, run):
    uses = "".join(f"@pytest.mark.{name}\n" for name in registry.markers() if name != "gpu")
    pytester.makepyfile(f"import pytest\n{uses}def test_it(): ...")
    pytester.runpytest_inprocess(*QUIET, "--strict-markers").assert_outcomes(passed=1)
    text = pytester.runpytest_inprocess("--markers").stdout.str()
    for name, meaning in registry.markers().items():
        assert f"@pytest.mark.{name}: {meaning}" in text
    pytester.makepyfile("import pytest\n@pytest.mark.phase9\ndef test_it(): ...")
    pytester.runpytest_inprocess(*QUIET, "--strict-markers").assert_outcomes(errors=1)


# What goes wrong while a study is made fails its tests, and nothing else


@pytest.fixture
def mixed(pytester):
    pytester.makepyfile(
        """
        def test_one(curve): ...
        def test_two(curve): ...
        def test_other(): ...
        """
    )
    return pytester


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            EngineError("the model is too large"),
            "the model is too large. 3 of 3 traces are missing: run the same command again*",
        ),
        (RuntimeError("a defect"), "*RuntimeError: a defect"),
    ],
)
def test_an_engine_that_fails_fails_the_tests_that_need_it(own, mixed, error, line):
    def each(request):
        raise error

    engines = hook(each)
    result = own(engines=engines)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert result.parseoutcomes()["passed"] == 1
    result.stdout.fnmatch_lines([line])
    result.stdout.no_fnmatch_line("*INTERNALERROR*")
    assert len(engines.seen) == 1, "not tried again for every test"


def test_a_store_that_cannot_be_used_is_named_and_left_alone(own, mixed):
    store = mixed.path / "mine.sqlite"
    db = sqlite3.connect(store)
    db.execute("CREATE TABLE t (x)")
    db.commit()
    db.close()
    before = store.read_bytes()
    result = own("--trace-store=mine.sqlite", engines=NO_ENGINE)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert result.parseoutcomes()["passed"] == 1
    result.stdout.fnmatch_lines(["*mine.sqlite is a SQLite database of another program*"])
    assert store.read_bytes() == before


def test_a_directory_that_cannot_be_written_to_is_named(own, mixed):
    (mixed.path / "file").write_text("")
    result = own("--reports=file")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["trace store */file/traces.sqlite: *--trace-store*"])
    result = own("--reports=file", "--trace-store=t.sqlite")
    result.assert_outcomes(passed=3)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["tokenbudget: reports cannot be written to */file: *"])


def test_reports_that_cannot_be_drawn_hide_no_result(own, mixed, monkeypatch):
    def broken(*given):
        raise ValueError("no ink")

    monkeypatch.setattr("pytest_tokenbudget.studies.saturation.report.saturation_figure", broken)
    result = own()
    result.assert_outcomes(passed=3)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["tokenbudget: reports are not complete: ValueError: no ink"])
    assert combined(mixed.path)["complete"] is True


@pytest.mark.parametrize("done", [1, 2])
def test_ctrl_c_writes_what_there_is_and_the_next_run_goes_on(run, pytester, done):
    def each(request):
        if len(engines.seen) > done:
            raise KeyboardInterrupt

    engines = hook(each)
    result = run(engines=engines, no_reraise_ctrlc=True)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    study = combined(pytester.path)
    assert (study["problems"], study["missing"], study["complete"]) == (done, 3 - done, False)
    result.stdout.fnmatch_lines(["*of 3 problems lack* traces* run the same command again*"])
    before = rows(pytester.path)
    assert len(before) == done
    again = Engines()
    run(engines=again).assert_outcomes(passed=3)
    assert len(again.seen) == 3 - done
    assert set(before) <= set(rows(pytester.path))
    assert combined(pytester.path)["complete"] is True


# Tests that do not use it


UNRELATED = """
import unittest
import pytest

NAMES = ("model", "budget", "task", "curve", "study", "traces", "cuts", "gates", "saturation")

@pytest.fixture(params=["car", "plane"])
def model(request):
    return request.param

@pytest.fixture
def budget(model):
    return 100 if model == "car" else 9000

@pytest.fixture
def task(): return "drive"

@pytest.fixture
def curve(task): return (task, "left")

@pytest.fixture
def record_metrics(): return print

def test_fixtures(model, budget, task, curve, record_metrics):
    assert budget == {"car": 100, "plane": 9000}[model]
    assert (task, curve) == ("drive", ("drive", "left"))

@pytest.mark.parametrize("model", ["a", "b"])
@pytest.mark.parametrize("budget", [1, 2])
def test_parameters(model, budget):
    assert model in "ab" and budget in (1, 2)

@pytest.mark.parametrize(("model", "task"), [("x", 1)])
class TestClass:
    def test_it(self, model, task):
        assert (model, task) == ("x", 1)

def pytest_generate_tests(metafunc):
    if "gates" in metafunc.fixturenames:
        metafunc.parametrize(("gates", "model", "study"), [(1, 2, 3)])

def test_generated(gates, model, study):
    assert (gates, model, study) == (1, 2, 3)

class TestUnit(unittest.TestCase):
    def test_it(self):
        self.assertTrue(True)
"""


@pytest.mark.parametrize("where", ["module", "conftest"])
def test_an_unrelated_project_is_undisturbed(pytester, no_worker, where):
    if where == "module":
        pytester.makepyfile(UNRELATED)
    else:
        head, tail = UNRELATED.split("def test_fixtures")
        pytester.makeconftest(head)
        pytester.makepyfile("import unittest, pytest\ndef test_fixtures" + tail)
    before = sorted(p.name for p in pytester.path.iterdir())
    with_plugin = pytester.runpytest_inprocess("-v", *QUIET, plugins=[NO_ENGINE])
    with_plugin.assert_outcomes(passed=9)
    lines = [line for line in with_plugin.outlines if not line.startswith("plugins:")]
    assert not [line for line in lines if "tokenbudget" in line and "Warning" not in line]
    after = sorted(p.name for p in pytester.path.iterdir() if p.name != "__pycache__")
    assert after == before
    without = pytester.runpytest_inprocess("-v", *QUIET, "-p", "no:tokenbudget")
    assert [x for x in without.outlines if "::" in x] == [x for x in lines if "::" in x]


def test_a_session_that_does_not_use_it_leaves_the_store_closed(run, pytester):
    run().assert_outcomes(passed=3)
    reports = pytester.path / "reports"
    for path in reports.rglob("*"):
        os.utime(path, (1e9, 1e9))
    store = reports / "traces.sqlite"
    store.write_bytes(b"damaged since")
    os.utime(store, (1e9, 1e9))
    pytester.makepyfile("def test_it(): ...")
    result = pytester.runpytest_inprocess(*QUIET)
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*traces.sqlite*")
    assert not [p for p in reports.rglob("*.*") if p.is_file() and p.stat().st_mtime != 1e9]


def test_collecting_the_suite_makes_nothing(run, pytester):
    before = sorted(pytester.path.iterdir())
    result = run("--co", "-q", engines=NO_ENGINE)
    assert result.outlines[:3] == [
        "test_saturation.py::test_accuracy_at_budget[nano-reasoner-16]",
        "test_saturation.py::test_accuracy_at_budget[nano-reasoner-32]",
        "test_saturation.py::test_saturation_point[nano-reasoner]",
    ]
    assert sorted(pytester.path.iterdir()) == before


def test_a_broken_catalogue_fails_who_needs_a_model_and_nobody_else(pytester, no_worker):
    (pytester.path / "tokenbudget.toml").write_text("[models.mine]\nid = 'no'\n")
    pytester.makepyfile("def test_it(): ...")
    pytester.runpytest_inprocess(*QUIET, "--rootdir=.").assert_outcomes(passed=1)
    result = pytester.runpytest_inprocess(*SUITE, "--rootdir=.")
    assert result.ret != pytest.ExitCode.OK
    assert "models.mine" in result.stdout.str() + result.stderr.str()
    assert "INTERNALERROR" not in result.stdout.str()
