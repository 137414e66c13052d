"""What a run would generate, as lines for a terminal and as a file for machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_tokenbudget.common.text_layout import columns, count, plural, rule, wrapped
from pytest_tokenbudget.dry_run.prompt_counts import LengthSource
from pytest_tokenbudget.models.prices import MILLION, Price
from pytest_tokenbudget.report.cost_words import duration, money
from pytest_tokenbudget.report.files import to_plain, to_record
from pytest_tokenbudget.report.json_files import write_record
from pytest_tokenbudget.report.progress import plan_summary
from pytest_tokenbudget.stats.tokens import Forecast, sum_forecasts

if TYPE_CHECKING:
    from pytest_tokenbudget.dry_run.parts import ModelRun, PlannedPart

SCHEMA = "tokenbudget-dry-run/1"
_SOURCES = {
    LengthSource.STORED: "as rendered before",
    LengthSource.COUNTED: "counted with the model's tokenizer",
    LengthSource.ESTIMATED: "estimated from their characters: the tokenizer is not here",
}


@dataclass(frozen=True)
class PartCost:
    """What a part, or all of them, would take.

    Attributes:
        traces: Traces that are to be generated.
        at_most: Output tokens at the most.
        expected: Output tokens that are to be expected; None where nothing tells.
        seconds: Time that is to be expected; None where it is not known.
        most_seconds: Time at the most, at the same rate.
        cost: Money that is to be expected; None where it is not known.
        most_cost: Money at the most; None without a price.
    """

    traces: int
    at_most: int
    expected: Forecast | None
    seconds: float | None
    most_seconds: float | None
    cost: float | None
    most_cost: float | None


def part_cost(part: PlannedPart, price: Price | None, rate: float | None) -> PartCost:
    """What a part would take, at ``rate`` tokens a second."""
    expected = part.forecast
    cost = most_cost = None
    if price is not None:
        # Of a model that may think, any token may be thinking.
        thinks = part.plan.format is not None
        most = max(price.output, price.reasoning) if thinks else price.output
        most_cost = (part.prompt_tokens * price.input + part.at_most * most) / MILLION
        share = part.past.reasoning
        if price.output == price.reasoning:
            share = 0.0
        if expected is not None and share is not None:
            each = (1 - share) * price.output + share * price.reasoning
            asked = part.expected_prompt_tokens * price.input
            cost = (asked + expected.tokens * each) / MILLION
    return PartCost(
        traces=part.missing,
        at_most=part.at_most,
        expected=expected,
        seconds=expected.tokens / rate if expected is not None and rate else None,
        most_seconds=part.at_most / rate if rate else None,
        cost=cost,
        most_cost=most_cost,
    )


def part_costs(run: ModelRun) -> list[PartCost]:
    """What each part of a model's run would take; a part without a rate has that of another."""
    rates = [p.past.tokens_per_second for p in run.parts if p.past.tokens_per_second]
    return [
        part_cost(part, run.spec.price, part.past.tokens_per_second or next(iter(rates), None))
        for part in run.parts
    ]


