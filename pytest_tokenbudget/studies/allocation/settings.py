"""The recommended policy written out as settings for the engines that can keep it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_tokenbudget.recipes.recipe import NO_EVIDENCE
from pytest_tokenbudget.report.files import safe_name, to_record
from pytest_tokenbudget.studies.allocation.analysis import OFF, AllocationReport, serving_of
from pytest_tokenbudget.studies.allocation.stored_traces import FEATURES
from pytest_tokenbudget.studies.thinking.study import ThinkingStudy

SCHEMA = "tokenbudget-allocation-settings/1"
ALL = "all"

_HOW = {
    "one limit": "set the limit for every request",
    OFF: "switch thinking off for every request",
    "per category": "the client knows the category of a request and sets its limit",
    "predicted difficulty": (
        "the client lets the model think as many tokens as `features_from` says, predicts the "
        "difficulty as weights x features + intercept, finds its group among the edges (group 0 "
        "is up to the first edge), and goes on with that group's limit: two requests, no engine "
        "does it alone"
    ),
    "first stable answer": (
        "the client ends the thinking at each probe, and stops where the same answer came `same` "
        "times in a row; no engine does it alone"
    ),
}


def settings_record(study: ThinkingStudy, report: AllocationReport) -> dict[str, object]:
    """What to set, for whom, and how each engine is told; policies were replayed."""
    found = report.policies
    assert found is not None
    name, policy = choice(report)
    limits = limits_of(policy)
    kept = found.policies[0].held
    record: dict[str, object] = {
        "evidence": evidence_of(report),
        "schema": SCHEMA,
        "model": study.alias,
        "model_id": report.model,
        "task": study.task.name,
        "problems": found.problems,
        "policy": name,
        "shown_to_be_better": name == OFF or found.winner is not None,
        "sentence": report.off_sentence() if name == OFF else found.sentence(),
        "reference_limit": found.reference,
        "reference_because": report.reference_because,
        "how": _HOW[name],
        "settings": dict(policy),
        "thinking_token_limits": limits,
        "stands_for_no_limit": report.no_limit,
        "answer_tokens": study.forcing.answer_tokens,
        "one_limit_chosen_to_keep_accuracy": {
            **found.policies[0].held_settings,
            "margin": found.margin,
            "shown_to_keep_it": kept.held,
        },
        "engines": engines_of(study, limits),
    }
    if name == "predicted difficulty":
        record["features"] = list(FEATURES)
    return record


def settings_file(study: ThinkingStudy) -> str:
    """Name of the file of settings, without its suffix."""
    return f"allocation_settings_{safe_name(study.alias)}"


def evidence_of(report: AllocationReport) -> str:
    """What stands behind the settings, in the first line of their file."""
    found = report.policies
    assert found is not None
    if report.recommended == OFF:
        return report.off_sentence()
    if found.winner is not None:
        return found.sentence()
    if report.reference_shown:
        return f"limit {found.reference:,}: {report.reference_because} (n = {found.problems:,})"
    return (
        f"{NO_EVIDENCE}: not a recommendation; limit {found.reference:,} is not shown to be good "
        f"enough (n = {found.problems:,}): {report.reference_because}"
    )


def choice(report: AllocationReport) -> tuple[str, Mapping[str, Any]]:
    """The recommended policy by name, and its settings; policies were replayed."""
    found, name = report.policies, report.recommended
    assert found is not None
    assert name is not None
    # Without a winner it is one limit for all, and that is the reference.
    return name, {"limit": 0} if name == OFF else found.settings


def limits_of(settings: Mapping[str, Any]) -> dict[str, int]:
    """Limits by group of a policy's settings; of all alike under ``all``; none of probing."""
    if "groups" in settings:
        return {group: each["limit"] for group, each in settings["groups"].items()}
    return {ALL: settings["limit"]} if "limit" in settings else {}


def engines_of(study: ThinkingStudy, limits: Mapping[str, int]) -> dict[str, object]:
    """How each engine is told: its command line, and a request's fields for each group.

    The command line is that of the largest limit; where a request has a field for the budget,
    that counts.
    """
    from pytest_tokenbudget.recipes.engines import WRITERS
    from pytest_tokenbudget.recipes.settings import find_template

    if not limits:
        return {}
    largest = max(limits.values())
    template = find_template(serving_of(study, largest))
    found: dict[str, object] = {}
    for name, write in WRITERS.items():
        settings = write(serving_of(study, largest, name), template)
        plain = to_record(settings)
        del plain["engine"], plain["request"]
        plain["requests"] = {
            group: {
                **write(serving_of(study, limit, name), template).request,
                "max_tokens": limit + study.forcing.answer_tokens,
            }
            for group, limit in limits.items()
            if settings.request
        }
        found[name] = plain
    return found
