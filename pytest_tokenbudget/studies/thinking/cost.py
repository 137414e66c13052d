"""What thinking costs: every enforcement at every budget, by the price of a model's tokens.

A forced answer is priced as a request to an engine that ends thinking itself: one prompt, the
thinking that was kept, the answer. The closer is the engine's, and costs nothing here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_tokenbudget.common.text_layout import count
from pytest_tokenbudget.core.trace import Outcome
from pytest_tokenbudget.report.cost import (
    RECOMMENDED,
    THOUSAND,
    CostPoint,
    PaidAnswer,
    cost_point,
    cost_report,
    prompt_tokens,
    saving,
    table_of,
)
from pytest_tokenbudget.report.cost_words import money, requests_of, saving_record, saving_sentence
from pytest_tokenbudget.report.files import to_plain, to_record
from pytest_tokenbudget.report.json_files import RunInfo
from pytest_tokenbudget.studies.thinking.analysis import analyse_thinking, enforced_answers
from pytest_tokenbudget.studies.thinking.study import Enforcement, ThinkingAnswer, ThinkingStudy
from pytest_tokenbudget.tasks.problem import Problem

if TYPE_CHECKING:
    from pytest_tokenbudget.core.cost import Saving
    from pytest_tokenbudget.models.prices import Price
    from pytest_tokenbudget.stats.intervals import Estimate


@dataclass(frozen=True)
class ThinkingCost:
    """What one enforcement at one budget costs.

    Attributes:
        enforcement: What was done about the budget.
        closer: What ended the thinking, or how often it was sent on; None for all others.
        budget: The budget; None for no limit.
        point: What answers take and cost; its own budget is the most that one could take.
    """

    enforcement: Enforcement
    closer: str | None
    budget: int | None
    point: CostPoint

    @property
    def name(self) -> str:
        """Enforcement and budget in words."""
        limit = "" if self.budget is None else f" at {count(self.budget)}"
        names = {
            Enforcement.HARD: "cut",
            Enforcement.FORCED: f"ended by {self.closer}",
            Enforcement.NATURAL: "without a limit",
            Enforcement.OFF: "with thinking off",
            Enforcement.WAIT: f"sent on {self.closer} times",
        }
        return names[self.enforcement] + limit


def thinking_costs(study: ThinkingStudy) -> tuple[ThinkingCost, ...]:
    """What each enforcement costs at each budget; computed once."""
    return study.cached(_costs, study, study.natural.price)


def _costs(study: ThinkingStudy, price: Price | None) -> tuple[ThinkingCost, ...]:
    costs = []
    for enforcement, closer, budget, most, answers in enforced_answers(study):
        off = enforcement is Enforcement.OFF
        rows = [
            _row(study, problem, answer, off)
            for problem, answer in zip(study.complete, answers, strict=True)
        ]
        point = cost_point(most, table_of(rows, len(rows)), price)
        costs.append(ThinkingCost(enforcement, closer, budget, point))
    return tuple(costs)


def _row(study: ThinkingStudy, problem: Problem, answer: ThinkingAnswer, off: bool) -> PaidAnswer:
    if answer.judged.outcome is Outcome.ERROR:
        return PaidAnswer(*[float("nan")] * 4)
    asked = study.off if off and study.off is not None else study.natural
    cut = answer.judged.cut
    # The token that ends a sequence belongs to neither part, and is paid for.
    end = cut.tokens_used - cut.thinking_tokens - cut.answer_tokens
    thought = answer.thinking if answer.forced or cut.opened else 0
    prompt = prompt_tokens(asked.traces[problem.id, 0])
    return PaidAnswer(prompt, answer.tokens + end, thought, answer.correct)


def thinking_cost_record(study: ThinkingStudy, run: RunInfo) -> dict[str, object]:
    """Cost and time of a thinking study as JSON."""
    found = cost_report(study.natural, study.forcing.target)
    requests, saves = requests_of(run), _saving(study)
    return {
        "price_per_million": to_plain(study.natural.price),
        "unknown_prompts": found.unknown_prompts,
        "points": [
            {
                "enforcement": each.enforcement.value,
                "closer": each.closer,
                "budget": each.budget,
                **_point_record(each.point),
            }
            for each in thinking_costs(study)
        ],
        "time": to_plain(found.timing),
        "requests_per_day": requests,
        "savings": {} if saves is None else {RECOMMENDED: saving_record(saves, requests)},
    }


def _point_record(point: CostPoint) -> dict[str, object]:
    plain = to_record(point)
    plain["at_most_tokens"] = plain.pop("budget")
    return plain


def thinking_cost_sentences(study: ThinkingStudy, run: RunInfo) -> list[str]:
    """What thinking costs, for people; nothing where nobody has said a price or asked."""
    said = []
    price = study.natural.price
    if price is not None:
        said += _cheapest(study, price)
    requests = requests_of(run)
    if requests is not None and study.natural.scored:
        said.append(saving_sentence(_saving(study), study.natural.reach, price, requests))
    return said


def _saving(study: ThinkingStudy) -> Saving | None:
    """What the recommended limit of all tokens saves against no limit at all."""
    limit, reach = analyse_thinking(study).limits.overall.limit, study.natural.reach
    return None if limit is None or limit >= reach else saving(study.natural, limit, reach)


def _cheapest(study: ThinkingStudy, price: Price) -> list[str]:
    paid = [(c, c.point.cost.correct) for c in thinking_costs(study) if c.point.cost is not None]
    right = [(each, correct) for each, correct in paid if correct is not None]
    if not right:
        return []
    best, cheapest = min(right, key=lambda pair: pair[1].value)
    said = f"a thousand right answers are cheapest {best.name}: {_shown(cheapest, price)}"
    free = next((e for c, e in right if c.enforcement is Enforcement.NATURAL), None)
    if free is not None and best.enforcement is not Enforcement.NATURAL:
        said += f"; without a limit they cost {_shown(free, price)}"
    return [said]


def _shown(estimate: Estimate, price: Price) -> str:
    value, low, high = (THOUSAND * part for part in estimate[:3])
    return f"{money(value, price.currency)} [{money(low)}, {money(high)}]"
