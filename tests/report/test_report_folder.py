"""One reports folder for several runs: nothing mixes, nothing is replaced silently or lost."""

import json
import shutil

import pytest
from fake_engine import FakeEngine
from runs import NANO, NO_ENGINE, QUIET, Engines, combined, read

from pytest_tokenbudget.recorded.files import MANIFEST
from pytest_tokenbudget.report.folder import ReportFolder
from pytest_tokenbudget.report.manifest import Entry, ManifestError, ProblemSet, read_entries

pytest_plugins = ["run_fixtures"]
pytestmark = pytest.mark.usefixtures("quick_figures")

EVALS = ("--pyargs", "pytest_tokenbudget.evals", *QUIET)


@pytest.fixture
def reports(pytester):
    return pytester.path / "reports"


@pytest.fixture
def other_task(pytester):
    rows = [{"id": f"o{i}", "question": f"{i} + {i}?", "answer": str(2 * i)} for i in range(4)]
    path = pytester.path / "sums.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return "--task=sums.jsonl"


def contents(folder):
    """Every result and figure below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for part in ("results", "figures")
        for path in (folder / part).rglob("*")
        if path.is_file()
    }


def consistent(folder):
    """Whether all files of a folder are of one task and one number of problems."""
    tasks, sizes = set(), set()
    for path in (folder / "results").glob("*.json"):
        record = json.loads(path.read_text())
        if path.name.startswith("phase1_main") or path.name.startswith("phase3_cliff_n"):
            sizes.add(len(record)) if isinstance(record, list) else None
        if isinstance(record, dict) and "task" in record:
            tasks.add(record["task"])
            sizes.add(record["problems"])
    return len(tasks) == len(sizes) == 1


def test_a_run_in_a_fresh_folder_has_the_names_of_always(run, reports):
    run().assert_outcomes(passed=3)
    assert sorted(contents(reports)) == [
        "figures/fig1_saturation_curve_nano-reasoner.png",
        "figures/fig1_saturation_curve_nano-reasoner.svg",
        "results/metrics.json",
        "results/phase1_combined_nano-reasoner.json",
        "results/phase1_main_nano-reasoner_budget16.json",
        "results/phase1_main_nano-reasoner_budget32.json",
    ]
    before = contents(reports)
    result = run(engines=NO_ENGINE)
    assert sorted(contents(reports)) == sorted(before)
    assert not (reports / "earlier").exists()
    result.stdout.no_fnmatch_line("moved*")


def test_two_tasks_do_not_mix_and_each_comes_back(run, reports, other_task):
    run()
    first = contents(reports)
    result = run(other_task)
    result.stdout.fnmatch_lines(
        ["moved: 6 files of earlier results (word-problems, 3 problems) to*"]
    )
    assert contents(reports / "earlier" / "word-problems-3") == first
    assert combined(reports.parent)["task"] == "sums"
    assert consistent(reports)
    second = contents(reports)

    result = run(engines=NO_ENGINE)
    result.stdout.fnmatch_lines(
        [
            "moved: 6 files of earlier results (sums, 3 problems) to earlier/sums-3/",
            "moved back: 6 files of word-problems, 3 problems from earlier/word-problems-3/",
        ]
    )
    assert combined(reports.parent)["task"] == "word-problems"
    assert contents(reports / "earlier" / "sums-3") == second
    assert sorted(path.name for path in (reports / "earlier").iterdir()) == ["sums-3"]


def test_fewer_problems_do_not_replace_more(run, reports):
    run(problems=6)
    first = contents(reports)
    run(problems=2, engines=NO_ENGINE)
    assert combined(reports.parent)["problems"] == 2
    assert consistent(reports)
    assert contents(reports / "earlier" / "word-problems-6") == first
    # More again: they move back, and those of the two problems apart.
    run(problems=6, engines=NO_ENGINE)
    assert combined(reports.parent)["problems"] == 6
    assert consistent(reports)
    assert [path.name for path in (reports / "earlier").iterdir()] == ["word-problems-2"]


def test_phases_add_up(run, reports):
    options = ("--cliff-budgets=8,16,24",)
    run(*options, "-m", "phase1", base=EVALS)
    first = contents(reports)
    run(*options, "-m", "phase3", base=EVALS, engines=NO_ENGINE)
    assert set(first) < set(contents(reports))
    assert not (reports / "earlier").exists()
    assert consistent(reports)


def test_what_belongs_to_other_problems_does_not_stay(run, reports):
    """Phase 3 of six problems does not stand beside phase 1 of two."""
    options = ("--cliff-budgets=8,16,24",)
    run(*options, "-m", "phase1 or phase3", base=EVALS, problems=6)
    first = contents(reports)
    run("-m", "phase1", base=EVALS, problems=2, engines=NO_ENGINE)
    assert not [name for name in contents(reports) if "phase3" in name]
    assert contents(reports / "earlier" / "word-problems-6") == first
    run(*options, "-m", "phase3", base=EVALS, problems=6, engines=NO_ENGINE)
    assert set(contents(reports)) == set(first)


def test_fewer_budgets_do_not_leave_others_beside_them(run, reports):
    run()
    first = contents(reports)
    run(budgets="16", engines=NO_ENGINE)
    names = [n for n in contents(reports) if "budget" in n]
    assert names == ["results/phase1_main_nano-reasoner_budget16.json"]
    kept = contents(reports / "earlier" / "word-problems-3")
    assert {k: v for k, v in first.items() if "metrics" not in k} == kept
    # Budgets that hold all earlier ones take their place: nothing is said less.
    run(budgets="8,16,32", engines=NO_ENGINE)
    assert combined(reports.parent)["budgets"] == [8, 16, 32]
    assert not (reports / "earlier").exists()


@pytest.mark.parametrize("option", ["--temperature=0.7", "--dtype=bfloat16"])
def test_another_decoding_or_precision_is_another_result(run, reports, option):
    run()
    first = contents(reports)
    run(option)
    kept = contents(reports / "earlier" / "word-problems-3")
    assert {k: v for k, v in first.items() if "metrics" not in k} == kept


def test_models_stand_side_by_side_and_a_changed_one_takes_its_comparison_along(run, pytester):
    for name in "ab":
        shutil.copytree(NANO, pytester.path / name)
    config = json.loads((pytester.path / "b" / "config.json").read_text())
    config["some_note"] = "another model"
    (pytester.path / "b" / "config.json").write_text(json.dumps(config))
    reports = pytester.path / "reports"
    run("--model=./a,./b")
    first = contents(reports)
    assert "results/compare_models.json" in first
    run("--model=./a", engines=NO_ENGINE)
    assert set(contents(reports)) == set(first)
    config["some_note"] = "trained on"
    (pytester.path / "b" / "config.json").write_text(json.dumps(config))
    run("--model=./b")
    moved = contents(reports / "earlier" / "word-problems-3")
    assert "results/phase1_combined_b.json" in moved
    assert "results/compare_models.json" in moved
    assert "results/phase1_combined_a.json" in contents(reports)
    assert "results/phase1_combined_a.json" not in moved


def test_gates_belong_to_their_task(run, reports, other_task):
    run("--min-accuracy=0")
    assert read(reports.parent, "gates.json")["task"] == "word-problems"
    run(other_task)
    assert not (reports / "results" / "gates.json").exists()
    assert (reports / "earlier" / "word-problems-3" / "results" / "gates.json").is_file()


@pytest.mark.slow
def test_recorded_folder_with_several_selections_keeps_them_apart(run, reports, other_task):
    run(problems=6)
    run(problems=2, engines=NO_ENGINE)
    run(other_task)
    before = contents(reports)
    result = run("--recorded=reports", "--reports=again", "-v", engines=NO_ENGINE)
    for size in (2, 6):
        name = f"nano-reasoner (word-problems) [[]word-problems-{size}, {size} problems[]]"
        result.stdout.fnmatch_lines([f"*test_saturation_point*{name}*"])
    assert result.ret == 0
    assert contents(reports) == before
    sizes = {
        (record["task"], record["problems"])
        for path in (reports.parent / "again" / "results").glob("phase1_combined*")
        for record in [json.loads(path.read_text())]
    }
    assert sizes == {("sums", 3), ("word-problems", 2), ("word-problems", 6)}


def test_recorded_answers_are_not_read_from_where_they_are_moved(run, reports, other_task):
    run()
    run(other_task)
    result = run("--recorded=reports/earlier", engines=NO_ENGINE)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*earlier*lies where results are written to*--reports"])


def test_a_folder_of_an_earlier_version_is_taken_over(run, reports, other_task):
    run("-m", "phase1 or phase3", "--cliff-budgets=8,16,24", base=EVALS)
    first = contents(reports)
    (reports / MANIFEST).unlink()
    (reports / "results" / "mine.json").write_text("[]")
    (reports / "figures" / "figure_of_mine.png").write_bytes(b"mine")
    run(other_task)
    assert contents(reports / "earlier" / "word-problems-3") == first
    assert consistent_but_for_mine(reports)
    # The same problems: nothing moves.
    run(other_task, engines=NO_ENGINE)
    (reports / MANIFEST).unlink()
    run(other_task, engines=NO_ENGINE).stdout.no_fnmatch_line("moved*")


def consistent_but_for_mine(reports):
    found = contents(reports)
    own = [name for name in found if "mine" in name]
    return len(own) == 2 and not [name for name in found if "phase3" in name]


def test_a_folder_that_was_mixed_already_is_moved_as_mixed(run, reports, other_task, pytester):
    run()
    mixed = reports / "results" / "phase1_combined_other.json"
    record = {**combined(reports.parent), "task": "something", "model": "other"}
    mixed.write_text(json.dumps(record))
    (reports / MANIFEST).unlink()
    result = run(other_task)
    result.stdout.fnmatch_lines(["moved: * of earlier results (several tasks) to earlier/mixed/"])
    assert (reports / "earlier" / "mixed" / "results" / mixed.name).is_file()


def test_annotations_stay_where_people_edit_them(run, reports, other_task):
    phase2 = ("-m", "phase2", "--error-samples=16:2")
    run(*phase2, base=EVALS)
    table = reports / "annotations" / "annotate_errors_budget16.tsv"
    text = table.read_text()
    header, first, *rest = text.splitlines()
    column = header.split("\t").index("error_type")
    cells = first.split("\t")
    cells[column] = "arithmetic"
    edited = "\n".join([header, "\t".join(cells), *rest]) + "\n"
    table.write_text(edited)
    run(other_task, *phase2, base=EVALS)
    assert table.read_text() == edited
    other = reports / "annotations" / "sums" / table.name
    assert "o1" in other.read_text() or "o0" in other.read_text()
    analysis = json.loads((reports / "results" / "phase2_error_analysis.json").read_text())
    assert {model["task"] for model in analysis["models"].values()} == {"sums"}


def test_an_interrupted_run_does_not_replace_a_whole_one(reports):
    folder = ReportFolder(reports, {"t": ProblemSet(3, "x")})
    whole = Entry("saturation", folder.selection, "m", budgets=(16,), files=("results/a.json",))
    (reports / "results").mkdir(parents=True)
    (reports / "results" / "a.json").write_text("whole")
    folder.note(whole, [reports / "results" / "a.json"])
    part = Entry("saturation", folder.selection, "m", budgets=(16,), complete=False)
    assert folder.make_room([part])
    assert (reports / "earlier" / "t-3" / "results" / "a.json").read_text() == "whole"


@pytest.mark.parametrize("ended", [0, 1])
def test_an_interrupted_fresh_run_shows_its_own_answers_only(run, reports, ended):
    """Without any, the results of the run before stay where they are."""
    run(problems=3).assert_outcomes(passed=3)
    before = contents(reports)
    asked = []

    def interrupt(request):
        asked.append(request)
        if len(asked) > ended:
            raise KeyboardInterrupt

    engines = Engines(lambda *given: FakeEngine(rows=1, each=interrupt))
    result = run("--fresh", problems=3, engines=engines, no_reraise_ctrlc=True)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    shown = " ".join(result.stdout.str().split())
    assert "were stored" not in shown
    assert f"n = {ended}" in shown
    assert (
        f"interrupted: {ended} of the 3 traces that this run had to generate are stored, "
        f"{3 - ended} are missing" in shown
    )
    if ended:
        study = combined(reports.parent)
        assert (study["problems"], study["missing"], study["complete"]) == (1, 2, False)
    else:
        assert "no result files for nano-reasoner: no problem has all its traces" in shown
        assert contents(reports) == before
    assert (reports / "earlier").exists() is bool(ended)
    # What the interruption left is completed, the earlier traces included.
    run(problems=3).assert_outcomes(passed=3)
    assert combined(reports.parent)["missing"] == 0


def test_nothing_of_the_users_is_overwritten_in_the_folder_for_earlier_results(reports):
    """A file that stands in the way sends the results to a folder with another number."""
    theirs = reports / "earlier" / "t-3" / "results" / "a.json"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("theirs")
    folder = ReportFolder(reports, {"t": ProblemSet(3, "x")})
    (reports / "results").mkdir()
    (reports / "results" / "a.json").write_text("ours")
    folder.note(Entry("saturation", folder.selection, "m"), [reports / "results" / "a.json"])
    ReportFolder(reports, {"u": ProblemSet(1, "y")}).make_room(
        [Entry("saturation", {"u": ProblemSet(1, "y")}, "m")]
    )
    assert theirs.read_text() == "theirs"
    assert (reports / "earlier" / "t-3-2" / "results" / "a.json").read_text() == "ours"


def test_a_manifest_of_a_newer_version_is_refused_and_a_damaged_one_made_anew(run, reports):
    run()
    manifest = reports / MANIFEST
    manifest.write_text('{"schema": "tokenbudget-manifest/9", "entries": []}')
    with pytest.raises(ManifestError, match="name another folder"):
        read_entries(reports)
    manifest.write_text("{")
    assert {entry.section for entry in read_entries(reports)} == {"saturation", "adopted"}
    manifest.write_text(
        '{"schema": "tokenbudget-manifest/1", "entries": [{"section": "x", "selection": null,'
        ' "budgets": [], "files": ["../../secret"]}]}'
    )
    assert {entry.section for entry in read_entries(reports)} == {"saturation", "adopted"}
