"""Which thinking budget a model gets in a mode: the published table, its rules, and who matched.

Nothing here looks at files: a model is known by its id, which :mod:`pytest_tokenbudget.recipes`
finds behind an alias.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, cast, get_args

from pytest_tokenbudget.common.outside_text import PrintableError

Mode = Literal["auto", "conservative", "balanced", "aggressive", "disabled"]

FLOOR: Final = 2048
CEILING: Final = 512_000
MULTIPLIERS: Final[Mapping[Mode, float]] = {
    "auto": 1.0,
    "conservative": 0.25,
    "balanced": 1.0,
    "aggressive": 2.0,
}
EXPLICIT: Final = "explicit"
_LARGEST_MULTIPLIER: Final = max(MULTIPLIERS.values())

_PUBLISHED: Final = (
    "https://github.com/sybil-solutions/vllm-studio (docs/DYNAMIC_THINKING_TOKENS.md)"
)

# The families, by what stands in a model's own name, whole words only: "r1" inside "repair1" is
# none. A distill of DeepSeek-R1 into Qwen3 is a DeepSeek-R1, so the order counts.
_FAMILIES: Final[Mapping[str, str]] = {
    "minimax-m2": r"(?<![a-z0-9])minimax[-_ ]?m2(?:[.\-_]\d+)?(?![a-z0-9])",
    "deepseek-r1": r"(?<![a-z0-9])deepseek[-_ ]?r1(?![a-z0-9])",
    "glm-4.5": r"(?<![a-z0-9])glm[-_ ]?4[.\-_][567](?:v|-?flash)?(?![a-z0-9])",
    "qwen3": r"(?<![a-z0-9])qwen3(?!\.\d)(?![a-z0-9])",
    "gpt-oss": r"(?<![a-z0-9])gpt[-_]?oss(?![a-z0-9])",
    "seed-oss": r"(?<![a-z0-9])seed[-_]?oss(?![a-z0-9])",
}
# Members of these families that were never taught to think. The 2507 generation of Qwen3 writes
# "Instruct" for what does not think and "Thinking" for what does.
_NO_THINKING: Final = (
    r"(?<![a-z0-9])(?:base|embedding|reranker|coder|guard|guardgen|asr|tts)(?![a-z0-9])"
)
_NO_THINKING_QWEN3: Final = r"(?<![a-z0-9])instruct(?![a-z0-9])"


class AllocationError(PrintableError, ValueError):
    """A mode or a value that cannot be used; the message is for people."""


@dataclass(frozen=True)
class AllocationRow:
    """A row of the table.

    Attributes:
        name: What the row is called in reports.
        family: The family of models that it belongs to.
        base: Tokens in mode ``auto``, before floor and ceiling.
        pattern: What else the model's name must hold, as a regular expression; empty for nothing.
        published: Whether the published table has this row.
        source: Where the base comes from.
    """

    name: str
    family: str
    base: int
    pattern: str = ""
    published: bool = True
    source: str = _PUBLISHED


# The first row that matches counts.
TABLE: Final[tuple[AllocationRow, ...]] = (
    AllocationRow("MiniMax-M2 REAP-50", "minimax-m2", 128_000, r"reap[-_]?50(?!\d)"),
    AllocationRow("MiniMax-M2", "minimax-m2", 64_000),
    AllocationRow("DeepSeek-R1 distills", "deepseek-r1", 64_000, r"distill|llama|qwen"),
    AllocationRow("DeepSeek-R1", "deepseek-r1", 64_000),
    AllocationRow("GLM-4.5/4.6/4.7", "glm-4.5", 32_000),
    AllocationRow(
        "Qwen3",
        "qwen3",
        32_000,
        published=False,
        source="no row in the published table; 32,000 is the base that its code gives to every "
        "other reasoning model (controller/thinking_config.py of the same repository), and near "
        "the 32,768 output tokens that the Qwen3 model cards recommend",
    ),
)


@dataclass(frozen=True)
class Allocation:
    """The thinking budget of one model in one mode.

    Attributes:
        tokens: The budget; None where the table does not know the model.
        mode: The mode, or ``explicit`` where a value was given.
        row: Name of the row that matched; None where none did.
        reason: How the budget came about, for people.
        model: The resolved model id that was looked up.
        context: Tokens that the model's prompt and output may have together; None if unknown.
    """

    tokens: int | None
    mode: str
    row: str | None
    reason: str
    model: str
    context: int | None = None


def modes() -> tuple[Mode, ...]:
    return get_args(Mode)


def check_mode(mode: str) -> Mode:
    """The mode as one of the table's.

    Raises:
        AllocationError: If it is none of them.
    """
    if mode not in get_args(Mode):
        raise AllocationError(
            f"unknown thinking mode {mode!r}; allowed are {', '.join(get_args(Mode))}"
        )
    return cast(Mode, mode)


def model_name(model_id: str) -> str:
    """A model's own name in its id: without owner, folders, file type and revision."""
    name = re.split(r"[/\\]", model_id.rstrip("/\\"))[-1]
    return re.sub(r"\.gguf$", "", name.split("@")[0], flags=re.IGNORECASE).lower()


def family_of(model_id: str) -> str | None:
    """The family of thinking models that an id belongs to, whether or not the table has it."""
    name = model_name(model_id)
    for family, pattern in _FAMILIES.items():
        if re.search(pattern, name):
            return None if _never_thinks(family, name) else family
    return None


