"""What conformance probes find: pure data, which reports show and gates judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class BudgetVerdict(StrEnum):
    """Whether an engine keeps a thinking budget that it is given in one way."""

    ENFORCED = "enforced"
    SOFT = "soft"
    IGNORED = "ignored"
    INVERTED = "inverted"
    REFUSED = "refused"
    NOT_RESOLVED = "not resolved"


class LimitFinding(StrEnum):
    """What came of a probe of the limits."""

    KEPT = "kept"
    BROKEN = "broken"
    DIFFERS = "differs"
    NOT_POSSIBLE = "not possible"


class Behaviour(StrEnum):
    """What an engine does with what does not fit into its context."""

    REFUSED = "refused"
    CUT_LEFT = "cut at the left"
    CUT_RIGHT = "cut at the right"
    CUT_MIDDLE = "cut in the middle"
    WHOLE = "taken in full"
    CAPPED = "capped, says length"
    CAPPED_UNSAID = "capped, not said"
    FAILED = "error"
    NOT_RESOLVED = "not resolved"
    NOT_ASKED = "not asked"


class Sight(StrEnum):
    """Whether a part of a prompt decides what is written."""

    SEEN = "seen"
    UNSEEN = "not seen"
    UNTOLD = "not told"


@dataclass(frozen=True)
class OverflowCase:
    """What an engine did with one request that does not fit into its context.

    Attributes:
        case: Which one.
        behaviour: What it did.
        sentence: The same for people, with its evidence.
        broken: Whether that breaks the limit.
        prompt: Tokens of the prompt that was sent; None where none was, or nobody can count.
        max_tokens: Output tokens asked for.
        counted: Tokens of the prompt as the engine counts them.
        output: Output tokens that came.
        finish_reason: The engine's own word.
        sights: Whether beginning, middle and end of the prompt were seen; empty where there was
            nothing to find out.
        kept: Which tokens of the prompt, posed alone, give the very same output; empty where none
            did, or that was not tried.
    """

    case: str
    behaviour: Behaviour
    sentence: str
    broken: bool = False
    prompt: int | None = None
    max_tokens: int | None = None
    counted: int | None = None
    output: int | None = None
    finish_reason: str = ""
    sights: Mapping[str, Sight] = field(default_factory=dict)
    kept: str = ""


@dataclass(frozen=True)
class LimitResult:
    """What one probe of the limits found.

    Attributes:
        probe: Its name.
        finding: ``kept``; ``broken`` where what the engine says and what it does contradict each
            other or the request; ``differs`` where outputs are not repeated exactly, which is no
            defect but must be known; ``not possible`` where the engine cannot be asked this.
        sentence: The finding for people, with its numbers.
        checked: How many outputs were looked at.
        failed: How many of them did not do as asked.
        rate: Share of them with its interval (value, low, high), where it is a rate.
        evidence: Requests as sent, counts, excerpts; small.
        cases: What was done with each request that does not fit; of ``overflow`` only.
    """

    probe: str
    finding: LimitFinding
    sentence: str
    checked: int = 0
    failed: int = 0
    rate: tuple[float, float, float] | None = None
    evidence: tuple[Mapping[str, Any], ...] = ()
    cases: tuple[OverflowCase, ...] = ()


@dataclass(frozen=True)
class Observation:
    """One output under one thinking budget.

    Attributes:
        prompt: Number of the prompt.
        thinking: Thinking tokens within blocks, tags included, which is what a budget can bound; a
            closing sentence that is known as such is the engine's and left out.
        answer: Answer tokens.
        opened: Whether thinking was opened, by the prompt or by the model.
        closed: Whether it was closed.
        reopened: Whether it was opened again.
        spilled: Whether it went on after its close.
        capped: Whether ``max_tokens`` ended the output.
        finish_reason: The engine's own word.
        in_content: Whether thinking or a tag of it stands in what the engine calls content,
            though it sets reasoning apart.
        excerpt: End of the thinking and beginning of what follows.
        spill: Tokens of thinking that went on after its close, up to a further close; they are not
            in ``thinking``, nor in ``answer``.
    """

    prompt: int
    thinking: int
    answer: int
    opened: bool
    closed: bool
    reopened: bool
    spilled: bool
    capped: bool
    finish_reason: str
    in_content: bool = False
    excerpt: str = ""
    spill: int = 0


@dataclass(frozen=True)
class BudgetResult:
    """What was observed under one thinking budget.

    Attributes:
        budget: Thinking tokens asked for; None without a budget.
        observations: One an output; empty where it was refused.
        informative: Prompts that the model thinks about for longer than the budget where it has
            none; the others cannot tell.
        kept: How many of these stayed within the budget, tags allowed for.
        shorter: Prompts with less thinking than both times without a budget.
        longer: Prompts with more thinking than both times without a budget.
        same: Outputs that are, token for token, those without a budget.
        request: The request as sent, of the first prompt.
        error: What went wrong, of the first prompt with which something did.
        refused: Whether the engine said no to the request itself; an error otherwise.
    """

    budget: int | None
    observations: tuple[Observation, ...] = ()
    informative: int = 0
    kept: int = 0
    shorter: int = 0
    longer: int = 0
    same: int = 0
    request: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    refused: bool = False

    @property
    def mean_thinking(self) -> float:
        """Mean thinking tokens; NaN where nothing was observed."""
        if not self.observations:
            return float("nan")
        return sum(each.thinking for each in self.observations) / len(self.observations)


@dataclass(frozen=True)
class MethodResult:
    """One way to set a thinking budget, and whether the engine keeps it.

    Attributes:
        way: Its name.
        label: The same for people: which field, where.
        prompt_opens: Whether the prompt opened the thinking block.
        verdict: What it amounts to.
        sentence: The verdict with its evidence, for people.
        budgets: What was observed at each budget, the one without a budget last.
        unknown_fields: What the engine does with a field that does not exist: ``refused``,
            ``dropped``, or "" where that was not tried.
        repeated: The outputs without a budget, measured a second time: the engine's own noise.
        remarks: What else was seen, a sentence each: blocks opened again, leaks, answers missing,
            budgets that could tell nothing.
        slack: Tokens above a budget that count as kept: the tags, and one.
        counted: Whether tokens were counted from text, because the engine gives no ids.
        generations: Outputs that were generated for this result, shared ones included.
    """

    way: str
    label: str
    prompt_opens: bool
    verdict: BudgetVerdict
    sentence: str
    budgets: tuple[BudgetResult, ...]
    unknown_fields: str = ""
    repeated: BudgetResult | None = None
    remarks: tuple[str, ...] = ()
    slack: int = 0
    counted: bool = False
    generations: int = 0
