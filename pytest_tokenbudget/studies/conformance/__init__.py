"""Conformance: whether an engine keeps the limits that it is given."""

from pytest_tokenbudget.registry import Eval, Records, Section

EVAL = Eval(
    name="conformance",
    order=100,
    marker="conformance",
    meaning="whether an engine keeps the limits that it is given",
    fixtures=f"{__name__}.fixtures",
    unplanned={"conformance": f"{__name__}.dry_run:probes_note"},
    sections=(
        Section(
            fixture="conformance",
            kind="conformance",
            write=f"{__name__}.report:write_conformance",
            lines=f"{__name__}.report:conformance_lines",
        ),
    ),
    records=Records(key="conformance", reports=f"{__name__}.analysis:all_reports"),
)
