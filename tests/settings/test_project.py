"""Where settings come from, also where pytest takes the value of an option for a test path."""

import pytest
from runs import QUIET, SUITE, finish, start

from pytest_tokenbudget.settings.option_values import BudgetThreshold
from pytest_tokenbudget.settings.read_settings import find_project, read_settings

pytest_plugins = ["run_fixtures"]

GATES = ("--pyargs", "pytest_tokenbudget.evals", "-m", "phase1", "--tokenbudget-gates", *QUIET)
MINE = "min_accuracy = 0.9\nnum_samples = 7\nreports = 'mine'\n"
THEIRS = "max_truncation = 0.1\nnum_samples = 3\nreports = 'theirs'\n"


@pytest.fixture
def places(pytester, no_worker, monkeypatch):
    """Directories of which pytest is started in ``repo/below``; all others exist already."""
    for name in ("repo/.git", "repo/below", "artifacts", "other/data", "model"):
        (pytester.path / name).mkdir(parents=True)
    (pytester.path / "other" / "data" / "x.jsonl").write_text('{"question": "1?", "answer": "1"}\n')
    (pytester.path / "traces.sqlite").touch()
    monkeypatch.chdir(pytester.path / "repo" / "below")
    return pytester.path


@pytest.fixture
def read(pytester, places):
    """A function that gives the project and the settings of a command line."""

    def project_of(*arguments):
        config = pytester.parseconfig(*QUIET, *arguments)
        project = find_project(config)
        return project, read_settings(config, project)

    return project_of


ROOT = ("--pyargs", "pytest_tokenbudget.evals")
# Values that exist, each after a space: pytest takes them for test paths.
MOVES = [
    ("--reports", "../../artifacts"),
    ("--trace-store", "../../traces.sqlite"),
    ("--model", "../../model"),
    ("--task", "../../other/data/x.jsonl"),
    ("--tokenbudget-task", "../../other/data/x.jsonl"),
    ("--recorded", "../../other/data/x.jsonl"),
]
FILES = {
    "tokenbudget.toml": "{0}",
    "pyproject.toml": "[tool.tokenbudget]\n{0}",
}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("move", [(), *MOVES], ids=lambda move: "".join(move[:1]))
def test_settings_are_those_of_the_invocation_directory_or_above(read, places, file, move):
    (places / "repo" / file).write_text(FILES[file].format(MINE))
    # Both have what makes them a rootdir.
    (places / "other" / "pytest.ini").write_text("[pytest]\n")
    (places / "other" / file).write_text(FILES[file].format(THEIRS))
    project, settings = read(*ROOT, *move)
    assert project.user.path == places / "repo" / file
    assert settings.min_accuracy == (BudgetThreshold(0.9),)
    assert settings.max_truncation == ()
    assert settings.num_samples == 7
    if move[:1] != ("--reports",):
        assert settings.reports == places / "repo" / "mine"
    other = str(places / "other")
    assert any(other in note for note in project.notes) == any("other" in part for part in move)


def test_paths_in_a_file_start_at_the_file(read, places):
    (places / "repo" / "tokenbudget.toml").write_text("recorded = ['old', '/abs']\n")
    (places / "repo" / "pytest.ini").write_text("[pytest]\ntokenbudget_storage = kept\n")
    _, settings = read("-o", "tokenbudget_trace_store=t.sqlite")
    assert [str(path) for path in settings.recorded] == [str(places / "repo" / "old"), "/abs"]
    assert settings.storage == places / "repo" / "kept"
    assert settings.trace_store == places / "repo" / "below" / "t.sqlite"


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("task = 'data/x.jsonl'", "task", "../data/x.jsonl"),
        ("task = 'gsm8k=./data/x.jsonl'", "task", "gsm8k=../data/x.jsonl"),
        ("task = 'gsm8k=data/none.jsonl'", "task", "gsm8k=data/none.jsonl"),
        ("task = 'data'", "task", "data"),
        ("model = ['./data', 'nano-reasoner', 'org/name']", "models",
         ("../data", "nano-reasoner", "org/name")),
        ("model = 'http://host/v1'", "models", ("http://host/v1",)),
        ("tokenizer = 'data/'", "tokenizer", "../data"),
    ],
)  # fmt: skip
def test_names_that_are_paths_start_at_the_file(read, places, line, field, value):
    (places / "repo" / "data").mkdir()
    (places / "repo" / "data" / "x.jsonl").touch()
    (places / "repo" / "tokenbudget.toml").write_text(line)
    assert getattr(read()[1], field) == value


def test_the_nearest_file_is_used_and_the_other_one_named(read, places):
    (places / "repo" / "pytest.ini").write_text("[pytest]\n")
    (places / "repo" / "tokenbudget.toml").write_text(THEIRS)
    (places / "repo" / "below" / "tokenbudget.toml").write_text(MINE)
    project, settings = read()
    assert settings.min_accuracy
    assert not settings.max_truncation
    [note] = project.notes
    assert f"settings come from {places / 'repo' / 'below' / 'tokenbudget.toml'}" in note
    assert f"{places / 'repo' / 'tokenbudget.toml'} is not used" in note


def test_what_lies_above_the_repository_is_not_used(read, places):
    (places / "tokenbudget.toml").write_text(THEIRS)
    project, settings = read()
    assert project.user.path is None
    assert settings.max_truncation == ()


def test_rootdir_above_the_repository_is_used(read, places):
    (places / "pytest.ini").write_text("[pytest]\n")
    (places / "tokenbudget.toml").write_text(MINE)
    assert read()[1].num_samples == 7


