"""Evals, engines, tasks and scorers of other packages, installed for sessions of their own."""

import json
import re
from pathlib import Path

import pytest
from outside_packages import DATA, forget_packages, install, register
from runs import QUIET, answers, combined, finish, read, rows, start

pytest_plugins = ["run_fixtures"]

EVAL = ("--pyargs", "tokenbudget_lengths", "-m", "lengths", "--num-samples=6", *QUIET)
# The budget of this eval is no budget of the run.
GATE = '[[gates]]\neval = "lengths"\nbudget = 192\nmin_accuracy = 0.1\n'


@pytest.fixture
def outside(pytester, tmp_path, monkeypatch, no_worker, warm):
    """A function that runs pytest beside packages that are installed in ``site``.

    Sessions run in this process, unless ``process`` asks for one of their own.
    """
    site = tmp_path / "site"
    site.mkdir()
    pytester.makeini("[pytest]\naddopts = --strict-markers\n")

    def run(*arguments, process=False):
        if process:
            return finish(start(run.folder, *arguments, PYTHONPATH=str(site)))
        with monkeypatch.context() as patch:
            patch.syspath_prepend(site)
            forget_packages()
            result = pytester.runpytest_inprocess(*arguments)
        return result.ret, result.stdout.str() + result.stderr.str()

    run.site, run.folder = site, pytester.path
    yield run
    forget_packages()


def gates(folder: Path) -> dict[str, list[tuple[str, int, str]]]:
    return {
        gate["label"]: [(j["eval"], j["budget"], j["ruling"]) for j in gate["judgements"]]
        for gate in read(folder, "gates.json")["gates"]
    }


def check_reports(folder: Path) -> None:
    """The section's files; its longest limit decided how far the traces go."""
    result = read(folder, "lengths_nano-reasoner.json")
    assert result["schema"] == "tokenbudget-lengths/1"
    assert result["problems"] == 6
    assert [point["budget"] for point in result["points"]] == [96, 192]
    assert [point["answers"] for point in result["points"]] == [6, 6]
    assert 0 < result["points"][1]["ended"] <= 6
    for suffix in ("png", "svg"):
        assert (folder / "reports" / "figures" / f"lengths_nano-reasoner.{suffix}").stat().st_size
    assert sorted(record["budget"] for record in read(folder, "metrics.json")) == [96, 192]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [(), pytest.param(("-n", "2"), marks=pytest.mark.slow)])
def test_an_eval_runs_reports_and_is_gated(outside, workers):
    install("outside_eval", outside.site)
    (outside.folder / "tokenbudget.toml").write_text(GATE)
    code, text = outside(*EVAL, *workers, "--budgets=16", process=True)
    assert code == 0, text
    assert "2 passed" in text
    assert "of 6 answers end within 192 tokens" in text
    check_reports(outside.folder)
    assert gates(outside.folder) == {"gate-1.min_accuracy": [("lengths", 192, "passed")]}

    again = (*EVAL, *workers, "--budgets=96,192", "--min-accuracy=0.99")
    code, text = outside(*again, process=bool(workers))
    assert code == 1, text
    assert "1 failed, 1 passed" in text
    assert gates(outside.folder) == {
        "gate-1.min_accuracy": [("lengths", 192, "passed")],
        "--min-accuracy 0.99": [("lengths", 192, "failed")],
    }


def test_an_eval_is_part_of_the_dry_run(outside):
    install("outside_eval", outside.site)
    code, text = outside(*EVAL, "--budgets=16", "--dry-run")
    assert code == 0, text
    assert "6 traces needed, 0 stored, 6 to generate: at most 1,152 tokens" in text
    assert not rows(outside.folder)


def test_an_eval_has_a_marker(outside):
    install("outside_eval", outside.site)
    code, text = outside("--markers")
    assert code == 0
    assert "@pytest.mark.lengths: which share of the answers ends within a limit" in text


PHASE1 = ("--pyargs", "pytest_tokenbudget.evals", "-m", "phase1", "--budgets=16,32", *QUIET)


def test_an_engine_and_a_task(outside):
    install("outside_parts", outside.site)
    code, text = outside(*PHASE1, "--engine=echo", "--task=copying", "--num-samples=6")
    assert code == 0, text
    result = combined(outside.folder)
    assert result["task"] == "copying"
    assert result["identity"]["engine"] == "echo"
    assert not any(answer["correct"] for answer in answers(outside.folder, 16))
    assert all(answer["correct"] for answer in answers(outside.folder, 32))


