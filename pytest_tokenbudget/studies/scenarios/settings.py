"""The recommended limits as settings in YAML, in the form that ``--generation-config`` reads."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_tokenbudget.common.text_layout import plural
from pytest_tokenbudget.core.study import PLAIN, Study
from pytest_tokenbudget.report.json_files import RunInfo
from pytest_tokenbudget.settings.generation_config import (
    FRAMINGS,
    SPLITS,
    WrittenLimit,
    generation_config_text,
)
from pytest_tokenbudget.studies.scenarios.analysis import FRAMING, ScenarioReport
from pytest_tokenbudget.studies.scenarios.limits import GroupLimit


def settings_files(study: Study, report: ScenarioReport, run: RunInfo) -> dict[str, str]:
    """Contents of the files by what is added to their names: the recommended way, then each split.

    Limits of several splits in one file would be of no use: the larger one of a problem counts.
    """
    replay = report.replay
    better = None if replay is None or replay.better is None else replay.outcome(replay.better)
    found = {"": settings_text(study, report, run, better.split if better else None)}
    for split in SPLITS.values():
        if limits_of(report, split):
            found[f"+{split}"] = settings_text(study, report, run, split)
    return found


def settings_text(
    study: Study, report: ScenarioReport, run: RunInfo, split: str | None = None
) -> str:
    """The settings, with what is known of each limit beside it.

    Args:
        study: The study; they repeat how its tokens were chosen.
        report: What it found.
        run: The run that made it.
        split: What has limits of its own; None for one limit for all.
    """
    overall = report.learned.overall
    generation: dict[str, object] = {
        "max_new_tokens": overall.limit,
        "enable_thinking": study.mode != PLAIN,
    }
    if study.decoding.greedy:
        generation["do_sample"] = False
    elif study.decoding.known:
        generation |= {
            "do_sample": True,
            "temperature": study.decoding.temperature,
            "top_p": study.decoding.top_p,
        }
    rows = run.settings.get("batch_size")
    about = [
        _evidence(report, split),
        f"{study.alias} on {study.task.name}, {plural(len(study.complete), 'problem')}",
        limit_reason(overall, overall),
    ]
    if report.replay is not None:
        about.append(report.replay.sentence())
    section = next((name for name, each in SPLITS.items() if each == split), "")
    return generation_config_text(
        generation,
        data=None if rows is None else {"batch_size": rows},
        limits={section: limits_of(report, split)} if split else None,
        about=about,
    )


def _evidence(report: ScenarioReport, split: str | None) -> str:
    """What stands behind the limits of a file, in its first line."""
    overall = report.learned.overall
    written = limits_of(report, split) if split else {}
    choices = report.learned.groups.get(split, {}) if split else {}
    limits = [overall, *(choices[name] for name in written)]
    bare = sum(not choice.promised for choice in limits)
    goal = f"truncate at most {100 * report.target:g} % of the answers"
    if not bare:
        return f"Evidence: every limit below is shown to {goal}, each by itself"
    which = (
        "these limits" if bare == len(limits) else f"{bare:,} of the {len(limits):,} limits below"
    )
    return f"NO EVIDENCE stands behind {which}: not a recommendation, not shown to {goal}"


def limits_of(report: ScenarioReport, split: str) -> dict[str, WrittenLimit]:
    """Limits of a split's groups by their names, with what is known of each."""
    choices: Mapping[str, GroupLimit] = report.learned.groups.get(split, {})
    return {
        name: WrittenLimit(choice.limit, limit_reason(choice, report.learned.overall))
        for name, choice in choices.items()
        if choice.limit is not None and (split != FRAMING or name in FRAMINGS)
    }


def limit_reason(choice: GroupLimit, overall: GroupLimit) -> str:
    """What is known of a limit: a promise, or why there is none and whose limit it is."""
    said = choice.found.sentence()
    if choice.promised or choice is overall:
        return said
    whose = "that of all" if choice.limit == overall.limit else "the most that was seen"
    why, _, _ = said.partition("; ")
    return f"{why}; the limit is {whose}"
