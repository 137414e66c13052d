"""The cliff: between which budgets accuracy rises most steeply."""

from pytest_tokenbudget.registry import Eval, Parameter, Section

EVAL = Eval(
    name="cliff",
    order=40,
    marker="phase3",
    meaning="the cliff and the structure of solutions",
    fixtures=f"{__name__}.fixtures",
    distinctive=("cliff_budget",),
    parameters={
        "cliff_budget": Parameter(
            f"{__name__}.budgets:budgets_under_test", option="--cliff-budgets", judged="study"
        )
    },
    reach={"cliff": f"{__name__}.budgets:largest_budget"},
    sections=(
        Section(
            fixture="cliff",
            kind="main",
            write=f"{__name__}.report:write_cliff",
            lines=f"{__name__}.report:cliff_lines",
            budgets=f"{__name__}.report:cliff_budgets",
        ),
    ),
)
