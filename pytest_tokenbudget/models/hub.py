"""Whether the hub can be reached, so that a run without it ends at once and cached files are used.

The hub's own libraries try every file again and again, for minutes, before they look into the
cache or give up. Here the hub is asked once, for a few seconds; while it cannot be reached its
libraries are told to be offline.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_tokenbudget.models.resolution import ModelSpec

SECONDS = 2.0


@cache
def unreachable() -> str:
    """Why the hub cannot be reached; empty where it can. It is asked once a process."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    answers: list[str] = []
    # A thread of its own: no timeout limits how long the name of the host is looked up.
    asking = threading.Thread(
        target=lambda: answers.append(_ask(constants.ENDPOINT)), daemon=True, name="tokenbudget-hub"
    )
    asking.start()
    asking.join(SECONDS + 0.5)
    reason = answers[0] if answers else f"no answer within {SECONDS:g} s"
    return f"{constants.ENDPOINT}: {reason}" if reason else ""


def _ask(address: str) -> str:
    from huggingface_hub import get_session

    try:
        # Any answer will do.
        get_session().head(address, timeout=SECONDS)
    except Exception as error:
        # The libraries behind this differ from version to version.
        if "timeout" in type(error).__name__.lower():
            return f"no answer within {SECONDS:g} s"
        said = str(error).strip().splitlines()
        return said[0] if said else type(error).__name__
    return ""


def is_cached(spec: ModelSpec) -> bool:
    from pytest_tokenbudget.models.files import find_snapshot
    from pytest_tokenbudget.models.resolution import resolve_commit

    commit = resolve_commit(spec)
    snapshot = find_snapshot(spec.source, commit) if commit else None
    return snapshot is not None and (snapshot / "config.json").is_file()


def missing_model(spec: ModelSpec) -> str:
    return (
        f"{spec.source} (revision {spec.revision or 'main'}) is not in the local cache and the hub "
        f"cannot be reached ({unreachable() or 'it does not answer'}); connect once, run "
        f"`hf download {spec.source}` where there is a network, or name a local directory"
    )


@contextmanager
def access(needed: bool = True) -> Iterator[None]:
    """Let the hub's libraries work offline in this block if the hub cannot be reached.

    Nothing happens where it is not needed.
    """
    if not needed or not unreachable():
        yield
        return
    from huggingface_hub import constants

    # `datasets` keeps a copy of the switch from when it was imported.
    datasets: Any = sys.modules.get("datasets")
    switches: list[Any] = [constants, *([datasets.config] if datasets is not None else [])]
    before = [switch.HF_HUB_OFFLINE for switch in switches]
    for switch in switches:
        switch.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.HF_HUB_OFFLINE = value