def total_cost(costs: Sequence[PartCost]) -> PartCost:
    """What all parts together would take; what is not known of one is not known of all."""
    some = [cost for cost in costs if cost.traces]

    def whole(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return sum(known) if known and len(known) == len(values) else None

    return PartCost(
        traces=sum(cost.traces for cost in some),
        at_most=sum(cost.at_most for cost in some),
        expected=sum_forecasts([cost.expected for cost in some]),
        seconds=whole([cost.seconds for cost in some]),
        most_seconds=whole([cost.most_seconds for cost in some]),
        cost=whole([cost.cost for cost in some]),
        most_cost=whole([cost.most_cost for cost in some]),
    )


def write_dry_run(runs: Sequence[ModelRun], directory: Path) -> Path:
    """Write what would be generated below ``directory``, whole or not at all."""
    return write_record(
        directory, "dry_run", {"schema": SCHEMA, "models": [_record(run) for run in runs]}
    )


def _record(run: ModelRun) -> dict[str, object]:
    costs = part_costs(run)
    return {
        "model": run.spec.alias,
        "price_per_million": run.spec.price,
        "parts": [
            {
                "kind": part.plan.kind,
                "mode": part.plan.mode,
                "task": part.plan.task,
                "decoding": part.plan.decoding.identity(),
                "cap": part.plan.cap,
                "traces": part.traces,
                "stored": part.stored,
                "to_generate": part.missing,
                "extended": part.extended,
                "at_most_tokens": cost.at_most,
                "expected_tokens": cost.expected,
                "prompt_tokens": part.prompt_tokens,
                "expected_prompt_tokens": part.expected_prompt_tokens,
                "prompts": part.known,
                "tokens_per_second": part.past.tokens_per_second,
                "expected_seconds": cost.seconds,
                "at_most_seconds": cost.most_seconds,
                "expected_cost": cost.cost,
                "at_most_cost": cost.most_cost,
                "notes": _notes(part),
            }
            for part, cost in zip(run.parts, costs, strict=True)
        ],
        "together": to_plain(total_cost(costs)),
        "memory": None
        if run.memory is None
        else {**to_record(run.memory), "total": run.memory.total},
        "failures": run.failures,
        "notes": run.notes,
    }


def dry_run_lines(runs: Sequence[ModelRun], width: int) -> list[str]:
    """What would be generated, for people."""
    width = columns(width)
    if not runs:
        return ["dry run: no selected test needs a model, so nothing would be generated"]
    lines = []
    for run in runs:
        lines.append(rule(run.spec.alias, ": dry run, nothing is loaded", width))
        costs = part_costs(run)
        sentences = [f"{run.spec.alias} = {run.parts[0].plan.where}"] if run.parts else []
        for part, cost in zip(run.parts, costs, strict=True):
            sentences += [plan_summary(part.plan), *_part(part, cost, run.spec.price)]
        if sum(cost.traces > 0 for cost in costs) > 1:
            whole = total_cost(costs)
            sentences.append(f"together: {plural(whole.traces, 'trace')}, {_tokens(whole)}")
            sentences += _price_and_time(whole, run.spec.price)
        if run.memory is not None:
            memory = run.memory
            sentences.append(
                f"memory: {_bytes(memory.weights)} of weights, and {plural(memory.rows, 'row')} of "
                f"at most {_bytes(memory.row)} at once: at most {_bytes(memory.total)}"
            )
        sentences += run.notes
        sentences += [f"cannot be generated: {failure}" for failure in run.failures]
        for sentence in sentences:
            lines += wrapped(sentence, width)
    return lines


def _part(part: PlannedPart, cost: PartCost, price: Price | None) -> list[str]:
    stored = f"{plural(part.traces, 'trace')} needed, {count(part.stored)} stored"
    if not part.missing:
        return [f"  {stored}: nothing would be generated"]
    extended = f", {count(part.extended)} of them go on from others" if part.extended else ""
    said = [f"  {stored}, {count(part.missing)} to generate{extended}: {_tokens(cost)}"]
    said.append(f"  prompts: {_asked(part)}, {_SOURCES[part.known]}")
    said += [f"  {sentence}" for sentence in _price_and_time(cost, price)]
    return said + [f"  {note}" for note in _notes(part)]


def _notes(part: PlannedPart) -> list[str]:
    if part.missing and part.forecast is not None and part.past.note:
        return [*part.notes, f"expected {part.past.note}"]
    return list(part.notes)


def _tokens(cost: PartCost) -> str:
    most, expected = f"at most {plural(cost.at_most, 'token')}", cost.expected
    if expected is None:
        return f"{most}; how many to expect no earlier trace tells"
    least = "at least " if expected.at_least else "about "
    return (
        f"{most}; {least}{count(expected.tokens)} are to be expected "
        f"[{count(expected.low)}, {count(expected.high)}], from {count(expected.traces)} "
        "earlier traces"
    )


def _asked(part: PlannedPart) -> str:
    most, expected = part.prompt_tokens, round(part.expected_prompt_tokens)
    if expected == most:
        return plural(most, "token")
    return f"about {count(expected)} tokens, at most {count(most)}"


def _price_and_time(cost: PartCost, price: Price | None) -> list[str]:
    said = []
    if cost.most_seconds is not None:
        likely = "" if cost.seconds is None else f"about {duration(cost.seconds)}, "
        said.append(f"time: {likely}at most {duration(cost.most_seconds)}, as fast as before")
    if price is not None and cost.most_cost is not None:
        likely = "" if cost.cost is None else f"about {money(cost.cost, price.currency)}, "
        said.append(f"cost: {likely}at most {money(cost.most_cost, price.currency)}")
    return said


def _bytes(number: int) -> str:
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20)):
        if number >= factor:
            return f"{number / factor:,.1f} {unit}"
    return f"{number / 2**10:,.0f} KiB"
