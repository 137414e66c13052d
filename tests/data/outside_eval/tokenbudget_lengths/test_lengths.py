"""Lengths: which share of the answers ends by itself within a limit."""

import pytest

pytestmark = pytest.mark.lengths


def test_answers_within(answer_lengths, length_limit, record_metrics, gates):
    """The share of answers that end within the limit, and the gates on answers cut there."""
    point = answer_lengths[length_limit]
    record_metrics(point, share=point.share)
    assert 0 <= point.ended <= point.answers
    gates.check(point)
