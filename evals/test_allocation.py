"""Allocation: which thinking budget a model gets, what it comes to, and whether another is better.

The table's modes are measured on the traces of the thinking eval, and ways to allocate are replayed
on them: nothing is generated for this but what the thinking eval generates.
"""

import pytest

from pytest_tokenbudget.studies.allocation.settings import settings_record

pytestmark = pytest.mark.allocation

POLICIES = ("one limit", "per category", "predicted difficulty", "first stable answer")


def test_mode(allocation, mode, record_metrics):
    """What the table gives a mode, the same scaled to the model's context, and what comes of it.

    A model that the table does not know has no budget there, and the result says so.
    """
    found = allocation.mode(mode.name)
    record_metrics(found, row=allocation.row, sentence=allocation.table_sentence)
    if found.measured is None:
        pytest.skip(f"{mode}: {found.how}")
    assert found.tokens == mode.thinking_budget


def test_disabled_is_off(allocation, record_metrics):
    """Whether ``disabled`` is off: in the prompt, byte for byte, and in what the model writes."""
    found = allocation.disabled
    record_metrics(found, sentence=found.sentence())
    if not found.has_switch:
        pytest.skip(found.sentence())
    if not found.is_off:
        pytest.fail(found.sentence(), pytrace=False)


@pytest.mark.parametrize("policy", POLICIES)
def test_policy(allocation, policy, record_metrics):
    """A policy replayed at equal average tokens, cross-validated, against one limit for all.

    No advantage is a result and passes. So is a saving below the published ones.
    """
    found = replayed(allocation)
    if policy in found.left_out:
        pytest.skip(f"{policy}: {found.left_out[policy]}")
    result = found.policy(policy)
    record_metrics(
        {"policy": policy, "e3": result.e3, "claims": found.claims},
        working=result.working,
        held=result.held,
    )
    assert result.working.accuracy.n == found.problems
    # Probes apart, no policy is better than an oracle with as many tokens.
    assert result.working.regret >= -1e-9


def test_recommendation(allocation, thinking_study, record_metrics):
    """The best policy, or thinking off, as settings: every limit is one that was measured."""
    found = replayed(allocation)
    settings = settings_record(thinking_study, allocation)
    record_metrics(settings, sentence=found.sentence(), thinking_off=allocation.off_sentence())
    limits = settings["thinking_token_limits"]
    assert set(limits.values()) <= {0, *thinking_study.budgets, allocation.no_limit}


def replayed(allocation):
    """The policies, or why there are none."""
    if allocation.policies is None:
        pytest.skip(f"no policy can be replayed: {allocation.left_out}")
    return allocation.policies
