"""The cliff: gains, tests and places against brute force, and what is claimed of them."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from studies import make_study
from text_snapshots import TextFile, text_of

from pytest_tokenbudget.core.cliff import CliffStatus, cliff_budgets, find_cliff
from pytest_tokenbudget.report import style
from pytest_tokenbudget.report.json_files import RunInfo
from pytest_tokenbudget.stats.resampling import bootstrap_mean
from pytest_tokenbudget.studies.cliff.analysis import SHARES, analyse_cliff, find_answers
from pytest_tokenbudget.studies.cliff.figure import (
    answer_figure,
    cliff_figure,
    draw_answers,
    draw_cliff,
)
from pytest_tokenbudget.studies.cliff.report import cliff_lines, steepest_lines, write_cliff

BUDGETS = (96, 112, 128, 144, 160)


def staircase(*gained):
    """Problems that turn right in each step, one sample; the first number before all of them."""
    steps = np.repeat(np.arange(len(gained)), gained)
    return (steps[:, None] <= np.arange(len(gained) - 1))[:, None, :].astype(float)


def by_token(came, gone, reach):
    """Problems x samples x tokens from the token at which each turns right, and wrong again."""
    tokens = np.arange(1, reach + 1)
    came, gone = np.asarray(came)[:, :, None], np.asarray(gone)[:, :, None]
    return (tokens >= came) & (tokens < gone)


# --- between budgets --------------------------------------------------------------------------


def test_a_steep_window_among_flat_ones_is_the_cliff():
    result = find_cliff(BUDGETS, staircase(20, 4, 4, 80, 4, 88))
    assert result.status is CliffStatus.RESOLVED
    assert (result.steepest.low, result.steepest.high) == (128, 144)
    assert result.place == (128, 144)
    assert result.needed is None
    assert result.reason == ""
    assert result.budgets == BUDGETS


def test_steps_count_problems_and_test_them():
    scores = staircase(20, 4, 9, 30, 0, 37)
    scores[:3, 0, 2:] = 0  # three that were right are lost from 112 to 128
    result = find_cliff(BUDGETS, scores)
    assert [(s.gained, s.lost) for s in result.steps] == [(4, 0), (9, 3), (30, 0), (0, 0)]
    step = result.steps[1]
    assert step.gain.value == pytest.approx(0.06)
    assert step.per_token.value == pytest.approx(0.06 / 16)
    assert step.gain == bootstrap_mean(np.diff(scores[:, 0], axis=1)[:, 1])
    p_values = [stats.binomtest(s.lost, s.gained + s.lost).pvalue for s in result.steps[:3]] + [1]
    assert [s.p for s in result.steps] == pytest.approx(p_values)
    assert result.steps[2].p_holm == pytest.approx(4 * p_values[2])
    assert [s.significant for s in result.steps] == [False, False, True, False]
    rest = (0.04 + 0.06 + 0.0) / 48
    assert result.steps[2].excess_per_token == pytest.approx(0.30 / 16 - rest)


def test_an_even_rise_is_not_resolved():
    result = find_cliff(BUDGETS, staircase(20, 30, 30, 30, 30, 60))
    assert result.status is CliffStatus.UNRESOLVED
    assert result.needed is None
    assert result.place == (96, 160)
    assert [[step.high for step in alike] for alike in result.ranked] == [[112, 128, 144, 160]]


@pytest.mark.parametrize("gained", [(4, 2, 2, 5, 2, 5), (10, 3, 4, 7, 3, 13), (8, 1, 4, 5, 1, 1)])
def test_needed_problems_do_resolve_it(gained):
    scores = staircase(*gained)
    result = find_cliff(BUDGETS, scores)
    assert result.status is CliffStatus.UNRESOLVED
    assert result.needed is not None
    n = scores.shape[0]
    often = math.ceil(1.3 * result.needed / n)
    assert find_cliff(BUDGETS, scores.repeat(often, 0)).status is CliffStatus.RESOLVED
    seldom = int(0.7 * result.needed / n)
    if seldom:
        assert find_cliff(BUDGETS, scores.repeat(seldom, 0)).status is CliffStatus.UNRESOLVED


def test_two_equal_cliffs_far_apart_have_no_known_place():
    result = find_cliff((*BUDGETS, 176, 192), staircase(0, 80, 2, 2, 2, 2, 80, 32))
    assert result.steps[0].p_steeper < 0.05
    assert result.status is CliffStatus.UNRESOLVED
    assert result.place == (96, 192)
    assert result.needed is None


def test_two_unequal_cliffs_need_problems_to_tell_them():
    scores = staircase(0, 80, 2, 2, 2, 2, 70, 42)
    result = find_cliff((*BUDGETS, 176, 192), scores)
    assert result.status is CliffStatus.UNRESOLVED
    assert result.needed > 200
    often = math.ceil(1.3 * result.needed / 200)
    again = find_cliff((*BUDGETS, 176, 192), scores.repeat(often, 0))
    assert again.status is CliffStatus.RESOLVED


def test_uneven_windows_are_compared_by_token():
    """Eight times as wide and four times the gain is not steeper."""
    result = find_cliff((32, 64, 320, 352), staircase(0, 30, 120, 4, 46))
    assert (result.steepest.low, result.steepest.high) == (32, 64)


def test_falling_accuracy_is_no_cliff():
    scores = 1 - staircase(10, 20, 20, 20, 20, 10)
    result = find_cliff(BUDGETS, scores)
    assert result.status is CliffStatus.UNRESOLVED
    assert result.steps[0].gain.value == pytest.approx(-0.2)


def test_too_few_budgets_or_problems():
    assert find_cliff([64], np.ones((9, 1, 1))).steps == ()
    two = find_cliff([64, 128], staircase(10, 50, 40))
    assert two.status is CliffStatus.UNRESOLVED
    assert find_cliff([64, 128], np.full((9, 1, 2), np.nan)).problems == 0
    assert find_cliff(BUDGETS, staircase(0, 1, 0, 0, 0, 0)).status is CliffStatus.UNRESOLVED
    with pytest.raises(ValueError, match="it has 64, 128"):
        two.at(96)
    assert two.at(64) is None
    assert two.at(128) is two.steps[0]


def test_samples_that_lack_a_budget_are_left_out():
    scores = np.repeat(staircase(20, 4, 9, 30, 2, 35), 2, axis=1)
    holes = scores.copy()
    holes[3, 0, 2] = np.nan
    holes[5] = np.nan
    result = find_cliff(BUDGETS, holes)
    assert result.problems == 99
    expected = find_cliff(BUDGETS, np.delete(scores, 5, axis=0))
    assert [s.gain for s in result.steps] == [s.gain for s in expected.steps]


def test_copied_samples_are_no_new_evidence():
    one = staircase(20, 8, 9, 18, 7, 38)
    single, copied = find_cliff(BUDGETS, one), find_cliff(BUDGETS, one.repeat(5, axis=1))
    assert single.steps == copied.steps
    assert single.place == copied.place


def test_samples_that_differ_are_evidence():
    rng = np.random.default_rng(2)
    came = rng.choice([100, 120, 136, 152, 400], size=(60, 8), p=[0.1, 0.2, 0.35, 0.2, 0.15])
    scores = (came[:, :, None] <= np.array(BUDGETS)).astype(float)
    many, one = find_cliff(BUDGETS, scores), find_cliff(BUDGETS, scores[:, :1])
    assert one.status is CliffStatus.UNRESOLVED
    assert many.status is CliffStatus.RESOLVED
    assert many.place == (128, 144)


def test_the_bootstrap_has_a_seed():
    scores = staircase(20, 8, 9, 18, 7, 38)
    assert find_cliff(BUDGETS, scores) == find_cliff(BUDGETS, scores)


def test_sentences_on_the_cliff(snapshot):
    ties = np.zeros((20, 1, 4))
    for problem, place in enumerate([1, 1, 3, 3]):
        ties[problem, 0, place:] = 1
    found = {
        "resolved": find_cliff(BUDGETS, staircase(20, 4, 4, 80, 4, 88)),
        "an even rise": find_cliff(BUDGETS, staircase(20, 30, 30, 30, 30, 60)),
        "two of a kind": find_cliff((96, 112, 128, 144), ties),
        "two equal cliffs far apart": find_cliff(
            (*BUDGETS, 176, 192), staircase(0, 80, 2, 2, 2, 2, 80, 32)
        ),
        "more problems would resolve it": find_cliff(BUDGETS, staircase(4, 2, 2, 5, 2, 5)),
        "falling accuracy": find_cliff(BUDGETS, 1 - staircase(10, 20, 20, 20, 20, 10)),
        "one budget": find_cliff([64], np.ones((9, 1, 1))),
        "two budgets": find_cliff([64, 128], staircase(10, 50, 40)),
        "no problem scored": find_cliff([64, 128], np.full((9, 1, 2), np.nan)),
        "no right answer": find_answers(np.zeros((5, 1, 30), bool), 16),
    }
    sentences = {name: each.sentence() for name, each in found.items()}
    studies = {
        "traces that end too early": make_study(5, (32, 64)),
        "no traces": make_study(5, missing=5),
        "a steep study": steep_study(40),
    }
    lines = {name: cliff_lines(study, RunInfo()) for name, study in studies.items()}
    assert text_of(sentences | lines) == snapshot(extension_class=TextFile)


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_invariants(data):
    n, samples = data.draw(st.integers(1, 25)), data.draw(st.integers(1, 3))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    scores = (rng.random((n, samples, 5)) < rng.random(5)).astype(float)
    scores[rng.random((n, samples)) < 0.1] = np.nan
    result = find_cliff(BUDGETS, scores, replicates=200)
    assert result.sentence()
    if result.steepest is None:
        return
    assert result.place[0] <= result.steepest.low
    assert result.steepest.high <= result.place[1]
    for step in result.steps:
        assert step.gain.low <= step.gain.value <= step.gain.high
        assert step.p <= step.p_holm <= 1
        assert 0 <= step.p_steeper <= 1
    resolved = result.status is CliffStatus.RESOLVED
    assert resolved == (result.reason == "")
    if resolved:
        assert result.steepest.p_steeper <= 0.05
        assert result.steepest.gain.value > 0


# --- token by token ---------------------------------------------------------------------------


def drawn(problems=80, samples=1, reach=200, seed=0):
    rng = np.random.default_rng(seed)
    shape = (problems, samples)
    came = np.clip(np.rint(rng.normal(90, 15, shape)), 1, None).astype(int)
    came[rng.random(shape) < 0.2] = reach + 1
    gone = np.where(rng.random(shape) < 0.1, came + rng.integers(1, 30, shape), reach + 1)
    return came, gone, by_token(came, gone, reach)


@pytest.mark.parametrize("width", [1, 16, 199, 200])
def test_the_steepest_tokens_are_found_by_looking_at_all(width):
    _, _, right = drawn()
    accuracy = [0.0, *right.mean(axis=(0, 1)).tolist()]
    gains = [accuracy[s + width] - accuracy[s] for s in range(201 - width)]
    found = find_answers(right, width, replicates=300)
    assert found.steepest.gain.value == pytest.approx(max(gains))
    assert gains[found.steepest.low] == pytest.approx(max(gains))
    assert found.steepest.high - found.steepest.low == width
    assert found.place[0] <= found.steepest.low
    assert found.steepest.high <= found.place[1]


@pytest.mark.parametrize("samples", [1, 3])
def test_the_token_at_which_answers_came(samples):
    came, gone, right = drawn(samples=samples)
    stayed = (came <= 200) & (gone > 200)
    found = find_answers(right, 16, replicates=300)
    assert found.came_at == tuple(sorted(came[stayed].tolist()))
    assert found.came.value == pytest.approx(stayed.mean())
    assert found.turned_wrong.value == pytest.approx(((came <= 200) & (gone <= 200)).mean())
    for quantile, share in zip(found.quantiles, SHARES, strict=True):
        sample = np.sort(came[stayed])
        assert quantile.token.value == sample[math.ceil(share * sample.size) - 1]
        assert quantile.token.low <= quantile.token.value <= quantile.token.high


def test_an_answer_that_came_back_came_the_last_time():
    right = by_token([[3]], [[11]], 10)
    right[0, 0, 5] = False
    assert find_answers(right, 2).came_at == (7,)
    assert find_answers(np.ones((1, 1, 10), bool), 2).came_at == (1,)


def test_errors_are_no_answers():
    _, _, right = drawn()
    scored = np.ones((80, 1), bool)
    scored[:8] = False
    found = find_answers(right, 16, scored, replicates=300)
    assert (found.problems, found.traces) == (72, 72)
    expected = find_answers(right[8:], 16, replicates=300)
    assert found.came == expected.came
    assert found.steepest == expected.steepest
    assert found.quantiles == expected.quantiles


def test_nothing_right_and_nothing_scored():
    found = find_answers(np.zeros((5, 1, 30), bool), 16)
    assert found.quantiles == ()
    nothing = find_answers(np.ones((5, 1, 30), bool), 16, np.zeros((5, 1), bool))
    assert (nothing.problems, nothing.came_at) == (0, ())
    with pytest.raises(ValueError, match="does not fit into 30"):
        find_answers(np.ones((5, 1, 30), bool), 31)


def test_the_sentence_counts_tokens_from_one():
    _, _, right = drawn(problems=400)
    text = find_answers(right, 16).sentence()
    found = re.match(
        r"token by token, the steepest 16 tokens are (\d+) to (\d+) \(95 % interval of their "
        r"place (\d+) to (\d+)\); half of the right answers came by token (\d+) \[(\d+), (\d+)\]$",
        text,
    )
    first, last, low, high, middle, _, _ = map(int, found.groups())
    assert last - first == 15
    assert low <= first < last <= high
    assert 85 <= middle <= 95


# --- the report -------------------------------------------------------------------------------


def steep_study(n=120, **further):
    def length(rng):
        return rng.gauss(184, 3) if rng.random() < 0.6 else rng.uniform(60, 330)

    return make_study(n, lengths=length, **further)


def test_the_analysis_of_a_study():
    study = steep_study(errors=3)
    result = analyse_cliff(study)
    assert analyse_cliff(study) is result
    assert result.budgets == tuple(range(96, 257, 16))
    assert result.cliff.problems == 117
    assert result.cliff.status is CliffStatus.RESOLVED
    for budget in (96, 192, 256):
        judged = study.judged(budget)
        assert result.at(budget).accuracy.value == pytest.approx(
            sum(j.correct for j in judged) / 117
        )
    assert result.at(96).step is None
    assert result.at(192).step.low == 176
    assert result.answers.width == 16
    assert result.answers.reach == 2048
    assert len(result.answers.came_at) == sum(j.correct for j in study.judged(2048))
    with pytest.raises(ValueError, match="no budget 100; it has 96, 112"):
        result.at(100)


def test_the_files_of_a_study(tmp_path):
    study = steep_study(40)
    files = write_cliff(study, RunInfo(), tmp_path)
    names = [path.name for path in files]
    assert names == [
        *(f"phase3_cliff_qwen-1.5b_budget{b}.json" for b in range(96, 257, 16)),
        "phase3_combined_qwen-1.5b.json",
        "fig3_cliff_detail_qwen-1.5b.png",
        "fig3_cliff_detail_qwen-1.5b.svg",
        "fig3_answer_place_qwen-1.5b.png",
        "fig3_answer_place_qwen-1.5b.svg",
    ]
    answers = json.loads(files[0].read_text())
    assert len(answers) == 40
    assert {answer["budget"] for answer in answers} == {96}
    combined = json.loads(files[11].read_text())
    result = analyse_cliff(study)
    assert combined["schema"] == "tokenbudget-phase3-cliff/1"
    assert combined["budgets"] == list(range(96, 257, 16))
    assert combined["cliff"]["sentence"] == result.cliff.sentence()
    assert combined["cliff"]["status"] == result.cliff.status.value
    assert len(combined["cliff"]["steps"]) == 10
    assert combined["answers"]["came_at"] == list(result.answers.came_at)
    assert len(combined["points"]) == 11


def test_the_figure_of_answers_counts_each_right_answer_once():
    study = steep_study(40)
    answers = analyse_cliff(study).answers
    shares, counts = draw_answers(study, answers).axes
    assert sum(bar.get_height() for bar in counts.patches if bar.get_width() < 16) == len(
        answers.came_at
    )
    assert counts.get_xlim()[1] >= answers.came_at[-1]
    middle = next(q.token.value for q in answers.quantiles if q.share == 0.5)
    assert (middle, 0.5) in [tuple(point) for point in shares.lines[-1].get_xydata().tolist()]


def test_no_figure_of_answers_where_none_came(tmp_path):
    study = steep_study(5)
    none = replace(analyse_cliff(study).answers, came_at=(), quantiles=())
    assert answer_figure(study, none, tmp_path) == []
    assert answer_figure(study, None, tmp_path) == []


def test_traces_that_end_too_early(tmp_path):
    short = make_study(5, (32, 64))
    assert cliff_budgets(short) == ()
    files = write_cliff(short, RunInfo(), tmp_path)
    assert [path.name for path in files] == ["phase3_combined_qwen-1.5b.json"]
    with pytest.raises(ValueError, match="traces reach to 64 tokens"):
        analyse_cliff(short)
    assert cliff_budgets(make_study(5, (64, 128))) == (96, 112, 128)


def test_a_study_without_traces_says_so(tmp_path):
    study = make_study(5, missing=5)
    assert not cliff_figure(study, tmp_path)
    with pytest.raises(ValueError, match="nothing to analyse"):
        analyse_cliff(study)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_lines_of_a_study(width):
    lines = cliff_lines(steep_study(), RunInfo(), width)
    assert all(len(line) <= min(width, 80) for line in lines)


def test_the_three_steepest_windows_and_ties_are_shown():
    """Of 20 problems 2 become right in each of two windows, 4 in one and 1 in each of two."""
    budgets = (96, 112, 128, 144, 160, 192)
    scores = np.zeros((20, 1, 6))
    for problem, place in enumerate([1, 1, 3, 3, 2, 2, 2, 2, 4, 5, 5]):
        scores[problem, 0, place:] = 1
    cliff = find_cliff(budgets, scores)
    assert [[s.high for s in alike] for alike in cliff.ranked] == [[128], [112, 144], [160, 192]]
    lines = steepest_lines(cliff)
    assert [line.split("  ")[0] for line in lines[:4]] == [
        "steepest windows",
        "112 to 128",
        "96 to 112",
        "128 to 144",
    ]
    assert lines[1].split()[3] == "+20.0"
    assert "+1.25 [" in lines[1]
    assert len(lines) == 5


def test_equally_steep_windows_are_named_in_the_answer():
    scores = np.zeros((20, 1, 4))
    for problem, place in enumerate([1, 1, 3, 3]):
        scores[problem, 0, place:] = 1
    cliff = find_cliff((96, 112, 128, 144), scores)
    assert [step.high for step in cliff.ranked[0]] == [112, 144]
    flat = find_cliff((96, 112, 128), np.ones((9, 1, 3)))
    assert steepest_lines(flat) == []


@pytest.mark.parametrize("study", [steep_study(60), make_study(3), make_study(8, accuracy=0.0)])
def test_the_figure_shows_the_numbers(study):
    with style.figure_style():
        figure = draw_cliff(study)
    top, bottom = figure.axes
    result = analyse_cliff(study)
    budgets = [line for line in top.lines if "at the budgets" in str(line.get_label())]
    assert budgets[0].get_ydata().tolist() == [p.accuracy.value for p in result.points]
    shown = sorted(
        (x, y)
        for line in bottom.lines
        if line.get_marker() == "o"
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    )
    # Steps of 16 tokens: their gain in points as it is.
    assert [y for _, y in shown] == pytest.approx([100 * s.gain.value for s in result.cliff.steps])
    assert f"n = {len(study.complete)}" in top.get_legend().get_title().get_text()
    figure.draw_without_rendering()
    box = top.get_legend().get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1


@pytest.mark.slow
def test_the_figure_is_the_same_again(tmp_path):
    one = cliff_figure(steep_study(30), tmp_path / "a")
    two = cliff_figure(steep_study(30), tmp_path / "b")
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
