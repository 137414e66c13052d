"""Phrases of the conformance eval that its terminal report and its figure share."""

from __future__ import annotations

import math

from pytest_tokenbudget.studies.conformance.analysis import ConformanceReport, goes_on
from pytest_tokenbudget.studies.conformance.results import BudgetResult

NO_BUDGET = "none"


def budget_name(budget: int | None) -> str:
    """A budget as tables and figures name it."""
    return NO_BUDGET if budget is None else f"{budget:,}"


def mean_thinking(result: BudgetResult) -> str:
    """Mean thinking tokens as tables and figures show them; ``-`` where nothing was observed.

    A star says that the model went on thinking after the close, where no budget reaches.
    """
    mean = result.mean_thinking
    if math.isnan(mean):
        return "-"
    shown = f"{mean:,.1f}" if mean < 1000 else f"{mean:,.0f}"
    return shown + ("*" if goes_on(result) else "")


def star_sentence(report: ConformanceReport) -> str:
    """What the star means; empty where there is none."""
    more = [
        each.spill
        for way in report.ways
        for result in way.budgets
        if goes_on(result)
        for each in result.observations
    ]
    if not more:
        return ""
    mean = sum(more) / len(more)
    return f"* the model went on thinking after the close, {mean:,.1f} tokens more on average"
