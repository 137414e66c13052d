"""Allocation: which thinking budget a model gets in a mode, and whether another is better."""

from pytest_tokenbudget.registry import Eval, Section

EVAL = Eval(
    name="allocation",
    order=80,
    marker="allocation",
    meaning="which thinking budget a model gets in a mode",
    fixtures=f"{__name__}.fixtures",
    sections=(
        Section(
            fixture="allocation",
            kind="thinking",
            write=f"{__name__}.report:write_allocation",
            lines=f"{__name__}.report:allocation_lines",
            prepare=f"{__name__}.analysis:attach_model",
        ),
    ),
)
