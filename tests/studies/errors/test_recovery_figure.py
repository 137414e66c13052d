"""The figure of recoverable and persistent errors: its counts are those of the report."""

from __future__ import annotations

import itertools
import warnings

import pytest
from slow_cases import slow
from studies import make_study

from pytest_tokenbudget.report.style import figure_style
from pytest_tokenbudget.studies.errors.analysis import analyse_errors
from pytest_tokenbudget.studies.errors.figure import VERDICTS, draw_recovery, recovery_figure

BUDGETS = (64, 128, 256, 512)


def drawn(study, budgets=BUDGETS):
    report = analyse_errors(study, [], budgets)
    with warnings.catch_warnings(), figure_style():
        warnings.simplefilter("error")
        figure = draw_recovery(study, report)
        figure.canvas.draw()
    return report, figure


def heights(axes):
    return {bars.get_label(): [bar.get_height() for bar in bars] for bars in axes.containers}


def test_bars_are_what_larger_budgets_say():
    report, figure = drawn(make_study(80, BUDGETS, accuracy=0.7))
    shown = heights(figure.axes[0])
    for verdict, fill in VERDICTS.items():
        counts = [one.measured[verdict] for one in report.budgets]
        assert shown.get(fill.name, [0] * len(counts)) == counts
    assert report.budgets[0].measured["yes"] > 0
    assert report.budgets[-1].measured["no"] > 0
    said = [text.get_text() for text in figure.axes[0].texts]
    assert f"{report.budgets[0].errors} of {report.budgets[0].answers}" in said


def test_points_are_the_shares_that_are_right_at_the_next_budget():
    report, figure = drawn(make_study(80, BUDGETS, accuracy=0.7))
    [points] = [line for line in figure.axes[1].get_lines() if len(line.get_xdata())]
    assert points.get_ydata().tolist() == [step.recovery.value for step in report.steps]
    labels = [label.get_text() for label in figure.axes[1].get_xticklabels()]
    assert labels[0] == f"64 to 128\nn = {report.steps[0].errors}"


@pytest.mark.parametrize(
    ("study", "budgets"),
    [
        (make_study(2, BUDGETS), BUDGETS),
        (make_study(40, BUDGETS, accuracy=0.0), BUDGETS),
        (make_study(40, (64,)), (64,)),
        slow(make_study(2000, BUDGETS, accuracy=0.5, alias="x" * 90), BUDGETS),
    ],
    ids=["n=2", "all-wrong", "one-budget", "many"],
)
def test_odd_studies_fit_the_page(study, budgets):
    from matplotlib.text import Text

    _, figure = drawn(study, budgets)
    boxes = [
        text.get_window_extent()
        for text in figure.findobj(Text)
        if text.get_text().strip() and text.get_visible()
    ]
    for box in boxes:
        assert figure.bbox.contains(box.x0, box.y0)
        assert figure.bbox.contains(box.x1, box.y1)
    numbers = [t.get_window_extent().padded(-1) for t in figure.axes[0].texts]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(numbers, 2))


def test_no_errors_no_figure(tmp_path):
    study = make_study(20, (512,), accuracy=1.0, lengths=lambda rng: 40)
    assert recovery_figure(study, analyse_errors(study, [], (512,)), tmp_path) == []
