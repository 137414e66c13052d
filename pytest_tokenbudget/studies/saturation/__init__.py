"""Saturation: how accuracy, truncation and tokens used depend on the budget."""

from pytest_tokenbudget.registry import Eval, Section

EVAL = Eval(
    name="saturation",
    order=10,
    marker="phase1",
    meaning="accuracy, truncation and tokens used against budget; the saturation point",
    fixtures=f"{__name__}.fixtures",
    distinctive=("saturation",),
    sections=(
        Section(
            fixture="",
            name="saturation",
            kind="main",
            write=f"{__name__}.report:write_saturation",
            lines=f"{__name__}.report:saturation_lines",
        ),
    ),
)
