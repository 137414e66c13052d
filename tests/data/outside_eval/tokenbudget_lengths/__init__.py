"""Lengths: which share of the answers ends by itself within a limit."""

from pytest_tokenbudget.registry import Eval, Parameter, Section

EVAL = Eval(
    name="lengths",
    order=200,
    marker="lengths",
    meaning="which share of the answers ends within a limit",
    fixtures=f"{__name__}.fixtures",
    distinctive=("answer_lengths", "length_limit"),
    parameters={"length_limit": Parameter(f"{__name__}.analysis:limits")},
    reach={"answer_lengths": f"{__name__}.analysis:longest_limit"},
    sections=(
        Section(
            fixture="answer_lengths",
            kind="main",
            write=f"{__name__}.report:write_lengths",
            lines=f"{__name__}.report:length_lines",
        ),
    ),
)
