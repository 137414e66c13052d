"""What a model's tokens cost: prices per million, as a model's entry says them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from pytest_tokenbudget.common.messages import kind_of, unknown_key
from pytest_tokenbudget.common.outside_text import PrintableError

MILLION = 1_000_000
DEFAULT_CURRENCY = "USD"
_RATES = ("input", "output", "reasoning")
_KEYS = (*_RATES, "currency")


@dataclass(frozen=True)
class Price:
    """What a million tokens cost.

    Attributes:
        input: A million prompt tokens.
        output: A million tokens that are written, thinking apart.
        reasoning: A million tokens of thinking.
        currency: In what, as it is shown: ``USD``, ``EUR``, ``GPU-s``.
    """

    input: float
    output: float
    reasoning: float
    currency: str = DEFAULT_CURRENCY


class PriceError(PrintableError, ValueError):
    """A price that cannot be used; the message is for people."""


def read_price(table: object) -> Price:
    """The price that a table of a settings file says.

    What ``reasoning`` costs is what ``output`` costs where nobody says it, as with most providers.

    Raises:
        PriceError: If it cannot be used.
    """
    example = "[models.NAME.price] with input = 0.15 and output = 0.6"
    if not isinstance(table, Mapping):
        raise PriceError(f"price must be a table, {example}, not {kind_of(table)}")
    for key in table:
        if key not in _KEYS:
            raise PriceError(f"price has {unknown_key(key, _KEYS)}")
    lacking = [key for key in ("input", "output") if key not in table]
    if lacking:
        raise PriceError(f"price lacks {' and '.join(lacking)}, a number per million tokens")
    rates = {key: _rate(key, table[key]) for key in _RATES if key in table}
    currency = table.get("currency", DEFAULT_CURRENCY)
    if not isinstance(currency, str) or not re.fullmatch(
        r"[^\W_][\w.$€£¥-]{0,11}|[$€£¥]", currency
    ):
        raise PriceError(
            f"price.currency must be a short name such as USD or EUR, not {kind_of(currency)}"
        )
    return Price(rates["input"], rates["output"], rates.get("reasoning", rates["output"]), currency)


def _rate(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise PriceError(
            f"price.{key} must be a number of at least 0 per million tokens, not {kind_of(value)}"
        )
    return float(value)
