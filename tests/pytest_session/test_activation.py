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
# One process imports pytest, and every session is a copy of it: that takes half the time.
LIST_MODULES = """
import json, os, sys
import pytest

def list_modules(folder, arguments):
    os.chdir(folder)
    pytest.main(arguments)
    with open(os.path.join(folder, "modules.json"), "w") as file:
        json.dump(sorted(sys.modules), file)

for folder, arguments in json.loads(sys.argv[1]):
    if os.fork() == 0:
        list_modules(folder, arguments)
        sys.stdout.flush()
        os._exit(0)
    os.wait()
"""


@pytest.fixture
def modules(pytester, no_worker):
    """A function that runs pytest in folders, and gives the modules that each session loaded.

    A session is given as a text of tests, files by name, and arguments.
    """

    def loaded(*sessions) -> list[set[str]]:
        folders = [pytester.mkdir(f"session{number}") for number in range(len(sessions))]
        for folder, (test, files, _) in zip(folders, sessions, strict=True):
            for name, text in {"test_it.py": test, "pytest.ini": "[pytest]\n", **files}.items():
                (folder / name).write_text(text)
        asked = [[str(folder), [*each[2]]] for folder, each in zip(folders, sessions, strict=True)]
        result = pytester.run(sys.executable, "-c", LIST_MODULES, json.dumps(asked))
        assert "error" not in result.stderr.str().lower()
        return [set(json.loads((folder / "modules.json").read_text())) for folder in folders]

    return loaded


@pytest.mark.parametrize("argument", ["--co", "--fixtures"])
def test_an_unrelated_session_loads_a_handful_of_modules(pytester, modules, argument):
    arguments = [argument, "-p", "no:cacheprovider", "-p", "no:benchmark"]
    test = "def test_it(tmp_path): ..."
    used, unused = modules((test, {}, arguments), (test, {}, [*arguments, "-p", "no:tokenbudget"]))
    assert used - unused == LOADED
    left = {path.name for path in (pytester.path / "session0").iterdir()}
    assert left - {"__pycache__"} == {"test_it.py", "pytest.ini", "modules.json"}


def test_settings_and_fixtures_of_others_are_no_use(modules):
    fixture = "import pytest\n@pytest.fixture\ndef model(): return 'car'\n"
    sessions = (
        ("def test_it(tmp_path): ...", {"pytest.ini": "[pytest]\naddopts = -q\n"}, ()),
        ("def test_it(tmp_path): ...", {"pyproject.toml": "[tool.ruff]\nline-length = 9\n"}, ()),
        ("def test_it(model): ...", {"conftest.py": fixture}, ()),
    )
    for session, found in zip(sessions, modules(*sessions), strict=True):
        own = {name for name in found if name.startswith("pytest_tokenbudget")}
        assert own == LOADED, session


@pytest.mark.slow
def test_the_first_use_loads_the_plugin(modules):
    sessions = (
        ("def test_it(): ...", {}, ["--num-samples=3"]),
        ("def test_it(): ...", {}, ["-o", "tokenbudget_num_samples=3"]),
        ("def test_it(): ...", {}, ["-m", "phase1"]),
        ("def test_it(record_metrics): ...", {}, []),
        ("import pytest\n@pytest.mark.gpu\ndef test_it(): ...", {}, []),
        ("def test_it(request): request.getfixturevalue('tokenbudget')", {}, []),
    )
    needed = {"pytest_tokenbudget.pytest_session.hooks", "pytest_tokenbudget.session"}
    for session, found in zip(sessions, modules(*sessions), strict=True):
        assert found >= needed, session


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
