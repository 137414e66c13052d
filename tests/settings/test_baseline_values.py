"""What the options about baselines may be set to."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_tokenbudget.settings.option_values import (
    METRICS,
    TOLERANCE_RULES,
    Tolerance,
    baseline,
    baseline_name,
    tolerances,
)


@pytest.mark.parametrize(
    ("text", "tolerance"),
    [
        ("accuracy:-0.02", Tolerance("accuracy", -0.02)),
        ("accuracy:-.5", Tolerance("accuracy", -0.5)),
        ("accuracy:0", Tolerance("accuracy", 0.0)),
        ("completed:-0.1:point", Tolerance("completed", -0.1, rule="point")),
        ("truncation:+0.01", Tolerance("truncation", 0.01)),
        ("tokens:+10%", Tolerance("tokens", 0.1, relative=True)),
        ("tokens:+20", Tolerance("tokens", 20.0)),
        ("512:tokens:+2.5%:noninferior", Tolerance("tokens", 0.025, True, 512, "noninferior")),
    ],
)
def test_tolerances_are_read(text, tolerance):
    assert tolerances(text) == (tolerance,)
    assert tolerances(str(tolerance)) == (tolerance,)


def test_several_with_commas():
    assert [str(t) for t in tolerances(" accuracy:-0.02, 64:truncation:+0 ,")] == [
        "accuracy:-0.02",
        "64:truncation:+0",
    ]


@given(
    metric=st.sampled_from(METRICS),
    size=st.integers(0, 999),
    budget=st.none() | st.integers(1, 10**6),
    rule=st.sampled_from(TOLERANCE_RULES),
)
def test_tolerances_as_shown_are_read_again(metric, size, budget, rule):
    sign = -1 if metric in ("accuracy", "completed") else 1
    one = Tolerance(metric, sign * size / 1000 + 0.0, metric == "tokens", budget, rule)
    (again,) = tolerances(str(one))
    assert again.value == pytest.approx(one.value)
    assert str(again) == str(one)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("accuracy", ["[BUDGET:]METRIC:CHANGE[:RULE]", "accuracy:-0.02"]),
        ("", ["METRIC:CHANGE"]),
        ("0:accuracy:-0.1", ["BUDGET"]),
        ("1:2:accuracy:-0.1", ["METRIC"]),
        ("acuracy:-0.02", ["METRIC", "did you mean 'accuracy'?"]),
        ("accuracy:-0.02:sure", ["RULE", "confident, point, noninferior"]),
        ("accuracy:+0.02", ["accuracy of a worse run is lower", "accuracy:-0.02"]),
        ("truncation:-0.01", ["truncation of a worse run is higher"]),
        ("accuracy:0.02", ["with its sign: accuracy:-0.02"]),
        ("tokens:10%", ["with its sign: tokens:+10%"]),
        ("accuracy:-2", ["for 2 points write -0.02"]),
        ("accuracy:-2%", ["for 2 points write -0.02"]),
        ("truncation:+1%", ["for 1 point write +0.01"]),
        ("accuracy:-1", ["for 1 point write -0.01"]),
        ("tokens:+ten", ["tokens of a worse run is higher"]),
        ("tokens:+nan", ["tokens"]),
        ("accuracy:-1e-3", ["accuracy"]),
    ],
)
def test_bad_tolerances_are_told_with_what_is_allowed(text, words):
    with pytest.raises(ValueError, match=r"allowed|for example") as caught:
        tolerances(text)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("name", ["main", "before-4bit", "v1.2_rc"])
def test_names_of_baselines(name):
    assert baseline_name(name) == name


@pytest.mark.parametrize("name", ["latest", "LATEST", "7", "0003_main", "a/b", "..", "x.json", ""])
def test_names_that_could_mean_something_else_are_refused(name):
    with pytest.raises(ValueError, match="allowed"):
        baseline_name(name)


def test_paths_are_told_from_names(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    assert baseline("main") == "main"
    assert baseline("0003") == "0003"
    assert baseline("run.json") == Path("run.json")
    assert baseline("~/results") == Path("/somewhere/results")
