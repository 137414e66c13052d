"""From answers to what a gate is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_tokenbudget.core.answers import Answers
from pytest_tokenbudget.core.trace import Outcome
from pytest_tokenbudget.stats.evidence import Evidence, mean_of, rate_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def evidence_of(metric: str, answers: Answers) -> Evidence:
    """What answers say of a metric. An engine's error is no answer, and in its own metric only.

    Args:
        metric: Key of ``METRICS``.
        answers: The answers.
    """
    import numpy as np

    def table(values: Sequence[float]) -> NDArray[np.float64]:
        return np.array(values, dtype=np.float64).reshape(-1, answers.samples)

    outcomes = [j.outcome for j in answers.judged]
    failed = table([o is Outcome.ERROR for o in outcomes])
    if metric == "max_error_rate":
        return rate_of(failed)
    cut = table([j.cut.truncated for j in answers.judged])
    used = table(answers.tokens)
    right = table([o is Outcome.CORRECT for o in outcomes])

    def valid(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(failed == 1, np.nan, values)

    match metric:
        case "min_accuracy":
            return rate_of(valid(right))
        case "min_accuracy_completed":
            return rate_of(valid(np.where(cut == 1, np.nan, right)))
        case "max_truncation":
            return rate_of(valid(cut))
        case "max_truncated_in_thinking":
            return rate_of(valid(table([o is Outcome.TRUNCATED_IN_THINKING for o in outcomes])))
        case "max_mean_tokens":
            return mean_of(valid(used), 0.0, float(answers.max_tokens), scales=True)
    raise ValueError(f"answers say nothing of {metric}")


def longest_of(answers: Answers) -> NDArray[np.float64]:
    """Tokens of each problem's answer; of several samples, which are not independent, the longest.

    An engine's error is no answer.
    """
    import numpy as np

    used = [
        float("nan") if j.outcome is Outcome.ERROR else float(tokens)
        for j, tokens in zip(answers.judged, answers.tokens, strict=True)
    ]
    table = np.array(used, dtype=np.float64).reshape(-1, answers.samples)
    table = table[np.isfinite(table).any(axis=1)]
    longest: NDArray[np.float64] = np.nanmax(table, axis=1) if len(table) else table.ravel()
    return longest
