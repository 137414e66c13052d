"""Replies as evidence: small, and with nothing that a report must not show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_tokenbudget.core.probes import NoAnswerError, Reply
from pytest_tokenbudget.studies.conformance.results import LimitFinding, LimitResult


def small(sent: Mapping[str, Any], limit: int = 400) -> dict[str, Any]:
    """A request as sent, its long texts and lists shortened."""

    def cut(value: object) -> object:
        if isinstance(value, str) and len(value) > limit:
            return f"{value[:limit]} ... ({len(value)} characters)"
        if isinstance(value, Mapping):
            return {str(key): cut(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            parts = [cut(item) for item in value[:16]]
            return [*parts, f"... ({len(value)} in all)"] if len(value) > 16 else parts
        return value

    return {str(key): cut(value) for key, value in sent.items()}


def shown(reply: Reply, **more: object) -> dict[str, Any]:
    """A reply as evidence: the request as sent, and what came of it."""
    found: dict[str, Any] = {"request": small(reply.sent)}
    if reply.error:
        found |= {"error": reply.error[:400], "status": reply.status}
    if reply.choices:
        found["finish_reasons"] = [choice.finish_reason for choice in reply.choices[:8]]
        found["tokens"] = [
            None if choice.ids is None else len(choice.ids) for choice in reply.choices[:8]
        ]
        found["text_end"] = reply.choices[0].text[-80:]
    if reply.usage:
        found["usage"] = dict(reply.usage)
    return found | more


def not_possible(probe: str, why: str, reply: Reply | None = None) -> LimitResult:
    """A probe that this engine cannot be asked.

    Raises:
        NoAnswerError: If the engine did not refuse it, but failed or did not answer.
    """
    if reply is not None and reply.error and not reply.refused:
        raise NoAnswerError(f"{probe}: {why if reply.error in why else reply.error}")
    evidence = () if reply is None else (shown(reply),)
    return LimitResult(probe, LimitFinding.NOT_POSSIBLE, why, evidence=evidence)
