"""The plugin as a whole, through pytester, in this process."""

import shutil
import sys

import pytest
from runs import NANO, NO_ENGINE, Engines, RealEngines, answers, combined, read, rows

pytest_plugins = ["run_fixtures"]


def names(result):
    return [line.split("::")[1].split()[0] for line in result.outlines if "::test_" in line]


# With the embedded model


def test_the_whole_way_with_the_embedded_model(run, pytester):
    engines = RealEngines()
    result = run("-v", "-k", "16 or point", engines=engines)
    assert result.parseoutcomes()["passed"] == 2
    assert names(result) == [
        "test_accuracy_at_budget[nano-reasoner-16]",
        "test_saturation_point[nano-reasoner]",
    ]
    result.stdout.fnmatch_lines(
        [
            "tokenbudget: nano-reasoner = */nano-reasoner, float32 on cpu | word-problems, "
            "3 problems | greedy",
            "tokenbudget: 3 traces to generate, at most 96 tokens; kept in */traces.sqlite",
            "*nano-reasoner on word-problems, n = 3 *",
            " *16 *100.0 %*16.0",
            " *32 *",
            "generated * tokens once; one generation a budget would have cost *",
            "written: reports/results/ (4 files)",
            "written: reports/figures/fig1_saturation_curve_nano-reasoner.png",
            "written: reports/figures/fig1_saturation_curve_nano-reasoner.svg",
        ]
    )
    assert len(engines.seen) == 3
    study = combined(pytester.path)
    assert study["budgets"] == [16, 32]
    assert study["complete"] is True
    assert study["settings"]["num_samples"] == 3
    assert study["identity"]["dtype"] == "float32"
    assert {"python", "pytest", "torch", "transformers"} <= set(study["versions"])
    for budget in (16, 32):
        for answer in answers(pytester.path, budget):
            assert answer["budget"] == budget
            assert answer["tokens_used"] == budget or not answer["truncated"]
    long, short = answers(pytester.path, 32), answers(pytester.path, 16)
    assert all(a["generated"].startswith(b["generated"]) for a, b in zip(long, short, strict=True))
    assert [r["budget"] for r in read(pytester.path, "metrics.json") if r["budget"]] == [16]

    # Other thresholds: judged from the store, and no model is loaded.
    before = rows(pytester.path)
    again = run("--min-accuracy=16:0.9", "--junitxml=j.xml", engines=NO_ENGINE)
    again.assert_outcomes(passed=2, failed=1)
    assert again.ret == pytest.ExitCode.TESTS_FAILED
    again.stdout.fnmatch_lines(["*no model is loaded", "this run generated no token*"])
    assert rows(pytester.path) == before

    # A larger budget continues what was capped.
    engines = RealEngines()
    result = run("-k", "40", engines=engines, budgets="16,40")
    assert result.parseoutcomes()["passed"] == 1
    capped = [r for r in before if len(r[-1]) == 4 * 32]
    assert capped
    assert sorted(r.key for r in engines.seen) == sorted(key for key, *_ in capped)
    assert {len(r.prefix_ids) for r in engines.seen} == {32}
    ids = {key: ids for key, *_, ids in rows(pytester.path)}
    assert all(ids[key].startswith(blob) for key, *_, blob in before)


def test_one_model_is_in_memory_at_a_time(run, pytester, quick_figures):
    """Two copies of the embedded model, one of them changed so that it is another model."""
    for name in ("first", "second"):
        shutil.copytree(NANO, pytester.path / name)
    config = pytester.path / "second" / "generation_config.json"
    config.write_text(config.read_text() + "\n")
    engines, loaded = RealEngines(), []
    make = engines.make

    def watched(*given):
        assert all(engine._model is None for engine in engines.made)
        loaded.append(given[0].alias)
        return make(*given)

    engines.make = watched
    result = run("-v", "--model=./first,./second", engines=engines, problems=2)
    result.assert_outcomes(passed=6)
    assert loaded == ["first", "second"]
    assert len(engines.seen) == 4
    for budget in (16, 32):
        first, second = (answers(pytester.path, budget, name) for name in ("first", "second"))
        assert [a["generated"] for a in first] == [a["generated"] for a in second]
    assert combined(pytester.path, "first")["identity"] != combined(pytester.path, "second")


# Models, budgets and ids


@pytest.mark.parametrize("arguments", [["--model=./b,./a"], ["--model=./b", "--model=./a"]])
@pytest.mark.usefixtures("quick_figures")
def test_several_models_run_in_the_order_given(run, pytester, arguments):
    for name in "ab":
        shutil.copytree(NANO, pytester.path / name)
    engines = Engines()
    result = run("-v", *arguments, engines=engines)
    assert names(result) == [
        f"test_{name}]"
        for m in "ba"
        for name in (
            f"accuracy_at_budget[{m}-16",
            f"accuracy_at_budget[{m}-32",
            f"saturation_point[{m}",
        )
    ]
    # The same files under two names are one model: its traces serve both.
    assert len(engines.seen) == len(rows(pytester.path)) == 3
    assert combined(pytester.path, "a")["curve"] == combined(pytester.path, "b")["curve"]
    result.stdout.fnmatch_lines(["* b on word-problems, n = 3 *", "* a on word-problems, n = 3 *"])


@pytest.mark.parametrize("name", ["模型 é 1", "a;b&c", "x" * 120])
@pytest.mark.usefixtures("quick_figures")
def test_any_name_makes_results_with_safe_names(run, pytester, name):
    shutil.copytree(NANO, pytester.path / name)
    result = run(f"--model=./{name}")
    result.assert_outcomes(passed=3)
    written = sorted(p.name for p in (pytester.path / "reports").rglob("*.*") if p.is_file())
    assert len(written) == 7
    assert all(n.isascii() and n.replace(".", "").replace("_", "").replace("-", "").isalnum()
               for n in written)  # fmt: skip
    (study,) = (pytester.path / "reports" / "results").glob("phase1_combined_*.json")
    assert read(pytester.path, study.name)["model"] == name


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_no_text_is_refused(run, pytester):
    shutil.copytree(NANO, pytester.path / "mod\udcff")
    result = run("--model=./mod\udcff", engines=NO_ENGINE)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --model: *udcff' cannot be used; allowed: *UTF-8"])


@pytest.mark.usefixtures("quick_figures")
def test_budgets_beyond_the_context_are_named_and_left_out(run, pytester):
    """4,096 is beyond the context, and 2,040 beyond what the prompt leaves of it."""
    result = run("-v", "-rs", budgets="16,2040,4096")
    assert names(result)[:3] == [
        "test_accuracy_at_budget[nano-reasoner-16]",
        "test_accuracy_at_budget[nano-reasoner-2040]",
        "test_saturation_point[nano-reasoner]",
    ]
    result.assert_outcomes(passed=2, skipped=1)
    result.stdout.fnmatch_lines(
        ["left out,*: 2,040, 4,096 tokens", "*budget 2,040 is left out: nano-reasoner's context*"]
    )
    assert combined(pytester.path)["left_out_budgets"] == [2040, 4096]


def test_a_prompt_without_room_for_any_budget_is_an_error_that_says_so(run):
    result = run(budgets="2040")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*no budget of 2040 fits: its context of 2,048 tokens leaves*"])
    result.stdout.no_fnmatch_line("*INTERNALERROR*")
