"""Under ``python -O``, which drops every assert, the same is refused and the same is measured."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from runs import QUIET, combined, environment, finish, start

import pytest_tokenbudget

PACKAGE = Path(pytest_tokenbudget.__file__).parent
NONINFERIOR = '[[gates]]\nmin_accuracy = 0.5\nrule = "noninferior"\n'
REFUSED = [
    (("--task=nosuch",), "", "there is no task 'nosuch'"),
    (("--task=gsm8k=nowhere.jsonl",), "", "there is no file nowhere.jsonl"),
    (("--gate-rule=noninferior", "--min-accuracy=0.5"), "", "noninferior needs a margin"),
    ((), NONINFERIOR, "noninferior needs a margin"),
    ((), f"{NONINFERIOR}margin = 7\n", "margin"),
    ((), "[[gates]]\nmax_mean_tokens = 5\nrule = 'noninferior'\n", "in tokens"),
    ((), "[[gates]]\nmin_accuracy = 2\n", "a share from 0 to 1"),
    ((), "task = 'nosuch'\n", "there is no task 'nosuch'"),
    (("--model=nosuch",), "", "unknown model 'nosuch'"),
    (("--model=qwen3-0.6b", "--closers=nosuch"), "", "'nosuch' is no closer"),
    (("--model=http://127.0.0.1:1/v1", "--engine=vllm"), "", "--engine: vllm"),
    (("--budgets=5000000",), "", "cannot be used with nano-reasoner"),
    (("--cliff-budgets=64",), "", "at least 2"),
    (("--tokenbudget-compare=nosuch",), "", "nothing is saved in"),
    (("--tokenbudget-compare-fail=accuracy:+0.1:nosuch",), "", "nosuch"),
    (("--recorded=nowhere",), "", "nowhere"),
    (("--annotations=nowhere",), "", "there is no directory"),
    (("--generation-config=nowhere.yaml",), "", "cannot be read"),
]


def tells_only_the_type_checker(test: ast.expr) -> bool:
    """Whether an assert's condition is about None or a type, and calls nothing else."""
    match test:
        case ast.BoolOp(values=values):
            return all(map(tells_only_the_type_checker, values))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return tells_only_the_type_checker(operand)
        case ast.Compare(ops=[ast.IsNot()], comparators=[ast.Constant(value=None)]):
            return not any(isinstance(node, ast.Call) for node in ast.walk(test))
        case ast.Call(func=ast.Name(id="isinstance")):
            return sum(isinstance(node, ast.Call) for node in ast.walk(test)) == 1
    return False


def test_no_assert_of_the_package_checks_anything_or_has_an_effect():
    found = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}: {ast.unparse(node)}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assert) and not tells_only_the_type_checker(node.test)
    ]
    assert found == []


RUNS = """
import contextlib, io, json, os, sys
import pytest

assert False, "asserts are not dropped"
for folder, arguments in json.load(sys.stdin):
    os.chdir(folder)
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        code = pytest.main([*arguments, "--rootdir=."])
    print(json.dumps([int(code), said.getvalue()]))
"""


def test_optimized_python_refuses_the_same_input(tmp_path):
    runs = []
    for number, (arguments, settings, _) in enumerate(REFUSED):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "test_one.py").write_text("def test_one(): pass\n")
        (folder / "tokenbudget.toml").write_text(settings)
        runs.append((str(folder), [*QUIET, *arguments]))
    done = subprocess.run(
        [sys.executable, "-O", "-c", RUNS],
        input=json.dumps(runs),
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        timeout=240,
        check=True,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    for (arguments, settings, words), (code, said) in zip(REFUSED, answers, strict=True):
        assert code == pytest.ExitCode.USAGE_ERROR, (arguments, settings, said)
        assert said.startswith("ERROR: "), said
        assert words in said
        assert len(said.strip().splitlines()) == 1, said


@pytest.mark.slow
def test_optimized_python_measures_the_same_values(tmp_path):
    (tmp_path / "test_one.py").write_text(
        "def test_one(curve, errors, gates):\n    gates.check(curve.at(32))\n"
    )
    arguments = ("--num-samples=2", "--budgets=16,32", "--min-accuracy=32:0.9", *QUIET)
    code, text = finish(start(tmp_path, *arguments, PYTHONOPTIMIZE="1"))
    assert code == pytest.ExitCode.TESTS_FAILED, text
    assert "1 failed" in text
    assert "is below the gate's 90 %" in text
    assert combined(tmp_path)["complete"] is True
