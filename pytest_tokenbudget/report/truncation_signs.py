"""Signs of truncation among the answers of a study, as numbers and as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pytest_tokenbudget.common.text_layout import MAX_WIDTH, Table, count, share
from pytest_tokenbudget.core.trace import Outcome

if TYPE_CHECKING:
    from pytest_tokenbudget.core.scoring import JudgedCut
    from pytest_tokenbudget.core.study import Study
    from pytest_tokenbudget.core.truncation_signs import SignCount

_NAMES = {
    "cap_reached": "limit reached",
    "unfinished_sentence": "unfinished sentence",
    "unclosed_tag": "thinking not closed",
    "cut_off_json": "JSON not closed",
}


def sign_counts(columns: Iterable[Sequence[JudgedCut]]) -> tuple[SignCount, ...]:
    """How often each sign occurs in answers that were cut and in complete ones.

    Args:
        columns: Judged answers, one sequence for each budget. Engine errors are left out.
    """
    from pytest_tokenbudget.core.truncation_signs import count_signs, truncation_signs

    judged = [j for column in columns for j in column if j.outcome is not Outcome.ERROR]
    return count_signs([truncation_signs(j.cut) for j in judged], [j.cut.truncated for j in judged])


def study_signs(study: Study) -> tuple[SignCount, ...]:
    """The signs over all budgets of a study; computed once."""
    return study.cached(_study_signs, study)


def _study_signs(study: Study) -> tuple[SignCount, ...]:
    return sign_counts(study.judged(budget) for budget in study.budgets)


def signs_lines(signs: Sequence[SignCount], width: int = MAX_WIDTH) -> list[str]:
    """The signs as a table, the most frequent first; nothing where no sign was seen."""
    seen = [s for s in signs if s.truncated or s.complete]
    if not seen:
        return []
    cut, whole = seen[0].of_truncated, seen[0].of_complete
    table = Table("signs of truncation", f"of {count(cut)} cut", f"of {count(whole)} complete")
    for sign in sorted(seen, key=lambda s: (-s.truncated, s.complete)):
        table.add(
            _NAMES[sign.sign],
            _share(sign.truncated, sign.of_truncated),
            _share(sign.complete, sign.of_complete),
        )
    return table.lines(width)


def _share(part: int, whole: int) -> str:
    return share(part / whole if whole else None)
