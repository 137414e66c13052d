"""Tokenizers: how many tokens texts take, and how much fits a limit."""

from pytest_tokenbudget.registry import Eval, ModelsTogether, Records, Section

EVAL = Eval(
    name="tokenizers",
    order=110,
    marker="context",
    meaning="what is lost when a conversation does not fit",
    fixtures=f"{__name__}.fixtures",
    sections=(
        Section(
            fixture="tokenizers",
            kind="tokenizers",
            write=f"{__name__}.report:write_tokenizers",
            lines=f"{__name__}.report:tokenizers_lines",
        ),
    ),
    records=Records(key="tokenizers", reports=f"{__name__}.analysis:reports_of"),
    across=ModelsTogether(
        name="tokenizers_compared",
        kind="tokenizers",
        make=f"{__name__}.report:compared",
        write=f"{__name__}.report:write_comparison",
        lines=f"{__name__}.report:comparison_lines",
    ),
)
