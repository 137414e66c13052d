"""Whole runs that are saved and compared, and models of one run against each other."""

import json
import shutil
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from fake_engine import FakeEngine
from runs import NANO, NO_ENGINE, QUIET, SUITE, Engines, RealEngines, finish, read, start
from safetensors.numpy import load_file, save_file
from studies import make_study

from pytest_tokenbudget.baselines.comparison import compare_runs
from pytest_tokenbudget.baselines.figure import draw_comparison, draw_pareto
from pytest_tokenbudget.baselines.models_compared import compare_models
from pytest_tokenbudget.baselines.models_report import models_lines, write_models
from pytest_tokenbudget.baselines.run import record_of, run_of
from pytest_tokenbudget.baselines.storage import save_baseline
from pytest_tokenbudget.common.package_files import suite
from pytest_tokenbudget.common.text_layout import cells
from pytest_tokenbudget.core.engine import Generated
from pytest_tokenbudget.core.trace import StopReason
from pytest_tokenbudget.models.prices import Price
from pytest_tokenbudget.report.json_files import RunInfo
from pytest_tokenbudget.report.style import figure_style

pytest_plugins = ["run_fixtures"]
SAVE, COMPARE, FAIL = (f"--tokenbudget-{name}" for name in ("save", "compare", "compare-fail"))


@pytest.fixture(autouse=True)
def whole_lines(monkeypatch):
    monkeypatch.setenv("CI", "1")


@pytest.fixture
def quick(quick_figures, monkeypatch):
    from pytest_tokenbudget.report import drawing

    monkeypatch.setattr("pytest_tokenbudget.baselines.figure.save_figure", drawing.save_figure)


def saved(pytester):
    return sorted(path.name for path in (pytester.path / "reports" / "baselines").iterdir())


def failures(pytester, name="j.xml"):
    suite = ET.parse(pytester.path / name).getroot().find("testsuite")
    return [failure.get("message") for failure in suite.iter("failure")]


@pytest.mark.usefixtures("quick")
@pytest.mark.slow
def test_a_damaged_model_is_found_out(run, pytester):
    """Noise in its weights: the loss is shown, with its texts; the sound model has none."""
    damaged = shutil.copytree(NANO, pytester.path / "damaged")
    weights = load_file(damaged / "model.safetensors")
    rng = np.random.default_rng(0)
    for name, array in weights.items():
        if array.ndim == 2:
            noise = rng.standard_normal(array.shape).astype(array.dtype)
            weights[name] = array + 0.5 * array.std() * noise
    save_file(weights, damaged / "model.safetensors", {"format": "pt"})
    size = {"budgets": "64,160", "problems": 12}
    run(SAVE, "main", engines=RealEngines(), **size).assert_outcomes(passed=3)
    assert saved(pytester) == ["0001_main.json"]

    same = run(COMPARE, "latest", FAIL, "accuracy:0:point,tokens:+1%", engines=NO_ENGINE, **size)
    same.assert_outcomes(passed=5)
    same.stdout.fnmatch_lines(["*nano-reasoner against 0001_main, n = 12*", "*no problem differs*"])

    worse = run(
        *(COMPARE, "main", FAIL, "accuracy:-0.02", "--model", "./damaged", "--junitxml=j.xml"),
        engines=RealEngines(),
        **size,
    )
    worse.assert_outcomes(passed=4, failed=1)
    assert worse.ret == pytest.ExitCode.TESTS_FAILED
    worse.stdout.fnmatch_lines(
        [
            "*damaged against 0001_main (nano-reasoner), n = 12*",
            "lost: *expected * -> *",
            "the runs differ in model nano-reasoner -> damaged*",
            "FAILED *test_against_baseline[[]damaged-160] - *against 0001_main: change of "
            "accuracy -*is below the tolerated -2 points (n = 12; *",
        ]
    )
    (message,) = failures(pytester)
    assert "is below the tolerated -2 points" in message
    found = read(pytester.path, "compare_damaged.json")
    assert found["schema"] == "tokenbudget-compare/1"
    assert found["baseline"]["model"] == "nano-reasoner"
    assert {"what": "model", "before": "nano-reasoner", "after": "damaged"} in found["differs"]
    point = found["points"][-1]
    assert len(point["lost"]) == point["accuracy"]["fell"] >= 5
    lost = point["lost"][0]
    texts = found["texts"][lost["problem_id"]]
    assert texts["before"] != texts["after"]
    assert texts["ground_truth"] == lost["before"]["predicted"]
    (check,) = found["checks"]
    assert (check["failed"], check["ruling"], check["budget"]) == (True, "failed", 160)

    process = start(
        pytester.path, *SUITE, "-n2", "--num-samples=12", "--budgets=64,160", COMPARE, "1", FAIL,
        "160:accuracy:-0.02,64:tokens:+1%", "--model=./damaged", "--junitxml=x.xml",
    )  # fmt: skip
    code, output = finish(process)
    assert code == 1, output
    assert "damaged against 0001_main (nano-reasoner), n = 12" in output
    (message,) = failures(pytester, "x.xml")
    assert "change of accuracy" in message
    figure = pytester.path / "reports" / "figures" / "compare_damaged.png"
    assert figure.stat().st_size > 9999


