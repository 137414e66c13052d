"""How much and how long one answer of a server may be, by what was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

# Bytes after decompression. An event for one token has 100 to 400, with many logprobs some 1,000.
BYTES_A_TOKEN = 4096
BYTES_A_TOKEN_REPEATED = 16
BYTES_A_BYTE_SENT = 64
BYTES_OF_AN_ANSWER = 2 * 2**20
BYTES_OF_A_PAGE = 8 * 2**20
# What a request may write that sets no limit.
TOKENS_UNLIMITED = 32_768
# In multiples of the request timeout: the whole time of a request, and of one without any output.
PATIENCE = 4
TOKENS_A_TIMEOUT = 64
SILENCE = 5

_LIMITS = (
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "max_new_tokens",
    "n_predict",
)


class Allowance(NamedTuple):
    """What one answer may take.

    Attributes:
        tokens: Output tokens that were asked for; 0 where the request generates nothing.
        size: Bytes of its body after decompression.
        event: Bytes of one event.
        seconds: From the request to the end of the answer.
        silence: Seconds without output, whatever else comes.
    """

    tokens: int
    size: int
    event: int
    seconds: float
    silence: float


def allowance(body: Mapping[str, Any] | None, sent: int, timeout: float) -> Allowance:
    """What the answer to a request may take.

    Args:
        body: What is asked; None for a page.
        sent: Its size in bytes.
        timeout: The request timeout.
    """
    tokens = 0 if body is None else _tokens_asked(body)
    base = BYTES_OF_A_PAGE if body is None else BYTES_OF_AN_ANSWER
    event = base + BYTES_A_TOKEN * tokens + BYTES_A_BYTE_SENT * sent
    # Events of SGLang repeat what came before.
    repeated = BYTES_A_TOKEN_REPEATED * tokens**2 if body and "sampling_params" in body else 0
    seconds = timeout * (PATIENCE + tokens / TOKENS_A_TIMEOUT)
    return Allowance(tokens, event + repeated, event, seconds, SILENCE * timeout)


def _tokens_asked(body: Mapping[str, Any]) -> int:
    named = (
        {**body, **nested} if isinstance(nested := body.get("sampling_params"), Mapping) else body
    )
    limits = [named[name] for name in _LIMITS if isinstance(named.get(name), int)]
    outputs = named.get("n")
    count = outputs if isinstance(outputs, int) and outputs > 1 else 1
    if limits:
        most = max(limits)
        return count * (most if most >= 0 else TOKENS_UNLIMITED)
    generates = "temperature" in body or "stream" in body
    return count * TOKENS_UNLIMITED if generates else 0
