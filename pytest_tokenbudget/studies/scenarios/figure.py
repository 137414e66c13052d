"""The figures of the scenarios eval: tokens needed with limits and their replay, and choices."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_tokenbudget.common.text_layout import count, share
from pytest_tokenbudget.core.scoring import JudgedCut
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.core.trace import Outcome
from pytest_tokenbudget.report import style
from pytest_tokenbudget.report.drawing import (
    count_ticks,
    name_ticks,
    nested_marker,
    new_figure,
    percent_ticks,
    save_study_figure,
    study_texts,
)
from pytest_tokenbudget.studies.scenarios.analysis import (
    ALL,
    CATEGORY,
    FRAMING,
    GAME,
    ScenarioReport,
    name_of,
)
from pytest_tokenbudget.studies.scenarios.answers import AnswerKind, finding_of, options_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pytest_tokenbudget.studies.scenarios.limits import ScenarioReplay

_ROW = 0.24  # inches of a row
_NAME = 28
_FAR = 12.0  # how many times the least the most may be on a linear axis
_METHODS = (style.ACCURACY, *style.SERIES[1:4])
_PLACES = ("#4c8fc4", "#f0a25e", "#7fc8ae", "#d9a3c3", "#c9c9c9", "#e8d57a")
_REST = {
    AnswerKind.ILLEGAL: ("#555555", "xx", "illegal choice"),
    AnswerKind.NO_CHOICE: ("#777777", "..", "no choice"),
    AnswerKind.NO_JSON: ("#999999", "//", "no JSON"),
    AnswerKind.TRUNCATED: ("#222222", "", "truncated"),
}


def scenarios_figures(study: Study, report: ScenarioReport, directory: Path) -> list[Path]:
    """Draw tokens and limits, and choices where problems have options."""
    written = save_study_figure(
        lambda: draw_limits(study, report),
        study,
        directory,
        "scenarios_limits",
        "{}: tokens and limits by scenario",
    )
    if report.overall.answers is not None and GAME in report.groups:
        written += save_study_figure(
            lambda: draw_choices(study, report),
            study,
            directory,
            "scenarios_choices",
            "{}: choices by game and framing",
        )
    return written


def draw_limits(study: Study, report: ScenarioReport) -> Figure:
    """Tokens that answers took, the limits, and their replay; for `style.figure_style`."""
    rows = list(_rows(study, report))
    height = _ROW * len(rows) + 0.5
    figure = new_figure((6.8, height + 4.2 if report.replay else height + 1.4))
    if report.replay is None:
        tokens, replay = figure.subplots(), None
    else:
        tokens, replay = figure.subplots(2, 1, gridspec_kw={"height_ratios": (height, 2.4)})
    _draw_needs(tokens, study, report, rows)
    if replay is not None and report.replay is not None:
        _draw_replay(replay, report.replay)
    sentences = [report.learned.overall.found.sentence()]
    if report.replay is not None:
        sentences.append(report.replay.sentence())
    study_texts(figure, tokens, study, "Tokens needed by scenario", sentences, columns=4)
    return figure


def _rows(study: Study, report: ScenarioReport) -> Iterator[tuple[str, str, list[JudgedCut]]]:
    """Split, name and answers of each row, from above."""
    judged = study.judged(study.largest)
    yield ALL, ALL, list(judged)
    for split in (CATEGORY, FRAMING, GAME):
        for group in report.groups.get(split, ()):
            own = [j for j in judged if name_of(j.problem, split) == group.name]
            yield split, group.name, own


def _draw_needs(
    axes: Axes,
    study: Study,
    report: ScenarioReport,
    rows: Sequence[tuple[str, str, list[JudgedCut]]],
) -> None:
    learned = report.learned
    ends: list[float] = []
    labelled: set[str] = set()

    def label(text: str) -> str:
        """A series is named where it is drawn first."""
        name = "" if text in labelled else text
        labelled.add(text)
        return name

    places, place, before = [], 0.0, ALL
    for split, name, judged in rows:
        place += 1.5 if split != before else 1.0
        before = split
        places.append(place)
        kept = [j for j in judged if j.outcome is not Outcome.ERROR]
        for cut, marker, text in ((False, "o", "one answer"), (True, ">", "cut: needs more")):
            own = [j.cut.tokens_used for j in kept if j.cut.truncated == cut]
            ends += own
            if own:
                shifts = [0.26 * math.sin(2.4 * n) for n in range(len(own))]
                axes.plot(
                    own,
                    [place + shift for shift in shifts],
                    color=style.ORANGE if cut else style.BLUE,
                    marker=marker,
                    markersize=2.6 if len(rows[0][2]) > 150 else 3.8,
                    alpha=0.45,
                    linestyle="none",
                    markeredgewidth=0,
                    label=label(text),
                    zorder=3,
                )
        choice = learned.overall if split == ALL else learned.groups.get(split, {}).get(name)
        if choice is not None and choice.limit is not None:
            ends.append(choice.limit)
            text = "limit, promised" if choice.promised else "limit, not promised"
            axes.plot(
                [choice.limit],
                [place],
                color=style.INK,
                marker="|",
                markersize=11,
                markeredgewidth=2.4 if choice.promised else 0.9,
                linestyle="none",
                label=label(text),
                zorder=4,
            )
    name_ticks(axes.yaxis, places, [name for _, name, _ in rows], _NAME)
    axes.set_ylim(places[-1] + 0.8, places[0] - 0.8)
    axes.grid(visible=False, axis="y")
    _token_axis(axes, ends)
    axes.set_xlabel(f"tokens that an answer takes, of {count(study.largest)} allowed")


def _token_axis(axes: Axes, ends: Sequence[float]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = min(ends), max(ends)
    if low > 0 and high / low > _FAR:
        axes.set_xscale("log", base=2)
        axes.set_xlim(low / 1.2, high * 1.2)
        axes.xaxis.set_major_locator(LogLocator(base=2, numticks=9))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
    else:
        axes.set_xlim(0, high * 1.06)
        count_ticks(axes.xaxis, 8)


def _draw_replay(axes: Axes, replay: ScenarioReplay) -> None:
    for number, (look, (method, points)) in enumerate(
        zip(_METHODS, replay.frontiers.items(), strict=False)
    ):
        xs, ys = [x for x, _ in points], [y for _, y in points]
        axes.plot(
            xs,
            ys,
            color=look.colour,
            linestyle=look.line,
            linewidth=1.4,
            marker=look.marker,
            markersize=3.0,
            zorder=3,
        )
        found = replay.outcome(method)
        truncation = found.truncation
        axes.vlines(
            found.allowed.value,
            truncation.low,
            truncation.high,
            color=look.colour,
            alpha=0.6,
            zorder=4,
        )
        nested_marker(axes, (found.allowed.value, truncation.value), look, number, method)
    axes.axhline(replay.target, color=style.GREY, linewidth=0.9, linestyle=":", zorder=2)
    axes.set_ylim(0, None)
    percent_ticks(axes.yaxis)
    axes.set_ylabel("truncated, replayed")
    count_ticks(axes.xaxis)
    axes.set_xlabel("mean limit in tokens; large markers: the recommended limits")
    axes.legend(loc="best")


def draw_choices(study: Study, report: ScenarioReport) -> Figure:
    """What was chosen in each game, and how often the safest option; for `style.figure_style`."""
    games = report.groups[GAME]
    framed = [
        group
        for group in report.groups.get(FRAMING, ())
        if group.answers is not None and group.answers.safest is not None
    ]
    heights = (_ROW * len(games) + 0.4, _ROW * len(framed) + 0.4)
    figure = new_figure((6.8, sum(heights) + 2.2 if framed else heights[0] + 1.6))
    if framed:
        bars, dots = figure.subplots(2, 1, gridspec_kw={"height_ratios": heights})
    else:
        bars, dots = figure.subplots(), None
    _draw_bars(bars, study, report)
    if dots is not None:
        for place, group in enumerate(framed):
            assert group.answers is not None
            rate = group.answers.safest
            assert rate is not None
            dots.hlines(place, rate.low, rate.high, color=style.BLUE, linewidth=1.4, zorder=3)
            dots.plot([rate.value], [place], color=style.BLUE, marker="o", zorder=4, clip_on=False)
        _share_axis(dots, [group.name for group in framed])
        dots.set_xlabel("chose the option with the best worst case, of legal choices")
    answers = report.overall.answers
    assert answers is not None
    sentences = (
        f"valid JSON in {share(answers.valid_json.value)}, a legal choice in "
        f"{share(answers.legal.value)} of the answers",
        "options by their place in the list; named where they are always the same",
    )
    study_texts(figure, bars, study, "Choices by game", sentences, columns=4)
    return figure


def _draw_bars(axes: Axes, study: Study, report: ScenarioReport) -> None:
    judged = study.judged(study.largest)
    games = report.groups[GAME]
    assert report.overall.answers is not None
    # The legend has what there is, in the order of the bars.
    for number, chosen in enumerate(report.overall.answers.places):
        if chosen:
            axes.barh([0], [0], color=_PLACES[number % len(_PLACES)], label=_place_name(number))
    for what, (colour, hatch, label) in _REST.items():
        if report.overall.answers.findings[what]:
            axes.barh([0], [0], color=colour, hatch=hatch, edgecolor="white", label=label)

    def bar(row: int, left: float, width: float, colour: str, hatch: str = "") -> None:
        axes.barh(
            row, width, left=left, height=0.72, color=colour, hatch=hatch, edgecolor="white",
            zorder=2,
        )  # fmt: skip

    for place, group in enumerate(games):
        assert group.answers is not None
        total = sum(group.answers.findings.values()) - group.answers.findings[AnswerKind.ERROR]
        own = [j for j in judged if name_of(j.problem, GAME) == group.name]
        options = {
            tuple(options_of(j.problem)) for j in own if finding_of(j) is not AnswerKind.ERROR
        }
        names = next(iter(options)) if len(options) == 1 else None
        left = 0.0
        for number, chosen in enumerate(group.answers.places):
            if chosen:
                width = chosen / total
                bar(place, left, width, _PLACES[number % len(_PLACES)])
                said = names[number] if names else _place_name(number)
                _write(axes, left, width, place, f"{said} {chosen:,}")
                left += width
        for what, (colour, hatch, _) in _REST.items():
            if number := group.answers.findings[what]:
                bar(place, left, number / total, colour, hatch)
                left += number / total
    _share_axis(axes, [group.name for group in games])


def _place_name(number: int) -> str:
    return ("first", "second", "third", "fourth", "fifth", "sixth")[number] if number < 6 else "-"


def _write(axes: Axes, left: float, width: float, row: int, text: str) -> None:
    # A character takes about a hundredth of the axis at this size.
    if 0.0155 * len(text) < width:
        said = axes.text(
            left + width / 2, row, text, ha="center", va="center", fontsize=7.5, zorder=3
        )
        said.set_parse_math(False)


def _share_axis(axes: Axes, names: Sequence[str]) -> None:
    from matplotlib.ticker import PercentFormatter

    name_ticks(axes.yaxis, range(len(names)), names, _NAME)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.grid(visible=False, axis="y")
