"""What conformance probes find, as data; and the reports that tests' records make of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from math import nan
from typing import Any, ClassVar, TypeVar

KIND = "conformance"
Kind = TypeVar("Kind", "LimitResult", "OverflowCase", "MethodResult", "BudgetResult", "Observation")


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
        behaviour: What it did.
        sentence: The same for people, with its evidence.
        broken: Whether that breaks the limit.
        prompt: Tokens of the prompt that was sent; None where none was, or nobody can count.
        max_tokens: Output tokens asked for.
        counted: Tokens of the prompt as the engine counts them.
        output: Output tokens that came.
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
        thinking: Thinking tokens within blocks, tags included, which is what a budget can bound; a
            closing sentence that is known as such is the engine's and left out.
        opened: Whether thinking was opened, by the prompt or by the model.
        closed: Whether it was closed.
        reopened: Whether it was opened again.
        spilled: Whether it went on after its close.
        capped: Whether ``max_tokens`` ended the output.
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

    @property
    def goes_on(self) -> bool:
        """Whether thinking went on outside of its block, where no budget reaches."""
        return any(each.spill for each in self.observations)


@dataclass(frozen=True)
class MethodResult:
    """One way to set a thinking budget, and whether the engine keeps it.

    Attributes:
        label: The same for people: which field, where.
        prompt_opens: Whether the prompt opened the thinking block.
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

    @property
    def goes_on(self) -> bool:
        """Whether thinking went on outside of its block under any budget."""
        return any(each.goes_on for each in self.budgets if each.budget is not None)

    @property
    def is_switch(self) -> bool:
        """Whether it only turns thinking off."""
        return {each.budget for each in self.budgets} - {None} == {0}


# What is said of several ways together: the first of these that one of them reaches. Whoever hears
# that a budget is ignored must be able to rely on it, so what is open stands before that.
BY_WEIGHT = ("enforced", "soft", "not resolved", "inverted", "ignored", "refused")


@dataclass(frozen=True)
class NotAsked:
    """A method that was not tried, and why not."""

    way: str
    label: str
    reason: str


@dataclass(frozen=True)
class ConformanceReport:
    """All probes of one model's engine, as far as they were made.

    Attributes:
        about: Model and engine, as plain values.
        limits: What the probes of the limits found, in their order.
        methods: What the ways to set a thinking budget came to, in their order.
        not_asked: Ways that are not for this engine or model.
        missing: Probes that were not made in this run.
        judged: Whether the gates on the whole were judged.
    """

    alias: str
    engine: str
    about: Mapping[str, Any]
    limits: tuple[LimitResult, ...] = ()
    methods: tuple[MethodResult, ...] = ()
    not_asked: tuple[NotAsked, ...] = ()
    missing: tuple[str, ...] = ()
    judged: bool = False

    kind: ClassVar[str] = KIND

    @property
    def variant(self) -> str:
        """What tells it from other reports of the same model: the engine."""
        return self.engine

    @property
    def budgets(self) -> tuple[int | None, ...]:
        """All thinking budgets that were tried, rising, none (None) last."""
        tried = {each.budget for method in self.methods for each in method.budgets}
        return tuple(sorted(tried, key=lambda budget: (budget is None, budget)))

    @property
    def setting(self) -> tuple[MethodResult, ...]:
        """The ways that set a budget; a switch, which knows 0 only, is none."""
        return tuple(method for method in self.methods if not method.is_switch)

    @property
    def best(self) -> MethodResult | None:
        """The first of them with the verdict that counts most; None where none was tried.

        Where several have it, one under which the model does not go on thinking comes first.
        """
        return min(
            self.setting,
            key=lambda method: (BY_WEIGHT.index(method.verdict), method.goes_on),
            default=None,
        )

    @property
    def overflow(self) -> tuple[OverflowCase, ...]:
        """What was done with requests that do not fit into the context."""
        return tuple(case for limit in self.limits for case in limit.cases)

    def limits_with(self, finding: LimitFinding) -> tuple[str, ...]:
        """Names of the probes of limits that found this."""
        return tuple(each.probe for each in self.limits if each.finding is finding)

    def methods_with(self, verdict: BudgetVerdict) -> tuple[str, ...]:
        """Names of the ways with this verdict."""
        return tuple(each.way for each in self.methods if each.verdict is verdict)


def limit_from(record: Mapping[str, Any]) -> LimitResult:
    """A result as its record was, which went through JSON."""
    rate = record["rate"]
    return _from_record(
        LimitResult,
        record,
        finding=LimitFinding(record["finding"]),
        rate=None if rate is None else tuple(nan if v is None else v for v in rate),
        evidence=tuple(record["evidence"]),
        cases=tuple(
            _from_record(
                OverflowCase,
                case,
                behaviour=Behaviour(case["behaviour"]),
                sights={place: Sight(sight) for place, sight in case["sights"].items()},
            )
            for case in record.get("cases", ())
        ),
    )


def method_from(record: Mapping[str, Any]) -> MethodResult:
    """A result as its record was, which went through JSON."""
    repeated = record["repeated"]
    return _from_record(
        MethodResult,
        record,
        verdict=BudgetVerdict(record["verdict"]),
        budgets=tuple(map(_budget_from, record["budgets"])),
        repeated=_budget_from(repeated) if repeated else None,
        remarks=tuple(record["remarks"]),
    )


def _budget_from(record: Mapping[str, Any]) -> BudgetResult:
    seen = tuple(_from_record(Observation, each) for each in record["observations"])
    return _from_record(BudgetResult, record, observations=seen)


def _from_record(kind: type[Kind], record: Mapping[str, Any], **values: object) -> Kind:
    known = {field.name: record[field.name] for field in fields(kind) if field.name in record}
    return kind(**known | values)
