"""The words of each eval on the terminal, in one file each.

Everything is read from one recorded run of the embedded model. ``pytest --snapshot-update`` writes
the files again.
"""

from __future__ import annotations

import json

import pytest
from recorded_run import CONFORMANCE, STORE, copy_store, options, output_ids
from runs import QUIET, RealEngines, finish, start
from text_snapshots import TextFile

from pytest_tokenbudget import registry
from pytest_tokenbudget.report.json_files import RunInfo

pytest_plugins = ["run_fixtures"]

PAGES = {
    "saturation": "test_saturation",
    "stochastic": "test_stochastic",
    "errors": "test_error_taxonomy",
    "cliff": "test_cliff",
    "structure": "test_structure",
    "scenarios": "test_scenarios",
    "thinking": "test_thinking",
    "allocation": "test_allocation",
    "context": "test_context",
    "tokenizers": "test_tokenizers",
}
# Runs of these pages show phase 1 too, whose words are in the file of saturation: what their own
# sections begin with.
AFTER_PHASE_1 = {
    "errors": "phase 2: ",
    "cliff": "phase 3: ",
    "structure": "phase 3: ",
    "scenarios": "scenarios of",
}

BEGIN = "what a run says of its results"


class ResultsMark:
    """A plugin that marks where the summary of a session begins."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter):
        terminalreporter.ensure_newline()
        terminalreporter.write_line(BEGIN)


def terminal_section(result: pytest.RunResult) -> str:
    """What a run says of its results, up to the names of the files that it wrote."""
    lines = result.outlines[result.outlines.index(BEGIN) + 1 :]
    end = next(number for number, line in enumerate(lines) if line.startswith("written: "))
    return "\n".join(lines[:end]) + "\n"


@pytest.fixture
def recorded(pytester, no_worker, warm, quick_figures):
    """A function that runs a page of evals on the recorded run."""

    def run(page, *arguments):
        engines = RealEngines()
        result = pytester.runpytest_inprocess(
            *("--pyargs", f"pytest_tokenbudget.evals.{page}", *QUIET, *arguments),
            plugins=[engines, ResultsMark()],
        )
        assert not engines.seen, "something was generated that the recorded run lacks"
        assert "failed" not in result.parseoutcomes()
        return terminal_section(result)

    copy_store(pytester.path)
    return run


@pytest.mark.parametrize("name", PAGES)
def test_terminal_section(recorded, snapshot, name):
    lines = recorded(PAGES[name], *options()).splitlines(keepends=True)
    own = AFTER_PHASE_1.get(name, "")
    begin = next(number for number, line in enumerate(lines) if own in line)
    assert "".join(lines[begin:]) == snapshot(extension_class=TextFile)


def test_terminal_section_of_a_comparison(recorded, snapshot):
    recorded("test_saturation", *options(), "--tokenbudget-save=main")
    fewer = options(num_samples="20", budgets="64,128,200")
    section = recorded("test_baseline", *fewer, "--tokenbudget-compare=main")
    lines = section.splitlines(keepends=True)
    # The section of phase 1 is in a file of its own.
    begin = next(number for number, line in enumerate(lines) if " against 0001_main" in line)
    end = next(number for number, line in enumerate(lines) if line.startswith("moved: "))
    assert "".join(lines[begin:end]) == snapshot(extension_class=TextFile)


def test_terminal_section_of_conformance(snapshot):
    conformance = next(one for one in registry.declarations() if one.name == "conformance")
    records = json.loads(CONFORMANCE.read_text(encoding="utf-8"))
    [report] = registry.load(conformance.records.reports)(records)
    lines = registry.load(conformance.sections[0].lines)(report, RunInfo(), 80)
    assert "\n".join(lines) + "\n" == snapshot(extension_class=TextFile)


@pytest.mark.slow
def test_the_recorded_run_is_what_the_embedded_model_writes(pytester, no_worker):
    """A part of each kind, generated again."""
    few = options(num_samples="6")
    suite = ("--pyargs", "pytest_tokenbudget.evals", "-m", "not conformance", *QUIET, *few)
    code, text = finish(start(pytester.path, *suite))
    assert code == 0, text
    again, recorded = output_ids(pytester.path / "reports" / "traces.sqlite"), output_ids(STORE)
    assert len(again) > 100
    assert again == {key: recorded[key] for key in again}