@pytest.mark.usefixtures("quick")
def test_nothing_is_collected_and_nothing_written_without_being_asked(run, pytester):
    run().assert_outcomes(passed=3)
    assert not (pytester.path / "reports" / "baselines").exists()
    assert not list((pytester.path / "reports" / "results").glob("compare*"))
    # Named itself, it says why there is nothing. By a path, pytest's root would be the checkout.
    here = ("--rootdir", pytester.path)
    result = run(suite() / "test_baseline.py", "-rs", *here, base=QUIET, engines=NO_ENGINE)
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines(["*no --tokenbudget-compare was given"])


@pytest.mark.usefixtures("quick")
def test_results_serve_as_they_lie_and_a_job_on_github_is_told(run, pytester, monkeypatch):
    run().assert_outcomes(passed=3)
    (pytester.path / "reports").rename(pytester.path / "before")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(pytester.path / "summary.md"))
    result = run(COMPARE, "./before", FAIL, "tokens:+0:point,16:accuracy:-0.1:noninferior")
    result.assert_outcomes(passed=4, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*nano-reasoner against before, n = 3*",
            "::error title=tokenbudget%3A 16%3Aaccuracy%3A-0.1%3Anoninferior against before::*",
        ]
    )
    summary = (pytester.path / "summary.md").read_text()
    assert summary.startswith("## Token budgets against before\n")
    assert summary.count("| nano-reasoner | ") == 2


@pytest.mark.usefixtures("quick")
def test_recorded_results_can_be_saved_and_compared(run, pytester):
    run().assert_outcomes(passed=3)
    (pytester.path / "reports").rename(pytester.path / "before")
    run("--recorded=before/results", SAVE, "old", engines=NO_ENGINE).assert_outcomes(passed=3)
    assert saved(pytester) == ["0001_old.json"]
    result = run("--recorded=before/results", COMPARE, "old", engines=NO_ENGINE)
    result.assert_outcomes(passed=5)
    result.stdout.fnmatch_lines(["*nano-reasoner against 0001_old, n = 3*"])
    found = json.loads((pytester.path / "reports/results/compare_nano-reasoner.json").read_text())
    assert found["differs"] == []
    (pytester.path / "reports").rename(pytester.path / "after")
    result = run(COMPARE, "after/baselines/0001_old.json")
    result.stdout.fnmatch_lines(["the runs differ in source recorded -> none"])


@pytest.mark.usefixtures("quick")
def test_saving_twice_keeps_both_and_a_storage_of_ones_own(run, pytester):
    run(SAVE, "main", "--tokenbudget-storage=kept")
    second = run(SAVE, "main", "--tokenbudget-storage=kept", engines=NO_ENGINE)
    second.stdout.fnmatch_lines(["written: kept/0002_main.json"])
    names = sorted(path.name for path in (pytester.path / "kept").iterdir())
    assert names == ["0001_main.json", "0002_main.json"]
    one, other = (json.loads((pytester.path / "kept" / n).read_text()) for n in names)
    assert one["runs"][0]["answers"] == other["runs"][0]["answers"]


