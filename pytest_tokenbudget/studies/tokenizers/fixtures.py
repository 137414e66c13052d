"""What an eval of tokenizers may ask for.

Imports stand in the fixtures: pytest loads this module when the first eval is collected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_tokenbudget.engines.token_counter import TokenCounter
    from pytest_tokenbudget.session import Session
    from pytest_tokenbudget.studies.tokenizers.run import Tokenization


@pytest.fixture(scope="session")
def tokenization(tokenbudget: Session, count_tokens: TokenCounter) -> Tokenization:
    """What the model's tokenizer makes of texts, and what its chat template costs."""
    from pytest_tokenbudget.studies.tokenizers.run import Tokenization

    return Tokenization(tokenbudget, count_tokens)