def test_a_pyproject_that_only_requires_the_plugin_hides_nothing(read, places):
    (places / "repo" / "tokenbudget.toml").write_text(MINE)
    (places / "repo" / "below" / "pyproject.toml").write_text(
        "[project]\nname = 'x'\nversion = '1'\ndependencies = ['pytest-tokenbudget']\n"
        "keywords = ['tokenbudget']\n"
    )
    assert read()[1].num_samples == 7


def test_tests_elsewhere_bring_their_settings_where_there_are_none(read, places):
    other = places / "other"
    (other / "pytest.ini").write_text("[pytest]\n")
    (other / "tokenbudget.toml").write_text(THEIRS)
    (other / "test_it.py").write_text("def test_it(): ...\n")
    project, settings = read("../../other/test_it.py::test_it")
    assert settings.max_truncation
    assert settings.reports == other / "theirs"
    assert project.notes == ()
    (places / "repo" / "tokenbudget.toml").write_text("num_samples = 7\n")
    project, settings = read("../../other/test_it.py")
    assert not settings.max_truncation
    assert settings.reports == places / "repo" / "reports"
    [note] = project.notes
    assert f"{other / 'tokenbudget.toml'} is not used" in note


@pytest.mark.parametrize("move", MOVES, ids=lambda move: "".join(move[:1]))
def test_the_ini_file_of_the_user_is_read_where_pytest_reads_another(read, places, move):
    (places / "repo" / "pytest.ini").write_text(
        "[pytest]\ntokenbudget_min_accuracy = 0.9\ntokenbudget_num_samples = 7\n"
        "tokenbudget_storage = kept\n"
    )
    (places / "other" / "pytest.ini").write_text("[pytest]\ntokenbudget_max_truncation = 0.1\n")
    _, settings = read(*ROOT, *move, "-o", "tokenbudget_seed=5")
    assert settings.min_accuracy == (BudgetThreshold(0.9),)
    assert (settings.max_truncation, settings.num_samples, settings.seed) == ((), 7, 5)
    assert settings.storage == places / "repo" / "kept"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("pytest.ini", "[pytest]\naddopts = -q --min-accuracy=0.9\n"),
        ("pyproject.toml", "[tool.pytest]\naddopts = ['--tokenbudget-min-accuracy', '0.9']\n"),
        ("setup.cfg", "[tool:pytest]\naddopts = --min-accuracy 0.9\n"),
    ],
)
def test_gates_in_lost_addopts_are_refused(read, places, file, text):
    (places / "repo" / file).write_text(text)
    with pytest.raises(pytest.UsageError) as refused:
        read(*ROOT, "--reports", "../../artifacts")
    message = str(refused.value)
    assert f"the addopts in {places / 'repo' / file} would be lost" in message
    assert "min-accuracy" in message
    assert "write --reports=../../artifacts" in message
    assert read(*ROOT, "--reports=../../artifacts")[1].min_accuracy == (BudgetThreshold(0.9),)


def test_gates_in_addopts_of_another_project_are_refused(read, places):
    (places / "other" / "pytest.ini").write_text("[pytest]\naddopts = --max-truncation=0.1\n")
    with pytest.raises(pytest.UsageError, match=r"--max-truncation=0\.1; write --task=\.\./"):
        read(*ROOT, "--task", "../../other/data/x.jsonl")
    assert read(*ROOT, "--task=../../other/data/x.jsonl")[1].max_truncation == ()


def test_unrelated_addopts_are_no_reason_to_refuse(read, places):
    (places / "repo" / "pytest.ini").write_text("[pytest]\naddopts = -q\n")
    assert read(*ROOT, "--reports", "../../artifacts")[1].reports.resolve() == places / "artifacts"


@pytest.mark.parametrize("value", ["[64]", "5"])
def test_values_of_a_wrong_type_are_told_with_the_right_file(read, places, value):
    (places / "repo" / "pytest.toml").write_text(f"[pytest]\ntokenbudget_budgets = {value}\n")
    for move in ((), ("--reports", "../../artifacts")):
        with pytest.raises(pytest.UsageError) as refused:
            read(*move)
        assert f"tokenbudget_budgets in {places / 'repo' / 'pytest.toml'}: " in str(refused.value)


def test_gates_are_listed_with_where_they_come_from(places):
    (places / "repo" / "tokenbudget.toml").write_text(MINE)
    code, text = finish(start(places / "repo" / "below", *GATES, "--reports", "../../artifacts"))
    assert code == 0, text
    assert "--min-accuracy 0.9: accuracy >= 90 %" in text


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
@pytest.mark.slow
def test_a_gate_fails_the_run_and_the_other_projects_files_stay(places, workers):
    (places / "repo" / "tokenbudget.toml").write_text(
        "min_accuracy = 0.99\nbudgets = [8]\nnum_samples = 1\n"
    )
    other = places / "other"
    (other / "pytest.ini").write_text("[pytest]\n")
    (other / "tokenbudget.toml").write_text(THEIRS)
    before = sorted(other.rglob("*"))
    given = ("--task", "../../other/data/x.jsonl", *workers)
    code, text = finish(start(places / "repo" / "below", *SUITE, *given))
    assert code == 1, text
    assert "accuracy 0.0 %" in text
    assert f"{other / 'tokenbudget.toml'} is not used" in " ".join(text.split())
    assert (places / "repo" / "reports" / "results" / "gates.json").is_file()
    assert sorted(other.rglob("*")) == before
