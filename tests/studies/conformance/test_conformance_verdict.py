"""The rules of the verdicts, from observations made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_tokenbudget.studies.conformance.analysis import BudgetResult, BudgetVerdict, Observation
from pytest_tokenbudget.studies.conformance.verdict import (
    MIN_INFORMATIVE,
    judge,
    one_sided_sign_test,
    server_wide,
)

SLACK = 6
NATURAL = [100, 110, 120, 130, 140, 150, 160, 170, 180, 190]


def observed(budget: int | None, lengths: list[int], **changes: object) -> BudgetResult:
    seen = tuple(
        Observation(prompt, length, 10, True, True, False, False, False, "stop")
        for prompt, length in enumerate(lengths)
    )
    return replace(BudgetResult(budget, seen), **changes)  # type: ignore[arg-type]


def verdict(
    budgets: dict[int, list[int]], first: list[int], second: list[int] | None = None
) -> BudgetVerdict:
    tried = [observed(budget, lengths) for budget, lengths in budgets.items()]
    return judge(tried, observed(None, first), observed(None, second or first), SLACK).verdict


def refused(budget: int) -> BudgetResult:
    return BudgetResult(budget, error="unknown parameter", refused=True)


def test_the_slack_is_kept_to_the_token() -> None:
    assert verdict({32: [38] * 10}, NATURAL) is BudgetVerdict.ENFORCED
    assert verdict({32: [38] * 9 + [39]}, NATURAL) is BudgetVerdict.SOFT


def test_an_output_that_was_not_informative_can_break_a_budget_too() -> None:
    # The last prompt thinks for 20 tokens by itself, and for 50 under a budget of 32.
    natural = [*NATURAL[:9], 20]
    assert verdict({32: [32] * 10}, natural) is BudgetVerdict.ENFORCED
    assert verdict({32: [32] * 9 + [50]}, natural) is BudgetVerdict.SOFT


@pytest.mark.parametrize("informative", [MIN_INFORMATIVE - 1, MIN_INFORMATIVE])
def test_a_budget_needs_enough_prompts_that_think_longer(informative: int) -> None:
    natural = [100] * informative + [10] * (10 - informative)
    under = [32] * informative + [10] * (10 - informative)
    expected = (
        BudgetVerdict.ENFORCED if informative == MIN_INFORMATIVE else BudgetVerdict.NOT_RESOLVED
    )
    assert verdict({32: under}, natural) is expected


def test_natural_thinking_is_the_shorter_of_two_measurements() -> None:
    # What thinks for 100 tokens once and for 20 the next time tells nothing about a budget of 32.
    assert verdict({32: [32] * 10}, [100] * 10, [20] * 10) is BudgetVerdict.NOT_RESOLVED


def test_a_budget_at_the_tokens_that_is_ignored() -> None:
    assert verdict({0: NATURAL, 32: NATURAL}, NATURAL) is BudgetVerdict.IGNORED


def test_outputs_between_the_two_natural_ones_are_no_effect() -> None:
    longer = [length + 40 for length in NATURAL]
    between = [length + 1 for length in NATURAL]
    assert verdict({32: between}, longer, NATURAL) is BudgetVerdict.IGNORED


def test_shorter_and_not_kept_is_soft() -> None:
    assert verdict({32: [length - 30 for length in NATURAL]}, NATURAL) is BudgetVerdict.SOFT


def test_shorter_for_most_is_soft_only_if_chance_would_not_do_it() -> None:
    nine = [length - 30 for length in NATURAL[:9]] + [NATURAL[9] + 30]
    eight = [length - 30 for length in NATURAL[:8]] + [length + 30 for length in NATURAL[8:]]
    assert verdict({32: nine}, NATURAL) is BudgetVerdict.SOFT
    assert verdict({32: eight}, NATURAL) is BudgetVerdict.IGNORED


def test_kept_at_one_budget_only_is_soft() -> None:
    assert verdict({0: [0] * 10, 32: NATURAL}, NATURAL) is BudgetVerdict.SOFT


def test_budget_0_unbounded_while_32_is_kept_is_inverted() -> None:
    assert verdict({0: NATURAL, 32: [32] * 10}, NATURAL) is BudgetVerdict.INVERTED


def test_a_smaller_budget_that_thinks_longer_is_inverted_though_both_are_shorter() -> None:
    small, large = [length - 10 for length in NATURAL], [length - 60 for length in NATURAL]
    assert verdict({1: small, 32: large}, NATURAL) is BudgetVerdict.INVERTED
    assert verdict({1: large, 32: small}, NATURAL) is BudgetVerdict.SOFT


def test_two_kept_budgets_are_never_inverted() -> None:
    assert verdict({32: [32] * 10, 64: [0] * 10}, NATURAL) is BudgetVerdict.ENFORCED


def test_a_budget_that_makes_it_think_longer_is_inverted() -> None:
    assert verdict({32: [length + 50 for length in NATURAL]}, NATURAL) is BudgetVerdict.INVERTED
    # Within the slack it may be tags.
    assert verdict({32: [length + SLACK for length in NATURAL]}, NATURAL) is BudgetVerdict.IGNORED


def test_a_model_that_thinks_only_when_told_to_is_not_inverted() -> None:
    assert verdict({32: [100] * 10}, [0] * 10) is BudgetVerdict.NOT_RESOLVED


def test_refused_everywhere_and_in_part() -> None:
    without = observed(None, NATURAL)
    judged = judge([refused(0), refused(32)], without, without, SLACK)
    assert judged.verdict is BudgetVerdict.REFUSED
    assert "unknown parameter" in judged.sentence
    part = judge([refused(0), observed(32, [32] * 10)], without, without, SLACK)
    assert part.verdict is BudgetVerdict.ENFORCED


def test_errors_are_no_refusal() -> None:
    without = observed(None, NATURAL)
    broken = BudgetResult(0, error="timed out")
    assert (
        judge([broken, refused(32)], without, without, SLACK).verdict is BudgetVerdict.NOT_RESOLVED
    )


def test_no_baseline_is_not_resolved() -> None:
    none = BudgetResult(None, error="connection reset")
    judged = judge([observed(0, NATURAL)], none, none, SLACK)
    assert judged.verdict is BudgetVerdict.NOT_RESOLVED
    assert "connection reset" in judged.sentence


def test_prompts_are_paired_by_their_number() -> None:
    without = observed(None, NATURAL)
    backwards = replace(without, observations=without.observations[::-1])
    judged = judge([observed(0, NATURAL)], backwards, without, SLACK)
    assert judged.budgets[0].shorter == judged.budgets[0].longer == 0


def test_the_sentence_names_what_cannot_tell() -> None:
    tried = [observed(32, [32] * 10), observed(256, NATURAL)]
    sentence = judge(tried, observed(None, NATURAL), observed(None, NATURAL), SLACK).sentence
    assert sentence == (
        "enforced: kept 10 of 10 within 32 tokens, of the outputs that would think longer "
        "(slack 6); 256 tokens cannot tell: the longest natural thinking is 190"
    )


def test_a_limit_of_the_server_is_where_outputs_end_alike() -> None:
    same = observed(None, [64] * 8 + [20, 30]).observations
    assert server_wide(same, same, SLACK) == 64
    own = observed(None, NATURAL).observations
    assert server_wide(own, own, SLACK) is None
    short = observed(None, [SLACK] * 10).observations
    assert server_wide(short, short, SLACK) is None


def test_the_sign_test() -> None:
    assert one_sided_sign_test(10, 0) == 1 / 1024
    assert one_sided_sign_test(9, 1) == 11 / 1024
    assert one_sided_sign_test(0, 0) == 1
    assert one_sided_sign_test(0, 5) == 1


lengths = st.lists(st.integers(0, 300), min_size=10, max_size=10)


@given(lengths, lengths, st.dictionaries(st.sampled_from([0, 1, 32, 256]), lengths, min_size=1))
def test_enforced_means_kept_and_everything_kept_is_never_worse(
    first: list[int], second: list[int], budgets: dict[int, list[int]]
) -> None:
    found = verdict(budgets, first, second)
    exceeded = any(length > budget + SLACK for budget, under in budgets.items() for length in under)
    if found is BudgetVerdict.ENFORCED:
        assert not exceeded
    if not exceeded:
        assert found in (BudgetVerdict.ENFORCED, BudgetVerdict.NOT_RESOLVED)


@given(lengths, lengths)
def test_what_repeats_a_baseline_is_never_an_effect(first: list[int], second: list[int]) -> None:
    found = verdict({0: first, 32: second}, first, second)
    assert found in (
        BudgetVerdict.IGNORED,
        BudgetVerdict.ENFORCED,
        BudgetVerdict.NOT_RESOLVED,
        BudgetVerdict.INVERTED,
    )
    # Two budgets that draw the same way as no budget are at most told apart from one another.
    if first == second:
        assert found is not BudgetVerdict.INVERTED


@given(lengths, lengths, lengths, st.permutations(range(10)))
def test_the_order_of_prompts_does_not_matter(
    first: list[int], second: list[int], under: list[int], order: list[int]
) -> None:
    def shuffled(values: list[int]) -> list[int]:
        return [values[place] for place in order]

    one = verdict({32: under}, first, second)
    assert one is verdict({32: shuffled(under)}, shuffled(first), shuffled(second))


@given(st.integers(0, 40), st.integers(0, 40))
def test_both_sides_of_the_sign_test_cover_everything(a: int, b: int) -> None:
    both = one_sided_sign_test(a, b) + one_sided_sign_test(b, a)
    assert both >= 1 - 1e-12
