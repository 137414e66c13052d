"""Cost and time as result files and sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_tokenbudget.common.text_layout import count, decimal, percent, share
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.report.cost import RECOMMENDED, THOUSAND, CostReport, cost_report
from pytest_tokenbudget.report.files import to_plain
from pytest_tokenbudget.report.json_files import RunInfo

if TYPE_CHECKING:
    from pytest_tokenbudget.core.cost import Cost, Saving
    from pytest_tokenbudget.models.prices import Price
    from pytest_tokenbudget.stats.intervals import Estimate

_UNITS = ((86_400.0, "days"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


def requests_of(run: RunInfo) -> int | None:
    """Requests a day for which savings are said; None where nobody asked."""
    asked = run.settings.get("requests_per_day")
    return asked if isinstance(asked, int) else None


def money(amount: float, currency: str = "") -> str:
    """An amount with three digits that count, and never in powers of ten."""
    digits = 2
    while digits < 12 and 0 < abs(amount) < 10 ** (2 - digits):
        digits += 1
    return f"{amount:,.{digits}f} {currency}".rstrip()


def duration(seconds: float) -> str:
    """Seconds in the unit that they are best read in."""
    for size, name in _UNITS:
        if seconds >= 2 * size or size == 1:
            return f"{seconds / size:,.1f} {name}" if seconds >= 0.1 else f"{seconds:.2g} {name}"
    raise AssertionError


def cost_record(study: Study, run: RunInfo, target: float) -> dict[str, object]:
    """Cost and time of a study as JSON."""
    report = cost_report(study, target)
    paid = [point.cost for point in report.points if point.cost is not None]
    requests = requests_of(run)
    return {
        "price_per_million": to_plain(report.price),
        "unknown_prompts": report.unknown_prompts,
        "points": to_plain(report.points),
        "one_pass": paid[-1].all if paid else None,
        "if_generated_separately": sum(each.all for each in paid) if paid else None,
        "time": to_plain(report.timing),
        "requests_per_day": requests,
        "savings": {name: saving_record(each, requests) for name, each in report.savings.items()},
    }


def saving_record(saving: Saving, requests: int | None) -> dict[str, object]:
    """What a limit saves a request, and a day where it is known how many there are."""
    plain = to_plain(saving)
    assert isinstance(plain, dict)
    if requests is None:
        return plain
    a_day: dict[str, object] = {
        name: None
        if each is None
        else {end: requests * getattr(each, end) for end in ("value", "low", "high")}
        for name, each in (
            ("tokens", saving.tokens),
            ("money", saving.money),
            ("seconds", saving.seconds),
        )
    }
    machine = saving.machine_seconds
    a_day["machine_seconds"] = None if machine is None else requests * machine
    return {**plain, "a_day": to_plain(a_day)}


def cost_sentences(study: Study, run: RunInfo, target: float) -> list[str]:
    """What answers cost and take, and what a limit saves, for people."""
    report = cost_report(study, target)
    said = []
    if report.price is not None:
        said += _costs(report, report.price)
    if report.timing is not None:
        said.append(_times(report))
    requests = requests_of(run)
    if requests is not None:
        saving = report.savings.get(RECOMMENDED)
        said.append(saving_sentence(saving, study.largest, report.price, requests))
    return said


def _costs(report: CostReport, price: Price) -> list[str]:
    paid = [(p.budget, p.cost) for p in report.points if p.cost is not None]
    if not paid:
        return []
    budget, last = paid[-1]
    said = [
        f"at {count(budget)} a run costs {money(last.all, price.currency)}, a thousand answers "
        f"{_thousand(last.each.value, price)}{_right(last, price)}"
    ]
    right = [(b, cost.correct) for b, cost in paid if cost.correct is not None]
    best = min(right, key=lambda pair: pair[1].value, default=None)
    if best is not None and best[0] != budget:
        where, cheapest = best
        said.append(
            f"right answers are cheapest at {count(where)}: "
            f"{_thousand(cheapest.value, price)} a thousand {_ends(cheapest)}"
        )
    if report.unknown_prompts:
        said.append(
            f"the prompts of {count(report.unknown_prompts)} answers are not known and cost "
            "nothing here"
        )
    return said


def _right(cost: Cost, price: Price) -> str:
    if cost.correct is None:
        return ", none of them right"
    shown = _thousand(cost.correct.value, price)
    return f", a thousand right ones {shown} {_ends(cost.correct)}"


def _thousand(amount: float, price: Price) -> str:
    return money(THOUSAND * amount, price.currency)


def _ends(estimate: Estimate) -> str:
    low, high = (money(THOUSAND * end) for end in (estimate.low, estimate.high))
    return f"[{low}, {high}]"


def _times(report: CostReport) -> str:
    timing = report.timing
    assert timing is not None
    point = timing.points[-1]
    company = ""
    if timing.at_once is not None and point.run_tokens_per_second is not None:
        company = (
            f"; about {decimal(timing.at_once)} at a time, "
            f"{_rate(point.run_tokens_per_second)} together"
        )
    return (
        f"time as generated here: at {count(point.budget)} tokens an answer took "
        f"{duration(point.each.value)} on average, {_rate(point.tokens_per_second)}{company}"
    )


def _rate(tokens_per_second: float) -> str:
    digits = 0 if tokens_per_second >= 100 else 1
    return f"{tokens_per_second:,.{digits}f} tokens/s"


def saving_sentence(saving: Saving | None, largest: int, price: Price | None, requests: int) -> str:
    """What the recommended limit saves a day, for people.

    Args:
        saving: What it saves a request; None where there is none.
        largest: The limit that it is held against.
        price: What tokens cost, None where nobody has said it.
        requests: Requests a day.
    """
    day = f"{count(requests)} requests a day"
    if saving is None:
        return (
            f"at {day}: no limit below {count(largest)} can be promised yet, so nothing is "
            "said to be saved"
        )
    saved = saving.tokens.value / saving.spent if saving.spent else 0.0
    parts = [f"{count(requests * saving.tokens.value)} tokens ({share(saved)})"]
    if saving.money is not None and price is not None:
        parts.append(money(requests * saving.money.value, price.currency))
    if saving.seconds is not None:
        parts.append(f"{duration(requests * saving.seconds.value)} of answering")
    if saving.machine_seconds is not None:
        parts.append(f"{duration(requests * saving.machine_seconds)} of the machine")
    change = saving.accuracy
    return (
        f"at {day} a limit of {count(saving.limit)} saves {', '.join(parts)} against "
        f"{count(saving.against)}; accuracy changes by {percent(change.value)} points "
        f"[{percent(change.low)}, {percent(change.high)}]"
    )
