"""The workflows of docs/ci, whose commands run as they stand, and what GitHub is told."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import yaml
from runs import environment

from pytest_tokenbudget.gates import Gate, github
from pytest_tokenbudget.gates.unjudged import GateResults, Unjudged
from pytest_tokenbudget.gates.verdicts import GateJudgement
from pytest_tokenbudget.report.github import current_job

pytest_plugins = ["run_fixtures"]

ROOT = Path(__file__).parents[2]
CI = ROOT / "docs" / "ci"
INSTALL = 'python -m pip install "${TOKENBUDGET_SOURCE:?'


def github_commands():
    [job] = yaml.safe_load((CI / "github-actions.yml").read_text("utf-8"))["jobs"].values()
    return [step["run"] for step in job["steps"] if "run" in step]


def gitlab_commands():
    [job] = yaml.safe_load((CI / "gitlab-ci.yml").read_text("utf-8")).values()
    return [*job["before_script"], *job["script"]]


def shell(folder, command, **variables):
    """A command as a runner gives it to its shell, in an environment of the project's own."""
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    return subprocess.run(
        ["bash", "-e", "-c", command],
        cwd=folder,
        env=environment(PATH=path, **variables),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folder = tmp_path_factory.mktemp("repository")
    shutil.copy(CI / "tokenbudget.toml", folder)
    return folder


@pytest.mark.parametrize("commands", [github_commands(), gitlab_commands()])
def test_both_workflows_install_from_where_the_variable_says(repository, commands):
    """This package is not on PyPI."""
    assert len(commands) == 3
    assert commands[0].startswith(INSTALL)
    unset = shell(repository, commands[0])
    assert unset.returncode != 0
    assert "TOKENBUDGET_SOURCE: set this" in unset.stderr
    source = "git+https://example.org/a b.git@0123"
    done = shell(
        repository,
        commands[0].replace("python -m pip install", "printf %s"),
        TOKENBUDGET_SOURCE=source,
    )
    assert done.stdout == source


def test_traces_are_kept_where_gates_fail():
    [job] = yaml.safe_load((CI / "github-actions.yml").read_text("utf-8"))["jobs"].values()
    steps = {step.get("uses", ""): step for step in job["steps"]}
    kept, found = steps["actions/cache/save@v4"], steps["actions/cache/restore@v4"]
    assert kept["if"] == "always()"
    assert kept["with"].items() < found["with"].items()
    [job] = yaml.safe_load((CI / "gitlab-ci.yml").read_text("utf-8")).values()
    assert job["cache"]["when"] == "always"


@pytest.mark.slow
def test_the_commands_of_the_github_workflow(repository):
    summary = repository / "summary.md"
    told = {
        "GITHUB_ACTIONS": "true",
        "GITHUB_WORKSPACE": str(repository),
        "GITHUB_STEP_SUMMARY": str(summary),
    }
    _, listing, judging = github_commands()
    listed = shell(repository, listing, **told)
    assert listed.returncode == 0, listed.stdout
    assert "not shown to be worse.min_accuracy: accuracy >= 80 %" in listed.stdout
    assert not (repository / "reports").exists(), "nothing is generated for that"
    judged = shell(repository, judging, **told)
    assert judged.returncode == 0, judged.stdout
    assert "::error" not in judged.stdout
    assert "| :white_check_mark: | length | nano-reasoner |" in summary.read_text("utf-8")
    assert ET.parse(repository / "junit.xml").getroot().find("testsuite").get("failures") == "0"


@pytest.mark.slow
def test_the_commands_of_the_gitlab_workflow(repository):
    """The traces are there already, as its cache would have them."""
    for command in gitlab_commands()[1:]:
        done = shell(repository, command)
        assert done.returncode == 0, done.stdout
    found = json.loads((repository / "reports/results/gates.json").read_text("utf-8"))
    assert found["kept"] is True
    assert [gate["kept"] for gate in found["gates"]] == [True] * 4


# What GitHub is told

JOB = {
    "GITHUB_ACTIONS": "true",
    "GITHUB_SERVER_URL": "https://github.com",
    "GITHUB_REPOSITORY": "o/r",
    "GITHUB_SHA": "abc123",
    "GITHUB_RUN_ID": "7",
}


def judgement(**changes):
    values = {
        "gate": "release",
        "metric": "min_accuracy",
        "shown": ">= 60 %",
        "model": "m|<b>",
        "task": "t",
        "eval": "saturation",
        "test": "evals/test_saturation.py::test_it",
        "ruling": "failed",
        "sentence": "50 % is,\nbelow: *60*",
    }
    return GateJudgement(**values | changes)


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "tokenbudget.toml").write_text("[[gates]]\n", "utf-8")
    (tmp_path / "evals").mkdir()
    (tmp_path / "evals" / "test_saturation.py").write_text("", "utf-8")
    return tmp_path


