"""Tokenizers: how many tokens texts take, what the chat template adds, and how much fits a limit.

The same six passages in many languages, code, numbers, JSON, mathematics and markup are encoded
with the model's own tokenizer, and conversations are rendered with its chat template. No weights
are loaded. What one budget means for an answer in another language follows from this.
"""

import pytest

from pytest_tokenbudget.studies.tokenizers.analysis import LIMITS
from pytest_tokenbudget.studies.tokenizers.samples import SAMPLES

pytestmark = pytest.mark.context


@pytest.mark.parametrize("text", SAMPLES)
def test_tokens_of_text(tokenization, text, record_metrics):
    """Tokens a character and a word of one kind of text, and against the same in English."""
    found = tokenization.text(text)
    record_metrics(
        {"text": text, "tokens_per_character": found.per_character, "against": found.against},
        tokenizers=tokenization.record(text=found),
    )
    assert 0 < found.least <= found.per_character.value <= found.most


@pytest.mark.parametrize("text", SAMPLES)
def test_round_trip(tokenization, text, record_metrics):
    """Whether a text comes back from its ids as it was. What is lost is a result and passes."""
    found = tokenization.round_trip(text)
    record_metrics(
        {"text": text, "lossless": found.lossless},
        tokenizers=tokenization.record(round_trip=found),
    )


def test_template_cost(tokenization, record_metrics):
    """What the chat template costs beside what messages say, and whether its parts add up."""
    if reason := tokenization.why_no_template():
        record_metrics(tokenizers=tokenization.record(no_template=reason))
        pytest.skip(reason)
    found = tokenization.template
    record_metrics(
        {"question": found.question, "turn": found.turn, "additive": found.additive},
        tokenizers=tokenization.record(template=found),
    )
    assert found.question >= 0


@pytest.mark.parametrize("limit", LIMITS)
def test_characters_that_fit(tokenization, limit, record_metrics):
    """How many characters of each kind of text fit a limit, asked as one question."""
    if reason := tokenization.why_not_limit(limit):
        pytest.skip(reason)
    found = tokenization.fits(limit)
    record_metrics(
        {"limit": found.limit, "characters": found.texts["en"].characters},
        tokenizers=tokenization.record(fits=found),
    )
    assert all(fit.fewest <= fit.characters.value <= fit.most for fit in found.texts.values())


def test_server_counts_the_same(tokenization, record_metrics):
    """Whether a server counts the prompts' tokens as ``count_tokens`` did before sending them."""
    if reason := tokenization.why_no_server():
        pytest.skip(reason)
    found = tokenization.server_counts()
    record_metrics(
        {"agreed": found.agreed, "said": found.said, "sentence": found.sentence()},
        tokenizers=tokenization.record(server=found),
    )
    if not found.said:
        pytest.skip("its server tells no counts")
    if found.agreed < found.said:
        pytest.fail(found.sentence(), pytrace=False)
