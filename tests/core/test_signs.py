"""Signs of truncation, each on its own, and how well they tell."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_tokenbudget.core.trace import StopReason, ThinkingFormat, Trace
from pytest_tokenbudget.core.truncation_signs import (
    Sign,
    count_signs,
    cut_off_json,
    truncation_signs,
    unfinished_sentence,
)


def cut(text, ended, budget=None):
    """One token a character, and one for the end."""
    offsets = (*range(1, len(text) + 1), *([len(text)] if ended else []))
    reason = StopReason.EOS if ended else StopReason.LENGTH
    trace = Trace("p", 0, (1,), tuple(offsets), reason, len(offsets), text, offsets)
    return trace.cut(budget or len(offsets), ThinkingFormat())


@pytest.mark.parametrize(
    ("text", "ended", "expected"),
    [
        ("She has 4 apples.\n#### 4", True, set()),
        ("She has 4 apples.", False, {Sign.CAP_REACHED}),
        ("She has 4 apples and", False, {Sign.CAP_REACHED, Sign.UNFINISHED_SENTENCE}),
        ("She has 4 apples and", True, {Sign.UNFINISHED_SENTENCE}),
        ("<think>Let me see.", True, {Sign.UNCLOSED_TAG}),
        (
            "<think>She has four more",
            False,
            {Sign.UNCLOSED_TAG, Sign.CAP_REACHED, Sign.UNFINISHED_SENTENCE},
        ),
        ('<think>{"a": 1</think>{"a": 1}', True, set()),
        (
            '<think>a.</think>\n{"choice": "lef',
            False,
            {Sign.CAP_REACHED, Sign.CUT_OFF_JSON, Sign.UNFINISHED_SENTENCE},
        ),
        ('<think>{"choice": ', False, set(Sign)),
        ("", True, set()),
    ],
)
def test_signs(text, ended, expected):
    # What ended by itself had room for more.
    assert truncation_signs(cut(text, ended, len(text) + 9 if ended else None)) == expected


def test_an_end_with_the_last_token_looks_like_a_cut_and_is_none():
    text = "It is 4."
    at_cap = cut(text, True)
    assert truncation_signs(at_cap) == {Sign.CAP_REACHED}
    assert not at_cap.truncated
    below = cut(text, True, budget=len(text))
    assert (truncation_signs(below), below.truncated) == ({Sign.CAP_REACHED}, True)


def test_signs_are_counted_where_they_are_right_and_where_they_are_wrong():
    found = [{Sign.CAP_REACHED}, set(Sign), {Sign.CAP_REACHED}]
    counts = {c.sign: c for c in count_signs(found, [True, True, False])}
    cap, tag = counts[Sign.CAP_REACHED], counts[Sign.UNCLOSED_TAG]
    assert (cap.truncated, cap.of_truncated, cap.complete, cap.of_complete) == (2, 2, 1, 1)
    assert (tag.truncated, tag.complete) == (1, 0)


@pytest.mark.parametrize(
    ("text", "unfinished"),
    [
        ("He said \u201cit is four.\u201d", False),
        ("**It is four apples.**", False),
        ("\u5b83\u662f\u56db\u3002", False),
        ("It is four!\n\n", False),
        ("First this.\nThen we add the", True),
        ("We take these steps:", True),
        ("The answer is 42", True),
        ("42", False),
        ("Total: 12", False),
        ("**Total cost:** $12.50", False),
        ("so\nx = 7", False),
        ("3B = 75", False),
        ("The price of a ticket: 12", True),
        ("She has 3 * 4 =", True),
        ("so **#### 42**", False),
        (r"\boxed{4}", False),
        (r"\[x = 7\]", False),
        ("| a | b", True),
        ('{"choice": "left"}', False),
        ("The", True),
        ("#### 42", False),
        ("| a | row | with | words |", False),
        ("It holds that \\boxed{42}", False),
        ("```python\nprint(1)\n```", False),
        ("", False),
    ],
)
def test_unfinished_sentences(text, unfinished):
    assert unfinished_sentence(text) is unfinished


@pytest.mark.parametrize(
    ("text", "cut_off"),
    [
        ('{"a": [1, 2', True),
        ('{"a": "b', True),
        ('{"a": "b\\"', True),
        ('{"a": "}"', True),
        ('{"a": "}"}', False),
        ("Here it is:\n```json\n{", True),
        ('```json\n[\n  {"a": 1},\n', True),
        ("[1, 2, 3", True),
        ("[1, 2, 3]", False),
        ('{"a": 1} and {"b": 2', True),
        ('{"a": 1]} and no more', False),
        ("It lies in [0, 5) for", False),
        ("It is \\frac{", False),
        ("See [the page](x) and {x | x > 0", False),
        ("x_{", False),
        ("{not json", False),
        ("f[3] and {x}", False),
        ('[{"a": 1}, {"b"', True),
    ],
)
def test_json_that_is_cut_off(text, cut_off):
    assert cut_off_json(text) is cut_off


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=5), VALUES, min_size=1, max_size=3), st.data())
def test_every_beginning_of_an_object_is_cut_off(value, data):
    text = json.dumps(value, ensure_ascii=data.draw(st.booleans()))
    length = data.draw(st.integers(1, len(text) - 1))
    assert cut_off_json(f"Here: {text[:length]}")
    assert not cut_off_json(f"Here: {text}\nDone.")
