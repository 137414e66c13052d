"""Options that an eval of another package declares."""

import pytest
from outside_packages import forget_packages, register

pytest_plugins = ["run_fixtures"]

GARAGE = """
from dataclasses import dataclass

from pytest_tokenbudget.registry import Eval
from pytest_tokenbudget.settings.option_fields import several, switch
from pytest_tokenbudget.settings.option_values import rising


@dataclass(frozen=True)
class GarageOptions:
    wheels: tuple[int, ...] = several(
        "FLAGS", rising(1, "numbers of wheels"), "Wheels of each car.", default="4,3"
    )
    wash: bool = switch("--wash", "Wash it first.")


EVAL = Eval(name="garage", order=500, options=GarageOptions)
"""
LOOKS = """
from garage import GarageOptions

def test_options(tokenbudget):
    found = tokenbudget.settings.of_eval(GarageOptions)
    assert found == GarageOptions(wheels=(3, 6), wash=True)
    assert tokenbudget.settings.wheels == (3, 6)
    assert {"wheels", "wash"} <= tokenbudget.settings.explicit
"""


@pytest.fixture
def run(pytester, monkeypatch, no_worker):
    """A function that runs pytest where the package is installed, with the flags of its option."""
    packages = pytester.mkdir("packages")
    register("garage", {"pytest_tokenbudget.evals": {"garage": "garage:EVAL"}}, packages)
    monkeypatch.syspath_prepend(packages)

    def run_with(flags, *arguments):
        (packages / "garage.py").write_text(GARAGE.replace("FLAGS", flags))
        forget_packages()
        return pytester.runpytest_inprocess("-p", "no:benchmark", *arguments)

    yield run_with
    forget_packages()


def test_options_of_an_eval_are_options_like_all_others(run, pytester):
    pytester.makepyfile(LOOKS)
    (pytester.path / "tokenbudget.toml").write_text("wash = true\n")
    run("--wheels", "--wheels=6", "--wheels=3").assert_outcomes(passed=1)
    (pytester.path / "pytest.ini").write_text("[pytest]\ntokenbudget_wheels = 6,3\n")
    run("--wheels").assert_outcomes(passed=1)
    shown = " ".join(run("--wheels", "--help").stdout.str().split())
    assert "--wheels=WHEELS, --tokenbudget-wheels=WHEELS Wheels of each car." in shown


def test_a_value_that_cannot_be_used_is_told(run, pytester):
    pytester.makepyfile(LOOKS)
    result = run("--wheels", "--wheels=two")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: --wheels: 'two' cannot be used; allowed: numbers of wheels, each a whole number*"]
    )


@pytest.mark.parametrize("flags", ["--seed", "--truncation", "--tokenbudget-seed"])
def test_an_eval_with_an_option_that_is_there_already_is_left_out(run, pytester, flags):
    pytester.makepyfile(
        """
        def test_it(tokenbudget, record_metrics):
            record_metrics(speed=0.5)
            assert tokenbudget.settings.seed == 3
            assert not hasattr(tokenbudget.settings, "wheels")
        """
    )
    result = run(flags, "--seed=3")
    result.assert_outcomes(passed=1)
    told = f"garage cannot be used: garage:EVAL declares the option {flags}, which is there already"
    result.stdout.fnmatch_lines([f"*{told}*"])
