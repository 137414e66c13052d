"""Suggested types, measured recovery, and the statistics of annotated errors."""

import json
import math
import random
import warnings

import numpy as np
import pytest
from studies import NumberTask, make_problem, make_study, trace_of

from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.report.json_files import RunInfo
from pytest_tokenbudget.stats.intervals import wilson
from pytest_tokenbudget.studies.errors.analysis import Evolution, analyse_errors
from pytest_tokenbudget.studies.errors.annotation_tables import read_sheet, sheet_bytes, table_path
from pytest_tokenbudget.studies.errors.annotations import prepare
from pytest_tokenbudget.studies.errors.report import errors_lines, evolution_lines, write_errors
from pytest_tokenbudget.studies.errors.statistics import (
    NOT_ANNOTATED,
    SOLVED,
    agreement,
    evolution,
    goodman,
    rate,
    shares,
    step,
)
from pytest_tokenbudget.studies.errors.taxonomy import (
    ERROR_TYPES,
    Verdicts,
    WrongAnswer,
    errors_at,
    suggest,
    suggestion,
)
from pytest_tokenbudget.tasks.answers import extract_number

pytest_plugins = ["run_fixtures"]

# What the embedded model wrote; 13 + 12 = 25, and Omar pays Clara: a wrong step, a right sum.
QUESTION = (
    "Clara saved 13 dollars. Clara works 3 hours for 4 dollars each. Omar pays Clara 19 dollars. "
    "Clara works 3 hours for 3 dollars each. How many dollars does Clara have now?"
)
LOGIC = """Clara saved 13 dollars.
1. Clara works 3 hours for 4 dollars each: 3 * 4 = 12, 13 + 12 = 25
2. Omar pays Clara 19 dollars: 25 - 19 = 6
3. Clara works 3 hours for 3 dollars each: 3 * 3 = 9, 6 + 9 = 15
Check: 15 - 9 = 6, 6 + 19 = 25, 25 - 12 = 13. It fits.
#### 15"""


def asked(text, expected="53", truncated=False, question=QUESTION):
    found = extract_number(text, truncated)
    return WrongAnswer(
        text=text,
        answer=text,
        truncated=truncated,
        question=question,
        expected=expected,
        predicted=found.text if found else None,
        branch=found.branch if found else None,
    )


# Suggestions


def test_a_wrong_step_with_right_sums_has_no_suggestion():
    assert suggest(asked(LOGIC)).type is None
    assert suggest(asked(LOGIC)).reason == ""


def test_arithmetic_names_the_first_wrong_equation_and_its_place():
    broken = LOGIC.replace("25 - 19 = 6", "25 - 19 = 7").replace("6 + 9 = 15", "6 + 9 = 16")
    said = suggest(asked(broken))
    line = broken.split("\n")[2]
    assert said.type == "arithmetic"
    assert said.reason == (
        f"line 3, character {line.index('25 - 19') + 1}: 25 - 19 = 7, but the left side is 6"
    )


def test_incomplete_is_what_the_budget_cut():
    cut = LOGIC[: LOGIC.index("6 + 9 = 15") + len("6 + 9 = 1")]
    assert suggest(asked(cut, truncated=True)).type == "incomplete"
    # The cut number is no wrong sum; a wrong sum before the cut is one, and comes first.
    broken = cut.replace("13 + 12 = 25", "13 + 12 = 26")
    assert suggest(asked(broken, truncated=True)).type == "arithmetic"


@pytest.mark.parametrize(
    ("text", "suggested"),
    [
        ("He has 53 dollars now.\nIs that all? I thought of 12 hours.", "format"),
        ("That makes fifty-three, 25 + 28 = 53 dollars; on 3 days.", "format"),
        ("It was 13 dollars at first.\nThen 52.", None),
        # The model declared another number: the right one on the way was no answer.
        ("25 + 28 = 53, 53 - 1 = 52\n#### 52", None),
        ("The answer is 53.\n#### 52", "format"),
    ],
)
def test_format_is_a_right_number_that_was_not_extracted(text, suggested):
    said = suggest(asked(text))
    assert said.type == suggested
    if suggested:
        assert "53" in said.reason
        assert said.reason.startswith("line 1")


