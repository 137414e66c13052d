"""The saturation figure: its files, its content, and that it leaves matplotlib as it was."""

from __future__ import annotations

import functools
import itertools
import subprocess
import sys
import warnings
import xml.etree.ElementTree as ET
from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure
from studies import BUDGETS
from studies import make_study as make_new_study

from pytest_tokenbudget.core.engine import Decoding
from pytest_tokenbudget.report import style
from pytest_tokenbudget.report.drawing import (
    budgets_named,
    count_ticks,
    name_ticks,
    new_figure,
    percent_ticks,
    side_by_side,
)
from pytest_tokenbudget.report.limits import named_limit, recommended_limits
from pytest_tokenbudget.studies.saturation.figure import (
    draw_overlay,
    draw_saturation,
    saturation_figure,
)

# Tests of one study share it, its analyses and its figure.
make_study = functools.cache(make_new_study)
DRAWN: dict[int, Figure] = {}


def drawn(study):
    if id(study) not in DRAWN:
        DRAWN[id(study)] = draw_in_style(draw_saturation, study)
    return DRAWN[id(study)]


def draw_in_style(draw, study):
    with style.figure_style():
        figure = draw(study)
        figure.canvas.draw()
    return figure


def texts(figure) -> str:
    from matplotlib.text import Text

    return "\n".join(t.get_text() for t in figure.findobj(Text))


def legend_labels(figure) -> list[str]:
    return [t.get_text() for t in figure.axes[0].get_legend().get_texts()]


def test_the_saturation_figure_is_written_as_png_and_svg(tmp_path):
    png, svg = saturation_figure(make_study(), tmp_path)
    assert png == tmp_path / "figures" / "fig1_saturation_curve_qwen-1.5b.png"
    assert svg == png.with_name("fig1_saturation_curve_qwen-1.5b.svg")
    assert png.read_bytes().startswith(b"\x89PNG")
    root = ET.fromstring(svg.read_bytes())
    assert root.tag.endswith("svg")
    assert b"<dc:date>" not in svg.read_bytes()


def test_same_study_same_bytes(tmp_path):
    first = [path.read_bytes() for path in saturation_figure(make_study(20), tmp_path / "a")]
    second = [path.read_bytes() for path in saturation_figure(make_study(20), tmp_path / "b")]
    assert first == second


def test_matplotlib_is_left_as_it_was_and_its_settings_do_not_matter(tmp_path):
    plain = [path.read_bytes() for path in saturation_figure(make_study(5), tmp_path / "a")]
    with mpl.rc_context({"lines.linewidth": 9.0, "axes.facecolor": "red", "text.usetex": True}):
        before = dict(mpl.rcParams)
        styled = [path.read_bytes() for path in saturation_figure(make_study(5), tmp_path / "b")]
        assert dict(mpl.rcParams) == before
    assert styled == plain


def test_a_figure_for_print_needs_no_pyplot_and_nothing_heavy_on_import(tmp_path):
    program = (
        "import sys\n"
        "import pytest_tokenbudget.studies.saturation.figure as f\n"
        "import pytest_tokenbudget.studies.saturation.report\n"
        "assert not {'matplotlib', 'numpy', 'pandas'} & set(sys.modules)\n"
        "from studies import make_study\n"
        "from pathlib import Path\n"
        "png, _ = f.saturation_figure(make_study(2, (32, 64)), Path(sys.argv[1]))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "data = png.read_bytes()\n"
        "at = data.index(b'pHYs') + 4\n"
        "pixels_a_metre = int.from_bytes(data[at : at + 4], 'big')\n"
        "assert round(pixels_a_metre * 0.0254) == 300\n"
    )
    here = Path(__file__).parents[1]
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], check=True, cwd=here, timeout=120
    )


