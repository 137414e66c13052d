"""Results that cannot be written, and defects while they are written, fail the run."""

import errno
import importlib
import os

import pytest
from fake_engine import FakeEngine
from runs import QUIET, Engines, finish, start

pytest_plugins = ["run_fixtures"]

TEST = "def test_mine(curve, gates): gates.check(curve.at(32))"


@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
@pytest.mark.slow
def test_a_directory_in_the_way_fails_the_run_and_is_named_once(pytester, workers):
    pytester.makepyfile(TEST)
    results = pytester.path / "blocked" / "results"
    results.joinpath("phase1_combined_nano-reasoner.json").mkdir(parents=True)
    code, text = finish(
        start(
            pytester.path,
            *("--num-samples=1", "--budgets=32", "--trace-store=t.sqlite"),
            *("--reports=blocked", *workers, *QUIET),
        )
    )
    assert code == pytest.ExitCode.TESTS_FAILED, text
    assert "1 passed" in text
    assert text.count("reports cannot be written to") == 1
    assert "blocked: Is a directory (" in text
    assert "Traceback" not in text


def test_a_full_disk_fails_the_run_and_is_said_once(own, pytester, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    pytester.makepyfile(TEST)
    result = own("--min-accuracy=0")
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    said = [line for line in result.outlines if os.strerror(errno.ENOSPC) in line]
    assert [line.partition(":")[0] for line in said] == ["tokenbudget", "gates"]


@pytest.mark.usefixtures("quick_figures")
@pytest.mark.parametrize(
    ("broken", "line"),
    [
        ("studies.saturation.report.saturation_figure", "tokenbudget: reports are not complete"),
        ("studies.saturation.report.saturation_lines", "tokenbudget: reports are not complete"),
        ("report.json_files.RunInfo", "tokenbudget: reports are not complete"),
        ("gates.report.write_gates", "gates: verdicts are not complete"),
        ("gates.report.gate_lines", "gates: verdicts are not complete"),
    ],
)
def test_a_defect_fails_the_run_and_has_its_traceback_in_verbose_runs(
    own, pytester, monkeypatch, broken, line
):
    def defect(*given, **named):
        raise RuntimeError("a defect")

    module, _, name = broken.rpartition(".")
    # Not by the whole path: what pytester has forgotten is still an attribute of its package.
    module = importlib.import_module(f"pytest_tokenbudget.{module}")
    pytester.makepyfile(TEST)
    assert own("--min-accuracy=0").ret == pytest.ExitCode.OK
    monkeypatch.setattr(module, name, defect)
    result = own("--min-accuracy=0")
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([f"{line}: RuntimeError: a defect", "*-v shows the traceback"])
    for words in ("Traceback*", "*INTERNALERROR*"):
        result.stdout.no_fnmatch_line(words)
    result = own("--min-accuracy=0", "-v")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["Traceback*", '*raise RuntimeError("a defect")'])


@pytest.mark.usefixtures("quick_figures")
def test_an_interrupted_run_stays_one(own, pytester):
    asked = []

    def interrupt(request):
        asked.append(request)
        if len(asked) > 1:
            raise KeyboardInterrupt

    pytester.makepyfile(TEST)
    pytester.path.joinpath("reports").write_text("a file in the way")
    engines = Engines(lambda *given: FakeEngine(each=interrupt))
    result = own("--trace-store=t.sqlite", engines=engines, no_reraise_ctrlc=True)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["tokenbudget: reports cannot be written to */reports: *"])