def test_a_number_of_the_question_must_be_a_result():
    text = "Clara has 13 dollars, and then 20 more."
    assert suggest(asked(text, expected="13")).type is None
    assert suggest(asked("So 15 - 2 = 13, or 20?", expected="13")).type == "format"


def test_suggestions_on_gsm8k(gsm8k_path):
    """A reference solution whose last line is lost suggests a format error, not arithmetic."""
    types = []
    with gsm8k_path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            body, _, expected = row["answer"].rpartition("\n#### ")
            text = f"{body}\nThis is on page 1234567."
            types.append(suggest(asked(text, expected, question=row["question"])).type)
    assert types.count("arithmetic") == 2
    assert types.count("format") > 0.97 * len(types)


@pytest.mark.slow
def test_hostile_text_takes_no_time():
    suggest(asked("1/" * 100_000 + "=" * 1000 + "9" * 50_000, "5"))


# Recovery


def pieces(*texts):
    return [*texts, ""]


def recovery_study(samples=1):
    """Problem 0 is right from 8 tokens on, problem 1 ends wrong, problem 2 never ends."""
    problems = tuple(make_problem(n) for n in range(3))
    written = {
        0: ["so "] * 5 + ["#### ", "100", "\n", ""],
        1: ["#### ", "7", "\n", ""],
        2: ["so "] * 100,
    }
    traces = {}
    for n, problem in enumerate(problems):
        for sample in range(samples):
            text = written[n] if sample == 0 else ["#### ", problem.answer, "\n", ""]
            traces[problem.id, sample] = trace_of(problem.id, text, 32, sample)
    return Study("m", {}, NumberTask(problems=problems), problems, traces, samples, None, "plain",
                 (4, 8, 16, 32))  # fmt: skip


def test_recovery_is_measured_on_longer_cuts():
    study = recovery_study()
    verdicts = Verdicts(study)
    words = {j.problem.id: verdicts.recovery(j).sentence() for j in errors_at(study, 4)}
    assert words == {
        "sum-000": "yes at budget 8",
        "sum-001": "no up to 32",
        "sum-002": "no up to 32",
    }
    words = {j.problem.id: verdicts.recovery(j).sentence() for j in errors_at(study, 32)}
    assert words == {"sum-001": "no up to 32", "sum-002": "unknown"}


def test_recovery_by_other_samples():
    study = recovery_study(samples=3)
    verdicts = Verdicts(study)
    said = {j.problem.id: verdicts.recovery(j).sentence() for j in errors_at(study, 32)}
    assert said["sum-001"] == "no up to 32; 2 of 2 other samples right at budget 32"
    alone, others = recovery_study(), make_study(3, (512,), accuracy=1.0, samples=5)
    verdicts = Verdicts(alone, others)
    said = {j.problem.id: verdicts.recovery(j).sentence() for j in errors_at(alone, 4)}
    assert said["sum-000"].startswith("yes at budget 8; ")
    assert said["sum-001"].endswith(" of 5 other samples right at budget 512")


# Statistics


def test_shares():
    kinds = {("p", n): kind for n, kind in enumerate(["logic"] * 6 + ["setup"] * 3)}
    kinds = {(f"p{n}", 0): kind for (_, n), kind in kinds.items()}
    found = shares(kinds, ERROR_TYPES)
    assert [found[kind].count for kind in ERROR_TYPES] == [0, 3, 6, 0, 0, 0]
    assert found["logic"].share == wilson(6, 9)
    assert found["arithmetic"].share == wilson(0, 9)


def test_shares_count_problems_not_samples():
    same = {(f"p{n}", sample): n < 5 for n in range(10) for sample in range(8)}
    spread = {(f"p{n}", sample): sample < 4 for n in range(10) for sample in range(8)}
    single = wilson(5, 10)
    assert rate(same).high - rate(same).low > 0.9 * (single.high - single.low)
    assert rate(spread).value == rate(same).value == 0.5
    assert rate(same).n == 10


@pytest.mark.parametrize("counts", [[5, 3, 2], [0, 10, 0], [1, 1, 40, 8, 0, 0]])
def test_goodman_is_that_of_statsmodels(counts):
    from statsmodels.stats.proportion import multinomial_proportions_confint

    expected = multinomial_proportions_confint(counts, 0.05, method="goodman")
    mine = goodman(counts)
    assert np.allclose(mine, expected)


