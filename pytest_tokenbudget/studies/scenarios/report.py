"""The scenarios eval: its result files, and its table and sentences on the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_tokenbudget.common.outside_text import printable
from pytest_tokenbudget.common.text_layout import (
    MAX_WIDTH,
    cells,
    columns,
    count,
    percent,
    plural,
    rule,
    shorten,
    wrapped,
)
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.report.files import to_plain, to_record, write_json, write_text
from pytest_tokenbudget.report.json_files import RunInfo, file_stem, header
from pytest_tokenbudget.report.limits import limit_answer, target_of
from pytest_tokenbudget.settings.generation_config import GenerationConfig
from pytest_tokenbudget.studies.scenarios.analysis import (
    CATEGORY,
    FRAMING,
    GAME,
    NoScenariosError,
    ScenarioGroup,
    ScenarioReport,
    analyse_scenarios,
    choices_made,
)
from pytest_tokenbudget.studies.scenarios.answers import GroupAnswers
from pytest_tokenbudget.studies.scenarios.settings import settings_files

if TYPE_CHECKING:
    from pytest_tokenbudget.stats.intervals import Estimate
    from pytest_tokenbudget.studies.scenarios.limits import GroupLimit
    from pytest_tokenbudget.studies.scenarios.rules import Kept

SCHEMA = "tokenbudget-scenarios/1"
PLURALS = {GAME: "games", FRAMING: "framings", CATEGORY: "categories"}
_NAME = 24
_ROOM = 7
_RIGHT = ("n", "JSON", "legal", "cut", "mean", "p95", "most", "limit")
_REPLAYED = (16, 8, 22, 8, 9)


def report_of(study: Study, run: RunInfo) -> ScenarioReport:
    """What a study found under the run's settings.

    Raises:
        NoScenariosError: As ``analyse_scenarios``.
    """
    given = run.settings.get("generation_config")
    return analyse_scenarios(
        study, target_of(run), given if isinstance(given, GenerationConfig) else None
    )


def write_scenarios(study: Study, run: RunInfo, directory: Path) -> list[Path]:
    """Write what the eval found below ``directory``, each file whole or not at all.

    Args:
        study: The study; problems whose traces are not all there are left out and counted.
        run: The run that made it.
        directory: The reports directory; files go to its ``results`` and ``figures``.

    Returns:
        The files: everything, and if there are scenarios the settings and the figures.
    """
    from pytest_tokenbudget.studies.scenarios.figure import scenarios_figures

    results, stem = directory / "results", file_stem(study)
    record = {**header(study, run, SCHEMA), **scenarios_record(study, run)}
    written = [write_json(results / f"scenarios_{stem}.json", record)]
    try:
        report = report_of(study, run)
    except NoScenariosError:
        return written
    for way, text in settings_files(study, report, run).items():
        written.append(write_text(results / f"scenarios_settings_{stem}{way}.yaml", text))
    return [*written, *scenarios_figures(study, report, directory)]


def scenarios_record(study: Study, run: RunInfo) -> dict[str, object]:
    """What was found, as JSON; only why there is nothing, where there is nothing."""
    try:
        report = report_of(study, run)
    except NoScenariosError as error:
        return {"left_out": str(error)}
    replay = report.replay
    return {
        "budget": report.budget,
        "target": report.target,
        "overall": to_plain(report.overall),
        "groups": to_plain(report.groups),
        "choices": {} if report.overall.answers is None else choices_made(study),
        "differ": to_plain(report.differ),
        "limits": {
            "all": _choice(report.learned.overall),
            **{
                split: {name: _choice(choice) for name, choice in choices.items()}
                for split, choices in report.learned.groups.items()
            },
        },
        "guidelines": to_plain(report.guidelines),
        "more": to_plain(report.more),
        "replay": None if replay is None else {**to_record(replay), "sentence": replay.sentence()},
        "given": to_plain(report.given),
    }


def _choice(choice: GroupLimit) -> dict[str, object]:
    found = to_record(choice.found)
    # Neither rules nor distributions were asked for: they would be empty.
    kept = {k: v for k, v in found.items() if k not in {"name", "fits", "rules", "margins"}}
    return {
        "limit": choice.limit,
        "promised": choice.promised,
        "sentence": choice.found.sentence(),
        "evidence": kept,
    }


def scenarios_lines(study: Study, run: RunInfo, width: int = MAX_WIDTH) -> list[str]:
    """What the eval found, as lines of at most 80 columns.

    Args:
        study: The study.
        run: The run that made it.
        width: Columns of the terminal. Sentences are wrapped to it; the tables need 80.
    """
    width = columns(width)
    task = shorten(printable(study.task.name), 24)
    lines = [rule(study.alias, f": scenarios of {task}, n = {len(study.complete):,}", width)]
    try:
        report = report_of(study, run)
    except NoScenariosError as error:
        return [*lines, *wrapped(str(error), width)]
    lines += wrapped(limit_answer(study, report.learned.overall.found), width)
    lines += _table(report)
    for sentence in _sentences(report):
        lines += wrapped(sentence, width)
    lines += _replay_table(report)
    for sentence in _closing(report):
        lines += wrapped(sentence, width)
    behind = "" if report.learned.overall.promised else ", which no evidence stands behind"
    where = f"results/scenarios_settings_{file_stem(study)}.yaml"
    return lines + wrapped(f"settings{behind}: {where}", width)


def _table(report: ScenarioReport) -> list[str]:
    answered = report.overall.answers is not None
    heads = [head for head in _RIGHT if answered or head not in {"JSON", "legal"}]
    lines = [_line("", heads)]
    lines.append(_line("all", _cells(report.overall, report.learned.overall)))
    for split, groups in report.groups.items():
        lines.append(split)
        choices = report.learned.groups.get(split, {})
        lines += [_line(f"  {g.name}", _cells(g, choices.get(g.name))) for g in groups]
    return lines


def _line(name: str, right: Sequence[str]) -> str:
    shown = shorten(printable(name), _NAME)
    padded = shown + " " * (_NAME - cells(shown))
    return (padded + "".join(cell.rjust(_ROOM) for cell in right)).rstrip()


def _cells(group: ScenarioGroup, choice: GroupLimit | None) -> list[str]:
    needs, found = group.needs, [count(group.needs.problems)]
    if group.answers is not None:
        found += [percent(group.answers.valid_json.value), percent(group.answers.legal.value)]
    found.append(percent(group.truncation[max(group.truncation)].value))
    found += [
        _tokens(needs.mean.value, "mean" in needs.lower_bounds, 1),
        _tokens(needs.p95, "p95" in needs.lower_bounds),
        _tokens(needs.max, "max" in needs.lower_bounds),
    ]
    if choice is not None and choice.limit is not None:
        found.append(count(choice.limit) if choice.promised else f"({count(choice.limit)})")
    return found


def _tokens(value: float, at_least: bool, digits: int = 0) -> str:
    shown = f"{value:,.{digits}f}" if math.isfinite(value) else "-"
    return f">{shown}" if at_least else shown


def _sentences(report: ScenarioReport) -> Iterator[str]:
    goal = f"{100 * report.target:g} %"
    shares = "cut" if report.overall.answers is None else "JSON, legal and cut"
    yield (
        f"{shares} in %, at {count(report.budget)} tokens; a limit in brackets is not promised to "
        f"truncate at most {goal}"
    )
    if report.overall.answers is not None:
        yield from _answer_sentences(report, report.overall.answers)
    for each in report.differ:
        share = f"{100 * each.explained:.0f} % of the variance of ranks"
        shown = each.p_holm < 0.05
        verb = "differ" if shown else "are not shown to differ"
        yield f"tokens needed {verb} by {each.split} (p = {each.p_holm:.3g}, {share})"
    yield report.learned.overall.found.sentence()
    for split, choices in report.learned.groups.items():
        own = [f"{printable(n)} {count(c.limit or 0)}" for n, c in choices.items() if c.promised]
        kept = f": {', '.join(own)}" if own else ""
        need = [c.found.problems_needed for c in choices.values() if c.found.problems_needed]
        short = f"; the others need {count(max(need))} problems each" if need and own else ""
        if need and not own:
            short = f"; {count(max(need))} problems of each are needed"
        of = PLURALS[split]
        yield f"limits promised for {len(own)} of {len(choices)} {of}{kept}{short}"
    yield f"rules of thumb at {goal}: {'; '.join(_guidelines(report))}"
    if report.more is not None:
        gap = report.more.difference
        yield (
            f"{report.more.more} needs more tokens than {report.more.less}: "
            f"{_verdict(report.more.verdict)}, {gap.value:+.1f} {_interval(gap)}"
        )


def _answer_sentences(report: ScenarioReport, answers: GroupAnswers) -> Iterator[str]:
    other = [f"{n:,} {what}" for what, n in answers.findings.items() if n]
    yield f"answers: {', '.join(other)}; nothing but the object: {_rate(answers.alone)}"
    by_game = []
    for group in report.groups.get(GAME, ()):
        if group.answers is not None and group.answers.choices:
            chosen = [f"{printable(name)} {n:,}" for name, n in group.answers.choices.items()]
            by_game.append(f"{printable(group.name)}: {', '.join(chosen)}")
    if by_game:
        yield f"choices: {'; '.join(by_game)}"
    if answers.safest is not None:
        framed = [
            f"{printable(g.name)} {percent(g.answers.safest.value)}"
            for g in report.groups.get(FRAMING, ())
            if g.answers is not None and g.answers.safest is not None
        ]
        by = f"; by framing: {', '.join(framed)}" if framed else ""
        yield f"the option with the best worst case was chosen in {_rate(answers.safest)}{by}"


def _guidelines(report: ScenarioReport) -> Iterator[str]:
    for each in report.guidelines:
        if each.applies:
            times = ""
            if each.times_recommended is not None:
                times = f" ({each.times_recommended:.1f} times the promised limit)"
            yield f"{each.guideline.words} {_verdict(each.verdict)}{times}"


def _verdict(verdict: str) -> str:
    return {"unresolved": "not resolved"}.get(str(verdict), str(verdict))


def _rate(rate: Estimate) -> str:
    return f"{percent(rate.value)} % {_interval(rate, 100)}"


def _interval(found: Estimate, scale: float = 1.0) -> str:
    low, high = (f"{scale * end:.1f}" if math.isfinite(end) else "-" for end in found[1:3])
    return f"[{low}, {high}]"


def _replay_table(report: ScenarioReport) -> list[str]:
    if report.replay is None:
        return []
    heads = ("replayed", "allowed", "truncated [95 %]", "at most", "tokens")
    rows: list[Sequence[str]] = [heads]
    for each in report.replay.outcomes:
        rows.append(
            (
                each.name,
                f"{each.allowed.value:,.1f}",
                _rate(each.truncation),
                f"{percent(each.upper)} %",
                f"{each.spent.value:,.1f}",
            )
        )
    return [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, _REPLAYED, strict=True))
        )
        for row in rows
    ]


def _closing(report: ScenarioReport) -> Iterator[str]:
    if report.replay is None:
        yield "too few problems to replay limits on others than they were learned on"
    else:
        yield report.replay.sentence()
    if report.given is not None:
        yield from _given(report.given)


def _given(given: Mapping[str, Sequence[Kept]]) -> Iterator[str]:
    for split, groups in given.items():
        if split == GAME:
            continue
        said = []
        for each in groups:
            low, high = each.limits
            limits = count(low) if low == high else f"{count(low)} to {count(high)}"
            share = percent(each.truncation.share.value)
            said.append(
                f"{printable(each.name)} {limits} truncates {share} %, {_verdict(each.verdict)}"
            )
        name = "" if split == "all" else f" by {split}"
        of = plural(sum(each.truncation.problems for each in groups), "problem")
        yield f"the limits that were given{name} ({of}): {'; '.join(said)}"
