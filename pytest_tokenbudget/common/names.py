"""Names that several parts of the plugin share: stash keys, attributes of reports, markers.

Every pytest session loads this module, so it imports nothing that pytest has not loaded already.
"""

from __future__ import annotations

from typing import Any

import pytest

CONFIGURED = pytest.StashKey[bool]()
STARTED = pytest.StashKey[float]()
HOOKS = "tokenbudget-hooks"
# Attributes of a test's report that travel from a worker to the controller.
RECORDED, SECTIONS = "tokenbudget", "tokenbudget_sections"
# What a test recorded.
RECORDS = pytest.StashKey[list[dict[str, Any]]]()
# Modes of thinking that are switched by the chat template, and the one of the allocation table.
OFF, ON, DISABLED = "off", "on", "disabled"
# The mode of --max-thinking-tokens.
EXPLICIT = "explicit"