class Failing(FakeEngine):
    """An engine that fails on the first of its requests."""

    def generate(self, requests, decoding):
        yield Generated(requests[0], (), StopReason.ERROR, error="the server hung up")
        yield from super().generate(requests[1:], decoding)


@pytest.mark.usefixtures("quick")
def test_a_run_that_cannot_be_saved_fails(run, pytester):
    def stop(request):
        raise KeyboardInterrupt

    stopped = Engines(lambda *given: FakeEngine(each=stop))
    result = run(SAVE, "main", engines=stopped, no_reraise_ctrlc=True)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(
        ["*--tokenbudget-save: not saved as main: the run was interrupted*"]
    )
    result = run(SAVE, "main", engines=Engines(lambda *given: Failing(rows=9)))
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "tokenbudget: --tokenbudget-save: not saved as main: 1 trace of nano-reasoner ended in "
            "an error; the same command goes on"
        ]
    )
    assert not (pytester.path / "reports" / "baselines").exists()
    other = pytester.makepyfile("def test_mine(curve): pass\ndef test_other(): pass")
    result = run(other, SAVE, "main", "-k", "other", base=QUIET)
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*not saved as main: no selected test is of -m phase1"])
    (pytester.path / "kept").write_text("a file")
    result = run(SAVE, "main", "--tokenbudget-storage=kept")
    result.assert_outcomes(passed=3)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*not saved as main: it cannot be written to */kept: *"])


@pytest.mark.usefixtures("quick")
def test_a_tolerance_that_was_not_compared_is_a_failed_test(run, pytester):
    run(SAVE, "main")
    result = run(COMPARE, "main", "-k", "saturation_point", "--junitxml=j.xml")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    (message,) = failures(pytester)
    assert message.startswith("--tokenbudget-compare main: nothing was compared")
    result = run(COMPARE, "main", FAIL, "16:tokens:+1%,accuracy:-0.5", "-k", "16 and baseline")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["FAILED baseline::not-compared - *accuracy:-0.5 was not judged*"])


@pytest.mark.usefixtures("quick")
def test_what_was_not_judged_for_one_of_two_models_is_a_failed_test(run, pytester):
    (pytester.path / "tokenbudget.toml").write_text(
        '[models.one]\nbase = "nano-reasoner"\n[models.two]\nbase = "nano-reasoner"\n'
    )
    models = "--model=one,two"
    run(models, SAVE, "main")
    only = "baseline and not (two and 32)"
    result = run(models, COMPARE, "main", FAIL, "32:accuracy:-0.5", "-k", only)
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["FAILED baseline::not-compared - *was not judged for two: *"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([COMPARE, "mian"], ["--tokenbudget-compare: ", "did you mean 'main'?"]),
        ([COMPARE, "no/such.json"], ["there is no file or directory", "no/such.json"]),
        ([COMPARE, "main", "--task=recall"], ["of task word-problems and this run of recall"]),
        ([COMPARE, "main", "--budgets=8"], ["has the budgets 16, 32 and this run has 8: none in"]),
        ([COMPARE, "2"], ["scored by numbers/1 and this run by numbers/3", "save it again"]),
        ([COMPARE, "3"], ["several models, and nano-reasoner is not among them; there are a, b"]),
        ([FAIL, "accuracy:-0.1"], ["has nothing to compare with", "NAME|PATH|latest"]),
        ([COMPARE, "main", FAIL, "64:accuracy:-0.1"], ["'64:accuracy:-0.1' names", "is 32"]),
        ([COMPARE, "main", FAIL, "accuracy:-2"], ["for 2 points write -0.02"]),
        ([SAVE, "latest"], ["--tokenbudget-save: 'latest' cannot be used"]),
    ],
)
def test_bad_baseline_options_are_refused_before_anything_is_loaded(
    run, pytester, arguments, words
):
    folder = pytester.path / "reports" / "baselines"
    for name, extractor, aliases in (
        ("main", "numbers/3", ["m"]), ("old", "numbers/1", ["m"]), ("two", "numbers/3", "ab"),
    ):  # fmt: skip
        records = []
        for alias in aliases:
            study = make_study(3, (16, 32), alias=alias)
            study.task.name, study.task.extractor = "word-problems", extractor
            records.append(record_of(study, RunInfo()))
        save_baseline(folder, name, records, pytester.path)
    budgets = "8" if "--budgets=8" in arguments else "16,32"
    result = run(*[a for a in arguments if a != "--budgets=8"], budgets=budgets, engines=NO_ENGINE)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    for word in words:
        assert word in result.stderr.str()


