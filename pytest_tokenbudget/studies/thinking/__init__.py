"""Thinking: what a thinking budget costs and buys, and which one to set."""

from pytest_tokenbudget.registry import Eval, GateSubject, Parameter, Section, StudyKind
from pytest_tokenbudget.studies.thinking.options import ThinkingOptions

EVAL = Eval(
    name="thinking",
    order=70,
    marker="thinking",
    meaning="what a thinking budget costs and buys",
    options=ThinkingOptions,
    fixtures=f"{__name__}.fixtures",
    distinctive=("thinking_budget", "thinking_gates", "thinking_study"),
    parameters={
        "thinking_budget": Parameter(
            f"{__name__}.plan:thinking_budgets", option="--thinking-budgets"
        ),
        "mode": Parameter(f"{__name__}.modes:mode_values", option="--modes"),
    },
    studies=(
        StudyKind(
            kind="thinking",
            fixture="thinking_study",
            make=f"{__name__}.run:thinking_study_of",
            load=f"{__name__}.run:stored_thinking",
            dry_run=f"{__name__}.dry_run:thinking_parts",
        ),
    ),
    judged=GateSubject(
        fixture="thinking_study",
        answers=f"{__name__}.study:thinking_answers",
        parameters=("thinking_budget", "mode"),
        budgets=f"{__name__}.plan:thinking_budgets",
        mode="thinking",
        modes=("forced", "hard", "natural", "off"),
        former="thinking_gates",
    ),
    gated=("thinking",),
    sections=(
        Section(
            fixture="thinking",
            kind="thinking",
            write=f"{__name__}.report:write_thinking",
            lines=f"{__name__}.report:thinking_lines",
        ),
    ),
    modes=f"{__name__}.modes",
    check=f"{__name__}.plan:check_session",
)
