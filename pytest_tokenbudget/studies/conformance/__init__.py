"""Conformance: whether an engine keeps the limits that it is given."""

from pytest_tokenbudget.registry import Eval, GateSubject, Records, Section

EVAL = Eval(
    name="conformance",
    order=100,
    marker="conformance",
    meaning="whether an engine keeps the limits that it is given",
    fixtures=f"{__name__}.fixtures",
    distinctive=("conformance_gates",),
    unplanned={"conformance": f"{__name__}.budget_methods:probes_note"},
    judged=GateSubject(
        fixture="conformance",
        metric="min_conformance",
        former="conformance_gates",
        verdicts=f"{__name__}.wording:verdicts",
    ),
    sections=(
        Section(
            fixture="conformance",
            kind="conformance",
            write=f"{__name__}.report:write_conformance",
            lines=f"{__name__}.report:conformance_lines",
        ),
    ),
    records=Records(key="conformance", reports=f"{__name__}.report:all_reports"),
)
