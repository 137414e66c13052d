"""Prices and what answers cost: pure functions against what a hand works out."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_tokenbudget.core.cost import answer_costs, cost_of
from pytest_tokenbudget.models.prices import Price, PriceError, read_price
from pytest_tokenbudget.models.resolution import ModelError, load_catalogue
from pytest_tokenbudget.registry import SESSION

PRICE = Price(input=1.0, output=4.0, reasoning=2.0, currency="EUR")


def test_answer_costs_by_hand():
    # 1,000 of prompt at 1, 500 - 100 of answer at 4, 100 of thinking at 2, all per million.
    assert answer_costs(PRICE, [1000], [500], [100]).tolist() == pytest.approx(
        [(1000 * 1 + 400 * 4 + 100 * 2) / 1e6]
    )


def test_cost_of_answers_by_hand():
    cost = cost_of(PRICE, [100, 100, 100], [200, 400, 600], [1, 0, 1])
    assert cost.answers == 3
    assert cost.all == pytest.approx((300 + 1200 * 4) / 1e6)
    assert cost.each.value == pytest.approx(cost.all / 3)
    assert cost.correct.value == pytest.approx(cost.all / 2)
    assert cost.each.low < cost.each.value < cost.each.high
    assert cost.correct.low < cost.correct.value < cost.correct.high


def test_nothing_right_has_no_price_a_right_answer():
    cost = cost_of(PRICE, [10, 10], [20, 20], [0, 0])
    assert cost.correct is None
    assert cost.all > 0


def test_errors_cost_nothing_that_is_known_and_count_nowhere():
    whole = cost_of(PRICE, [10, 10], [20, 40], [1, 0])
    with_error = cost_of(PRICE, [10, 10, 10], [20, math.nan, 40], [1, math.nan, 0])
    assert with_error == whole
    assert cost_of(PRICE, [10], [math.nan], [math.nan]) is None


def test_samples_of_a_problem_are_no_more_evidence_than_the_problem():
    once = cost_of(PRICE, [[10], [10], [10]], [[20], [50], [90]], [[1], [0], [1]])
    twice = cost_of(PRICE, [[10] * 2] * 3, [[20] * 2, [50] * 2, [90] * 2], [[1, 1], [0, 0], [1, 1]])
    assert twice.answers == 6
    assert twice.all == pytest.approx(2 * once.all)
    assert twice.each == pytest.approx(once.each)
    assert twice.correct == pytest.approx(once.correct)


@given(
    st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 5000), st.booleans()), min_size=2),
    st.floats(0.01, 100),
)
def test_money_scales_with_the_price(rows, factor):
    prompt, output, right = (np.array(column) for column in zip(*rows, strict=True))
    dearer = Price(*(factor * rate for rate in (PRICE.input, PRICE.output, PRICE.reasoning)))
    one, other = (cost_of(price, prompt, output, right) for price in (PRICE, dearer))
    assert other.all == pytest.approx(factor * one.all)
    assert (one.correct is None) == (not right.any())
    if one.correct:
        assert other.correct == pytest.approx([*(factor * v for v in one.correct[:3]), len(rows)])
        assert one.correct.value >= one.each.value * 0.999


def test_a_price_is_read():
    assert read_price({"input": 0.15, "output": 0.6}) == Price(0.15, 0.6, 0.6, "USD")
    assert read_price({"input": 0, "output": 2, "reasoning": 3.5, "currency": "EUR"}) == Price(
        0.0, 2.0, 3.5, "EUR"
    )


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (3, "price must be a table"),
        ({"input": 1}, "price lacks output"),
        ({}, "price lacks input and output"),
        ({"input": 1, "output": 1, "resoning": 1}, "did you mean 'reasoning'?"),
        ({"input": -1, "output": 1}, "price.input must be a number of at least 0"),
        ({"input": 1, "output": True}, "not the boolean true"),
        ({"input": 1, "output": float("nan")}, "price.output must be a number"),
        ({"input": 1, "output": "2"}, "not the string '2'"),
        ({"input": 1, "output": 1, "currency": "a long name of it"}, "short name such as USD"),
        ({"input": 1, "output": 1, "currency": 5}, "short name such as USD"),
    ],
)
def test_prices_that_cannot_be_used(table, words):
    with pytest.raises(PriceError, match=words.replace("?", r"\?")):
        read_price(table)


def catalogue(tmp_path, text):
    (tmp_path / "tokenbudget.toml").write_text(text)
    return load_catalogue(tmp_path)


def test_entries_have_prices(tmp_path):
    models = catalogue(
        tmp_path,
        """
        [models.served]
        base_url = "http://127.0.0.1:9/v1"
        [models.served.price]
        input = 0.5
        output = 1.5
        currency = "EUR"
        [models.nano-reasoner]
        price = { input = 0.1, output = 0.4, reasoning = 0.2 }
        [models.other]
        base = "nano-reasoner"
        quantization = "8bit"
        [models.another]
        base = "nano-reasoner"
        id = "someone/another"
        """,
    )
    assert models["served"].price == Price(0.5, 1.5, 1.5, "EUR")
    assert models["nano-reasoner"].price == Price(0.1, 0.4, 0.2)
    assert models["other"].price == models["nano-reasoner"].price
    assert models["another"].price is None  # what one model costs says nothing of another
    assert models["qwen-1.5b"].price is None


def test_a_price_that_cannot_be_used_names_its_entry(tmp_path):
    with pytest.raises(ModelError, match=r"tokenbudget\.toml: models\.a: price lacks output"):
        catalogue(tmp_path, '[models.a]\nid = "a/b"\nprice = { input = 1 }')


def test_an_address_costs_what_the_entry_says_that_names_it(pytester):
    pytester.makefile(
        ".toml",
        tokenbudget="""
        [models.served]
        base_url = ["http://127.0.0.1:9/v1", "http://127.0.0.1:10/v1"]
        served = "big"
        price = { input = 1, output = 2 }
        [models.nano-reasoner]
        price = { input = 5, output = 5 }
        """,
    )

    def price(*options):
        config = pytester.parseconfigure("-p", "no:cacheprovider", *options)
        (spec,) = config.stash[SESSION].specs
        return spec.price

    address = ("--model", "http://127.0.0.1:10/v1")
    assert price(*address) == Price(1, 2, 2)
    assert price(*address, "--served-model", "small") is None
    assert price("--model", "http://127.0.0.1:11/v1", "--tokenizer", "nano-reasoner") is None
    base = ("--base-url", "http://127.0.0.1:9/v1")
    assert price(*base) == Price(1, 2, 2)
    assert price(*base, "--model", "nano-reasoner") == Price(5, 5, 5)
