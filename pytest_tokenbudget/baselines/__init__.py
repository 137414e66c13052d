"""Stored runs: what changed since, problem by problem, and models of one run compared."""

from pytest_tokenbudget.registry import Eval, ModelsTogether, Section

EVAL = Eval(
    name="baseline",
    order=11,
    marker="phase1",
    meaning="accuracy, truncation and tokens used against budget; the saturation point",
    fixtures=f"{__name__}.fixtures",
    distinctive=("baseline_gates",),
    sections=(
        Section(
            fixture="compared",
            kind="main",
            write=f"{__name__}.report:write_compared",
            lines=f"{__name__}.report:compared_lines",
            prepare=f"{__name__}.session:attach",
        ),
    ),
    across=ModelsTogether(
        name="models",
        kind="main",
        make=f"{__name__}.models_compared:models_of_run",
        write=f"{__name__}.models_report:write_models_of_run",
        lines=f"{__name__}.models_report:models_of_run_lines",
    ),
    page="test_baseline.py",
    collected=f"{__name__}.session:has_baseline",
    check=f"{__name__}.session:check_baseline",
)