def test_goodman_covers_all_shares_together():
    rng = np.random.default_rng(0)
    truth = np.array([0.5, 0.25, 0.15, 0.1])
    hits = 0
    for counts in rng.multinomial(60, truth, size=1000):
        ends = goodman(counts)
        hits += all(low <= p <= high for (low, high), p in zip(ends, truth, strict=True))
    assert hits / 1000 > 0.93


def kappa_by_hand(a, b):
    kinds = set(a) | set(b)
    n = len(a)
    observed = sum(x == y for x, y in zip(a, b, strict=True)) / n
    chance = sum(a.count(k) * b.count(k) for k in kinds) / n**2
    return (observed - chance) / (1 - chance)


def judged_pairs(seed, n=60, same=0.6):
    rng = random.Random(seed)
    first = [rng.choice(ERROR_TYPES) for _ in range(n)]
    return first, [kind if rng.random() < same else rng.choice(ERROR_TYPES) for kind in first]


@pytest.mark.parametrize("seed", range(5))
def test_kappa_and_its_interval(seed):
    first, second = judged_pairs(seed)
    found = agreement(("a", "b"), dict(enumerate(first)), dict(enumerate(second)))
    assert found.kappa.value == pytest.approx(kappa_by_hand(first, second))
    rng = random.Random(seed)
    drawn = []
    for _ in range(600):
        rows = rng.choices(range(60), k=60)
        drawn.append(kappa_by_hand([first[r] for r in rows], [second[r] for r in rows]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert found.kappa.low == pytest.approx(low, abs=0.06)
    assert found.kappa.high == pytest.approx(high, abs=0.06)


@pytest.mark.parametrize(
    ("first", "second", "kappa", "remark"),
    [
        ([], [], None, "no row was judged by both"),
        (["logic"] * 9, ["logic"] * 9, None, "no value"),
        (["logic", "setup"] * 9, ["logic", "setup"] * 9, 1.0, "no disagreement"),
        (["logic"] * 18, ["logic", "setup"] * 9, 0.0, "always says the same"),
        (["logic"] * 4, ["setup"] * 4, 0.0, "always says the same"),
        (["logic", "setup"], ["setup", "logic"], -1.0, "few problems"),
    ],
)
def test_degenerate_agreement_is_said(first, second, kappa, remark):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = agreement(("a", "b"), dict(enumerate(first)), dict(enumerate(second)))
    assert remark in found.sentence()
    if kappa is None:
        assert found.kappa is None
    else:
        assert found.kappa.value == pytest.approx(kappa)
        assert -1 <= found.kappa.low <= found.kappa.value <= found.kappa.high <= 1
        assert all(map(math.isfinite, found.kappa[:3]))
    if kappa == 1.0:
        assert found.kappa.low < 0.9, "18 rows do not prove perfect agreement"


def test_a_rare_kind_gives_kappa_a_wide_interval():
    # Every resample of these rows has a kappa of about 0.5; the usual interval is [0.47, 0.51].
    first = ["logic"] * 37 + ["setup"] * 2
    second = ["logic"] * 37 + ["arithmetic"] * 2
    found = agreement(("a", "b"), dict(enumerate(first)), dict(enumerate(second)))
    assert found.kappa.value == pytest.approx(0.487, abs=0.001)
    assert found.kappa.low < 0.3
    assert found.kappa.high > 0.7


def test_rows_of_one_problem_are_not_independent():
    first, second = judged_pairs(3, n=20)
    rows = {(budget, at): kind for budget in (64, 128, 256) for at, kind in enumerate(first)}
    others = {(budget, at): kind for budget in (64, 128, 256) for at, kind in enumerate(second)}
    once = agreement(("a", "b"), dict(enumerate(first)), dict(enumerate(second)))
    thrice = agreement(("a", "b"), rows, others, problem_of=lambda key: key[1])
    assert (thrice.n, thrice.problems, thrice.kappa.n) == (60, 20, 20)
    assert thrice.kappa[:3] == pytest.approx(once.kappa[:3], abs=0.03)
    assert thrice.observed[:3] == pytest.approx(once.observed[:3], abs=0.02)
    assert "(n = 60 rows of 20 problems)" in thrice.sentence()


@pytest.mark.parametrize(
    ("kinds", "kappa", "problems", "each"),
    [
        ({"a": 0.9, "b": 0.05, "c": 0.05}, 0.48, 39, 1),
        ({"a": 0.5, "b": 0.5}, 0.48, 39, 1),
        ({"a": 0.4, "b": 0.3, "c": 0.3}, 0.9, 20, 1),
        ({"a": 0.4, "b": 0.3, "c": 0.3}, 0.48, 13, 3),
    ],
)
@pytest.mark.slow
def test_the_interval_of_kappa_covers_the_truth(kinds, kappa, problems, each):
    rng = random.Random(11)
    names, chances = list(kinds), list(kinds.values())

    def pair():
        kind = rng.choices(names, chances)[0]
        return kind, kind if rng.random() < kappa else rng.choices(names, chances)[0]

    covered = studies = 0
    for _ in range(150):
        first, second = {}, {}
        for problem in range(problems):
            same = pair()
            for row in range(each):
                drawn = same if rng.random() < 0.8 else pair()
                first[row, problem], second[row, problem] = drawn
        found = agreement(("a", "b"), first, second, problem_of=lambda key: key[1])
        if found.kappa is not None:
            studies += 1
            covered += found.kappa.low <= kappa <= found.kappa.high
    # Of 150 studies at 95 %, fewer than 90 % would be covered once in 200.
    assert covered / studies >= 0.9


def test_agreement_counts_only_what_both_judged():
    found = agreement(("a", "b"), {1: "logic", 2: "setup", 3: "logic"}, {2: "setup", 9: "logic"})
    assert found.n == 1


def test_evolution_and_step():
    a, b, c, d = (("a", 0), ("b", 0), ("c", 0), ("d", 0))
    before = {a: "logic", b: "logic", c: SOLVED, d: NOT_ANNOTATED}
    after = {a: SOLVED, b: "setup", c: "logic", ("e", 0): SOLVED}
    states = ("logic", "setup", NOT_ANNOTATED, SOLVED)
    matrix = evolution(before, after, states)
    assert matrix["logic"] == {"logic": 0, "setup": 1, NOT_ANNOTATED: 0, SOLVED: 1}
    assert matrix[SOLVED]["logic"] == 1
    assert sum(sum(row.values()) for row in matrix.values()) == 3
    right = [{u: s == SOLVED for u, s in states.items()} for states in (before, after)]
    found = step((64, 128), *right, {a: "logic", b: "logic"})
    assert (found.errors, found.recovered, found.persistent, found.broken) == (2, 1, 1, 1)
    assert found.recovery == wilson(1, 2)
    assert found.recovery_by_type == {"logic": wilson(1, 2)}


# The analysis of annotated tables

SAMPLES = {64: 12, 128: 8, 256: 5}


def annotate(path, kind, share=1.0, seed=0):
    """Fill in the errors of a table; returns how many."""
    rng = random.Random(seed)
    sheet = read_sheet(path)
    rows = [dict(row.cells) for row in sheet.rows]
    done = 0
    for row in rows:
        if row["correct"] == "no" and rng.random() < share:
            row |= {"error_type": kind(row), "recoverable": "no"}
            done += 1
    path.write_bytes(sheet_bytes(sheet.columns, rows))
    return done


@pytest.fixture
def study():
    return make_study(80, (32, 64, 128, 256, 512), accuracy=0.7)


def test_nothing_annotated(study, tmp_path):
    prepare(study, tmp_path, SAMPLES, 3)
    report = analyse_errors(study, [tmp_path], SAMPLES)
    assert report.annotated == 0
    assert report.sentence() == f"none of {report.picked} picked errors is annotated yet"
    for one in report.budgets:
        assert one.types == {}
        assert one.errors == len(errors_at(study, one.budget))
        assert sum(one.outcomes.values()) == one.errors
        by_rule = [suggestion(j).type or "none" for j in errors_at(study, one.budget)]
        assert {k: s.count for k, s in one.suggested.items() if s.count} == {
            k: by_rule.count(k) for k in set(by_rule)
        }
    assert report.agreement == ()


def test_unfinished_annotation_is_analysed_and_said(study, tmp_path):
    prepare(study, tmp_path, SAMPLES, 3)
    done = annotate(table_path(tmp_path, 64), lambda row: "Logic", 0.5)
    report = analyse_errors(study, [tmp_path], SAMPLES)
    assert 0 < done < 12
    assert report.annotated == done
    assert report.sentence() == f"{done} of {report.picked} picked errors annotated; " + (
        "these are analysed"
    )
    at = report.budgets[0]
    assert at.types["logic"].share == wilson(done, done)
    assert at.recoverable == {"yes": 0, "no": done, "unknown": 0}
    assert report.budgets[1].types == {}


def test_controls_count_in_no_share(study, tmp_path):
    prepare(study, tmp_path, {256: 5}, 3)
    path = table_path(tmp_path, 256)
    sheet = read_sheet(path)
    rows = [{**row.cells, "error_type": "setup"} for row in sheet.rows]
    path.write_bytes(sheet_bytes(sheet.columns, rows))
    (at,) = analyse_errors(study, [tmp_path], [256]).budgets
    assert (at.annotated, at.types["setup"].count) == (5, 5)
    assert (at.controls, at.controls_with_type) == (3, 3)


def test_rows_about_other_texts_count_nowhere(study, tmp_path):
    prepare(study, tmp_path, {64: 5}, 0)
    annotate(table_path(tmp_path, 64), lambda row: "logic")
    name = read_sheet(table_path(tmp_path, 64)).rows[0]["problem_id"]
    newer = make_study(80, (32, 64, 128, 256, 512), accuracy=0.7)
    newer.traces[name, 0] = trace_of(name, ["other", ""], 512)
    (at,) = analyse_errors(newer, [tmp_path], [64]).budgets
    assert (at.annotated, at.of_other_texts) == (4, 1)


def test_evolution_follows_annotated_types(study, tmp_path):
    prepare(study, tmp_path, {64: 80, 128: 80}, 0)
    annotate(table_path(tmp_path, 64), lambda row: "incomplete")
    annotate(table_path(tmp_path, 128), lambda row: "logic")
    report = analyse_errors(study, [tmp_path], [64, 128])
    (moved,) = report.evolution
    (one,) = report.steps
    assert moved.annotated["incomplete"]["logic"] == one.persistent
    assert moved.annotated["incomplete"][SOLVED] == one.recovered > 0
    assert one.recovery_by_type["incomplete"] == one.recovery


def test_two_annotators_and_the_rules(study, tmp_path):
    first, second = tmp_path / "anna", tmp_path / "ben"
    for directory, types in ((first, ("logic", "incomplete")), (second, ("logic", "setup"))):
        prepare(study, directory, SAMPLES, 0)
        for budget in SAMPLES:
            annotate(
                table_path(directory, budget),
                lambda row, types=types: types[int(row["problem_id"][-1]) % 2],
            )
    report = analyse_errors(study, [first, second], SAMPLES)
    found = {(a.first, a.second): a for a in report.agreement}
    types = found["types by anna", "by ben"]
    assert types.n == report.annotated
    assert types.table["incomplete"]["setup"] + types.table["logic"]["logic"] == types.n
    assert found["suggested types", "types by anna"].n > 0
    assert found["recoverable by anna", "by ben"].kappa is None
    assert "measured recovery" in {a.first for a in report.agreement}
    # The shares are the first annotator's.
    assert report.budgets[0].types["setup"].count == 0


def test_wrong_values_are_reported_and_nothing_counts(study, tmp_path):
    prepare(study, tmp_path / "annotations", SAMPLES, 0)
    annotate(table_path(tmp_path / "annotations", 64), lambda row: "guess")
    report = analyse_errors(study, [tmp_path / "annotations"], SAMPLES)
    assert len(report.faults) == 12
    assert report.annotated == 0
    settings = {"error_samples": tuple(SAMPLES.items()), "reports": tmp_path}
    run = RunInfo(settings=settings)
    assert write_errors(study, run, tmp_path)
    said = "\n".join(errors_lines(study, run))
    assert "12 faults" in said
    assert "and 7 more" in said


# Files, figure, lines


@pytest.mark.parametrize("annotated", [False, True])
def test_files(request, study, tmp_path, annotated):
    if annotated:
        request.getfixturevalue("quick_figures")
    prepare(study, tmp_path / "annotations", SAMPLES, 3)
    if annotated:
        annotate(table_path(tmp_path / "annotations", 64), lambda row: "format")
    settings = {
        "error_samples": tuple(SAMPLES.items()),
        "annotations": (),
        "reports": tmp_path,
    }
    run = RunInfo(settings=settings)
    path, *figures = write_errors(study, run, tmp_path)
    assert path == tmp_path / "results" / "phase2_error_analysis.json"
    assert [figure.name for figure in figures] == [
        f"fig2_error_{what}_qwen-1.5b.{kind}"
        for what in ("distribution", "recovery")
        for kind in ("png", "svg")
    ]
    data = json.loads(path.read_text(encoding="utf-8"))
    mine = data["models"]["qwen-1.5b"]
    assert mine["problems"] == 80
    assert mine["budgets"][0]["annotated"] == (12 if annotated else 0)
    lines = errors_lines(study, run)
    assert all(len(line) <= 80 for line in lines)
    assert any("suggested" in line for line in lines if line.startswith("64: ")) != annotated
    assert any("(columns), annotated" in line for line in lines) == annotated
    other = make_study(20, (64, 128, 256), alias="other", accuracy=0.5)
    write_errors(other, run, tmp_path)
    assert set(json.loads(path.read_text())["models"]) == {"other", "qwen-1.5b"}


def test_the_terminal_shows_recovery_and_evolution(study, tmp_path):
    run = RunInfo(settings={"error_samples": tuple(SAMPLES.items()), "reports": tmp_path})
    report = analyse_errors(study, [tmp_path / "annotations"], SAMPLES)
    lines = errors_lines(study, run)
    first, last = report.budgets[0], report.budgets[-1]
    measured = [first.measured[each] for each in ("yes", "no", "unknown")]
    said = " ".join(" ".join(lines[:2]).split())
    assert said.startswith(
        f"phase 2: {last.errors} errors of {last.answers} answers at {last.budget} tokens; of "
        f"{first.errors} at {first.budget}, {measured[0]} recoverable, {measured[1]} persistent"
    )
    rows = [line.split() for line in lines]
    share = f"{100 * first.errors / first.answers:.1f}"
    assert [str(first.budget), str(first.errors), share, "%", *map(str, measured)] in rows
    for change in report.evolution:
        place = next(n for n, row in enumerate(rows) if row[:2] == ["from", str(change.budget)])
        kinds = rows[place + 1]
        assert kinds[-1] == "solved"
        for row in rows[place + 2 : place + 2 + len(kinds)]:
            if row[0] in change.suggested and len(row) == 1 + len(kinds):
                numbers = [change.suggested[row[0]][kind] for kind in kinds]
                assert list(map(int, row[1:])) == numbers


@pytest.mark.parametrize("width", [20, 40, 60, 80])
def test_an_evolution_fits_any_terminal(width):
    kinds = (*ERROR_TYPES, NOT_ANNOTATED, SOLVED)
    full = {row: dict.fromkeys(kinds, 12) for row in kinds}
    lines = evolution_lines(Evolution(128, 1024, full, {}), width)
    assert all(len(line) <= width for line in lines)
    assert "from 128" in lines[0]
    solved = {SOLVED: {SOLVED: 5}}
    assert evolution_lines(Evolution(128, 1024, {}, solved), width) == []


def texts(figure):
    from matplotlib.text import Text

    return "\n".join(t.get_text() for t in figure.findobj(Text))


@pytest.mark.parametrize("annotated", [False, True])
def test_figure_says_what_it_shows(study, tmp_path, annotated):
    from pytest_tokenbudget.report.style import figure_style
    from pytest_tokenbudget.studies.errors.figure import draw_errors

    prepare(study, tmp_path, SAMPLES, 3)
    if annotated:
        annotate(table_path(tmp_path, 64), lambda row: "format")
    report = analyse_errors(study, [tmp_path], SAMPLES)
    with figure_style():
        figure = draw_errors(study, report)
        said = texts(figure)
    assert ("NOT annotated" in said) != annotated
    assert ("suggested by rules" in said) != annotated
    assert ("n = 12 annotated" in said) == annotated
    heights = [round(bar.get_height(), 6) for bar in figure.axes[0].patches]
    if annotated:
        assert heights == [1.0, 0.0, 0.0]
    else:
        at = report.budgets[0].suggested
        assert round(at["incomplete"].share.value, 6) in heights


def test_no_errors_no_figure(tmp_path):
    study = make_study(20, (512,), accuracy=1.0, lengths=lambda rng: 40)
    assert len(write_errors(study, RunInfo(), tmp_path)) == 1
