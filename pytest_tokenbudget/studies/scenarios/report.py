"""The scenarios eval: its result files, and its table and sentences on the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pytest_tokenbudget.common.outside_text import printable
from pytest_tokenbudget.common.text_layout import (
    MAX_WIDTH,
    Table,
    columns,
    count,
    decimal,
    percent,
    plural,
    rate,
    rule,
    share,
    shorten,
    wrapped,
)
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.report.files import to_plain, to_record, write_text
from pytest_tokenbudget.report.json_files import RunInfo, file_stem, header, write_record
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
from pytest_tokenbudget.studies.scenarios.checks import GivenLimit
from pytest_tokenbudget.studies.scenarios.limits import GroupLimit
from pytest_tokenbudget.studies.scenarios.settings import settings_files

SCHEMA = "tokenbudget-scenarios/1"
PLURALS = {GAME: "games", FRAMING: "framings", CATEGORY: "categories"}


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
    """Write the result file and, if there are scenarios, the settings and the figures."""
    from pytest_tokenbudget.studies.scenarios.figure import scenarios_figures

    stem = file_stem(study)
    record = {**header(study, run, SCHEMA), **scenarios_record(study, run)}
    written = [write_record(directory, f"scenarios_{stem}", record)]
    try:
        report = report_of(study, run)
    except NoScenariosError:
        return written
    for suffix, text in settings_files(study, report, run).items():
        path = directory / "results" / f"scenarios_settings_{stem}{suffix}.yaml"
        written.append(write_text(path, text))
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
    """What the eval found, with the limit of all scenarios first."""
    width = columns(width)
    task = shorten(printable(study.task.name), 24)
    lines = [rule(study.alias, f": scenarios of {task}, n = {len(study.complete):,}", width)]
    try:
        report = report_of(study, run)
    except NoScenariosError as error:
        return [*lines, *wrapped(str(error), width)]
    lines += wrapped(limit_answer(study, report.learned.overall.found), width)
    lines += _table(report).lines(width)
    for sentence in _sentences(report):
        lines += wrapped(sentence, width)
    lines += _replay_table(report).lines(width)
    for sentence in _closing(report):
        lines += wrapped(sentence, width)
    behind = "" if report.learned.overall.promised else ", which no evidence stands behind"
    where = f"results/scenarios_settings_{file_stem(study)}.yaml"
    return lines + wrapped(f"settings{behind}: {where}", width)


def _table(report: ScenarioReport) -> Table:
    answered = ("JSON", "legal") if report.overall.answers is not None else ()
    table = Table("", "n", *answered, "cut", "mean", "p95", "most", "limit")
    table.add("all", *_cells(report.overall, report.learned.overall))
    for split, groups in report.groups.items():
        table.add(split)
        choices = report.learned.groups.get(split, {})
        for group in groups:
            table.add(f"  {printable(group.name)}", *_cells(group, choices.get(group.name)))
    return table


def _cells(group: ScenarioGroup, choice: GroupLimit | None) -> list[str]:
    needs, shown = group.needs, [count(group.needs.problems)]
    if group.answers is not None:
        shown += [percent(group.answers.valid_json.value), percent(group.answers.legal.value)]
    shown.append(percent(group.truncation[max(group.truncation)].value))
    for name, tokens in (
        ("mean", decimal(needs.mean.value)),
        ("p95", _whole(needs.p95)),
        ("max", _whole(needs.max)),
    ):
        shown.append(f">{tokens}" if name in needs.lower_bounds else tokens)
    if choice is not None and choice.limit is not None:
        shown.append(count(choice.limit) if choice.promised else f"({count(choice.limit)})")
    return shown


def _whole(tokens: float) -> str:
    return count(tokens) if math.isfinite(tokens) else "-"


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
        explained = f"{100 * each.explained:.0f} % of the variance of ranks"
        verb = "differ" if each.p_holm < 0.05 else "are not shown to differ"
        yield f"tokens needed {verb} by {each.split} (p = {each.p_holm:.3g}, {explained})"
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
            f"{_verdict(report.more.verdict)}, {gap.value:+.1f} "
            f"[{decimal(gap.low)}, {decimal(gap.high)}]"
        )


def _answer_sentences(report: ScenarioReport, answers: GroupAnswers) -> Iterator[str]:
    other = [f"{n:,} {what}" for what, n in answers.findings.items() if n]
    yield f"answers: {', '.join(other)}; nothing but the object: {rate(answers.alone)}"
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
        yield f"the option with the best worst case was chosen in {rate(answers.safest)}{by}"


def _guidelines(report: ScenarioReport) -> Iterator[str]:
    for each in report.guidelines:
        if each.applies:
            times = ""
            if each.times_recommended is not None:
                times = f" ({each.times_recommended:.1f} times the promised limit)"
            yield f"{each.guideline.words} {_verdict(each.verdict)}{times}"


def _verdict(verdict: str) -> str:
    return {"unresolved": "not resolved"}.get(str(verdict), str(verdict))


def _replay_table(report: ScenarioReport) -> Table:
    table = Table("replayed", "allowed", "truncated [95 %]", "at most", "tokens")
    for each in report.replay.outcomes if report.replay is not None else ():
        table.add(
            each.name,
            decimal(each.allowed.value),
            rate(each.truncation),
            share(each.upper),
            decimal(each.spent.value),
        )
    return table


def _closing(report: ScenarioReport) -> Iterator[str]:
    if report.replay is None:
        yield "too few problems to replay limits on others than they were learned on"
    else:
        yield report.replay.sentence()
    if report.given is not None:
        yield from _given(report.given)


def _given(given: Mapping[str, Sequence[GivenLimit]]) -> Iterator[str]:
    for split, groups in given.items():
        if split == GAME:
            continue
        parts = []
        for each in groups:
            low, high = each.limits
            limits = count(low) if low == high else f"{count(low)} to {count(high)}"
            parts.append(
                f"{printable(each.name)} {limits} truncates "
                f"{share(each.truncation.share.value)}, {_verdict(each.verdict)}"
            )
        name = "" if split == "all" else f" by {split}"
        number = plural(sum(each.truncation.problems for each in groups), "problem")
        yield f"the limits that were given{name} ({number}): {'; '.join(parts)}"
