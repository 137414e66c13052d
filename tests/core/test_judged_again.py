"""Stored traces are judged by the present rules, without a model."""

import sqlite3
from contextlib import closing
from pathlib import Path

from runs import NO_ENGINE, answers, combined

from pytest_tokenbudget.tasks.answers import EXTRACTOR

pytest_plugins = ["run_fixtures"]

BEFORE = Path(__file__).parents[1] / "data" / "store_numbers_1.sql"
"""A store that the embedded model filled when answers were found by numbers/1, as SQL."""


def test_a_store_from_before_is_judged_by_the_present_rules(run, pytester, quick_figures):
    (pytester.path / "reports").mkdir()
    with closing(sqlite3.connect(pytester.path / "reports" / "traces.sqlite")) as store:
        store.executescript(BEFORE.read_text(encoding="utf-8"))
    result = run(engines=NO_ENGINE, problems=6, budgets="64,256")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["*no model is loaded", "this run generated no token*"])
    study = combined(pytester.path)
    assert study["extractor"] == EXTRACTOR != "numbers/1"
    assert [answer["correct"] for answer in answers(pytester.path, 256)].count(True) == 5
