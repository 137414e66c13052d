"""The cache of a study: other arguments give another result, the same ones the same object."""

from dataclasses import replace
from pathlib import Path

import pytest
from allocation_studies import make as make_thinking
from scenario_studies import make as make_scenarios

from pytest_tokenbudget.core.study import StudyCache
from pytest_tokenbudget.models.prices import Price
from pytest_tokenbudget.models.resolution import ModelSpec
from pytest_tokenbudget.report.cost import cost_report
from pytest_tokenbudget.report.limits import recommended_limits
from pytest_tokenbudget.settings.generation_config import GenerationConfig
from pytest_tokenbudget.studies.allocation.analysis import (
    analyse_allocation,
    attach_model,
    model_of,
)
from pytest_tokenbudget.studies.cliff.analysis import analyse_cliff
from pytest_tokenbudget.studies.errors.analysis import errors_of
from pytest_tokenbudget.studies.scenarios.analysis import analyse_scenarios
from pytest_tokenbudget.studies.thinking.analysis import analyse_thinking
from pytest_tokenbudget.studies.thinking.cost import thinking_costs

PRICES = (Price(1.0, 2.0, 2.0), Price(3.0, 4.0, 4.0))


class Counted(StudyCache):
    def __init__(self):
        self.calls = []

    def double(self, value, add=0):
        self.calls.append((value, add))
        return [value, value, add]


def test_each_set_of_arguments_is_computed_once():
    study = Counted()
    first = study.cached(study.double, 1)
    assert study.cached(study.double, 1) is first
    assert study.cached(study.double, 2) == [2, 2, 0]
    assert study.cached(study.double, 1, add=5) == [1, 1, 5]
    assert study.cached(study.double, True) == [True, True, 0]
    assert study.calls == [(1, 0), (2, 0), (1, 5), (True, 0)]


def test_arguments_that_cannot_be_hashed_are_told_apart():
    study = Counted()
    for number in range(50):
        # Objects that die give their identity to the next one.
        assert study.cached(study.double, [number])[0] == [number]


def test_two_functions_have_results_of_their_own():
    study = Counted()
    assert study.cached(max, 1, 2) == 2
    assert study.cached(min, 1, 2) == 1


def test_attached_facts_are_replaced():
    study = Counted()
    assert study.fact("model") is None
    study.set_fact("model", 1)
    study.set_fact("model", 2)
    assert study.fact("model") == 2


def test_scenarios_of_another_target_and_of_other_limits():
    study = make_scenarios()
    report = analyse_scenarios(study, 0.05)
    assert analyse_scenarios(study, 0.05) is report
    assert analyse_scenarios(study, 0.2).target == 0.2
    given = GenerationConfig(Path("a.yaml"), max_new_tokens=10)
    assert report.given is None
    assert analyse_scenarios(study, 0.05, given).given is not None
    other = analyse_scenarios(study, 0.05, replace(given, max_new_tokens=16)).given
    assert other != analyse_scenarios(study, 0.05, given).given


def test_limits_and_cost_of_another_target_and_price():
    study = make_scenarios()
    wanted = (0.05, 0.2)
    found = [recommended_limits(study, target)["all_tokens"].overall.target for target in wanted]
    assert found == list(wanted)
    for price in PRICES:
        study.price = price
        assert cost_report(study, 0.05).price == price


def test_errors_at_other_budgets_and_with_other_annotations(tmp_path):
    study = make_scenarios()
    report = errors_of(study, [], [(16, 5)], tmp_path)
    assert errors_of(study, [], [(16, 5)], tmp_path) is report
    assert [one.budget for one in report.budgets] == [16]
    assert [one.budget for one in errors_of(study, [], [(64, 5)], tmp_path).budgets] == [64]
    assert errors_of(study, [tmp_path / "x"], [(16, 5)], tmp_path) is not report
    assert errors_of(study, [], [(16, 5)], tmp_path / "other") is not report


def test_the_cliff_between_other_budgets():
    study = make_scenarios()
    for budgets in ((16, 32), (16, 32, 64)):
        study.cliff_budgets = budgets
        assert [point.budget for point in analyse_cliff(study).points] == list(budgets)


def test_thinking_of_another_target_and_price():
    study = make_thinking(8)
    for target in (0.05, 0.2):
        study.forcing = replace(study.forcing, target=target)
        assert analyse_thinking(study).limits.overall.target == target
    for price in PRICES:
        study.natural.price = price
        cost = thinking_costs(study)[0].point.cost
        assert cost is not None
    study.natural.price = PRICES[0]
    assert thinking_costs(study)[0].point.cost != cost


@pytest.mark.parametrize("margin", [0.02, 0.1])
def test_allocation_of_another_model_and_margin(margin):
    study = make_thinking(8)
    assert model_of(study) is None
    assert analyse_allocation(study).context is None
    study.natural.margin = margin
    for context in (200, 400):
        attach_model(None, ModelSpec(alias="m", source="local", context=context), study)
        report = analyse_allocation(study)
        assert report.context == context
        assert report.policies is None or report.policies.margin == margin