@pytest.mark.parametrize(
    "study",
    [
        make_study(2),
        make_study(1, (32, 64)),
        make_study(20, accuracy=0.0),
        make_study(20, (256,)),
        make_study(20, (1,)),
        make_study(3, errors=3),
        make_study(20, tuple(range(32, 513, 32)), samples=3, missing=3, errors=2),
    ],
    ids=["two", "one", "all-wrong", "single-budget", "one-token", "errors", "many-budgets"],
)
def test_odd_studies(study, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        written = saturation_figure(study, tmp_path)
    assert len(written) == 2


def test_nothing_to_draw(tmp_path):
    assert saturation_figure(make_study(3, missing=3), tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_names_are_no_formulas(tmp_path):
    study = make_study(3, alias="$x_1$ \\frac{ 模型/ä", mode="thinking")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        png, svg = saturation_figure(study, tmp_path)
    assert png.name.isascii()
    assert svg.name.endswith("+thinking.svg")
    assert "$x_1$ \\frac{ 模型/ä" in texts(drawn(study))


def test_texts_of_the_saturation_figure():
    study = make_study(400, samples=1, decoding=Decoding(0.7, 0.95, 3), missing=10)
    figure = drawn(study)
    said = texts(figure).replace("\n", " ")
    assert "qwen-1.5b" in said
    assert "sums, n = 390 of 400, temperature 0.7, top-p 0.95, seed 3" in said
    assert study.saturation.sentence() in said
    assert study.saturation.budget is not None
    assert f"saturation point: {study.saturation.budget:,}" in legend_labels(figure)
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "accuracy", "truncated", "mean tokens\nused"
    ]  # fmt: skip
    ticks = [label.get_text() for label in figure.axes[-1].get_xticklabels()]
    assert ticks == ["32", "64", "128", "256", "512", "1,024", "2,048"]


def test_a_saturation_that_is_not_resolved_is_named_so():
    figure = drawn(make_study(2))
    assert "not resolved" in texts(figure)
    assert not any("saturation" in label for label in legend_labels(figure))


def test_lines_hold_the_curve():
    study = make_study(50)
    lines = {line.get_label(): line for line in drawn(study).axes[0].get_lines()}
    measured = lines["accuracy, 95 % interval"]
    assert measured.get_xdata().tolist() == list(BUDGETS)
    assert measured.get_ydata().tolist() == [p.accuracy.value for p in study.curve.points]
    assert len(lines["accuracy at every token count"].get_xdata()) == 2048
    kept = [line for label, line in lines.items() if not label.startswith("_")]
    # Told apart without colour: no two share both line style and marker.
    assert len({(line.get_linestyle(), line.get_marker()) for line in kept}) == len(kept)


@pytest.mark.parametrize("study", [make_study(400), make_study(3, alias="W" * 90, mode="thinking")])
def test_the_legend_covers_no_data_and_nothing_leaves_the_page(study):
    figure = drawn(study)
    top = figure.axes[0]
    renderer = figure.canvas.get_renderer()
    legend = top.get_legend().get_window_extent(renderer)
    title = figure._suptitle.get_window_extent(renderer)
    assert legend.y0 >= top.get_window_extent(renderer).y1
    assert title.y0 >= legend.y1
    for box in (legend, title):
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1


def test_labels_of_budgets_keep_apart():
    budgets = tuple(range(32, 2049, 32))
    named = sorted(budgets_named(budgets, 0.5))
    assert {32, 2048} <= set(named)
    assert all(b >= a * 2**0.5 for a, b in itertools.pairwise(named))
    assert budgets_named((256,), 0.5) == {256}


@pytest.mark.parametrize(
    "study",
    [make_study(400), make_study(3, alias="W" * 90), make_study(2, (64,), alias="模型" * 40)],
    ids=["usual", "wide-name", "one-budget"],
)
def test_the_title_has_one_line_and_the_findings_stand_below_the_panels(study):
    figure = drawn(study)
    title, caption = figure._suptitle, figure._supxlabel
    assert "\n" not in title.get_text()
    assert title.get_text().startswith("Accuracy against token budget: ")
    subtitle = figure.axes[0].get_legend().get_title().get_text()
    assert "\n" not in subtitle
    assert f"n = {len(study.complete)}" in subtitle
    said = caption.get_text().replace("\n", " ")
    assert study.saturation.sentence() in said
    assert "limit" in said
    lowest = min(axes.get_tightbbox().y0 for axes in figure.axes)
    box = caption.get_window_extent()
    assert box.y1 <= lowest
    for each in (title.get_window_extent(), box):
        assert each.x0 >= 0
        assert each.x1 <= figure.bbox.x1
        assert each.y0 >= 0


def test_a_name_that_the_title_has_no_room_for_is_in_the_caption():
    name = "org/a-model-with-a-name-of-fifty-five-characters-or-so"
    figure = drawn(make_study(3, alias=name))
    assert name not in figure._suptitle.get_text()
    assert f"Model: {name}" in figure._supxlabel.get_text()


@pytest.mark.parametrize(
    ("study", "name", "filled"),
    [
        (make_study(400), "recommended limit", True),
        (make_study(100, lengths=lambda rng: rng.randint(20, 200)), "recommended limit", False),
        (make_study(20), "best limit seen", False),
        (make_study(400, (32, 64)), "best limit seen", False),
        (make_study(40, (512, 1024), lengths=lambda rng: 20), "best limit seen", False),
    ],
    ids=["shown", "near-the-target", "too-few", "cap-too-low", "left-of-all-budgets"],
)
def test_the_recommended_limit_is_marked_in_every_panel(study, name, filled):
    found = recommended_limits(study)["all_tokens"].overall
    limit = named_limit(found).limit
    figure = drawn(study)
    [label] = [text for text in legend_labels(figure) if "limit" in text]
    assert label.startswith(f"{name}: {limit:,}, cuts at most ")
    for axes in figure.axes:
        assert [limit, limit] in [list(line.get_xdata()) for line in axes.get_lines()]
        low, high = axes.get_xlim()
        assert low < limit < high
    [mark] = [line for line in figure.axes[0].get_lines() if line.get_label() == label]
    assert (mark.get_markerfacecolor() != "white") is filled


def test_no_trace_no_limit():
    figure = drawn(make_study(3, errors=3))
    assert not [text for text in legend_labels(figure) if "limit" in text]
    assert "no limit can be recommended" in texts(figure)


@pytest.mark.parametrize("many", [2, 3, 8])
def test_models_in_one_figure_do_not_hide_each_other(many):
    names = ["nano", "_under", "$x_1$", "a" * 60, "e", "f", "g", "h"][:many]
    figure = draw_in_style(draw_overlay, [make_study(50, alias=name) for name in names])
    labels = legend_labels(figure)
    assert len(labels) == many
    assert labels[1].strip().startswith("_under, n = 50")
    axes = figure.axes[0]
    lines = [line for line in axes.get_lines() if line.get_label() in labels]
    # All have the same data: only their places differ.
    first = [line.get_xdata()[3] for line in lines]
    assert first == sorted(set(first))
    bands = [c for c in axes.collections if type(c).__name__ == "FillBetweenPolyCollection"]
    assert len(bands) == (2 if many == 2 else 0)


def test_names_at_ticks_are_no_formulas():
    axes = new_figure((4, 3)).subplots()
    name_ticks(axes.xaxis, [0, 1], ["$x_1$ and _y_", "c" * 60], 20)
    labels = axes.get_xticklabels()
    shown = [label.get_text() for label in labels]
    assert shown == ["$x_1$ and _y_", "c" * 9 + "\u2026" + "c" * 10]
    assert not any(label.get_parse_math() for label in labels)


def test_side_by_side_keeps_to_its_budget():
    places = [32, 64, 207, 256, 1024]
    for many in (1, 2, 6):
        shifted = [side_by_side(places, number, many) for number in range(many)]
        for column in zip(*shifted, strict=True):
            assert list(column) == sorted(column)
        for before, after in itertools.pairwise(range(len(places))):
            assert shifted[-1][before] < shifted[0][after]
    assert side_by_side(places, 0, 1) == places
    assert side_by_side([256], 0, 2)[0] < 256 < side_by_side([256], 1, 2)[0]


@pytest.mark.parametrize("top", [1.2, 2.5, 9.0, 1400.0, 2.5e6])
def test_ticks_of_counts_are_whole_numbers(top):
    figure = new_figure((4, 3))
    axes = figure.subplots()
    axes.set_ylim(0, top)
    count_ticks(axes.yaxis)
    figure.canvas.draw()
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert all(label.replace(",", "").isdigit() for label in labels)
    assert len(set(labels)) == len(labels) >= 2


@pytest.mark.parametrize("top", [0.002, 0.013, 0.3, 1.0])
def test_ticks_of_shares_have_the_decimals_that_tell_them_apart(top):
    figure = new_figure((4, 3))
    axes = figure.subplots()
    axes.set_ylim(0, top)
    percent_ticks(axes.yaxis)
    figure.canvas.draw()
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert len(set(labels)) == len(labels) >= 3
    for tick, label in zip(axes.get_yticks(), labels, strict=True):
        assert float(label.removesuffix(" %")) == pytest.approx(100 * tick)
