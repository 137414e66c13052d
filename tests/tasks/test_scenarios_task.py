"""The task games: its standard set, and the stages."""

from collections import Counter

import pytest

from pytest_tokenbudget.settings import generation_config
from pytest_tokenbudget.tasks import games
from pytest_tokenbudget.tasks.registry import load_task


def of(problems, name):
    return Counter(problem.metadata[name] for problem in problems)


def test_the_standard_set_has_every_game_framing_and_number_of_options():
    problems = load_task("games").problems()
    assert len(problems) == 36
    found = of(problems, "game")
    assert {*found} == {name for _, name in games.kinds()}
    assert {*games.SIMULTANEOUS, *games.SEQUENTIAL} < {*found}
    assert min(found.values()) >= 3
    assert {*of(problems, "framing")} == {*generation_config.FRAMINGS}
    assert min(of(problems, "framing").values()) >= 4
    several = [p for p in problems if p.category == "multi-option"]
    assert {len(p.metadata["options"]) for p in several} == {3, 4, 5, 6}


def test_the_stages_extend_each_other_and_five_have_every_category():
    task = load_task("games")
    two, five, all_of_them = task.problems(2), task.problems(5), task.problems()
    assert five[:2] == two
    assert all_of_them[:5] == five
    assert {p.category for p in five} == {"simultaneous", "sequential", "multi-option"}
    assert {p.category for p in two} == {"simultaneous", "sequential"}
    assert len({p.metadata["framing"] for p in five}) == 5


def test_the_order_leaves_every_problem_as_it_was():
    """Ids as they were when the embedded model was trained; they are hashes of the texts."""
    found = [problem.id for problem in load_task("games").problems(200)]
    assert len({*found}) == 200
    assert found[0] == "game-f1c13c95caa6"
    for early in ("game-0815cc7fbbf0", "game-3213bc27c29f", "game-71b4363fde55"):
        assert early in found[1:5]
    order = list(games.in_order())
    assert sorted(order) == list(range(games.MAX_SIZE))
    assert order[38:] == [n for n in range(36, games.MAX_SIZE) if n not in games.EARLY]


@pytest.mark.parametrize("problem", load_task("games").problems(), ids=lambda p: p.id)
def test_payoffs_are_in_the_data_and_in_the_text(problem):
    options, payoffs = problem.metadata["options"], problem.metadata["payoffs"]
    assert problem.answer.split("|") == options
    assert len(payoffs) == len(options)
    for row in payoffs:
        for points in row:
            assert f"{points}" in problem.question
