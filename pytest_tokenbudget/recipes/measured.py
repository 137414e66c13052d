"""Recipes from what the allocation eval measured: its settings file read back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

SCHEMA: Final = "tokenbudget-allocation-settings/"
NO_EVIDENCE: Final = "NONE"
"""How the ``evidence`` of settings begins that nothing stands behind."""


def is_settings(found: object) -> bool:
    """Whether the content of a file is that of ``allocation_settings_*.json``."""
    return isinstance(found, Mapping) and str(found.get("schema", "")).startswith(SCHEMA)


def recipe_keys(found: Mapping[str, Any]) -> dict[str, object]:
    """The keys of a recipe for the recommended policy.

    A recipe has one thinking budget: where groups have limits of their own, it is the largest,
    which is also the one that the settings' command lines set.

    Args:
        found: The content of the file.

    Raises:
        ValueError: If the settings have no limit, or lack what a recipe needs; the message says so.
    """
    limits = found.get("thinking_token_limits")
    lacking = [key for key in ("model", "model_id", "answer_tokens") if key not in found]
    if lacking or not isinstance(limits, Mapping):
        lacking += [] if isinstance(limits, Mapping) else ["thinking_token_limits"]
        raise ValueError(f"the settings lack {', '.join(lacking)}: run the allocation eval again")
    if not limits:
        raise ValueError(
            f"the policy {found.get('policy')!r} has no thinking limit that an engine could be "
            "given: write a recipe with max_thinking_tokens"
        )
    name, evidence = str(found["model"]), str(found.get("evidence") or NO_EVIDENCE)
    groups = len(limits)
    return {
        "id": name,
        "name": name if groups == 1 else f"{name} (the largest of {groups} limits)",
        "model_path": found["model_id"],
        "max_thinking_tokens": max(limits.values()),
        "answer_tokens": found["answer_tokens"],
        **({} if evidence.startswith(NO_EVIDENCE) else {"evidence": evidence}),
    }
