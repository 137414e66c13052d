"""Context: what is lost when a conversation does not fit, and which truncation loses least."""

from pytest_tokenbudget.registry import Eval, Parameter, Section, StudyKind
from pytest_tokenbudget.studies.context.options import ContextOptions

EVAL = Eval(
    name="context",
    order=90,
    marker="context",
    meaning="what is lost when a conversation does not fit",
    options=ContextOptions,
    fixtures=f"{__name__}.fixtures",
    distinctive=("context_arm", "context_study"),
    parameters={
        "context_arm": Parameter(f"{__name__}.plan:context_arms", parts_of=("context",)),
        "truncation": Parameter(f"{__name__}.plan:strategies", option="--truncation"),
        "context_limit": Parameter(f"{__name__}.plan:context_limits", option="--context-limits"),
    },
    studies=(
        StudyKind(
            kind="context",
            fixture="context_study",
            make=f"{__name__}.run:context_study_of",
            load=f"{__name__}.study:stored_context",
            dry_run=f"{__name__}.dry_run:context_parts",
            modes=False,
        ),
    ),
    sections=(
        Section(
            fixture="context",
            kind="context",
            write=f"{__name__}.report:write_context",
            lines=f"{__name__}.report:context_lines",
        ),
    ),
)