@pytest.mark.usefixtures("quick")
def test_other_problems_of_the_same_ids_fail_every_comparison(run, pytester):
    def pose(*answers):
        lines = [
            json.dumps({"id": f"p{n}", "question": f"What is {n}?", "answer": a})
            for n, a in enumerate(answers)
        ]
        (pytester.path / "mine.jsonl").write_text("\n".join(lines))

    pose("1", "2")
    run(SAVE, "main", "--task=mine.jsonl", problems=2).assert_outcomes(passed=3)
    pose("1", "3")
    result = run(COMPARE, "main", "--task=mine.jsonl", problems=2)
    result.assert_outcomes(passed=3, errors=2)
    result.stdout.fnmatch_lines(
        ["ERROR *problem 'p1' has another expected answer in 0001_main: '2' there, '3' here*"]
    )


# Several models


def three():
    def lengths(mu):
        return lambda rng: rng.lognormvariate(mu, 0.5)

    return [
        make_study(60, alias="middle"),
        make_study(60, alias="a-small-model-with-a-long-name", accuracy=0.6, lengths=lengths(4.6)),
        make_study(50, alias="large", accuracy=0.98, lengths=lengths(5.6)),
    ]


def test_models_of_one_run_are_compared_pairwise_with_holm(tmp_path):
    (found,) = compare_models(three())
    assert (found.problems, found.budget, len(found.pairs)) == (50, 2048, 3)
    for pair in found.pairs:
        raw = pair.change.accuracy.p_mcnemar
        assert raw <= pair.p_holm <= min(1.0, 3 * raw + 1e-12)
        assert pair.change.accuracy.difference.n == 50
    small = found.pairs[0]
    assert small.shown()
    assert small.change.accuracy.difference.value < 0
    lines = models_lines(found)
    assert max(map(cells, lines)) <= 80
    assert "adjusted by Holm for 3 pairs" in "\n".join(lines)
    write_models([found], tmp_path)
    record = json.loads((tmp_path / "results" / "compare_models.json").read_text())
    assert [pair["different"] for pair in record["pairs"]] == [p.shown() for p in found.pairs]
    assert list(record["pareto"]) == ["tokens"]


def certain(count, n):
    """Models that are right on all of ``n`` problems, or on none, by turns."""
    return [
        make_study(n, alias=f"127.0.0.1-{41000 + number}", accuracy=float(number % 2 == 0))
        for number in range(count)
    ]


def test_columns_stay_where_a_difference_is_all_there_is():
    (found,) = compare_models(certain(3, 400))
    _, head, *rows = models_lines(found)[:5]
    assert "100.0 -> 0.0" in rows[0]
    assert "-100.0 [-100.0, -98.1]" in rows[0]
    assert {len(line) for line in (head, *rows)} == {len(head)}
    assert len(head) <= 80
    # The columns end where their headings end.
    for heading in ("accuracy %", "change [95 %]", "p (Holm)"):
        end = head.index(heading) + len(heading)
        assert all(line[end - 1] != " " and line[end:][:1] in ("", " ") for line in rows)
    assert [line.split()[-1] for line in rows] == ["<0.001", "1.000", "<0.001"]


