"""Scenarios: what answers to each kind of scenario need, and which limits that calls for.

Made for --task games, whose problems have a game, a framing and a category; any task with several
categories will do. Everything is a cut of the traces of phase 1.
"""

import pytest

from pytest_tokenbudget.stats.truncation import LimitVerdict
from pytest_tokenbudget.studies.scenarios.analysis import unknown_names

pytestmark = pytest.mark.scenarios


@pytest.mark.parametrize("split", ["game", "framing", "category"])
def test_answers(scenarios, split, record_metrics):
    """Valid JSON, legal choices and which ones, truncation and tokens needed, for each kind."""
    groups = parted(scenarios.groups, split)
    record_metrics(split=split, groups=groups)
    overall = scenarios.overall
    assert sum(each.needs.problems for each in groups) == overall.needs.problems
    if overall.answers is not None:
        assert overall.answers.legal.value <= overall.answers.valid_json.value


@pytest.mark.parametrize("split", ["framing", "category"])
def test_limits(scenarios, split, record_metrics):
    """A limit for each kind: promised by its own traces, else that of all or the most seen.

    Too few traces for a promise is a result and passes.
    """
    choices = parted(scenarios.learned.groups, split)
    record_metrics(split=split, limits={name: each.limit for name, each in choices.items()})
    overall = scenarios.learned.overall.limit
    for each in choices.values():
        record_metrics(sentence=each.found.sentence(), promised=each.promised)
        assert each.promised or overall is None or each.limit >= overall


def test_rules_of_thumb(scenarios, record_metrics):
    """A guide's limits for scenarios: whether each is enough here. Refuted is a result, too."""
    for each in scenarios.guidelines:
        record_metrics(each)
        cut = each.truncation
        assert (each.verdict is LimitVerdict.REFUTED) == (cut.lower > scenarios.target)
    record_metrics(more=scenarios.more)


def test_one_limit_or_several(scenarios, record_metrics):
    """Truncation, room and tokens with one limit and with several, on problems not learned on."""
    replay = scenarios.replay
    if replay is None:
        pytest.skip("too few problems, or one kind only: nothing can be replayed")
    record_metrics(replay, sentence=replay.sentence())
    for each in replay.outcomes:
        assert each.spent.value <= each.allowed.value


def test_limits_given(scenarios, tokenbudget, record_metrics):
    """The limits of --generation-config: whether they keep to the target for each kind.

    Refuted is a result and passes; a gate on truncation demands more. A name that no problem has
    fails.
    """
    config = tokenbudget.settings.generation_config
    if scenarios.given is None:
        pytest.skip("no --generation-config with a limit for these problems was given")
    record_metrics(given=scenarios.given)
    if unknown := unknown_names(config, tokenbudget.task.problems()):
        said = [f"{n}{f' (did you mean {near}?)' if near else ''}" for n, near in unknown.items()]
        pytest.fail(f"{config.path}: no problem is of kind {', '.join(said)}", pytrace=False)
    for groups in scenarios.given.values():
        for each in groups:
            assert each.limits[0] <= each.limits[1]


def parted(by, split):
    """What is known of one split, if the problems are parted by it."""
    if split not in by:
        pytest.skip(f"the problems are not of several kinds by {split}")
    return by[split] if isinstance(by[split], dict) else list(by[split])
