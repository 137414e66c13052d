"""Tests whose study is not whole fail once they have recorded what there is.

An engine's error is missing data: it is in no rate, and it is no wrong answer. But a run that lacks
answers shall not look like one that has them all.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from pytest_tokenbudget.collection.selection import kinds_of, model_of
from pytest_tokenbudget.common.names import SESSION
from pytest_tokenbudget.gates.plugin import tolerates_errors
from pytest_tokenbudget.report.outcomes import STOPPED_BY

if TYPE_CHECKING:
    from pytest_tokenbudget.core.trace import Trace

AGAIN = "run the same command again: it goes on with those only"


def fail_if_incomplete(item: pytest.Item) -> None:
    """Fail the running test where the engine failed on some of what the test stands on.

    Raises:
        pytest.fail.Exception: With how many traces are missing, and why.
    """
    __tracebackhide__ = True
    session = item.config.stash[SESSION]
    spec = model_of(item)
    if spec is None or session.recordings is not None:
        return
    for kind in kinds_of(item):
        study = session.cached_study(spec, kind)
        if study is not None and study.errors and not tolerates_errors(item, kind):
            said = sentence(spec.alias, study.errors, len(study.problems))
            item.stash[STOPPED_BY] = said
            pytest.fail(said, pytrace=False)


def sentence(alias: str, errors: tuple[Trace, ...], problems: int) -> str:
    """What is missing, and why, for people.

    Args:
        alias: The model's name.
        errors: Traces that ended in an error, at least one.
        problems: How many problems were posed.
    """
    reasons = Counter(trace.error or "no reason given" for trace in errors)
    reason, times = reasons.most_common(1)[0]
    hit = len({trace.problem_id for trace in errors})
    of = "trace is" if len(errors) == 1 else "traces are"
    others = "1 other reason" if len(reasons) == 2 else f"{len(reasons) - 1:,} other reasons"
    often = "" if len(reasons) == 1 else f" ({times:,} times; {others})"
    return (
        f"{len(errors):,} {of} missing for {alias}, of {hit:,} of {problems:,} problems: "
        f"{reason.rstrip('.')}"
        f"{often}; {AGAIN}"
    )