@pytest.mark.slow
def test_of_many_pairs_the_most_decisive_are_shown():
    studies = [make_study(30, alias=f"m{number:02}", accuracy=number / 12) for number in range(13)]
    (found,) = compare_models(studies)
    assert len(found.pairs) == 78
    lines = models_lines(found)
    rows = [line for line in lines if " -> " in line]
    assert len(rows) == 10
    first = {pair.first + pair.second for pair in found.pairs if pair.p_holm < 0.001}
    assert all("".join(line.split()[:2]) in first for line in rows)
    said = " ".join(lines)
    assert "shown are the 10 pairs with the smallest p of 78; all are in the JSON file" in said
    everything = models_lines(found, every=True)
    assert sum(" -> " in line for line in everything) == 78
    assert "shown are" not in " ".join(everything)
    assert max(map(cells, everything)) <= 80


def test_the_pareto_plane_of_costs_is_there_where_every_model_has_a_price():
    studies = three()
    for study, price in zip(studies, (1.0, 100.0, 2.0), strict=True):
        study.price = Price(0.0, price, price)
    (found,) = compare_models(studies)
    tokens, cost = found.planes
    assert [tokens.axis.name, cost.axis.name] == ["tokens", "cost"]
    at = next(p for p in cost.places if (p.name, p.budget) == ("large", 2048))
    mean = studies[2].curve.at(2048).mean_tokens.value
    assert at.price == pytest.approx(1000 * mean * 2.0 / 1e6)
    # The small one is the cheapest in tokens and the dearest in money.
    small = "a-small-model-with-a-long-name"
    assert small in {p.name for p in tokens.front}
    assert small not in {p.name for p in cost.front if p.accuracy > 0}
    studies[0].price = Price(0.0, 1.0, 1.0, "EUR")
    assert len(compare_models(studies)[0].planes) == 1
    with figure_style():
        figure = draw_pareto(cost, "sums")
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert "USD for 1,000 answers" in axes.get_xlabel()
    assert len(axes.get_legend().get_texts()) == 3


def test_models_of_different_tasks_are_not_mixed():
    one, two, other = three()
    other.task.name = "another"
    (found,) = compare_models([one, two, other])
    assert found.names == ("middle", "a-small-model-with-a-long-name")
    assert compare_models([one, other]) == []


def test_the_figure_of_a_comparison_has_both_curves():
    old, new = make_study(40), make_study(40, accuracy=0.5, budgets=(64, 256, 2048))
    found = compare_runs(run_of(old, RunInfo()), run_of(new, RunInfo()), "0001_$main_x")
    with figure_style():
        figure = draw_comparison(found)
        figure.draw_without_rendering()
    accuracy, change, truncated, tokens = figure.axes
    labels = [text.get_text() for text in accuracy.get_legend().get_texts()]
    assert labels == ["0001_$main_x", "this run"]
    for axes in (accuracy, truncated, tokens):
        assert [list(line.get_xdata()) for line in axes.lines] == [[64, 256, 2048]] * 2
    low, high = change.get_ylim()
    assert low == -high


@pytest.mark.usefixtures("quick")
def test_a_run_of_two_models_shows_them_together(run, pytester):
    (pytester.path / "tokenbudget.toml").write_text(
        '[models.other]\nbase = "nano-reasoner"\ncontext = 1024\n'
    )
    result = run("--model=nano-reasoner,other", "--rootdir=.", SAVE, "both")
    result.assert_outcomes(passed=6)
    result.stdout.fnmatch_lines(["*2 models on word-problems at 32 tokens, n = 3*"])
    files = {path.name for path in (pytester.path / "reports").rglob("compare_models*")}
    assert files == {f"compare_models{end}" for end in (".json", "_tokens.png", "_tokens.svg")}
    result = run("--model=other", "--rootdir=.", COMPARE, "both", engines=NO_ENGINE)
    result.assert_outcomes(passed=5)
    result.stdout.fnmatch_lines(["*other against 0001_both, n = 3*"])