def find_row(model_id: str) -> tuple[AllocationRow | None, str]:
    """The row of a model, and why it is this one or none; by its resolved id, not an alias."""
    name = model_name(model_id)
    for family, pattern in _FAMILIES.items():
        match = re.search(pattern, name)
        if match is None:
            continue
        if _never_thinks(family, name):
            return None, f"{name!r} is of the family {family} but does not think"
        for row in TABLE:
            if row.family == family and re.search(row.pattern, name):
                further = re.search(row.pattern, name) if row.pattern else None
                words = [match.group(), *([further.group()] if further else [])]
                return row, f"row {row.name}: {name!r} holds {' and '.join(map(repr, words))}"
        return None, f"{name!r} is of the family {family}, for which the table has no row"
    return None, f"no row of the table knows {name!r}"


def budget(base: int, mode: Mode) -> int:
    if mode == "disabled":
        return 0
    return max(FLOOR, min(int(base * MULTIPLIERS[mode]), CEILING))


def allocate(
    model_id: str,
    mode: str = "auto",
    explicit: int | None = None,
    context: int | None = None,
) -> Allocation:
    """The thinking budget of a model, by its resolved id, not an alias.

    An explicit value wins over mode and table, and neither floor nor ceiling touches it.
    ``disabled`` is 0 for every model. A model without a row gets no number. Its prompt and output
    may have ``context`` tokens together.

    Raises:
        AllocationError: If the mode is unknown, or the explicit value is below zero or above the
            context.
    """
    known = check_mode(mode)
    row, why = find_row(model_id)
    named = row.name if row else None
    if explicit is not None:
        _check_explicit(explicit, context, model_id)
        reason = f"{explicit:,} tokens were asked for; mode and table do not count"
        return Allocation(explicit, EXPLICIT, named, reason, model_id, context)
    if known == "disabled":
        return Allocation(0, known, named, "disabled is 0 for every model", model_id, context)
    if row is None:
        reason = f"unknown model: {why}; give max_thinking_tokens, or measure it (-m thinking)"
        return Allocation(None, known, None, reason, model_id, context)
    tokens = budget(row.base, known)
    reason = f"{why}; {row.base:,} x {MULTIPLIERS[known]:g}"
    wanted = int(row.base * MULTIPLIERS[known])
    if tokens != wanted:
        reason += f" = {wanted:,}, {'at least' if tokens > wanted else 'at most'} {tokens:,}"
    if context is not None and tokens >= context:
        reason += f"; more than the model's context of {context:,} holds"
    return Allocation(tokens, known, row.name, reason, model_id, context)


def scale_to_context(
    allocation: Allocation, context: int, prompt_tokens: int, answer_tokens: int = 0
) -> Allocation:
    """The allocation as it can be tried on a model with a small context.

    The room for thinking is what prompt, answer and one last token leave of the context. The
    largest mode, ``aggressive``, gets all of it, and every other mode its share as in the table:
    ``auto`` and ``balanced`` a half, ``conservative`` an eighth. So modes stay apart where plain
    capping would make one of them all. Where the largest budget of the row fits, nothing changes.
    For a model without a row the shares are all there is, which the reason says; floor and ceiling
    do not apply to what was scaled. An explicit value is never scaled. The prompt is the longest
    one; the context is of prompt and output together.

    Raises:
        AllocationError: If there is no room, or an explicit value does not fit.
    """
    room = context - prompt_tokens - answer_tokens - 1
    if room < 1:
        raise AllocationError(
            f"a prompt of {prompt_tokens:,} and an answer of {answer_tokens:,} tokens leave no "
            f"room for thinking in a context of {context:,}"
        )
    if allocation.mode == EXPLICIT:
        if allocation.tokens is not None and allocation.tokens > room:
            raise AllocationError(
                f"{allocation.tokens:,} thinking tokens were asked for, and a context of "
                f"{context:,} has room for {room:,} beside a prompt of {prompt_tokens:,} and an "
                f"answer of {answer_tokens:,} tokens"
            )
        return replace(allocation, context=context)
    mode = check_mode(allocation.mode)
    if mode == "disabled":
        return replace(allocation, context=context)
    row = next((row for row in TABLE if row.name == allocation.row), None)
    if row is None:
        share = MULTIPLIERS[mode] / _LARGEST_MULTIPLIER
        reason = f"{allocation.reason}; {share:g} of the {room:,} tokens that the context leaves"
    else:
        largest = budget(row.base, "aggressive")
        if largest <= room:
            return replace(allocation, context=context)
        share = budget(row.base, mode) / largest
        reason = f"{allocation.reason}; scaled to {share:g} of the {room:,} tokens that fit"
    return replace(allocation, tokens=int(share * room), context=context, reason=reason)


def _never_thinks(family: str, name: str) -> bool:
    if re.search(_NO_THINKING, name):
        return True
    return family == "qwen3" and re.search(_NO_THINKING_QWEN3, name) is not None


def _check_explicit(tokens: int, context: int | None, model_id: str) -> None:
    if isinstance(tokens, bool) or not isinstance(tokens, int):
        raise AllocationError(
            f"a thinking budget is a whole number of tokens, not {tokens!r}; 0 switches thinking "
            f"off"
        )
    if tokens < 0:
        raise AllocationError(
            f"a thinking budget of {tokens:,} tokens is below zero; 0 switches thinking off"
        )
    if context is not None and tokens > context:
        raise AllocationError(
            f"a thinking budget of {tokens:,} tokens is above the context of {model_id}, which "
            f"holds {context:,} tokens of prompt and output together"
        )
