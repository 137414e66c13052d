"""The conformance eval as whole runs: hand-made probes, workers, gates; and the embedded model."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from conformance_probes import BROKEN, LOG, Plugin
from runs import NO_ENGINE, QUIET, RealEngines, finish, read, start

from pytest_tokenbudget.models.resolution import load_catalogue, resolve_model
from pytest_tokenbudget.studies.conformance.budget_methods import BUDGET_METHODS, methods_for
from pytest_tokenbudget.studies.conformance.limits import LIMIT_PROBES

pytest_plugins = ["run_fixtures"]

CONFORMANCE = ("--pyargs", "pytest_tokenbudget.evals", "-m", "conformance", *QUIET)
MEASURED = methods_for("vllm", resolve_model("nano-reasoner", load_catalogue()))
FILE = "conformance_vllm_nano-reasoner.json"
TESTS = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def whole_lines(monkeypatch):
    monkeypatch.setenv("CI", "1")


@pytest.fixture
def probe(run, quick_figures):
    """A function that runs the eval with hand-made probes."""

    def conformance(*arguments):
        return run(*arguments, base=CONFORMANCE, engines=Plugin())

    return conformance


def log() -> list[str]:
    return Path(LOG).read_text(encoding="utf-8").split()


def test_an_ignored_budget_is_a_result_and_passes(probe, pytester):
    result = probe()
    skipped = len(BUDGET_METHODS) - len(MEASURED) + 1  # the gates, as there are none
    result.assert_outcomes(passed=len(LIMIT_PROBES) + len(MEASURED), skipped=skipped)
    result.stdout.fnmatch_lines(["*- nano-reasoner by vllm*", "thinking_token_budget * enforced"])
    found = read(pytester.path, FILE)
    assert [each["probe"] for each in found["limits"]] == list(LIMIT_PROBES)
    assert [each["way"] for each in found["ways"]] == list(MEASURED)
    assert {each["way"] for each in found["not_asked"]} == set(BUDGET_METHODS) - set(MEASURED)
    assert found["complete"] is True
    assert found["missing"] == []
    assert found["model"] == "nano-reasoner"
    assert found["identity"]["quantization"] == "none"
    assert found["summary"]["verdict"] == "enforced"
    figures = {path.name for path in (pytester.path / "reports" / "figures").iterdir()}
    stem = FILE.removesuffix(".json")
    assert figures == {stem + end for end in (".png", ".svg", "_badge.svg", "_badge.json")}, (
        "nothing else is drawn, and no other eval is reported"
    )


def test_a_broken_limit_fails_with_its_sentence(probe, monkeypatch, pytester):
    monkeypatch.setenv(BROKEN, "usage")
    result = probe("-k", "test_limit")
    result.assert_outcomes(passed=len(LIMIT_PROBES) - 1, failed=1)
    result.stdout.fnmatch_lines(["FAILED *test_limit*usage* - Failed: usage: broken"])
    result.stdout.no_fnmatch_line("*Traceback*")
    found = read(pytester.path, FILE)
    assert found["summary"]["limits_by_finding"]["broken"] == ["usage"]
    assert found["complete"] is False, "no way was tried"
    assert found["missing"] == list(BUDGET_METHODS)


@pytest.mark.slow
def test_demands_that_are_kept(probe):
    demands = "limits,enforced,soft,thinking_token_budget:enforced,template-thinking_budget:soft"
    result = probe("--min-conformance", demands)
    assert result.ret == 0
    assert "failed" not in result.parseoutcomes()
    result.stdout.no_fnmatch_line("*was not judged*")
    assert sorted(log()) == sorted([*LIMIT_PROBES, *MEASURED]), "each was made once"


def test_demands_that_are_not(probe, monkeypatch):
    monkeypatch.setenv(BROKEN, "usage")
    demands = (
        "limits,template-thinking_budget:enforced,thinking_tokens_budget:enforced,dashscope:soft"
    )
    result = probe("--min-conformance", demands)
    assert result.parseoutcomes()["failed"] == 3
    result.stdout.fnmatch_lines(
        [
            "FAILED *test_limit*usage* - Failed: usage: broken",
            "FAILED *template-thinking_budget* - Failed: template-thinking_budget was to be "
            "enforced, and is soft: as its evidence says",
            "FAILED *test_gates* - Failed: usage: usage: broken; the gate "
            "thinking_tokens_budget:enforced cannot be judged: there is no such way; *; did you "
            "mean thinking_token_budget?; the gate dashscope:soft cannot be judged: it was not "
            "tried: nobody says that vllm knows it",
        ]
    )


def test_demands_that_nobody_judged_are_named(probe):
    given = ("--min-conformance", "limits,extra_body:soft,soft")
    result = probe("-k", "extra_body", *given)
    result.assert_outcomes(failed=3)
    result.stdout.fnmatch_lines(
        [
            "FAILED gates::--min-conformance limits* was not judged for nano*: call `gates.check(*",
            "FAILED gates::--min-conformance soft* - for the same reason as gates::*limits*",
        ],
        consecutive=True,
    )
    result.stdout.no_fnmatch_line("*gates::--min-conformance extra_body*")


@pytest.mark.usefixtures("quick_figures")
def test_demands_without_the_eval_are_named(run):
    result = run("--min-conformance", "enforced")
    result.stdout.fnmatch_lines(
        ["FAILED gates::--min-conformance enforced - *: no selected test judges it; call `gates*"]
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("enforce", "*allowed: limits, enforced, soft, WAY:enforced, *; did you mean 'enforced'?"),
        ("way:limits", "*allowed: limits, enforced, soft, WAY:enforced, WAY:soft, *"),
        (":soft", "*allowed: limits, enforced, soft, *"),
    ],
)
def test_a_demand_that_means_nothing_ends_the_run(probe, text, words):
    result = probe("--min-conformance", text)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: --min-conformance: '{text}' cannot be used; {words}"])


@pytest.mark.slow
def test_workers_share_what_they_find(pytester):
    """The gates need every result; on whichever worker they run, no probe is made twice."""
    process = start(
        pytester.path,
        *("-p", "conformance_probes", *CONFORMANCE, "-n", "2", "--min-conformance", "enforced"),
        PYTHONPATH=str(TESTS),
    )
    code, text = finish(process)
    assert code == 0, text
    assert sorted(log()) == sorted([*LIMIT_PROBES, *MEASURED])
    found = read(pytester.path, FILE)
    assert found["missing"] == []
    assert [each["way"] for each in found["ways"]] == list(MEASURED)
    assert found["limits"][0]["rate"] == [None, 0.0, 1.0]


def test_models_are_probed_one_after_the_other(run):
    """Each is loaded once."""
    result = run(
        *("--model", "nano-reasoner,qwen-1.5b", "--collect-only", "-q"),
        base=CONFORMANCE,
        engines=NO_ENGINE,
    )
    tests = [line for line in result.outlines if "::" in line]
    named = ["qwen" in test for test in tests]
    assert len(tests) == 2 * (len(LIMIT_PROBES) + len(BUDGET_METHODS) + 1)
    assert named == sorted(named)


def test_what_was_recorded_cannot_be_probed(run, pytester):
    line = {"doc_id": 0, "doc": {"question": "1+1?", "answer": "#### 2"}, "target": "2"}
    line |= {"resps": [["#### 2"]], "arguments": [["1+1?"]]}
    (pytester.path / "samples_gsm8k.jsonl").write_text(json.dumps(line), encoding="utf-8")
    result = run(
        *("--recorded", "samples_gsm8k.jsonl", "--tokenizer", "nano-reasoner"),
        base=CONFORMANCE,
        engines=NO_ENGINE,
    )
    assert result.ret == 0
    assert result.parseoutcomes()["skipped"] == len(LIMIT_PROBES) + len(BUDGET_METHODS) + 1


def test_a_server_that_is_not_there_is_named_once(run):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        given = ("--model", "nano-reasoner", "--base-url", url, "-k", "max_tokens and test_limit")
        result = run(*given, base=CONFORMANCE, engines=RealEngines())
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    shown = result.stdout.str() + result.stderr.str()
    assert shown.count(f"nothing answers at {url}") == 1
    assert "During handling" not in shown


def test_the_embedded_model(run, pytester, quick_figures):
    """Its engine keeps a limit; all the other probes take minutes."""
    limits = run("-k", "max_tokens and test_limit", base=CONFORMANCE, engines=RealEngines())
    limits.assert_outcomes(passed=1)
    found = read(pytester.path, "conformance_transformers_nano-reasoner.json")
    assert found["limits"][0]["finding"] == "kept"
    assert found["engine_version"]
    assert found["context"] == 2048