def test_a_scorer(outside):
    install("outside_parts", outside.site)
    lines = [
        {"question": "blue", "answer": "blue", "scorer": "exact"},
        {"question": "It is 12.", "answer": "12", "scorer": "exact"},
        {"question": "The answer is 12.", "answer": "12", "scorer": "number"},
    ]
    file = outside.folder / "colours.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, text = outside(*PHASE1, "--engine=echo", "--task=colours.jsonl")
    assert code == 0, text
    judged = answers(outside.folder, 32)
    assert [answer["branch"] for answer in judged[:2]] == ["exact", "exact"]
    assert [answer["correct"] for answer in judged] == [True, False, True]
    assert combined(outside.folder)["extractor"].endswith("+exact/1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--engine=eco",), "auto, transformers, vllm, server, echo; did you mean 'echo'?"),
        (("--task=copyin",), "did you mean copying? Allowed are word-problems, "),
        (("--task=copying=x.jsonl",), "copying takes no file"),
        (("--task=x.jsonl",), "\"scorer\" is 'exac', allowed are number, text, exact"),
        (
            ("--engine=echo", "--model=http://127.0.0.1:9/v1"),
            "echo runs models in this process and cannot be used with the server",
        ),
    ],
)
def test_unknown_names_end_the_run_with_those_that_are_allowed(outside, arguments, message):
    install("outside_parts", outside.site)
    line = {"question": "blue", "answer": "blue", "scorer": "exac"}
    (outside.folder / "x.jsonl").write_text(json.dumps(line))
    code, text = outside(*PHASE1, *arguments)
    assert code == 4
    assert message in text
    assert len(text.strip().splitlines()) == 1


BROKEN = {
    "pytest_tokenbudget.evals": {
        "absent": "no_such_module:EVAL",
        "wrong": "broken:VALUE",
        "cliff": "broken:SECOND",
        "budget": "broken:PARAMETER",
        "fixtures": "broken:FIXTURES",
    },
    "pytest_tokenbudget.engines": {"vllm": "broken:VALUE", "bad": "broken:VALUE"},
    "pytest_tokenbudget.tasks": {"games": "broken:VALUE", "gone": "no_such_module:make"},
    "pytest_tokenbudget.scorers": {"text": "broken:VALUE", "loose": "broken:VALUE"},
}
MODULE = """
from pytest_tokenbudget.registry import Eval, Parameter
VALUE = 3
SECOND = Eval(name="cliff", order=1, marker="second", meaning="x")
PARAMETER = Eval(name="a", order=1, parameters={"budget": Parameter("broken:values")})
FIXTURES = Eval(name="b", order=1, fixtures="no_such_module")
"""


@pytest.fixture
def broken(outside):
    """The same beside a package whose entry points are all broken."""
    register("broken-things", BROKEN, outside.site)
    (outside.site / "broken.py").write_text(MODULE)
    return outside


def test_broken_entry_points_are_named_and_nothing_else_fails(broken):
    install("outside_parts", broken.site)
    run = ("--engine=echo", "--task=copying", "--num-samples=2", "--budgets=16,32")
    code, text = broken("--pyargs", "pytest_tokenbudget.evals", "-m", "phase1", *run, *QUIET)
    assert code == 0, text
    assert "3 passed" in text
    said = " ".join(text.split())
    for sentence in (
        "the eval 'absent' of broken-things cannot be used: ModuleNotFoundError: No module named "
        "'no_such_module'",
        "the eval 'wrong' of broken-things cannot be used: broken:VALUE is no registry.Eval",
        "the eval 'cliff' of broken-things cannot be used: broken:SECOND is the second eval of the "
        "name 'cliff'",
        "the eval 'budget' of broken-things cannot be used: broken:PARAMETER declares the "
        "parameter 'budget', which another eval has",
        "the eval 'fixtures' of broken-things cannot be used: ModuleNotFoundError: No module named "
        "'no_such_module'",
        "the engine 'vllm' of broken-things cannot be used: the name is taken",
        "the task 'games' of broken-things cannot be used: the name is taken",
        "the scorer 'text' of broken-things cannot be used: the name is taken",
    ):
        assert sentence in said, text
    assert "'bad'" not in text  # nobody asked for it


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--engine=bad", "the engine 'bad' of broken-things cannot be used: broken:VALUE is no"),
        ("--task=gone", "the task 'gone' of broken-things cannot be used: ModuleNotFoundError:"),
        ("--task=x.jsonl", "the scorer 'loose' of broken-things cannot be used: broken:VALUE is"),
    ],
)
def test_a_broken_entry_point_that_an_option_names_ends_the_run(broken, arguments, message):
    line = {"question": "blue", "answer": "blue", "scorer": "loose"}
    (broken.folder / "x.jsonl").write_text(json.dumps(line))
    code, text = broken(*PHASE1, arguments)
    assert code == 4
    assert message in text
    assert len(text.strip().splitlines()) == 1


PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


def test_the_page_shows_the_files_that_are_tested():
    text = PAGE.read_text(encoding="utf-8")
    shown = dict(re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", text, re.DOTALL))
    there = {
        path.relative_to(DATA).as_posix(): path.read_text(encoding="utf-8")
        for folder in ("outside_eval", "outside_parts")
        for path in (DATA / folder).rglob("*.*")
        if path.suffix in (".py", ".toml")
        and path.parts[-2:] != ("tokenbudget_echo", "__init__.py")
    }
    assert shown == there
    assert len(re.sub(r"```.*?```", "", text, flags=re.DOTALL).split()) < 1_200
