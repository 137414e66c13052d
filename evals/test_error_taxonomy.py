"""Phase 2: what kinds of errors there are, and whether more tokens mend them.

Preparation picks errors, and right answers as controls, and lays them out in tables for
annotators; what they filled in stays. The analysis reads the tables back. What rules suggest stands
beside, and is never counted as an annotation.
"""

import pytest

pytestmark = pytest.mark.phase2


def test_errors_are_laid_out(prepared, record_metrics):
    """Every budget has its table: as many errors as were asked for, or all that there are."""
    record_metrics(prepared)
    for picked in prepared.budgets.values():
        assert picked.file.is_file()
        assert picked.picked == min(picked.asked, picked.errors)
        assert picked.controls <= picked.right


def test_error_types(errors, record_metrics):
    """Shares of the error types at each budget, what became of them, and who agrees with whom."""
    record_metrics(errors, sentence=errors.sentence())
    if errors.faults:
        pytest.fail("; ".join(errors.faults), pytrace=False)
    if not errors.annotated:
        pytest.skip(f"{errors.sentence()}: fill in error_type in the tables, and run this again")
    for budget in errors.budgets:
        assert sum(share.count for share in budget.types.values()) == budget.annotated
    for step in errors.steps:
        assert step.recovered + step.persistent == step.errors
