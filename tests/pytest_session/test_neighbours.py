"""Real plugins with options of the same names, where they are installed: `tox -e neighbours`."""

import importlib.util

import pytest
from runs import QUIET, SUITE, combined, finish, start

pytest_plugins = ["run_fixtures"]


def needs(module: str):
    return pytest.mark.skipif(
        importlib.util.find_spec(module) is None, reason=f"{module} is not installed"
    )


@needs("pytest_base_url")
@pytest.mark.parametrize("workers", [(), ("-n", "1")])
def test_pytest_base_url(pytester, no_worker, workers):
    pytester.makepyfile(
        """
        from pytest_tokenbudget.pytest_session.activation import activate

        def test_it(base_url, pytestconfig):
            assert base_url == "http://site"
            assert activate(pytestconfig).settings.base_url == ("http://server:8000/v1",)
        """
    )
    given = ("--base-url", "http://site", "--tokenbudget-base-url", "http://server:8000/v1")
    result = pytester.runpytest_subprocess(*QUIET, *given, *workers)
    result.assert_outcomes(passed=1)


@needs("pytest_playwright")
def test_pytest_playwright(pytester, no_worker):
    pytester.makepyfile("def test_it(pytestconfig): assert pytestconfig.getoption('--device')")
    pytester.runpytest_subprocess(*QUIET, "--device=iPhone 15").assert_outcomes(passed=1)


@needs("pytest_randomly")
@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_pytest_randomly(pytester, no_worker, workers):
    given = ("--num-samples=3", "--budgets=16,32", "-p", "randomly", "-p", "no:playwright")
    code, text = finish(start(pytester.path, *SUITE, *given, *workers))
    assert code == 0, text
    assert "3 passed" in text
    assert combined(pytester.path)["problems"] == 3
