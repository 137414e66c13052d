"""Scenarios: what answers to each kind of scenario need, and which limits that calls for."""

from pytest_tokenbudget.registry import Eval, Section

EVAL = Eval(
    name="scenarios",
    order=60,
    marker="scenarios",
    meaning="which limits scenarios of each kind need",
    fixtures=f"{__name__}.fixtures",
    sections=(
        Section(
            fixture="scenarios",
            kind="main",
            write=f"{__name__}.report:write_scenarios",
            lines=f"{__name__}.report:scenarios_lines",
        ),
    ),
)
