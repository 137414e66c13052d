"""Policies replayed: slow walks, closed forms, no leaks, and how often a winner is claimed."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_tokenbudget.stats.resampling import advantages, folds
from pytest_tokenbudget.studies.allocation.policies import CLAIMS, compare_policies
from pytest_tokenbudget.studies.allocation.policy_results import (
    Judge,
    Spent,
    e3_estimate,
    oracle,
    oracle_accuracy,
)
from pytest_tokenbudget.studies.allocation.replay import (
    by_category,
    by_difficulty,
    choose,
    first_stable,
    fit_ridge,
    make_replay,
    one_limit,
    prices,
    stable_arms,
)

BUDGETS = (0, 32, 64, 128, 256, 512)


def world(problems=200, seed=0, kinds=3, told=True, **changes):
    """Thinking that is never done early, so that a limit is what ends it.

    Kind 0 is right at once, kind 1 needs all of it, kind 2 is hopeless; with ``told`` false, the
    categories and features are drawn without a look at the kind.
    """
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, kinds, problems)
    need = np.select([kind == 0, kind == 1], [rng.uniform(0, 40, problems), 300.0], np.inf)
    limits = np.array(BUDGETS)[None]
    correct = (limits >= need[:, None]).astype(float)
    tokens = np.repeat(limits + 10.0, problems, axis=0)
    seen = kind if told else rng.permutation(kind)
    values = {
        "categories": [f"kind {k}" for k in seen],
        "features": np.column_stack([seen == 0, seen == 1, rng.normal(size=problems)]),
    }
    return make_replay(BUDGETS, correct, tokens, **(values | changes))


def random_replay(seed=0, problems=7, budgets=4, rates=0.5, **more):
    rng = np.random.default_rng(seed)
    correct = (rng.random((problems, budgets)) < rates).astype(float)
    tokens = np.cumsum(rng.integers(1, 50, (problems, budgets)), axis=1).astype(float)
    return make_replay(tuple(range(0, 10 * budgets, 10)), correct, tokens, **more)


# --- the oracle -------------------------------------------------------------------------------


@given(st.integers(0, 500))
def test_the_oracle_takes_the_smallest_budget_that_is_right(seed):
    replay = random_replay(seed)
    best = oracle(replay)
    for p in range(replay.problems):
        right = [b for b in range(4) if replay.correct[p, b]]
        assert best.tokens[p] == replay.tokens[p, right[0] if right else 0]
        assert best.correct[p] == bool(right)


@given(st.integers(0, 500), st.floats(0.0, 1.0))
@settings(deadline=None)
def test_no_choice_of_problems_beats_the_oracle_with_few_tokens(seed, part):
    replay = random_replay(seed)
    best = oracle(replay)
    least = replay.tokens[:, 0].mean()
    mean = least + part * (best.tokens.mean() - least)
    reached = max(
        best.correct[list(some)].sum() / replay.problems if some else 0.0
        for size in range(replay.problems + 1)
        for some in itertools.combinations(range(replay.problems), size)
        if (best.tokens - replay.tokens[:, 0])[list(some)].sum()
        <= (mean - least) * replay.problems + 1e-9
    )
    found = oracle_accuracy(replay, mean)
    assert reached - 1e-9 <= found < reached + 1 / replay.problems + 1e-9
    assert oracle_accuracy(replay, 1e9) == pytest.approx(best.correct.mean())


# --- stopping at the first stable answer ------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(2, 3), st.integers(1, 3))
def test_stopping_is_that_of_a_slow_walk(seed, same, stride):
    rng = np.random.default_rng(seed)
    answers = rng.choice(np.array(["a", "b", None], object), (8, 6), p=[0.6, 0.25, 0.15])
    probe, ends = rng.integers(1, 9, (8, 6)).astype(float), rng.integers(0, 90, 8).astype(float)
    ends[0] = math.inf
    replay = random_replay(seed, 8, 6, answers=answers, probe_tokens=probe, natural_tokens=ends)
    arms = stable_arms(replay, [(same, stride)])
    for p in range(8):
        places = [*range(0, 6, stride)]
        places += [] if places[-1] == 5 else [5]
        paid, before = 0.0, []
        for place in places:
            before.append(answers[p][place])
            tail = before[-same:]
            stable = len(tail) == same and len(set(tail)) == 1 and tail[0] is not None
            if stable or replay.budgets[place] >= ends[p] or place == 5:
                assert arms.correct[p, 0] == replay.correct[p, place]
                assert arms.tokens[p, 0] == replay.tokens[p, place] + paid
                break
            paid += probe[p, place]


# --- predicted difficulty ---------------------------------------------------------------------


def test_ridge_leaves_one_out_exactly():
    rng = np.random.default_rng(0)
    features = np.column_stack([rng.normal(3, 5, (25, 3)), np.full(25, 7.0)])
    target = features[:, 0] * 0.3 + rng.normal(size=25)
    fit = fit_ridge(features, target)
    scale = np.where(features.std(axis=0) > 0, features.std(axis=0), 1.0)

    def solved(rows):
        x, y = features[rows] / scale, target[rows]
        middle = x.mean(axis=0)
        gram = (x - middle).T @ (x - middle) + fit.penalty * np.eye(4)
        weights = np.linalg.solve(gram, (x - middle).T @ (y - y.mean()))
        return weights / scale, y.mean() - middle @ weights

    weights, intercept = solved(np.arange(25))
    assert fit.weights == pytest.approx(weights)
    assert fit.intercept == pytest.approx(intercept)
    left_out = []
    for row in range(25):
        weights, intercept = solved(np.delete(np.arange(25), row))
        left_out.append(features[row] @ weights + intercept)
    assert fit.left_out == pytest.approx(np.array(left_out))
    means = (target.sum() - target) / 24
    expected = 1 - np.mean((target - left_out) ** 2) / np.mean((target - means) ** 2)
    assert fit.explained == pytest.approx(expected)


def test_features_that_say_nothing_explain_nothing():
    rng = np.random.default_rng(1)
    assert fit_ridge(rng.normal(size=(60, 20)), rng.normal(size=60)).explained < 0.1
    assert fit_ridge(rng.normal(size=(60, 2)), np.zeros(60)).explained == 0


def test_problems_learned_on_are_grouped_by_predictions_without_them():
    replay = world(40, 3, features=np.random.default_rng(0).normal(size=(40, 12)))
    rows = np.arange(30)
    found = by_difficulty(replay).group(rows)
    right = replay.correct > 0.5
    place = np.where(right.any(axis=1), right.argmax(axis=1), len(BUDGETS))
    fit = fit_ridge(replay.features[rows], place[rows].astype(float))
    edges = found.describe["edges"]
    assert edges == pytest.approx(np.quantile(fit.left_out, [1 / 3, 2 / 3]).tolist())
    assert found.labels[rows].tolist() == np.searchsorted(edges, fit.left_out).tolist()
    assert sorted(np.bincount(found.labels[rows])) == [10, 10, 10]
    others = replay.features[30:] @ fit.weights + fit.intercept
    assert found.labels[30:].tolist() == np.searchsorted(edges, others).tolist()


def test_features_that_come_late_rule_out_small_limits():
    replay = world(features_from=64)
    policy = by_difficulty(replay)
    assert [each["limit"] for each in policy.arms.settings] == [64, 128, 256, 512]
    assert by_difficulty(world(features_from=1000)) is None


# --- no leaks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [one_limit, by_category, by_difficulty, first_stable])
def test_choices_for_problems_do_not_depend_on_their_answers(make):
    rng = np.random.default_rng(2)
    answers = rng.choice(np.array(["a", "b"], object), (200, len(BUDGETS)))
    first = world(answers=answers)
    part = folds(200)[3]
    rows = np.setdiff1d(np.arange(200), part)
    changed = first.correct.copy()
    changed[part] = 1 - changed[part]
    second = make_replay(
        BUDGETS,
        changed,
        first.tokens,
        categories=first.categories.tolist(),
        features=first.features,
        answers=answers,
    )
    at = prices(first)
    before, after = (choose(make(replay), rows, at) for replay in (first, second))
    assert (before.picks[:, part] == after.picks[:, part]).all()
    assert (before.arms == after.arms).all()


def test_folds_hold_each_problem_once():
    parts = folds(37)
    assert sorted(np.concatenate(parts).tolist()) == list(range(37))
    assert {len(part) for part in parts} == {3, 4}
    assert len(folds(3)) == 3


def test_a_category_not_learned_on_gets_the_average_choice():
    replay = world(categories=["rare"] + ["other"] * 199)
    found = choose(by_category(replay), np.arange(1, 200), prices(replay))
    assert (found.picks[:, 0] == found.picks[:, 1]).all()


def test_choices_are_the_best_of_each_group_at_each_price():
    replay = world(told=False, seed=4)
    policy, at = by_category(replay), prices(replay)
    found = choose(policy, np.arange(200), at)
    for row, price in enumerate(at):
        for name in set(replay.categories):
            here = replay.categories == name
            worth = replay.correct[here].mean(axis=0) - price * replay.tokens[here].mean(axis=0)
            chosen = found.picks[row][here]
            assert len(set(chosen)) == 1
            assert worth[chosen[0]] == pytest.approx(worth.max())
    assert found.tokens[-1] >= found.tokens[0]


# --- advantages -------------------------------------------------------------------------------


def test_gains_average_to_the_advantage_at_equal_tokens():
    replay = random_replay(3, 300, rates=(0.2, 0.25, 0.7, 0.75))
    judge = Judge(replay, 0.95)
    means, rates = replay.tokens.mean(axis=0), replay.correct.mean(axis=0)
    corners = judge.corners
    # No straight line between two limits is above the hull.
    for (a, b), part in itertools.product(itertools.combinations(range(4), 2), (0, 0.3, 0.7)):
        mixed = (1 - part) * rates[a] + part * rates[b]
        mean = (1 - part) * means[a] + part * means[b]
        assert np.interp(mean, means[corners], rates[corners]) >= mixed - 1e-12
    rng = np.random.default_rng(0)
    for _ in range(5):
        place = rng.integers(0, 4, 300)
        spent = Spent(*(x[np.arange(300), place] for x in (replay.correct, replay.tokens)))
        expected = spent.correct.mean() - np.interp(
            spent.tokens.mean(), means[corners], rates[corners]
        )
        assert judge.gains(spent).mean() == pytest.approx(expected)
    for b in range(4):
        gain = judge.gains(Spent(replay.correct[:, b], replay.tokens[:, b])).mean()
        assert gain == pytest.approx(0, abs=1e-12) if b in corners else gain < 0
    last = corners[-1]
    beyond = Spent(replay.correct[:, last], replay.tokens[:, last] + 100)
    assert judge.gains(beyond).mean() == pytest.approx(0)


def test_the_interval_of_an_advantage_is_that_of_redrawn_problems():
    replay = random_replay(3, 400, rates=(0.1, 0.6, 0.6, 0.9))
    # The answers of one limit, for tokens of which some problems take far more than others.
    factors = np.random.default_rng(4).lognormal(0, 0.6, 400)
    spent = Spent(replay.correct[:, 1], replay.tokens[:, 1] * factors)
    weights = np.random.default_rng(2).dirichlet(np.ones(400), 4000)
    judge = Judge(replay, 0.95)
    drawn = [
        w @ spent.correct - np.interp(w @ spent.tokens, w @ judge.tokens, w @ judge.correct)
        for w in weights
    ]
    found = advantages([judge.gains(spent)], 0.95)[0]
    assert (found.low, found.high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.006)


def test_squared_accuracy_over_tokens():
    spent = Spent(np.array([1.0, 1.0, 0.0, 0.0]), np.array([100.0, 300.0, 100.0, 300.0]))
    found = e3_estimate(spent, 0.95)
    assert found.value == 0.25 / 200
    assert found.low < found.value < found.high
    many = Spent(np.tile(spent.correct, 200), np.tile(spent.tokens, 200))
    narrow = e3_estimate(many, 0.95)
    # By the delta method: relative variance 4 var(c) / (n mean(c)^2) + var(t) / (n mean(t)^2).
    half = 1.96 * math.sqrt((4 * 0.25 / 0.25 + 10000 / 40000) / 800) * found.value
    assert (narrow.high - narrow.low) / 2 == pytest.approx(half, rel=0.08)


# --- the study --------------------------------------------------------------------------------


def test_a_policy_that_knows_is_found_with_its_settings():
    study = compare_policies(world(300), reference=256)
    assert study.winner in {"per category", "predicted difficulty"}
    limits = study.policy("per category").settings["groups"]
    assert limits["kind 0"]["limit"] <= 64
    assert limits["kind 1"]["limit"] == 512
    assert limits["kind 2"]["limit"] == 0
    winner = study.policy(study.winner)
    assert winner.working.mean_tokens.value <= 256 + 10
    assert winner.working.advantage.low > 0.1
    assert study.settings == winner.settings
    assert study.winner in study.sentence()
    assert study.tied or winner.working.advantage.value > 0
    assert study.policy("predicted difficulty").settings["explained"] > 0.5
    # Kept accuracy: hopeless problems need nothing, kind 0 next to nothing.
    held = study.policy("per category").held
    assert held.held
    assert held.difference == 0
    assert held.saving.low > 0.4
    kept = {name: each["limit"] for name, each in limits.items()}
    expected = world(300)
    spent = sum(10 + kept[name] for name in expected.categories) / 300
    assert held.saving.value == pytest.approx(1 - spent / 522, abs=0.02)


def test_one_limit_is_the_yardstick():
    study = compare_policies(world(300))
    assert study.policies[0].name == "one limit"
    assert all(p.advantage.value < 1e-9 for p in study.limits.values())
    assert study.limits[study.reference].advantage.value == pytest.approx(0)
    best = max(study.limits, key=lambda budget: study.limits[budget].e3)
    assert study.reference == best
    assert study.oracle.regret == pytest.approx(0)
    for policy in study.policies:
        tokens = [point.mean_tokens.value for point in policy.frontier]
        assert tokens == sorted(tokens)
        assert all(point.regret >= -1e-9 for point in policy.frontier)


@pytest.mark.slow
def test_without_knowledge_a_winner_is_seldom_claimed():
    claimed = sum(
        compare_policies(world(90, seed, told=False), reference=256).winner is not None
        for seed in range(40)
    )
    assert claimed <= 3
    quiet = compare_policies(world(90, 1, told=False), reference=256)
    assert quiet.winner is None
    assert quiet.sentence().startswith("no policy is shown to be better")
    assert quiet.settings == {"limit": 256}


def test_a_few_lucky_problems_show_nothing():
    # Two of 200 won and none lost, at as many tokens: McNemar's p is 0.5.
    correct = np.zeros((200, 2))
    correct[:100] = 1
    correct[:2, 0] = 0
    replay = make_replay((0, 10), correct, np.tile([10.0, 20.0], (200, 1)))
    gain = np.zeros(200)
    gain[:2] = 1
    found = advantages([gain], 0.95)[0]
    assert found.low < 0 < found.high
    assert Judge(replay, 0.95).gains(Spent(correct[:, 1], replay.tokens[:, 1])).mean() == 0


def test_what_cannot_be_replayed_is_said():
    study = compare_policies(world(categories=None, features=None))
    assert list(study.left_out) == [
        "per category",
        "predicted difficulty",
        "first stable answer",
    ]
    assert [each.name for each in study.policies] == ["one limit"]
    assert study.winner is None
    with pytest.raises(ValueError, match="only one limit"):
        study.policy("per category")


def test_published_claims_stand_beside_what_is_measured():
    assert [claim.saving for claim in CLAIMS] == [0.61, 0.48, 0.39]
    assert all("arXiv" in claim.source for claim in CLAIMS)
    assert compare_policies(world(60)).claims == CLAIMS


def test_problems_with_something_missing_are_left_out():
    replay = world(60)
    correct = replay.correct.copy()
    correct[5, 2] = math.nan
    found = make_replay(BUDGETS, correct, replay.tokens, categories=replay.categories.tolist())
    assert (found.problems, found.missing) == (59, 1)
    assert len(found.categories) == 59
    assert compare_policies(found).missing == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"budgets": (0, 0)}, "must rise"),
        ({"tokens": [[1, 2, 3]] * 3}, "tokens has"),
        ({"correct": [[0, 2]] * 3}, "0, 1, or NaN"),
        ({"categories": ["a"]}, "categories of 1"),
        ({"answers": [["a", "b"]]}, "answers of 1"),
        ({"correct": [[0, 1], [math.nan, 1], [math.nan, 1]]}, "at least two"),
    ],
)
def test_impossible_input_is_named(changes, words):
    values = {"budgets": (0, 10), "correct": [[0, 1]] * 3, "tokens": [[1, 2]] * 3} | changes
    with pytest.raises(ValueError, match=words):
        make_replay(**values)


def test_impossible_questions_are_named():
    with pytest.raises(ValueError, match="reference limit 100 is none of"):
        compare_policies(world(60), reference=100)
    with pytest.raises(ValueError, match="margin 0 "):
        compare_policies(world(60), margin=0)


def test_the_oracle_takes_the_cheapest_where_more_thinking_costs_less():
    # Ended early, the answer is long: the smallest budget is not the cheapest.
    right = [[1, 1], [0, 1], [0, 0]]
    replay = make_replay((4, 8), right, [[50, 20], [50, 20], [50, 20]])
    study = compare_policies(replay, reference=8)
    assert study.oracle.mean_tokens.value == 20
    assert study.oracle.regret == 0
    assert study.policies[0].working.regret >= 0
