"""Errors: which kinds there are, and whether more tokens correct them."""

from pytest_tokenbudget.registry import Eval, Section
from pytest_tokenbudget.studies.errors.options import ErrorOptions

EVAL = Eval(
    name="errors",
    order=30,
    marker="phase2",
    meaning="what kinds of errors there are",
    options=ErrorOptions,
    fixtures=f"{__name__}.fixtures",
    # The tables for annotators exist once, for the answers that --thinking chooses.
    without_modes=("errors",),
    sections=(
        Section(
            fixture="errors",
            kind="main",
            write=f"{__name__}.report:write_errors",
            lines=f"{__name__}.report:errors_lines",
            prepare=f"{__name__}.analysis:attach_samples",
        ),
    ),
    check=f"{__name__}.options:check_annotations",
)
