"""What the conformance eval found of one model's engine, put together from its tests' records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from math import nan
from typing import Any, ClassVar

from pytest_tokenbudget.common.text_layout import plural
from pytest_tokenbudget.studies.conformance.results import (
    Behaviour,
    BudgetResult,
    BudgetVerdict,
    LimitFinding,
    LimitResult,
    MethodResult,
    Observation,
    OverflowCase,
    Sight,
)

KIND = "conformance"
# What is said of several ways together: the first of these that one of them reaches. Whoever hears
# that a budget is ignored must be able to rely on it, so what is open stands before that.
BY_WEIGHT = (
    BudgetVerdict.ENFORCED,
    BudgetVerdict.SOFT,
    BudgetVerdict.NOT_RESOLVED,
    BudgetVerdict.INVERTED,
    BudgetVerdict.IGNORED,
    BudgetVerdict.REFUSED,
)


@dataclass(frozen=True)
class NotAsked:
    """A way that was not tried.

    Attributes:
        way: Its name.
        label: The same for people.
        reason: Why it was not.
    """

    way: str
    label: str
    reason: str


@dataclass(frozen=True)
class ConformanceReport:
    """All probes of one model's engine, as far as they were made.

    Attributes:
        alias: The model's name.
        engine: The engine's.
        about: What else is known of both, as plain values.
        limits: What the probes of the limits found, in their order.
        ways: What the ways to set a thinking budget came to, in their order.
        not_asked: Ways that are not for this engine or model.
        missing: Probes that were not made in this run.
        judged: Whether the gates on the whole were judged.
    """

    alias: str
    engine: str
    about: Mapping[str, Any]
    limits: tuple[LimitResult, ...] = ()
    ways: tuple[MethodResult, ...] = ()
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
        tried = {each.budget for way in self.ways for each in way.budgets}
        return (*sorted(b for b in tried if b is not None), *([None] if None in tried else []))

    @property
    def setting(self) -> tuple[MethodResult, ...]:
        """The ways that set a budget; a switch, which knows 0 only, is none."""
        return tuple(way for way in self.ways if not is_switch(way))

    @property
    def best(self) -> MethodResult | None:
        """The first of these with the verdict that counts most; None where none was tried.

        Where several have it, one under which the model does not go on thinking comes first.
        """
        return min(
            self.setting,
            key=lambda way: (BY_WEIGHT.index(way.verdict), goes_on_under(way)),
            default=None,
        )

    @property
    def overflow(self) -> tuple[OverflowCase, ...]:
        """What was done with requests that do not fit into the context."""
        return tuple(case for limit in self.limits for case in limit.cases)

    def limits_that(self, finding: LimitFinding) -> tuple[str, ...]:
        """Names of the probes of limits that found this."""
        return tuple(each.probe for each in self.limits if each.finding is finding)

    def ways_that(self, verdict: BudgetVerdict) -> tuple[str, ...]:
        """Names of the ways with this verdict."""
        return tuple(each.way for each in self.ways if each.verdict is verdict)

    def thinking_sentence(self) -> str:
        """Whether a thinking budget is kept, and in which way it must be set."""
        best = self.best
        if best is None:
            return "no way to set a thinking budget was tried"
        many = plural(len(self.setting), "way")
        same = _names([way.way for way in self.setting if way.verdict is best.verdict])
        match best.verdict:
            case BudgetVerdict.ENFORCED | BudgetVerdict.SOFT:
                return f"thinking budget {best.verdict} by {same}{self._but(best.verdict)}"
            case BudgetVerdict.NOT_RESOLVED:
                return (
                    f"thinking budget not resolved: of {many} none is shown to keep one, and "
                    f"{same} could not be judged"
                )
            case BudgetVerdict.REFUSED:
                return f"thinking budget refused: {many} tried, none is taken"
        return f"thinking budget {best.verdict}: {many} tried, none keeps one"

    def _but(self, verdict: BudgetVerdict) -> str:
        """Which of the ways with a verdict save less than it sounds like; empty if none does."""
        same = [way for way in self.setting if way.verdict is verdict]
        on = [way.way for way in same if goes_on_under(way)]
        if not on:
            return ""
        which = "" if len(on) == len(same) else f" with {_names(on)}"
        return f", but the model goes on thinking after the close{which}"

    def switch_sentence(self) -> str:
        """Which switches turn thinking off; empty where none was tried."""
        switches = [way for way in self.ways if is_switch(way)]
        if not switches:
            return ""
        off = [way.way for way in switches if way.verdict is BudgetVerdict.ENFORCED]
        if not off:
            return f"no switch is shown to turn thinking off ({plural(len(switches), 'way')} tried)"
        return f"thinking is turned off by {_names(off)}"

    def limits_sentence(self) -> str:
        """Whether the limits are kept."""
        if not self.limits:
            return "no limit was probed"
        broken = self.limits_that(LimitFinding.BROKEN)
        if broken:
            verb = "is" if len(broken) == 1 else "are"
            return f"{plural(len(broken), 'limit')} {verb} broken: {', '.join(broken)}"
        kept = self.limits_that(LimitFinding.KEPT)
        differs = self.limits_that(LimitFinding.DIFFERS)
        also = f"; outputs differ in {', '.join(differs)}" if differs else ""
        return f"no limit broken, {len(kept)} of {len(self.limits)} kept{also}"


def goes_on(result: BudgetResult) -> bool:
    """Whether thinking went on outside of its block, where no budget reaches."""
    return any(each.spill for each in result.observations)


def goes_on_under(way: MethodResult) -> bool:
    """Whether it did so under any budget."""
    return any(goes_on(each) for each in way.budgets if each.budget is not None)


def is_switch(way: MethodResult) -> bool:
    """Whether a way only turns thinking off."""
    return {each.budget for each in way.budgets} - {None} == {0}


def _names(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def all_reports(records: Iterable[Mapping[str, Any]]) -> list[ConformanceReport]:
    """The reports that tests' records make, of all probes that there are.

    Args:
        records: Records of all tests; those of other evals are passed over.
    """
    from pytest_tokenbudget.studies.conformance.budget_methods import WAYS
    from pytest_tokenbudget.studies.conformance.limits import LIMIT_PROBES

    return reports_of(records, tuple(LIMIT_PROBES), tuple(WAYS))


def reports_of(
    records: Iterable[Mapping[str, Any]], limits: Sequence[str], ways: Sequence[str]
) -> list[ConformanceReport]:
    """The reports that tests' records make, one a model and engine, in the order of their coming.

    Args:
        records: Records of all tests; those of other evals are passed over.
        limits: Names of all probes of limits, in their order.
        ways: Names of all ways, in their order.
    """
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for record in records:
        if isinstance(probe := record.get(KIND), Mapping) and "about" in probe:
            about = probe["about"]
            found.setdefault((about["model"], about["engine"]), []).append(probe)
    return [_report(parts, limits, ways) for parts in found.values()]


def _report(
    parts: Sequence[Mapping[str, Any]], limits: Sequence[str], ways: Sequence[str]
) -> ConformanceReport:
    # The last one of a name counts: a test that failed may have been run again.
    found = {p["limit"]["probe"]: limit_from(p["limit"]) for p in parts if "limit" in p}
    tried = {p["way"]["way"]: way_from(p["way"]) for p in parts if "way" in p}
    untried = {p["not_asked"]["way"]: NotAsked(**p["not_asked"]) for p in parts if "not_asked" in p}
    return ConformanceReport(
        alias=parts[0]["about"]["model"],
        engine=parts[0]["about"]["engine"],
        about=parts[0]["about"],
        limits=tuple(found[name] for name in limits if name in found),
        ways=tuple(tried[name] for name in ways if name in tried),
        not_asked=tuple(untried[name] for name in ways if name in untried),
        missing=(
            *(name for name in limits if name not in found),
            *(name for name in ways if name not in tried and name not in untried),
        ),
        judged=any("judged" in p for p in parts),
    )


def limit_from(record: Mapping[str, Any]) -> LimitResult:
    """A result as its record was, which went through JSON."""
    rate = record["rate"]
    return LimitResult(
        **{
            **_known(LimitResult, record),
            "finding": LimitFinding(record["finding"]),
            "rate": None if rate is None else tuple(nan if v is None else v for v in rate),
            "evidence": tuple(record["evidence"]),
            "cases": tuple(_case_from(each) for each in record.get("cases", ())),
        }
    )


def _case_from(record: Mapping[str, Any]) -> OverflowCase:
    return OverflowCase(
        **{
            **_known(OverflowCase, record),
            "behaviour": Behaviour(record["behaviour"]),
            "sights": {place: Sight(sight) for place, sight in record["sights"].items()},
        }
    )


def way_from(record: Mapping[str, Any]) -> MethodResult:
    """A result as its record was, which went through JSON."""
    return MethodResult(
        **{
            **_known(MethodResult, record),
            "verdict": BudgetVerdict(record["verdict"]),
            "budgets": tuple(_budget_from(each) for each in record["budgets"]),
            "repeated": _budget_from(repeated) if (repeated := record["repeated"]) else None,
            "remarks": tuple(record["remarks"]),
        }
    )


def _budget_from(record: Mapping[str, Any]) -> BudgetResult:
    seen = tuple(Observation(**_known(Observation, each)) for each in record["observations"])
    return BudgetResult(**{**_known(BudgetResult, record), "observations": seen})


def _known(kind: type, record: Mapping[str, Any]) -> dict[str, Any]:
    return {field.name: record[field.name] for field in fields(kind) if field.name in record}
