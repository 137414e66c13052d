"""Names that several parts of the plugin share: stash keys, attributes of reports, markers.

Every pytest session loads this module, so it imports nothing that pytest has not loaded already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_tokenbudget.session import Session

SESSION: pytest.StashKey[Session] = pytest.StashKey()
CONFIGURED = pytest.StashKey[bool]()
STARTED = pytest.StashKey[float]()
HOOKS = "tokenbudget-hooks"
# Attributes of a test's report that travel from a worker to the controller.
RECORDED, SECTIONS = "tokenbudget", "tokenbudget_sections"
# What a test recorded.
RECORDS = pytest.StashKey[list[dict[str, Any]]]()

MARKERS = {
    "phase1": "accuracy, truncation and tokens used against budget; the saturation point",
    "phase1b": "the same from several samples a problem",
    "phase2": "what kinds of errors there are",
    "phase3": "the cliff and the structure of solutions",
    "thinking": "what a thinking budget costs and buys",
    "allocation": "which thinking budget a model gets in a mode",
    "conformance": "whether an engine keeps the limits that it is given",
    "context": "what is lost when a conversation does not fit",
    "scenarios": "which limits scenarios of each kind need",
    "gpu": "needs a GPU",
    "tokenbudget": "an eval that uses fixtures of pytest-tokenbudget",
}
# Other projects mark tests as needing a GPU too.
EVAL_MARKERS = frozenset(MARKERS) - {"gpu"}