def job(checkout, **changes):
    return current_job({**JOB, "GITHUB_WORKSPACE": str(checkout), **changes})


def test_elsewhere_nobody_is_told_anything():
    assert current_job({}) is None
    assert current_job({**JOB, "GITHUB_ACTIONS": ""}) is None


def test_annotations_stand_at_the_gate_or_at_the_test(checkout):
    gate = Gate("release", "min_accuracy", 0.6, file=str(checkout / "tokenbudget.toml"), line=1)
    option = Gate("--min-accuracy 0.6", "min_accuracy", 0.6, option="--min-accuracy")
    elsewhere = Gate("other", "min_accuracy", 0.6, file="/etc/hosts", line=3)
    allowed = judgement(kept=True, ruling="inconclusive", sentence="unclear")
    lines = list(
        github.annotation_lines(
            job(checkout),
            GateResults(
                [gate, option, elsewhere],
                [
                    judgement(),
                    judgement(gate=option.label),
                    allowed,
                    judgement(kept=True, ruling="passed"),
                ],
                [Unjudged(elsewhere, "nobody looked"), Unjudged(gate, "later", fails=False)],
            ),
        )
    )
    assert lines == [
        "::error file=tokenbudget.toml,line=1,title=tokenbudget%3A release::"
        "m|<b>: 50 %25 is,%0Abelow: *60*",
        "::error file=evals/test_saturation.py,title=tokenbudget%3A --min-accuracy 0.6::"
        "m|<b>: 50 %25 is,%0Abelow: *60*",
        "::warning file=tokenbudget.toml,line=1,title=tokenbudget%3A release::unclear",
        "::error title=tokenbudget%3A not judged::other was not judged: nobody looked",
        "::warning file=tokenbudget.toml,line=1,title=tokenbudget%3A not judged::"
        "release was not judged: later",
    ]


def test_the_summary_has_links_and_shows_foreign_text_as_it_is(checkout):
    gate = Gate("release", "min_accuracy", 0.6, file=str(checkout / "tokenbudget.toml"), line=1)
    measured = judgement(
        value=0.5, low=0.4, high=None, n=1234, unit="share", change_unit="share", detectable=0.1
    )
    text = github.summary(job(checkout), GateResults([gate], [measured], []))
    row = next(line for line in text.splitlines() if line.startswith("| :x:"))
    assert row == (
        "| :x: | [release](https://github.com/o/r/blob/abc123/tokenbudget.toml#L1) | "
        r"m\|&lt;b&gt; | saturation | 50.0 % [40.0, -] | &gt;= 60 % | 1,234 | 10.0 points |"
    )
    assert r"- m\|&lt;b&gt;: 50 % is, below: \*60\*" in text
    assert "(https://github.com/o/r/actions/runs/7#artifacts)" in text
    plain = github.summary(job(checkout, GITHUB_SHA=""), GateResults([gate], [measured], []))
    assert "| :x: | release | " in plain


def test_the_summary_adds_to_what_other_steps_wrote(checkout):
    path = checkout / "summary.md"
    path.write_text("before\n", "utf-8")
    here = job(checkout, GITHUB_STEP_SUMMARY=str(path))
    github.write_summary(here, GateResults([], [], []))
    assert path.read_text("utf-8").startswith("before\n## Token budgets: gates: 0 verdicts, none")


@pytest.mark.usefixtures("quick_figures")
def test_a_summary_that_cannot_be_written_is_said(run, pytester, monkeypatch):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(pytester.path / "nowhere" / "summary.md"))
    save = ("--tokenbudget-save", "main")
    result = run("--min-accuracy=0", *save)
    result.assert_outcomes(passed=3)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["gates: verdicts cannot be written: *nowhere*"])
    result = run("--tokenbudget-compare", "main")
    result.stdout.fnmatch_lines(["the job's summary cannot be written: *nowhere*"])
    assert result.ret == pytest.ExitCode.OK
