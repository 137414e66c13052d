"""Installed but unused, the plugin costs next to nothing; the first use starts it."""

import json
import sys

import pytest
from runs import QUIET, finish, read, start

from pytest_tokenbudget import registry

pytest_plugins = ["run_fixtures"]

# What every pytest session loads of this plugin.
LOADED = {
    "pytest_tokenbudget",
    "pytest_tokenbudget.pytest_session.activation",
    "pytest_tokenbudget.collection.eval_fixtures",
    "pytest_tokenbudget.fixtures",
    "pytest_tokenbudget.collection.fixture_helpers",
    "pytest_tokenbudget.registry",
    "pytest_tokenbudget.settings.option_flags",
    "pytest_tokenbudget.settings.baseline_values",
    "pytest_tokenbudget.settings.option_fields",
    "pytest_tokenbudget.settings.option_values",
    "pytest_tokenbudget.settings.options",
    "pytest_tokenbudget.collection",
    "pytest_tokenbudget.common",
    "pytest_tokenbudget.common.extensions",
    "pytest_tokenbudget.common.names",
    "pytest_tokenbudget.common.package_files",
    "pytest_tokenbudget.plugin",
    "pytest_tokenbudget.pytest_session",
    "pytest_tokenbudget.settings",
    "pytest_tokenbudget.settings.locations",
}
# The declarations of the evals, and their fixtures.
LOADED |= {"pytest_tokenbudget.studies"}
for one in registry.registered().evals:
    LOADED |= {one.fixtures, one.fixtures.removesuffix(".fixtures")}
    if one.options is not None:
        LOADED.add(one.options.__module__)
LIST_MODULES = """
import json, sys
import pytest

pytest.main(sys.argv[2:])
with open(sys.argv[1], "w") as file:
    json.dump(sorted(sys.modules), file)
"""


@pytest.fixture
def modules(pytester, no_worker):
    """A function that runs pytest in a process of its own, and gives the modules it loaded."""
    script = pytester.mkdir("script") / "list_modules.py"
    script.write_text(LIST_MODULES)

    def loaded(*arguments) -> set[str]:
        listed = script.with_suffix(".json")
        result = pytester.run(sys.executable, script, listed, *arguments)
        assert "error" not in result.stderr.str().lower()
        return set(json.loads(listed.read_text()))

    return loaded


@pytest.mark.parametrize("arguments", [["--co"], ["--fixtures"]])
def test_an_unrelated_session_loads_a_handful_of_modules(pytester, modules, arguments):
    pytester.makepyfile("def test_it(tmp_path): ...")
    before = {path.name for path in pytester.path.iterdir()}
    arguments = [*arguments, "-p", "no:cacheprovider", "-p", "no:benchmark"]
    added = modules(*arguments) - modules(*arguments, "-p", "no:tokenbudget")
    assert added == LOADED
    after = {path.name for path in pytester.path.iterdir()}
    assert after - {"__pycache__", "stdout", "stderr"} == before


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("pytest.ini", "[pytest]\naddopts = -q\n"),
        ("pyproject.toml", "[tool.ruff]\nline-length = 100\n"),
        ("conftest.py", "import pytest\n@pytest.fixture\ndef model(): return 'car'\n"),
    ],
)
def test_settings_and_fixtures_of_others_are_no_use(pytester, modules, file, text):
    pytester.path.joinpath(file).write_text(text)
    needed = "model" if file == "conftest.py" else "tmp_path"
    pytester.makepyfile(f"def test_it({needed}): ...")
    assert {name for name in modules() if name.startswith("pytest_tokenbudget")} == LOADED


@pytest.mark.parametrize(
    ("arguments", "test"),
    [
        (["--num-samples=3"], "def test_it(): ..."),
        (["-o", "tokenbudget_num_samples=3"], "def test_it(): ..."),
        (["-m", "phase1"], "def test_it(): ..."),
        ([], "def test_it(record_metrics): ..."),
        ([], "import pytest\n@pytest.mark.gpu\ndef test_it(): ..."),
        ([], "def test_it(request): request.getfixturevalue('tokenbudget')"),
    ],
)
def test_what_is_used_is_loaded(pytester, modules, arguments, test):
    pytester.makepyfile(test)
    assert modules(*arguments) >= {
        "pytest_tokenbudget.pytest_session.hooks",
        "pytest_tokenbudget.session",
    }


def test_fixtures_and_markers_are_listed_without_use(pytester, no_worker):
    text = pytester.runpytest_subprocess("--fixtures").stdout.str()
    for name in ("curve", "saturation", "count_tokens", "record_metrics"):
        assert f"\n{name} " in text
    assert "@pytest.mark.phase1:" in pytester.runpytest_subprocess("--markers").stdout.str()


def test_a_controller_learns_of_the_first_use_from_reports(pytester, no_worker):
    pytester.makepyfile(
        """
        def test_first(): ...
        def test_mine(record_metrics): record_metrics(speed=0.5)
        def test_other(record_metrics): record_metrics(speed=0.7)
        """
    )
    code, text = finish(start(pytester.path, *QUIET, "-n", "2"))
    assert code == 0, text
    assert sorted(r["speed"] for r in read(pytester.path, "metrics.json")) == [0.5, 0.7]
    assert "written: reports/results/metrics.json" in text


def test_an_unrelated_session_with_workers_writes_nothing(pytester, no_worker):
    pytester.makepyfile("def test_it(): ...")
    code, text = finish(start(pytester.path, *QUIET, "-n", "2"))
    assert code == 0, text
    assert not (pytester.path / "reports").exists()
    assert "tokenbudget" not in text.replace("tokenbudget-", "")
