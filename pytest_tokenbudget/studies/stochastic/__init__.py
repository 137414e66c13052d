"""Several samples a problem: how much of a result is chance."""

from pytest_tokenbudget.registry import Eval, GateSubject, Parameter, Section, StudyKind

EVAL = Eval(
    name="stochastic",
    order=20,
    marker="phase1b",
    meaning="the same from several samples a problem",
    fixtures=f"{__name__}.fixtures",
    distinctive=("sample_budget", "stochastic_gates", "stochastic_study"),
    parameters={
        "sample_budget": Parameter(
            "pytest_tokenbudget.collection.selection:sample_budgets",
            option="--sample-budgets",
            budgets_of=("stochastic",),
        )
    },
    studies=(StudyKind(kind="stochastic", fixture="stochastic_study", modes=False, recorded=True),),
    judged=GateSubject(
        fixture="stochastic_study",
        answers="pytest_tokenbudget.collection.selection:sample_answers",
        parameters=("sample_budget",),
        budgets="pytest_tokenbudget.collection.selection:sample_budgets",
        by_option=False,
        former="stochastic_gates",
    ),
    gated=("stochastic",),
    sections=(
        Section(
            fixture="stochastic",
            kind="stochastic",
            write=f"{__name__}.report:write_stochastic",
            lines=f"{__name__}.report:stochastic_lines",
        ),
    ),
)
