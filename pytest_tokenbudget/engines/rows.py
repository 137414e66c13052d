"""One request while it is generated: its ids, when they end, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pytest_tokenbudget.core.engine import Decoding, Generated, Request
from pytest_tokenbudget.core.trace import StopReason
from pytest_tokenbudget.engines.sampling import Noise

Decode = Callable[[Sequence[int]], str]


class BatchRow:
    """One request while it is being generated.

    Attributes:
        request: The request.
        output: Output ids so far, the request's prefix included.
        stop_reason: Why the row ended; None while it goes on.
    """

    def __init__(
        self, request: Request, decoding: Decoding, eos_ids: frozenset[int], decode: Decode
    ) -> None:
        self.request = request
        self.output = list(request.prefix_ids)
        self.stop_reason: StopReason | None = None
        self.noise = Noise(decoding.seed, request.prompt_ids, request.sample)
        self._eos_ids = eos_ids
        self._stop = decoding.stop
        # Every token but special ones holds at least one byte of a stop string.
        self._reach = max((len(text.encode()) for text in decoding.stop), default=0) + 8
        self._decode = decode
        if self.output:
            self._judge()

    @property
    def ids(self) -> tuple[int, ...]:
        """Prompt and output so far."""
        return (*self.request.prompt_ids, *self.output)

    def append(self, token_id: int) -> None:
        """Take the next token and see whether it ends the row."""
        self.output.append(token_id)
        self._judge()

    def _judge(self) -> None:
        # End-of-sequence exactly at the cap is an end, not a truncation.
        if self.output[-1] in self._eos_ids:
            self.stop_reason = StopReason.EOS
        elif self._stop and self._has_stopped():
            self.stop_reason = StopReason.STOP
        elif len(self.output) >= self.request.cap:
            self.stop_reason = StopReason.LENGTH

    def _has_stopped(self) -> bool:
        text = self._decode(self.output[-self._reach :])
        return any(stop in text for stop in self._stop)


def generated(row: BatchRow, seconds: float, engine_reason: str = "", error: str = "") -> Generated:
    """The result of a row: an error where the row has not ended."""
    if row.stop_reason is None and not error:
        raise ValueError(f"request {row.request.key} has not ended")
    reason = row.stop_reason or StopReason.ERROR
    return Generated(
        request=row.request,
        output_ids=tuple(row.output),
        stop_reason=reason,
        engine_reason=engine_reason or reason.value,
        seconds=seconds,
        error="" if row.stop_reason else error,
    )


def failed(request: Request, message: str) -> Generated:
    """An error result for what was not generated any further."""
    return Generated(
        request=request, output_ids=request.prefix_ids, stop_reason=StopReason.ERROR, error=message
    )


def impossible(request: Request, alias: str, context: int) -> Generated | None:
    """An error result for what cannot be generated at all, None for all else.

    Raises:
        ValueError: If the cap reaches beyond the context.
    """
    prompt = len(request.prompt_ids)
    if request.cap < 1:
        raise ValueError(f"request {request.key}: the cap is at least 1, not {request.cap}")
    if prompt == 0:
        return failed(request, "the prompt is empty")
    if prompt + 1 > context:
        return failed(
            request,
            f"the prompt has {prompt} tokens and {alias}'s context {context}: "
            f"no room for an answer",
        )
    if prompt + request.cap > context:
        raise ValueError(
            f"request {request.key}: a prompt of {prompt} tokens and a cap of {request.cap} "
            f"are more than the context of {context}"
        )
    return None
