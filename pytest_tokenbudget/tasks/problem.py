"""What a task is made of: problems with stable ids and chat messages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Message = Mapping[str, str]

NO_CATEGORY = ""
"""Category of a problem that has none; a name would be one that a task may use itself."""

SOLVE_INSTRUCTION = "Solve the problem step by step. End with #### and the number."


@dataclass(frozen=True)
class Problem:
    """One question with its expected answer.

    Attributes:
        id: Stable identifier, derived from the content and never from the position.
        question: The question as shown to people.
        answer: The expected answer in the task's canonical form.
        category: Label used to break results down, for example ``"4-step"``; ``NO_CATEGORY``
            where the problem has none.
        messages: Chat messages (``role`` and ``content``) that pose the question.
        metadata: Task-specific facts about the problem, small and JSON-compatible.
    """

    id: str
    question: str
    answer: str
    category: str
    messages: tuple[Message, ...]
    metadata: Mapping[str, object] = field(default_factory=dict)


def content_id(prefix: str, messages: Sequence[Message], answer: str) -> str:
    """A problem's id: ``prefix`` and 12 hexadecimal digits of a SHA-256 over what it says."""
    canonical = json.dumps(
        [[(m["role"], m["content"]) for m in messages], answer],
        ensure_ascii=False,
        separators=(",", ":"),
    )
    return f"{prefix}-{hashlib.sha256(canonical.encode()).hexdigest()[:12]}"
