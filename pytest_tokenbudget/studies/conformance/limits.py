"""Probes of the limits, by name: are the limits one sets the limits one gets?"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pytest_tokenbudget.studies.conformance import finish_reasons, lengths, overflow, repeats
from pytest_tokenbudget.studies.conformance.probe_context import ProbeContext
from pytest_tokenbudget.studies.conformance.results import LimitResult

Probe = Callable[[ProbeContext], LimitResult]

LIMIT_PROBES: Mapping[str, Probe] = {
    "max_tokens": lengths.max_tokens,
    "boundary": lengths.boundary,
    "stop_strings": lengths.stop_strings,
    "n": repeats.several,
    "seeds": repeats.seeds,
    "prefix_alone": repeats.prefix_alone,
    "prefix_under_load": repeats.prefix_under_load,
    "usage": finish_reasons.usage,
    "finish_reason": finish_reasons.finish_reason,
    "overflow": overflow.overflow,
}


def probe_limit(bench: ProbeContext, name: str) -> LimitResult:
    """Run one probe.

    Args:
        bench: The engine with its prompts.
        name: Its name, a key of :data:`LIMIT_PROBES`.
    """
    return LIMIT_PROBES[name](bench)
