"""The structure of solutions: what they consist of, and which parts fit a budget."""

from pytest_tokenbudget.registry import Eval, Section

EVAL = Eval(
    name="structure",
    order=50,
    marker="phase3",
    meaning="the cliff and the structure of solutions",
    fixtures=f"{__name__}.fixtures",
    sections=(
        Section(
            fixture="structure",
            kind="main",
            write=f"{__name__}.report:write_structure",
            lines=f"{__name__}.report:structure_lines",
        ),
    ),
)
